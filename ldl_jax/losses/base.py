"""Losses between logits and a distribution, safe at -inf logits and at zero targets."""

import jax
import jax.numpy as jnp

from ldl_jax.contract import Array


def expectation(probs: Array, values: Array) -> Array:
    """sum_k probs_k values_k over the last axis, f32[...]; 0 * inf = 0, also in the gradient."""
    # The inner `where` keeps an infinite value out of the gradient, which the outer one would not.
    nonzero = probs > 0
    return jnp.sum(jnp.where(nonzero, probs * jnp.where(nonzero, values, 0), 0), axis=-1)


def log_softmax(logits: Array) -> Array:
    """Log-probabilities [B, K], in float32 or better whatever the type of the logits."""
    return jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))


def cross_entropy(logits: Array, probs: Array) -> Array:
    """-sum_k probs_k log softmax(logits)_k: f32[B] from [B, K]."""
    return -expectation(probs, log_softmax(logits))


def kl_divergence(logits: Array, probs: Array) -> Array:
    """KL(probs || softmax(logits)), f32[B]: cross entropy minus the entropy of probs."""
    log_probs = jnp.log(jnp.where(probs > 0, probs, 1))
    return cross_entropy(logits, probs) + expectation(probs, log_probs)
