"""The Kolmogorov-Smirnov calibration error, which needs no bins."""

import numpy as np

from ldl_jax.metrics.base import Shown, Stored, checked

SHOWN = {
    "ks": Shown("KS error", "%", 2, "calibration", 12, "lower"),
}


def of(stored: Stored) -> dict[str, float]:
    """The Kolmogorov-Smirnov error of the confidence."""
    return {"ks": ks(stored.confidence, stored.correct)}


def ks(confidence, correct) -> float:
    """Kolmogorov-Smirnov error of confidences f[N] and correct bool[N]: Gupta et al. 2021.

    The largest |sum of (confidence - correct)| / N over the examples with confidence up to any c.
    Raises ValueError for values outside [0, 1].
    """
    confidence, correct = checked(confidence, correct)
    order = np.argsort(confidence)
    ordered = confidence[order]
    total = np.cumsum(ordered.astype(np.float64) - correct[order])
    # Only look at the last of equal confidences, so that the order of the examples is irrelevant.
    last = np.append(ordered[1:] != ordered[:-1], True)
    return float(np.abs(total[last]).max() / len(total))
