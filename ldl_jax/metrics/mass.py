"""Calibration errors of the confidence in bins with equally many examples (equal mass)."""

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
    """ECE of confidences f[N] and correct bool[N] in bins of equal mass.

    The sum of count / N |accuracy - mean confidence| over bins. Equal confidences are in the same
    bin, which may then hold more than the others (see `base.edges`), as in
    uncertainty-calibration's get_ece_em. Raises ValueError for values outside [0, 1].
    """
    bins = base.equal_mass(*base.checked(confidence, correct))
    return float((bins.count * np.abs(bins.gap())).sum() / bins.count.sum())


def debiased(confidence, correct) -> dict[str, float]:
    """Debiased L2 calibration error of the confidence in bins of equal mass.

    Kumar, Liang and Ma 2019. l2_squared: the estimate, around 0 for a calibrated network and
    possibly negative; l2: its root, or 0 if it is negative. Both are NaN if no bin has two
    examples. l2 equals uncertainty-calibration's get_calibration_error(mode='top-label').
    """
    squared = float(base.debiased(base.equal_mass(*base.checked(confidence, correct))))
    return {"l2_squared": squared, "l2": np.maximum(squared, 0.0) ** 0.5}
