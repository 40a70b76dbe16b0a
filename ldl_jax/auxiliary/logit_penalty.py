"""Logit penalty: large logits cost something."""

import jax.numpy as jnp

from ldl_jax.auxiliary.base import counted_logits, masked_mean
from ldl_jax.contract import Auxiliary, Build


def make(
    build: Build,
    *,
    weight: float = 0.002,  # weight of half the squared norm
) -> Auxiliary:
    """Half the squared norm of the logits z [B, K], 1/2 sum_k z_k^2, averaged over the batch
    (Kornblith et al. 2021); the weight is that of the program of MaxSup, where this is a baseline.

    An impossible class (logit -inf) is left out. It looks at the logits alone, so it needs no label:
    label distributions of any source and mixed images change nothing.
    """
    del build

    def loss(params, state, batch, outputs, targets):
        del params, targets
        logits = counted_logits(outputs, batch)
        possible = logits > -jnp.inf
        square = jnp.where(possible, jnp.where(possible, logits, 0) ** 2, 0)
        return masked_mean(square.sum(-1) / 2, batch), state

    return Auxiliary(loss, weight=weight)
