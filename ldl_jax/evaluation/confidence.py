"""What an overconfident network does wrong: the confidence of its errors, and the part of its NLL
that one temperature mends.

Letters in shapes: n examples, K classes.
"""

import math

import numpy as np
from scipy.special import log_softmax

from ldl_jax.calibrate.likelihood import HIGHEST, LOWEST, Likelihood, search


def right_and_wrong(logits, label) -> dict[str, float]:
    """Mean confidence of the right and of the wrong predictions of logits f[n, K], labels i[n].

    `confidence_right`, `confidence_wrong`: the mean of the largest probability; NaN if there is no
    such prediction. Hendrycks and Gimpel 2017, table 1, compare the two.
    """
    logits = np.asarray(logits, np.float64)
    confidence = np.exp(log_softmax(logits, axis=1).max(axis=1))
    correct = logits.argmax(axis=1) == np.asarray(label)

    def mean(values: np.ndarray) -> float:
        return float(values.mean()) if len(values) else math.nan

    return {
        "confidence_right": mean(confidence[correct]),
        "confidence_wrong": mean(confidence[~correct]),
    }


def parts(logits, label) -> dict[str, float]:
    """The NLL of logits f[n, K] and labels i[n] as the sum of two parts, in nat.

    `nll_refinement`: the NLL at the temperature that is best for these very examples, which says
    what the network knows; `nll_calibration`, at least 0: what that temperature takes away;
    `best_temperature`: NaN if it is a limit of the search, as for examples without an error. The
    decomposition of proper scores (Bröcker 2009) with temperature scaling in place of the full
    recalibration, as in Berta et al. 2025, 'Rethinking Early Stopping: Refine, Then Calibrate'.
    """
    likelihood = Likelihood(np.asarray(logits), np.asarray(label))
    low, high = search(likelihood)
    count = len(label)
    raw = likelihood.at(0.0).nll / count
    # The search may end a rounding error above T = 1, where nothing is to be gained.
    refinement = min(likelihood.at((low + high) / 2).nll / count, raw)
    at_limit = low == high and low in (math.log(LOWEST), math.log(HIGHEST))
    return {
        "nll_refinement": refinement,
        "nll_calibration": raw - refinement,
        "best_temperature": math.nan if at_limit else math.exp((low + high) / 2),
    }


def by_class(logits, label) -> np.ndarray:
    """The best temperature of the examples of each class, f64[K], of logits f[n, K], labels i[n].

    NaN for a class without an example or without an error, which has none (see `parts`).
    """
    logits = np.asarray(logits)
    label = np.asarray(label)
    temperatures = np.full(logits.shape[1], math.nan)
    for number in np.unique(label):
        own = label == number
        temperatures[number] = parts(logits[own], label[own])["best_temperature"]
    return temperatures
