"""Shared parts of auxiliary losses."""

import jax.numpy as jnp

from ldl_jax.contract import Array, Batch


def masked_mean(values: Array, batch: Batch) -> Array:
    """Mean over the examples that are not masked, f32[] from f32[B]."""
    return jnp.sum(batch.mask * values) / jnp.maximum(batch.mask.sum(), 1)
