"""Calibration errors in bins that hold equally many examples."""

import numpy as np

from ldl_jax.evaluation.binning import BINS, Bins, checked, equal_mass
from ldl_jax.evaluation.binning import debiased as _debiased
from ldl_jax.metrics.base import Shown

SHOWN = {
    "mass_ece": Shown("equal-mass ECE", "%", 2, "calibration", 8, "lower"),
    "l2_squared": Shown("debiased L2 squared", "", 6, "calibration", 9, "lower"),
    "l2": Shown("debiased L2", "%", 2, "calibration", 10, "lower"),
    "ace": Shown("ACE", "%", 3, "calibration of every class", 1, "lower"),
    "tace": Shown("TACE", "%", 3, "calibration of every class", 2, "lower"),
}


def ece(confidence, correct, *, bins: int = BINS) -> float:
    """ECE of confidences f[N] and bool[N] in bins of equal mass: sum of count / N |accuracy - mean confidence|.

    Equal confidences are in one bin, which has then more than its share (see `base.edges`), as in
    uncertainty-calibration's get_ece_em. Raises ValueError for what is no probability.
    """
    found = equal_mass(*checked(confidence, correct), bins)
    return float((found.count * np.abs(found.gap())).sum() / found.count.sum())


def debiased(confidence, correct, *, bins: int = BINS) -> dict[str, float]:
    """The debiased L2 calibration error of the top label in bins of equal mass (Kumar, Liang and Ma 2019).

    l2_squared: the estimate, which may be negative, about 0 for a calibrated network; l2: its root, 0 where it is. Both
    NaN where no bin has two examples.
    uncertainty-calibration's get_calibration_error(mode='top-label') is l2.
    """
    squared = float(_debiased(equal_mass(*checked(confidence, correct), bins)))
    return {"l2_squared": squared, "l2": np.maximum(squared, 0.0) ** 0.5}


def ace(found: Bins) -> float:
    """Adaptive calibration error of `base.every_class` sums: Nixon et al. 2019, section 4.

    The mean over classes, and over the bins of equal mass of each class's probabilities, of |share of hits - mean
    probability|: every bin counts alike. With sums of the probabilities above a threshold it is their TACE; classes
    without any are then left out, and it is NaN where all are.
    """
    used = found.count > 0
    some = used.any(-1)
    each = np.abs(found.gap()).sum(-1)[some] / used.sum(-1)[some]
    return float(each.mean()) if some.any() else float("nan")
