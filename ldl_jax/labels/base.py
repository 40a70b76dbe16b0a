"""Shared parts of label sources: rows of distributions that are read, written and mixed, and the
loss of one term.
"""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp

from ldl_jax.contract import Array, Batch, Build, Forward, Stored, Target
from ldl_jax.losses.base import kl_divergence

WRITE_RULES = ("unmixed", "clean")


def one_hot(batch: Batch, like: Array) -> Array:
    """One-hot rows [B, K] of the labels, with the type and width of `like`."""
    return jax.nn.one_hot(batch.label, like.shape[-1], dtype=like.dtype)


def read_rows(rows: Array, index: Array, hard: Array) -> Array:
    """The stored distributions of the examples `index`, [B, K] in the type of `hard`; where a row
    has not been written yet, the hard label.

    A row is divided by its sum, which corrects the bias of an average that started at 0, however
    many updates it has missed.
    """
    row = rows[index].astype(hard.dtype)
    total = row.sum(-1, keepdims=True)
    # Rows start at zero, and a written one has a positive sum.
    written = total > 0
    return jnp.where(written, row / jnp.where(written, total, 1), hard)


def write_rows(
    rows: Array, index: Array, new: Array, *, momentum=0.0, write: Array | bool = True
) -> Array:
    """The rows, updated to momentum * old + (1 - momentum) * new at `index` if `write` (bool[B])."""
    # The old row takes part even at momentum 0: a scatter that does not depend on what it
    # overwrites makes XLA copy the whole table if the table is also read.
    old = rows[index].astype(new.dtype)
    row = (momentum * old + (1 - momentum) * new).astype(rows.dtype)
    # An index past the end is dropped, so rows that may not be written stay as they are.
    return rows.at[jnp.where(write, index, len(rows))].set(row, mode="drop")


def dense_rows(classes: Array, probs: Array, stored: Stored, num_classes: int) -> Array:
    """Distributions [B, K] of the most probable classes i[B, k] and their stored shares [B, k]."""
    kind = jnp.promote_types(probs.dtype, jnp.float32)
    probs = probs.astype(kind) * stored.scale
    examples = jnp.arange(len(classes))[:, None]
    rows = jnp.zeros((len(classes), num_classes), kind).at[examples, classes].set(probs)
    others = num_classes - classes.shape[1]
    if stored.spread and others:
        rest = jnp.maximum(1 - probs.sum(-1, keepdims=True), 0) / others
        is_stored = jnp.zeros(rows.shape, bool).at[examples, classes].set(True)
        rows = jnp.where(is_stored, rows, rest)
    # Rounding may have changed the sum.
    return rows / rows.sum(-1, keepdims=True)


def mean_rows(sums: Array, count: Array) -> Array:
    """Mean rows [K, K] of the sums [K, K] of `count` [K] distributions each; a uniform row if the
    count is 0.
    """
    nonempty = count[:, None] > 0
    return jnp.where(nonempty, sums / jnp.where(nonempty, count[:, None], 1), 1 / sums.shape[-1])


def check_choice(name: str, option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise ValueError if the value of a source's option is not among those allowed."""
    if value not in allowed:
        raise ValueError(
            f"config.labels.{name}.{option} must be one of {', '.join(map(repr, allowed))}; got {value!r}"
        )


def check_epochs(name: str, option: str, value: float) -> None:
    """Raise ValueError if a number of epochs is negative or not finite."""
    if not 0 <= value < math.inf:
        raise ValueError(
            f"config.labels.{name}.{option} must be finite and at least 0, got {value}"
        )


def check_write(name: str, write: str, mix_prob: float) -> None:
    """Raise ValueError if the write rule is unknown, or would never write a row."""
    check_choice(name, "write", write, WRITE_RULES)
    if write == "unmixed" and mix_prob >= 1:
        raise ValueError(
            f"config.labels.{name}.write is 'unmixed', but every example is mixed, so no row would "
            f"ever be written; set config.labels.{name}.write='clean' or a mixing probability below 1"
        )


def own_prediction(
    batch: Batch, forward: Forward, write: str, *, temperature: float = 1.0, right: bool = False
) -> tuple[Array, Array]:
    """The network's prediction of each single example at a temperature, [B, K], and whether it may
    be written, bool[B]; with `right`, only where the most probable class is the label.
    """
    valid = batch.mask > 0
    if write == "clean":
        logits = forward.clean_logits
    else:
        # The prediction of a mixed image says little about any of the images in it.
        logits = forward.outputs.logits[0]
        valid &= batch.share[:, 0] == 1
    if right:
        valid &= jnp.argmax(logits, -1) == batch.label
    return jax.nn.softmax(logits if temperature == 1 else logits / temperature), valid


def ramp(
    step: Array, build: Build, start_epoch: float = 0.0, ramp_epochs: float = 0.0
) -> Array | float:
    """The share, [0, 1], of a term at a step: 0 before start_epoch, then rising linearly from 0 in
    ramp_epochs; 1.0 if both are 0.
    """
    if not start_epoch and not ramp_epochs:
        return 1.0
    kind = build.outputs.logits.dtype
    since = step.astype(kind) - round(start_epoch * build.steps_per_epoch)
    if not ramp_epochs:
        return (since >= 0).astype(kind)
    return jnp.clip(since / (ramp_epochs * build.steps_per_epoch), 0, 1)


def mix_rows(values: Array, partner: Array, share: Array) -> Array:
    """sum_m share[:, m] values[partner[:, m]]: [B] or [B, K]."""
    if partner.shape[1] == 1:
        return values
    share = share.astype(values.dtype).reshape(share.shape + (1,) * (values.ndim - 1))
    return jnp.sum(share * values[partner], axis=1)


def mix_target(target: Target, partner: Array, share: Array) -> Target:
    """The loss term of the mixed images, exact for a loss that is linear in the target.

    A target that is `mixed` already is returned unchanged.
    """
    if target.mixed or partner.shape[1] == 1:
        return target
    # Each image brings its own weight, so distributions are averaged with share times weight.
    weight = jnp.broadcast_to(
        jnp.asarray(target.weight, target.probs.dtype), target.probs.shape[:1]
    )
    mixed_weight = mix_rows(weight, partner, share)
    weighted = mix_rows(weight[:, None] * target.probs, partner, share)
    zero = mixed_weight[:, None] == 0
    probs = jnp.where(
        zero,
        mix_rows(target.probs, partner, share),
        weighted / jnp.where(zero, 1, mixed_weight[:, None]),
    )
    return replace(target, probs=probs, weight=mixed_weight, mixed=True)


def term_loss(target: Target, logits: Array, criterion) -> Array:
    """The loss of a term for each example, f32[B]: weight T^2 criterion(logits / T, probs).

    T^2 keeps the size of the gradient (Hinton 2015).
    """
    temperature = jnp.asarray(target.temperature, logits.dtype)
    scaled = logits / (temperature[:, None] if temperature.ndim else temperature)
    compare = kl_divergence if target.soft else criterion
    return target.weight * temperature**2 * compare(scaled, target.probs)


def mean_entropy(table: Array) -> Array:
    """Mean entropy of the rows [..., K] of a table, in nat."""
    return jnp.mean(-jnp.sum(jax.scipy.special.xlogy(table, table), -1))


def row_report(rows: Array) -> dict[str, Array]:
    """Number of rows written so far, and their mean entropy in nat."""
    kind = jnp.promote_types(rows.dtype, jnp.float32)
    total = rows.sum(-1, dtype=kind)
    written = total > 0
    probs = rows / jnp.where(written, total, 1)[:, None]
    entropy = -jnp.sum(jnp.where(probs > 0, probs * jnp.log(jnp.where(probs > 0, probs, 1)), 0), -1)
    count = written.sum()
    return {
        "rows_written": count,
        "row_entropy": jnp.sum(jnp.where(written, entropy, 0)) / jnp.maximum(count, 1),
    }
