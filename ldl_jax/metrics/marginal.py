"""Marginal calibration of every class's probability, in bins with equally many examples."""

import numpy as np

from ldl_jax.metrics import base
from ldl_jax.metrics.base import BINS, Bins, Shown, Stored

SHOWN = {
    "ace": Shown("ACE", "%", 3, "calibration of every class", 1, "lower"),
    "tace": Shown("TACE", "%", 3, "calibration of every class", 2, "lower"),
    "marginal_squared": Shown(
        "marginal L2 squared", "", 6, "calibration of every class", 3, "lower"
    ),
    "marginal": Shown("marginal L2", "%", 2, "calibration of every class", 4, "lower"),
}

THRESHOLD = 1e-3  # TACE ignores probabilities up to this value
_BLOCK = 2**22  # numbers in a block of classes, 32 MB


def of(stored: Stored) -> dict[str, float]:
    """ACE, TACE and the debiased marginal error; {} if the probabilities are not given."""
    if stored.probs is None or stored.label is None:
        return {}
    all_bins = every_class(stored.probs, stored.label)
    above_threshold = every_class(stored.probs, stored.label, above=THRESHOLD)
    return {"ace": ace(all_bins), "tace": ace(above_threshold), **debiased(all_bins)}


def every_class(probs, label, *, above: float = -1.0) -> Bins:
    """Sums over bins of equal mass for each class, f64[K, BINS], from probs f[N, K], label i[N].

    above: only probabilities above this value count. Uses the memory of a block of classes. Raises
    ValueError for wrong shapes, labels or probabilities.
    """
    probs, label = _checked(probs, label)
    count, classes = probs.shape
    sums = Bins(*np.zeros((len(Bins._fields), classes, BINS)))
    # Copy the columns of several classes at a time: a single column is slow to read from rows.
    step = max(1, _BLOCK // count)
    for first in range(0, classes, step):
        columns = np.ascontiguousarray(probs[:, first : first + step].T)
        for number, column in enumerate(columns, first):
            valid = (column >= 0) & (column <= 1)
            if not valid.all():
                raise ValueError(
                    f"probs must be between 0 and 1, got {column[~valid][0]:g} for class {number}"
                )
            used = column > above
            hits = label == number
            if not used.all():
                column, hits = column[used], hits[used]
            if column.size:
                for whole, part in zip(sums, base.equal_mass(column, hits), strict=True):
                    whole[number] = part
    return sums


def _checked(probs, label) -> tuple[np.ndarray, np.ndarray]:
    probs = np.asarray(probs)
    label = np.asarray(label)
    if probs.ndim != 2 or label.shape != probs.shape[:1] or not probs.size:
        raise ValueError(
            "probs and label must have shapes [N, K] and [N], got "
            f"{list(probs.shape)} and {list(label.shape)}"
        )
    classes = probs.shape[1]
    if label.min() < 0 or label.max() >= classes:
        raise ValueError(
            f"label must be between 0 and {classes - 1}, got {label.min()} to {label.max()}"
        )
    return probs, label


def ace(bins: Bins) -> float:
    """Adaptive calibration error of `every_class` sums: Nixon et al. 2019, section 4.

    The mean over classes, and over the bins of equal mass of each class's probabilities, of |share
    of hits - mean probability|; all bins have equal weight. With sums of the probabilities above a
    threshold this is TACE; classes without such a probability are left out, and the result is NaN
    if there are no others.
    """
    used = bins.count > 0
    nonempty = used.any(-1)
    by_class = np.abs(bins.gap()).sum(-1)[nonempty] / used.sum(-1)[nonempty]
    return float(by_class.mean()) if nonempty.any() else float("nan")


def debiased(bins: Bins) -> dict[str, float]:
    """Debiased L2 marginal calibration error of `every_class` sums.

    Kumar, Liang and Ma 2019, section 2. marginal_squared: the mean over classes of the debiased
    square, which may be negative; marginal: its root, or 0 if it is negative. The default of
    uncertainty-calibration's get_calibration_error clips each class at 0 and takes its root before
    averaging, so that noise does not cancel between classes: it is at least as large.
    """
    squared = float(base.debiased(bins).mean())
    return {"marginal_squared": squared, "marginal": np.maximum(squared, 0.0) ** 0.5}
