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
    """Largest |sum of (confidence - correct)| over the examples of a confidence up to any c, by N:
    Gupta et al. 2021.

    confidence f[N], correct bool[N]. Equal confidences count together, so that the order of
    examples changes nothing. Raises ValueError for what is no probability.
    """
    confidence, correct = checked(confidence, correct)
    order = np.argsort(confidence)
    ordered = confidence[order]
    total = np.cumsum(ordered.astype(np.float64) - correct[order])
    last = np.append(ordered[1:] != ordered[:-1], True)
    return float(np.abs(total[last]).max() / len(total))
