"""Shared parts of auxiliary losses."""

import jax
import jax.numpy as jnp

from ldl_jax.contract import Array, Batch


def masked_mean(values: Array, batch: Batch) -> Array:
    """Mean over the examples that are not masked, f32[] from f32[B]."""
    return jnp.sum(batch.mask * values) / jnp.maximum(batch.mask.sum(), 1)


def jensen_shannon(logits: Array) -> Array:
    """Jensen-Shannon divergence f32[B] between the predictions of several views, logits [V, B, K].

    The mixture is clamped to [1e-7, 1], as in the code of AugMix.
    """
    log_p = jax.nn.log_softmax(logits)
    p = jnp.exp(log_p)
    log_mixture = jnp.log(jnp.clip(p.mean(0), 1e-7, 1))
    # A probability that underflows to 0 contributes 0, and no NaN to the gradient.
    return jnp.sum(p * jnp.where(p > 0, log_p - log_mixture, 0), -1).mean(0)
