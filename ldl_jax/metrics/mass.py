"""Calibration errors of the confidence in bins that hold equally many examples."""

import numpy as np

from ldl_jax.metrics import base
from ldl_jax.metrics.base import Shown, Stored

SHOWN = {
    "mass_ece": Shown("equal-mass ECE", "%", 2, "calibration", 8, "lower"),
    "l2_squared": Shown("debiased L2 squared", "", 6, "calibration", 9, "lower"),
    "l2": Shown("debiased L2", "%", 2, "calibration", 10, "lower"),
}


def of(stored: Stored) -> dict[str, float]:
    """Equal-mass ECE and debiased L2 error."""
    return {
        "mass_ece": ece(stored.confidence, stored.correct),
        **debiased(stored.confidence, stored.correct),
    }


def ece(confidence, correct) -> float:
    """ECE of confidences f[N] and bool[N] in bins of equal mass: sum of count / N |accuracy - mean
    confidence|.

    Equal confidences are in one bin, which has then more than its share (see `base.edges`), as in
    uncertainty-calibration's get_ece_em. Raises ValueError for what is no probability.
    """
    bins = base.equal_mass(*base.checked(confidence, correct))
    return float((bins.count * np.abs(bins.gap())).sum() / bins.count.sum())


def debiased(confidence, correct) -> dict[str, float]:
    """The debiased L2 calibration error of the top label in bins of equal mass (Kumar, Liang and Ma
    2019).

    l2_squared: the estimate, which may be negative, about 0 for a calibrated network; l2: its root,
    0 where it is. Both NaN where no bin has two examples. uncertainty-calibration's
    get_calibration_error(mode='top-label') is l2.
    """
    squared = float(base.debiased(base.equal_mass(*base.checked(confidence, correct))))
    return {"l2_squared": squared, "l2": np.maximum(squared, 0.0) ** 0.5}
