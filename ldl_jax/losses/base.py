"""Comparing logits with a distribution, safe at -inf logits and at zero targets."""

import jax
import jax.numpy as jnp

from ldl_jax.contract import Array


def expectation(probs: Array, values: Array) -> Array:
    """sum_k probs_k values_k over the last axis, where 0 * inf = 0, also in the gradient: f32[...]."""
    seen = probs > 0
    return jnp.sum(jnp.where(seen, probs * jnp.where(seen, values, 0), 0), axis=-1)


def log_softmax(logits: Array) -> Array:
    """log p of every class, [B, K], in float32 or better whatever the logits are."""
    return jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))


def cross_entropy(logits: Array, probs: Array) -> Array:
    """-sum_k probs_k log softmax(logits)_k: f32[B] from [B, K]."""
    return -expectation(probs, log_softmax(logits))


def kl_divergence(logits: Array, probs: Array) -> Array:
    """KL(probs || softmax(logits)) of every row: f32[B]; differs from cross entropy by the entropy
    of probs.
    """
    return cross_entropy(logits, probs) + expectation(
        probs, jnp.log(jnp.where(probs > 0, probs, 1))
    )
