"""Temperature scaling that does no harm: T stays 1 unless the examples show that it should not."""

import math

from ldl_jax.calibrate.base import Calibrator, checked_rows, log_probs, number
from ldl_jax.calibrate.likelihood import Likelihood, facts, safe


def make(
    *,
    prior: float = 5.0,  # strength of the prior on T, which is 1/T's Gamma density with mode 1
    overconfident: float = 5.0,  # likelihood ratio that a T above 1 must exceed
    underconfident: float = 9.0,  # likelihood ratio that a T below 1 must exceed
) -> Calibrator:
    """Softmax of logits / T with a likelihood-ratio test before, and a prior on T.

    `likelihood_ratio` is twice the gain in log-likelihood of the best T, `maximum_likelihood`, over
    T = 1. If it does not exceed `overconfident` or `underconfident` (whichever the best T is, kept
    as `likelihood_ratio_needed`), `temperature` is 1. Otherwise it minimises the NLL of all examples plus
    prior (1/T - 1 + log T), which is convex in 1/T: with no error among the examples, T = 0 is not
    the answer. A T below 1 needs more evidence, since it does more harm where it is wrong. The
    interval (of the likelihood alone) and `errors` are as in `temperature`. docs/calibration.md has
    the measurements that the defaults were chosen by.
    """
    number("safe_temperature.prior", prior, 0.0)
    number("safe_temperature.overconfident", overconfident, 0.0)
    number("safe_temperature.underconfident", underconfident, 0.0)

    def fit(logits, label):
        likelihood = Likelihood(logits, label)
        fitted = safe(likelihood, prior, overconfident, underconfident)
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
