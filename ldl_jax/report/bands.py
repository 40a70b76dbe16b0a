"""Ranges of what perfectly calibrated models show by chance."""

import numpy as np
from scipy.stats import binom, pearson3


def band(count, expected) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) accuracies f[bins] of 95 % of calibrated models with these counts.

    Quantiles of binomial distributions; expected: the mean confidence f[bins].
    """
    low = binom.ppf(0.025, count, expected) / count
    high = binom.ppf(0.975, count, expected) / count
    return low, high


def gap_band(variance, third) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) f[n] of sum of confidences minus number correct, for 95 % of calibrated models.

    variance, third: the second and third central moments f[n] of the number correct, a sum of
    different Bernoulli variables. Uses quantiles of the Pearson type III distribution with these
    moments, which is bounded on one side, as the gap is if hardly any errors are expected. (The
    binomial distribution of the mean confidence is wider, the more so the more confidences differ.)
    The band is 0 if nothing is uncertain.
    """
    variance = np.asarray(variance, float)
    third = np.asarray(third, float)
    deviation = np.sqrt(variance)
    skew = np.divide(-third, deviation**3, out=np.zeros_like(variance), where=variance > 0)
    low = pearson3.ppf(0.025, skew) * deviation
    high = pearson3.ppf(0.975, skew) * deviation
    return low, high
