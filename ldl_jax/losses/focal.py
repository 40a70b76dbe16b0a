"""Focal loss, for distributions as well as labels."""

from collections.abc import Callable

import jax.numpy as jnp

from ldl_jax.losses.base import cross_entropy, expectation, log_softmax


def make(
    *,
    gamma: float = 2.0,  # exponent of (1 - p), >= 0; 0 is cross entropy
) -> Callable:
    """Focal loss -sum_k q_k (1 - p_k)^gamma log p_k (Lin et al. 2017, equation 4, summed over the
    distribution).

    Raises ValueError if gamma is negative.
    """
    if not gamma >= 0:
        raise ValueError(f"config.losses.focal.gamma must be at least 0, got {gamma}")
    if gamma == 0:
        return cross_entropy

    def focal(logits, probs):
        log_p = log_softmax(logits)
        rest = -jnp.expm1(log_p)  # 1 - p without cancellation
        # For gamma < 1 the power has an infinite slope at 0, where the term is 0 anyway.
        uncertain = rest > 0
        factor = jnp.where(uncertain, jnp.where(uncertain, rest, 1) ** gamma, 0)
        return -expectation(probs, factor * jnp.where(probs > 0, log_p, 0))

    return focal
