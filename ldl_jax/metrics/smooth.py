"""The smooth calibration error: a kernel in the place of bins, as wide as the error itself."""

import numpy as np
from scipy.fft import dct, idct

from ldl_jax.metrics.base import Shown, Stored, checked

SHOWN = {
    "smooth_ece": Shown("smooth ECE", "%", 2, "calibration", 11, "lower"),
}

CELLS = 2**13  # of the grid over [0, 1]
NARROWEST = 1e-4  # standard deviation of a kernel, about a cell


def of(stored: Stored) -> dict[str, float]:
    """The smooth ECE of the confidence."""
    return {"smooth_ece": ece(stored.confidence, stored.correct)}


def ece(confidence, correct) -> float:
    """Smooth ECE of confidences f[N] and bool[N] with its automatic bandwidth: Blasiok and Nakkiran
    2023.

    The kernel is a Gaussian reflected at 0 and 1; its standard deviation is the s at which `at(s)`
    is s, which is the value. Found by bisection to 1e-6: `at` never rises with s. Raises ValueError
    for what is no probability.
    """
    spectrum = _spectrum(*checked(confidence, correct))
    low, high = NARROWEST, 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if _at(spectrum, middle) > middle else (low, middle)
    return float(_at(spectrum, high))


def at(confidence, correct, bandwidth: float) -> float:
    """Smooth ECE with a kernel of this standard deviation, at least NARROWEST: the integral of
    |smoothed residual|.
    """
    if not bandwidth >= NARROWEST:
        raise ValueError(f"bandwidth is {bandwidth}; allowed are numbers from {NARROWEST}")
    return float(_at(_spectrum(*checked(confidence, correct)), bandwidth))


def _spectrum(confidence, correct) -> np.ndarray:
    """Cosine series f64[CELLS] of the residuals, each shared by the two cells whose middles it lies
    between.
    """
    residual = (confidence.astype(np.float64) - correct) / len(correct)
    place = np.clip(confidence.astype(np.float64) * CELLS - 0.5, 0, CELLS - 1)
    lower = np.minimum(place.astype(np.int64), CELLS - 2)
    part = place - lower
    cells = np.bincount(lower, residual * (1 - part), CELLS) + np.bincount(
        lower + 1, residual * part, CELLS
    )
    return dct(cells, norm="ortho")


def _at(spectrum, bandwidth) -> float:
    """Reflection makes the Gaussian diagonal in cosines, as it does the spread of heat in a rod
    without loss.
    """
    wave = np.pi * np.arange(len(spectrum))
    return np.abs(idct(spectrum * np.exp(-((bandwidth * wave) ** 2) / 2), norm="ortho")).sum()
