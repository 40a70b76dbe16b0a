"""The two penalties of joint optimisation of parameters and labels."""

import math

import jax
import jax.numpy as jnp

from ldl_jax.auxiliary.base import masked_mean
from ldl_jax.contract import Auxiliary, Build


def make(
    build: Build,
    *,
    weight: float = 1.0,  # weight of both
    prior: float = 1.2,  # weight of the uniform prior of the batch's mean prediction
    entropy: float = 0.8,  # weight of the mean entropy of the predictions, in nat
) -> Auxiliary:
    """prior (-1/K) sum_k log mean_b p_bk + entropy mean_b H(p_b) (Tanaka et al. 2018, equations 8
    and 11, with a uniform prior).

    The first is the KL divergence from the uniform distribution to the mean prediction of the
    global batch, plus log K; it keeps the labels from collapsing to one class. The second makes
    predictions sharp. Their labels are those of `labels.online` with alpha = 1, a constant schedule
    and a start epoch: the network's own earlier predictions replace noisy labels. Predictions on
    mixed images count like any others. Raises ValueError if a weight is negative or not finite.
    """
    for option, value in (("prior", prior), ("entropy", entropy)):
        if not 0 <= value < math.inf:
            raise ValueError(
                f"config.auxiliary.joint.{option} must be finite and at least 0, got {value}"
            )
    del build

    def loss(params, state, batch, outputs, targets):
        del params, targets
        logits = outputs.logits[0]
        log_p = jax.nn.log_softmax(logits)
        # In logarithms, since the probability of a class may underflow in every example.
        counted = jnp.where(batch.mask[:, None] > 0, log_p, -jnp.inf)
        number = jnp.maximum(batch.mask.sum(), 1)
        log_mean = jax.nn.logsumexp(counted, 0) - jnp.log(number)
        possible = jnp.isfinite(log_mean)
        uniform = -jnp.sum(jnp.where(possible, log_mean, 0)) / logits.shape[-1]
        sure = jnp.exp(log_p)
        spread = -jnp.sum(jnp.where(sure > 0, sure * jnp.where(sure > 0, log_p, 0), 0), -1)
        return prior * uniform + entropy * masked_mean(spread, batch), state

    return Auxiliary(loss, weight=weight)
