"""Shared parts of auxiliary losses."""

import math

import jax
import jax.numpy as jnp

from ldl_jax.contract import Array, Auxiliary, Batch, Outputs
from ldl_jax.labels.base import mix_rows, one_hot


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
    # `where`, not a product: the value of a masked example may be NaN.
    counted = jnp.where(batch.mask > 0, batch.mask * values, 0)
    return jnp.sum(counted) / jnp.maximum(batch.mask.sum(), 1)


def counted_logits(outputs: Outputs, batch: Batch) -> Array:
    """The logits [B, K] of view 0, in float32 or better; 0 for masked examples.

    So whatever a masked example holds changes neither a value nor a gradient.
    """
    logits = outputs.logits[0]
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return jnp.where(batch.mask[:, None] > 0, logits, 0)


def label_distribution(batch: Batch, like: Array) -> Array:
    """The labels as distributions [B, K]: one-hot rows, or the labels of a mixed image by share."""
    return mix_rows(one_hot(batch, like), batch.partner, batch.share)


def confidence_and_accuracy(logits: Array, batch: Batch) -> tuple[Array, Array]:
    """The probability of the predicted class and whether it is the label, both [B].

    The second is in [0, 1]: of a mixed image it is the share of the images of that class.
    """
    predicted = jnp.argmax(logits, axis=-1, keepdims=True)
    largest = jnp.take_along_axis(jax.nn.softmax(logits), predicted, axis=-1)
    accuracy = jnp.take_along_axis(label_distribution(batch, logits), predicted, axis=-1)
    return largest[:, 0], accuracy[:, 0]


def gaps(largest: Array, logits: Array) -> Array:
    """How far each logit is below `largest` [B], [B, K]; 0 for an impossible class (logit -inf)."""
    return jnp.where(logits > -jnp.inf, largest[:, None] - logits, 0)


def root(values: Array, order: float = 2.0) -> Array:
    """values ** (1 / order) for values of at least 0; with gradient 0 at 0, where it is infinite."""
    positive = values > 0
    return jnp.where(positive, jnp.where(positive, values, 1) ** (1 / order), 0)


def laplacian_kernel(values: Array, width: float) -> Array:
    """exp(-|values_i - values_j| / width) for all pairs, [B, B] from [B]."""
    return jnp.exp(-jnp.abs(values[:, None] - values[None, :]) / width)


def check(allowed: bool, option: str, condition: str, value: object) -> None:
    """Raise ValueError if the value of an option such as 'mbls.margin' is not allowed."""
    if not allowed:
        raise ValueError(f"config.auxiliary.{option} must be {condition}, got {value!r}")


def jensen_shannon(logits: Array) -> Array:
    """Jensen-Shannon divergence f32[B] between the predictions of several views, logits [V, B, K].

    The mixture is clamped to [1e-7, 1], as in the code of AugMix.
    """
    log_p = jax.nn.log_softmax(logits)
    p = jnp.exp(log_p)
    log_mixture = jnp.log(jnp.clip(p.mean(0), 1e-7, 1))
    # A probability that underflows to 0 contributes 0, and no NaN to the gradient.
    return jnp.sum(p * jnp.where(p > 0, log_p - log_mixture, 0), -1).mean(0)


def confidence(values: Array) -> Array:
    """The largest entry [...] of each row [..., K], whose gradient goes to the first one if tied."""
    first = jnp.argmax(values, axis=-1, keepdims=True)
    return jnp.take_along_axis(values, first, axis=-1)[..., 0]
