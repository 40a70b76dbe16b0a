"""Temperature scaling that does no harm: T stays 1 unless the examples show that it should not."""

import math

from ldl_jax.calibrate.base import Calibrator, checked_rows, log_probs, number
from ldl_jax.calibrate.likelihood import Likelihood, facts, safe


def make(
    *,
    ratio_above: float = 4.0,  # likelihood ratio that a T above 1 must exceed
    ratio_below: float = 5.0,  # likelihood ratio that a T below 1 must exceed
    prior_above: float = 5.0,  # strength of the prior if the best T is above 1
    prior_below: float = 40.0,  # strength of the prior if the best T is below 1
) -> Calibrator:
    """Softmax of logits / T with a likelihood-ratio test before, and a prior on T.

    `likelihood_ratio` is twice the gain in log-likelihood of the best T, `maximum_likelihood`, over
    T = 1. If it does not exceed `likelihood_ratio_needed`, `temperature` is 1. Otherwise it
    minimises the NLL of all examples plus prior (1/T - 1 + log T), the negative logarithm of a Gamma
    density of 1/T with mode 1. That is convex in 1/T, and least at a T above 0 even if there is no
    error among the examples. A T below 1 does more harm where it is wrong, so it needs more. The
    interval (of the likelihood alone) and `errors` are as in `temperature`. docs/calibration.md has
    the measurements that the defaults were chosen by.
    """
    strengths = {
        "ratio_above": ratio_above,
        "ratio_below": ratio_below,
        "prior_above": prior_above,
        "prior_below": prior_below,
    }
    for name, value in strengths.items():
        number(f"safe_temperature.{name}", value, 0.0)

    def fit(logits, label):
        likelihood = Likelihood(logits, label)
        fitted = safe(likelihood, **strengths)
        return {
            "temperature": math.exp(fitted.position),
            "maximum_likelihood": math.exp(fitted.best),
            "likelihood_ratio": fitted.ratio,
            "likelihood_ratio_needed": fitted.needed,
            **facts(likelihood, fitted.best),
        }

    def apply(params, logits):
        return log_probs(checked_rows(logits) / params["temperature"])

    return Calibrator(fit, apply)
