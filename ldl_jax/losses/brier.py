"""Brier score: squared distance between prediction and target."""

from collections.abc import Callable

import jax.numpy as jnp

from ldl_jax.losses.base import log_softmax


def make() -> Callable:
    """Brier score sum_k (p_k - q_k)^2 (Brier 1950), summed over the classes.

    f32[B] from [B, K], between 0 and 2. For a distribution it is the average score of its labels
    less the constant 1 - sum_k q_k^2, so it is smallest, and 0, at p = q. Under mixing it has the
    gradient of the sum of the parts. A share of an impossible class costs a finite amount.
    """

    def brier(logits, probs):
        return jnp.sum((jnp.exp(log_softmax(logits)) - probs) ** 2, axis=-1)

    return brier
