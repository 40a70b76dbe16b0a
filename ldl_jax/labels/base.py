"""What label sources share: reading, writing and mixing rows of distributions, and the loss of one
term.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp

from ldl_jax.contract import Array, Batch, Forward, Target
from ldl_jax.losses.base import kl_divergence

WRITE_RULES = ("unmixed", "clean")


def one_hot(batch: Batch, like: Array) -> Array:
    """The hard labels as rows: [B, K] in the type and width of `like`."""
    return jax.nn.one_hot(batch.label, like.shape[-1], dtype=like.dtype)


def read_rows(rows: Array, index: Array, hard: Array) -> Array:
    """The distributions of the examples `index`: [B, K] like `hard`; a row not written yet is its
    hard label.

    A row is divided by its sum: the bias correction of an average that started at 0, whatever was
    skipped.
    """
    row = rows[index].astype(hard.dtype)
    total = row.sum(-1, keepdims=True)
    written = total > 0
    return jnp.where(written, row / jnp.where(written, total, 1), hard)


def write_rows(
    rows: Array, index: Array, new: Array, *, momentum=0.0, write: Array | bool = True
) -> Array:
    """Set rows[index] to momentum * old + (1 - momentum) * new where `write` (bool[B]) holds.

    The old row takes part even at momentum 0: a scatter that does not depend on what it overwrites
    makes XLA copy the whole table wherever the table is also read.
    """
    old = rows[index].astype(new.dtype)
    row = (momentum * old + (1 - momentum) * new).astype(rows.dtype)
    return rows.at[jnp.where(write, index, len(rows))].set(row, mode="drop")


def mean_rows(sums: Array, count: Array) -> Array:
    """Rows [K, K] of sums [K, K] of so many [K] distributions each: their mean, or the uniform one
    of none.
    """
    seen = count[:, None] > 0
    return jnp.where(seen, sums / jnp.where(seen, count[:, None], 1), 1 / sums.shape[-1])


def check_choice(name: str, option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise ValueError where an option of a source is none of those allowed."""
    if value not in allowed:
        raise ValueError(
            f"labels.{name}.{option} is {value!r}; allowed are {', '.join(map(repr, allowed))}"
        )


def check_write(name: str, write: str, mix_prob: float) -> None:
    """Raise ValueError where the write rule is unknown, or would never write."""
    check_choice(name, "write", write, WRITE_RULES)
    if write == "unmixed" and mix_prob >= 1:
        raise ValueError(
            f"labels.{name}.write is 'unmixed', but mixing touches every example, so that no row would ever be "
            f"written; allowed are labels.{name}.write='clean' or a mixing probability below 1"
        )


def own_prediction(batch: Batch, forward: Forward, write: str) -> tuple[Array, Array]:
    """What the network says of each example itself, [B, K], and where that may be written, bool[B]."""
    good = batch.mask > 0
    if write == "clean":
        return jax.nn.softmax(forward.clean_logits), good
    return jax.nn.softmax(forward.outputs.logits[0]), good & (batch.share[:, 0] == 1)


def mix_rows(values: Array, partner: Array, share: Array) -> Array:
    """sum_m share[:, m] values[partner[:, m]]: [B] or [B, K]."""
    if partner.shape[1] == 1:
        return values
    share = share.astype(values.dtype).reshape(share.shape + (1,) * (values.ndim - 1))
    return jnp.sum(share * values[partner], axis=1)


def mix_target(target: Target, partner: Array, share: Array) -> Target:
    """The term of the mixed image: exact for a loss that is linear in the target. Left alone where
    `mixed`.
    """
    if target.mixed or partner.shape[1] == 1:
        return target
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
    """weight T^2 criterion(logits / T, probs) of each example: f32[B]. T^2 keeps the gradient's
    size (Hinton 2015).
    """
    temperature = jnp.asarray(target.temperature, logits.dtype)
    scaled = logits / (temperature[:, None] if temperature.ndim else temperature)
    compare = kl_divergence if target.soft else criterion
    return target.weight * temperature**2 * compare(scaled, target.probs)


def row_report(rows: Array) -> dict[str, Array]:
    """Number of the rows that were written, and their mean entropy in nat."""
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
