"""Bootstrapping: the target is in part the prediction itself."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ldl_jax.losses.base import check, expectation, log_softmax

LEAST = 1e-7


def make(
    *,
    beta: float = 0.95,  # share of the given target, [0, 1]; published: 0.95 soft, 0.8 hard
    hard: bool = False,  # the rest is the predicted class instead of the predicted distribution
) -> Callable:
    """Bootstrapping -sum_k (beta q_k + (1 - beta) s_k) log p_k, where s is p or, with `hard`, one
    at the class of the largest p and zero elsewhere.

    Reed et al. 2015 (soft and hard bootstrapping). p is clipped to [1e-7, 1 - 1e-7], and s = p is
    not detached: its gradient draws the prediction towards certainty. f32[B] from [B, K]; any
    distribution may be the target, and under mixing its parts add up. Bounded: an impossible class
    counts as one of probability 1e-7, without a gradient.

    Raises ValueError if beta is not in [0, 1].
    """
    check(0 <= beta <= 1, "bootstrap.beta", "in [0, 1]", beta)

    def bootstrap(logits, probs):
        log_p = log_softmax(logits)
        p = jnp.clip(jnp.exp(log_p), LEAST, 1 - LEAST)
        s = jax.nn.one_hot(jnp.argmax(log_p, axis=-1), p.shape[-1], dtype=p.dtype) if hard else p
        log_p = jnp.log(p)
        return -beta * expectation(probs, log_p) - (1 - beta) * expectation(s, log_p)

    return bootstrap
