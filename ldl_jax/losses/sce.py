"""Symmetric cross entropy, robust to wrong labels."""

from collections.abc import Callable

import jax.numpy as jnp

from ldl_jax.losses.base import at_least_float32, check, log_softmax

LEAST_PREDICTION, LEAST_TARGET = 1e-7, 1e-4


def make(
    *,
    alpha: float = 0.1,  # weight of the cross entropy, >= 0; published: 0.1 CIFAR-10, 6 CIFAR-100
    beta: float = 1.0,  # weight of the reverse, >= 0; published: 1 CIFAR-10, 0.1 CIFAR-100
) -> Callable:
    """Symmetric cross entropy -alpha sum_k q'_k log p'_k - beta sum_k p'_k log q'_k.

    p' is the prediction, at least 1e-7, and q' the target, at least 1e-4, in both terms, as in the
    code published with Wang et al. 2019. f32[B] from [B, K]; any distribution may be the target,
    and classes of which it has less than 1e-4 are all alike. Bounded: an impossible class counts as
    one of probability 1e-7, without a gradient. Under mixing the reverse term is that of the mixed
    distribution, not the sum of its parts.

    Raises ValueError if alpha or beta is negative.
    """
    check(alpha >= 0, "sce.alpha", "at least 0", alpha)
    check(beta >= 0, "sce.beta", "at least 0", beta)

    def sce(logits, probs):
        p = jnp.maximum(jnp.exp(log_softmax(logits)), LEAST_PREDICTION)
        q = jnp.maximum(at_least_float32(probs), LEAST_TARGET)
        return -jnp.sum(alpha * q * jnp.log(p) + beta * p * jnp.log(q), axis=-1)

    return sce
