"""The smooth calibration error: a kernel instead of bins, whose width equals the error itself."""

import numpy as np
from scipy.fft import dct, idct

from ldl_jax.metrics.base import Shown, Stored, checked

SHOWN = {
    "smooth_ece": Shown("smooth ECE", "%", 2, "calibration", 11, "lower"),
}

CELLS = 2**13  # cells of the grid over [0, 1]
NARROWEST = 1e-4  # smallest standard deviation of a kernel, about one cell


def of(stored: Stored) -> dict[str, float]:
    """The smooth ECE of the confidence."""
    return {"smooth_ece": ece(stored.confidence, stored.correct)}


def ece(confidence, correct) -> float:
    """Smooth ECE of confidences f[N] and correct bool[N]: Blasiok and Nakkiran 2023.

    The kernel is a Gaussian reflected at 0 and 1. Its standard deviation is the s with `at(s)` = s,
    and the result is that value, found by bisection to 1e-6. Raises ValueError for values outside
    [0, 1].
    """
    # Bisection finds the solution because `at` never increases with the bandwidth.
    spectrum = _spectrum(*checked(confidence, correct))
    low = NARROWEST
    high = 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        if _at(spectrum, middle) > middle:
            low = middle
        else:
            high = middle
    return float(_at(spectrum, high))


def at(confidence, correct, bandwidth: float) -> float:
    """Smooth ECE with a kernel of standard deviation `bandwidth`: the integral of |smoothed residual|.

    Raises ValueError if bandwidth is below NARROWEST.
    """
    if not bandwidth >= NARROWEST:
        raise ValueError(f"bandwidth must be at least {NARROWEST}, got {bandwidth}")
    return float(_at(_spectrum(*checked(confidence, correct)), bandwidth))


def _spectrum(confidence, correct) -> np.ndarray:
    """Cosine series f64[CELLS] of the residuals on the grid."""
    residual = (confidence.astype(np.float64) - correct) / len(correct)
    # Share each residual between the two cells whose centres it lies between.
    position = np.clip(confidence.astype(np.float64) * CELLS - 0.5, 0, CELLS - 1)
    lower = np.minimum(position.astype(np.int64), CELLS - 2)
    fraction = position - lower
    in_lower = np.bincount(lower, residual * (1 - fraction), CELLS)
    in_upper = np.bincount(lower + 1, residual * fraction, CELLS)
    return dct(in_lower + in_upper, norm="ortho")


def _at(spectrum, bandwidth) -> float:
    """Smooth ECE from the cosine series of the residuals."""
    # A Gaussian reflected at both ends is diagonal in the cosine basis.
    wave = np.pi * np.arange(len(spectrum))
    kernel = np.exp(-((bandwidth * wave) ** 2) / 2)
    return np.abs(idct(spectrum * kernel, norm="ortho")).sum()
