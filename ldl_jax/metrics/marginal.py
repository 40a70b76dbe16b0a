"""The calibration of every class's probability, in bins that hold equally many examples."""

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

THRESHOLD = 1e-3  # of TACE: smaller probabilities are left out
_BLOCK = 2**22  # numbers of a block of classes, 32 MB


def of(stored: Stored) -> dict[str, float]:
    """ACE, TACE and the debiased marginal error; nothing where the probabilities are not given."""
    if stored.probs is None or stored.label is None:
        return {}
    every = every_class(stored.probs, stored.label)
    above = every_class(stored.probs, stored.label, above=THRESHOLD)
    return {"ace": ace(every), "tace": ace(above), **debiased(every)}


def every_class(probs, label, *, above: float = -1.0) -> Bins:
    """Sums over bins of equal mass of each class's probabilities, f64[K, BINS], from probs f[N, K],
    label i[N].

    above: only probabilities above it count. Memory beside the input is that of a block of classes.
    Raises ValueError for other shapes, labels and probabilities.
    """
    probs, label = _checked(probs, label)
    count, classes = probs.shape
    sums = Bins(*(np.zeros((classes, BINS)) for _ in Bins._fields))
    step = max(1, _BLOCK // count)
    for first in range(0, classes, step):
        columns = np.ascontiguousarray(probs[:, first : first + step].T)
        for number, column in enumerate(columns, first):
            if not ((column >= 0) & (column <= 1)).all():
                raise ValueError(
                    f"probs holds a number outside 0 to 1 for class {number}; allowed are probabilities"
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
    probs, label = np.asarray(probs), np.asarray(label)
    if probs.ndim != 2 or label.shape != probs.shape[:1] or not probs.size:
        raise ValueError(
            f"probs is {list(probs.shape)} and label {list(label.shape)}; allowed are [N, K] and [N]"
        )
    classes = probs.shape[1]
    if label.min() < 0 or label.max() >= classes:
        raise ValueError(
            f"label holds {label.min()} to {label.max()}; allowed are 0 to {classes - 1}"
        )
    return probs, label


def ace(bins: Bins) -> float:
    """Adaptive calibration error of `every_class` sums: Nixon et al. 2019, section 4.

    The mean over classes, and over the bins of equal mass of each class's probabilities, of |share
    of hits - mean probability|: every bin counts alike. With sums of the probabilities above a
    threshold it is their TACE; classes without any are then left out, and it is NaN where all are.
    """
    used = bins.count > 0
    some = used.any(-1)
    each = np.abs(bins.gap()).sum(-1)[some] / used.sum(-1)[some]
    return float(each.mean()) if some.any() else float("nan")


def debiased(bins: Bins) -> dict[str, float]:
    """The debiased L2 marginal calibration error of `every_class` sums (Kumar, Liang and Ma 2019,
    section 2).

    marginal_squared: the mean over classes of each one's debiased square, which may be negative;
    marginal: its root, 0 where it is. uncertainty-calibration's get_calibration_error, its default,
    takes each class's root first, cut off at 0, so that noise does not cancel over classes: it is
    at least as large.
    """
    squared = float(base.debiased(bins).mean())
    return {"marginal_squared": squared, "marginal": np.maximum(squared, 0.0) ** 0.5}
