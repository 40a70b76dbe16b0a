"""A metric: sums that add up over batches, devices and hosts, and the scalars they give."""

import importlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ldl_jax.contract import Array

BINS = 15  # over (0, 1], (lo, hi]; a probability of 0 counts in the first


GROUPS = (  # headings of figures, in the order in which they are shown
    "accuracy",
    "proper scores",
    "calibration",
    "calibration of every class",
    "ECE as others compute it",
    "knowing when it is wrong",
    "other examples",
    "human votes",
)


class Shown(NamedTuple):
    """How a figure is shown, wherever it is: SHOWN of the file that figures it has one for each of its names."""

    label: str  # without the unit
    unit: str  # '%': a fraction, shown times 100; 'nat'; or '' for a plain number
    digits: int  # after the decimal point, as shown
    group: str  # one of GROUPS
    position: float  # within the group
    better: str  # 'lower', 'higher', or '' where neither is

    @property
    def factor(self) -> int:
        """What the value is multiplied by to be shown."""
        return 100 if self.unit == "%" else 1

    @property
    def title(self) -> str:
        """The label with its unit, where that is a percent sign."""
        return f"{self.label} %" if self.unit == "%" else self.label


class Seen(NamedTuple):
    """What a metric may know of the examples beside their logits."""

    label: Array  # i32[B]
    mask: Array  # f32[B]: 0 for padding
    given: Any = ()  # [B, ...]: their rows of fixed tables
    probs: Array | None = None  # f32[B, K]: what the network said, where that was probabilities; None = logits


class Metric(NamedTuple):
    """Masked sums of a batch, added over batches, and their value."""

    sums: Callable  # (logits f32[B, K], Seen) -> pytree of sums
    value: Callable  # (sums) -> {name: scalar}


def masked_sum(values: Array, seen: Seen) -> Array:
    """Sum over the examples that count: f32[...] from f32[B, ...]; what stands in a masked slot is ignored."""
    mask = seen.mask.reshape(seen.mask.shape + (1,) * (values.ndim - 1)) > 0
    return jnp.sum(jnp.where(mask, values, 0), axis=0, dtype=jnp.promote_types(values.dtype, jnp.float32))


def count(seen: Seen) -> Array:
    """Number of examples that count, f32[]: exact up to 2^24."""
    return jnp.sum(seen.mask > 0, dtype=jnp.float32)


def probs_of(logits: Array, seen: Seen) -> Array:
    """The probabilities f[B, K]: those that the network said itself, which no rounding may move, or the softmax."""
    return jax.nn.softmax(logits) if seen.probs is None else seen.probs


def bin_number(probs: Array, bins: int = BINS) -> Array:
    """The bin i32[...] of probabilities f[...]: equal width, (lo, hi], edges in the probabilities' own precision.

    By a multiplication, which rounding may put one bin off; the edges themselves decide.
    """
    edges = jnp.asarray(np.linspace(0, 1, bins + 1), probs.dtype)
    place = jnp.clip(jnp.ceil(probs * bins).astype(jnp.int32) - 1, 0, bins - 1)
    above = (probs > edges[place + 1]) & (place < bins - 1)
    below = (probs <= edges[place]) & (place > 0)
    return place + above.astype(jnp.int32) - below.astype(jnp.int32)


@lru_cache(None)
def shown() -> dict[str, Shown]:
    """How every figure of this folder is shown, in order of groups and of positions within them."""
    folder = Path(__file__).parent
    modules = [importlib.import_module(f"ldl_jax.metrics.{path.stem}") for path in sorted(folder.glob("*.py"))]
    figures = {name: how for module in modules for name, how in getattr(module, "SHOWN", {}).items()}
    return dict(sorted(figures.items(), key=lambda item: (GROUPS.index(item[1].group), item[1].position)))
