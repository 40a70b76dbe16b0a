"""Histogram binning: replace each class's probability by the class's frequency in its bin."""

import numpy as np

from ldl_jax.calibrate.base import Calibrator, checked, checked_rows, floored, log_probs, number
from ldl_jax.calibrate.missing import keeping_missing


def make(
    *,
    bins: int = 15,  # number of bins of each class
    spacing: str = "mass",  # 'mass': equally many examples in each bin, 'width': bins of equal width
) -> Calibrator:
    """One-vs-rest histogram binning (Zadrozny and Elkan 2001), with normalised frequencies.

    Bins are (lo, hi], with 0 in the first; bins of equal mass end at the quantiles of the class's
    own probabilities. An empty bin gives its centre. Frequencies are raised to at least 1e-7 before
    rows are normalised. Parameters: edges f64[K, bins - 1] between the bins, frequency
    f64[K, bins]. Uses N K float64 of memory.
    """
    number("histogram.bins", bins, 1)
    if spacing not in ("mass", "width"):
        raise ValueError(f"calibrate.histogram.spacing must be 'mass' or 'width', got {spacing!r}")

    def fit(logits, label):
        label, classes = checked(logits, label)
        probs = np.exp(log_probs(checked_rows(logits)))
        inner = np.arange(1, bins) / bins
        edges = np.tile(inner, (classes, 1))
        if spacing == "mass":
            edges = np.quantile(probs, inner, axis=0).T
        # Start from the centres of the bins, which the empty ones keep.
        ends = np.pad(edges, ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1)))
        frequency = (ends[:, :-1] + ends[:, 1:]) / 2
        for k in range(classes):
            member = np.searchsorted(edges[k], probs[:, k])
            count = np.bincount(member, minlength=bins)
            hits = np.bincount(member[label == k], minlength=bins)
            np.divide(hits, count, out=frequency[k], where=count > 0)
        return {"edges": edges, "frequency": frequency}

    def apply(params, logits):
        edges = params["edges"]
        frequency = params["frequency"]
        probs = np.exp(log_probs(checked_rows(logits, len(edges))))
        columns = []
        for k in range(len(edges)):
            member = np.searchsorted(edges[k], probs[:, k])
            columns.append(frequency[k][member])
        return floored(np.stack(columns, axis=1))

    return keeping_missing(Calibrator(fit, apply), mix=True)
