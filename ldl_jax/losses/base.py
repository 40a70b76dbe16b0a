"""Losses between logits and a distribution, safe at -inf logits and at zero targets."""

import jax
import jax.numpy as jnp

from ldl_jax.contract import Array


def expectation(probs: Array, values: Array) -> Array:
    """sum_k probs_k values_k over the last axis, f32[...]; 0 * inf = 0, also in the gradient."""
    # The inner `where` keeps an infinite value out of the gradient, which the outer one would not.
    nonzero = probs > 0
    return jnp.sum(jnp.where(nonzero, probs * jnp.where(nonzero, values, 0), 0), axis=-1)


def at_least_float32(values: Array) -> Array:
    """The values, promoted to float32 where they are of a smaller type."""
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def log_softmax(logits: Array) -> Array:
    """Log-probabilities [B, K], in float32 or better whatever the type of the logits."""
    return jax.nn.log_softmax(at_least_float32(logits))


def power(values: Array, exponent: float) -> Array:
    """values ** exponent for values of at least 0 and an exponent above 0; flat at 0."""
    # For exponents below 1 the power has an infinite slope at 0.
    positive = values > 0
    return jnp.where(positive, jnp.where(positive, values, 1) ** exponent, 0)


def weighted_log(probs: Array, factor: Array, log_p: Array) -> Array:
    """-sum_k probs_k factor_k log_p_k, f32[B]; classes without a share are left out."""
    return -expectation(probs, factor * jnp.where(probs > 0, log_p, 0))


def check(allowed: bool, option: str, condition: str, value: object) -> None:
    """Raise ValueError if the value of an option such as 'focal.gamma' is not allowed."""
    if not allowed:
        raise ValueError(f"config.losses.{option} must be {condition}, got {value!r}")


def cross_entropy(logits: Array, probs: Array) -> Array:
    """-sum_k probs_k log softmax(logits)_k: f32[B] from [B, K]."""
    return -expectation(probs, log_softmax(logits))


def kl_divergence(logits: Array, probs: Array) -> Array:
    """KL(probs || softmax(logits)), f32[B]: cross entropy minus the entropy of probs."""
    log_probs = jnp.log(jnp.where(probs > 0, probs, 1))
    return cross_entropy(logits, probs) + expectation(probs, log_probs)
