"""Temperature scaling: one number that divides all logits."""

import math

from ldl_jax.calibrate.base import Calibrator, checked_rows, log_probs
from ldl_jax.calibrate.likelihood import HIGHEST, LOWEST, Likelihood, facts, search


def make() -> Calibrator:
    """Softmax of logits / T, where T minimises the NLL (Guo et al. 2017, section 4.2).

    The NLL is convex in 1/T, so the minimum is unique: `low` < `high` are temperatures a relative
    distance of 1e-8 apart between which the derivative changes sign, and `temperature` is between
    them. `at_bound` is True if the best T in [1e-3, 1e3] is one of the two limits: the lower if
    every example is classified correctly (T = 0 would be best), the upper if the labels' logits are
    on average not above the means of their rows (T infinite would be best). T is 1 if all rows are
    constant, since then every T is equally good. `interval_low` and `interval_high` are the ends of
    the 95 % profile-likelihood interval of T (None: open), and `errors` is the number of examples
    that are classified wrongly, on which T mostly rests.
    """

    def fit(logits, label):
        likelihood = Likelihood(logits, label)
        low, high = search(likelihood)
        at_bound = low == high and low in (math.log(LOWEST), math.log(HIGHEST))
        # exp(log(1e-3)) is not 1e-3.
        ends = {math.log(limit): limit for limit in (LOWEST, HIGHEST)}
        low_temperature = ends.get(low, math.exp(low))
        high_temperature = ends.get(high, math.exp(high))
        return {
            "temperature": math.sqrt(low_temperature * high_temperature),
            "low": low_temperature,
            "high": high_temperature,
            "at_bound": at_bound,
            **facts(likelihood, (low + high) / 2),
        }

    def apply(params, logits):
        return log_probs(checked_rows(logits) / params["temperature"])

    return Calibrator(fit, apply)
