"""Shared parts of auxiliary losses."""

import math

import jax
import jax.numpy as jnp

from ldl_jax.contract import Array, Auxiliary, Batch


def timed(
    auxiliary: Auxiliary,
    *,
    start_epoch: float = 0.0,  # epochs before the loss counts, at least 0
    ramp_epochs: float = 0.0,  # epochs after that in which its weight rises linearly from 0
) -> Auxiliary:
    """The auxiliary, counted from an epoch on: the options that every auxiliary has beside its own.

    A factory declares one of them itself where its method has another default. Raises ValueError if
    an option is negative or not finite, or the weight of the auxiliary is.
    """
    given = {"weight": auxiliary.weight, "start_epoch": start_epoch, "ramp_epochs": ramp_epochs}
    for option, value in given.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{option} must be finite and at least 0, got {value}")
    return auxiliary._replace(start_epoch=start_epoch, ramp_epochs=ramp_epochs)


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
