"""Histogram binning: each class's probability is replaced by how often the class was right in its
bin.
"""

import numpy as np

from ldl_jax.calibrate.base import Calibrator, checked, checked_rows, floored, log_probs, number


def make(
    *,
    bins: int = 15,  # per class
    spacing: str = "mass",  # 'mass': as many examples in each bin, 'width': bins of equal width
) -> Calibrator:
    """One-vs-rest histogram binning (Zadrozny and Elkan 2001), the K frequencies then made to sum
    to 1.

    Bins are (lo, hi], 0 in the first; those of equal mass end at the quantiles of the class's own
    probabilities. A bin without an example gives its middle. Frequencies below 1e-7 are raised to
    that before rows are divided by their sums. Parameters: edges f64[K, bins - 1] between the bins,
    frequency f64[K, bins]. Takes N K float64 of memory.
    """
    number("histogram.bins", bins, 1)
    if spacing not in ("mass", "width"):
        raise ValueError(f"calibrate.histogram.spacing is {spacing!r}; allowed are mass, width")

    def fit(logits, label):
        label, classes = checked(logits, label)
        probs = np.exp(log_probs(checked_rows(logits)))
        inner = np.arange(1, bins) / bins
        edges = (
            np.quantile(probs, inner, axis=0).T
            if spacing == "mass"
            else np.tile(inner, (classes, 1))
        )
        ends = np.pad(edges, ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1)))
        frequency = (ends[:, :-1] + ends[:, 1:]) / 2
        for k in range(classes):
            place = np.searchsorted(edges[k], probs[:, k])
            count = np.bincount(place, minlength=bins)
            right = np.bincount(place[label == k], minlength=bins)
            np.divide(right, count, out=frequency[k], where=count > 0)
        return {"edges": edges, "frequency": frequency}

    def apply(params, logits):
        edges, frequency = params["edges"], params["frequency"]
        probs = np.exp(log_probs(checked_rows(logits, len(edges))))
        columns = [frequency[k][np.searchsorted(edges[k], probs[:, k])] for k in range(len(edges))]
        return floored(np.stack(columns, axis=1))

    return Calibrator(fit, apply)
