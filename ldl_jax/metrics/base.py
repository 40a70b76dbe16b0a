"""A metric: a file of this folder that measures how good, or how well calibrated, predictions are.

There are two kinds. A streamed one has `make(num_classes) -> Metric`: sums that add up over
batches, devices and hosts, and the figures they give. One of stored predictions has `of(stored) ->
{name: value}`, and may look at all examples at once; where what it needs is not given, it returns
{}. To add a metric:

1. Write a file with `make` or `of`, named by the metric.
2. Say in its SHOWN how each figure is shown: one entry for each name that it gives, `n` excepted.

Training, evaluation, tables and pages find it by its file; nothing else names it.

Letters in shapes: B examples of a batch, N of a split, K classes.
"""

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
ELEMENTS = 2**20  # numbers of a chunk of predictions, 4 MB in float32
FLOOR = float(np.finfo(np.float32).tiny)  # 1.2e-38: a probability below it counts as it, 87.3 nat
SUM_TOLERANCE = 1e-3  # a row of probabilities may be off 1 by so much, as half precision leaves it

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
    """How a figure is shown, wherever it is: SHOWN of the file that figures it has one for each of
    its names.
    """

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
    # f32[B, K]: what the network said, where that was probabilities; None = logits
    probs: Array | None = None


class Metric(NamedTuple):
    """Masked sums of a batch, added over batches, and their value."""

    sums: Callable  # (logits f32[B, K], Seen) -> pytree of sums
    value: Callable  # (sums) -> {name: scalar}


class Stored(NamedTuple):
    """What a metric may know of stored predictions. None stands for what was not given."""

    confidence: np.ndarray  # f64[N]: the largest probability
    correct: np.ndarray  # bool[N]
    classes: int  # K
    probs: np.ndarray | None = None  # f32[n, K], of all examples, or of a sample of them
    label: np.ndarray | None = None  # i32[n], of these examples
    # f64[n, K]: their true distributions, such as the votes of people
    table: np.ndarray | None = None
    unknown: np.ndarray | None = None  # f64[M]: the confidences of examples that are of no class


class Bins(NamedTuple):
    """Sums over the examples of each bin, f64[..., bins]; empty ones are 0."""

    count: np.ndarray
    prob: np.ndarray  # of the probabilities
    hits: np.ndarray  # of the examples that are what the probability is of

    def gap(self) -> np.ndarray:
        """Mean probability less the share of hits, 0 in an empty bin."""
        return (self.prob - self.hits) / np.maximum(self.count, 1)


def masked_sum(values: Array, seen: Seen) -> Array:
    """Sum over the examples that count: f32[...] from f32[B, ...]; what stands in a masked slot is
    ignored.
    """
    mask = seen.mask.reshape(seen.mask.shape + (1,) * (values.ndim - 1)) > 0
    return jnp.sum(
        jnp.where(mask, values, 0), axis=0, dtype=jnp.promote_types(values.dtype, jnp.float32)
    )


def count(seen: Seen) -> Array:
    """Number of examples that count, f32[]: exact up to 2^24."""
    return jnp.sum(seen.mask > 0, dtype=jnp.float32)


def probs_of(logits: Array, seen: Seen) -> Array:
    """The probabilities f[B, K]: those that the network said itself, which no rounding may move, or
    the softmax.
    """
    return jax.nn.softmax(logits) if seen.probs is None else seen.probs


def bin_number(probs: Array) -> Array:
    """The bin i32[...] of probabilities f[...]: equal width, (lo, hi], edges in the probabilities'
    own precision.

    By a multiplication, which rounding may put one bin off; the edges themselves decide.
    """
    edges = jnp.asarray(np.linspace(0, 1, BINS + 1), probs.dtype)
    place = jnp.clip(jnp.ceil(probs * BINS).astype(jnp.int32) - 1, 0, BINS - 1)
    above = (probs > edges[place + 1]) & (place < BINS - 1)
    below = (probs <= edges[place]) & (place > 0)
    return place + above.astype(jnp.int32) - below.astype(jnp.int32)


def checked(confidence, correct) -> tuple[np.ndarray, np.ndarray]:
    """Both as f[N] and bool[N]. Raises ValueError for other shapes, and for what is no probability."""
    confidence, correct = np.asarray(confidence), np.asarray(correct)
    if confidence.ndim != 1 or confidence.shape != correct.shape or not confidence.size:
        raise ValueError(
            f"confidence is {list(confidence.shape)} and correct {list(correct.shape)}; allowed are both [N], N from 1"
        )
    if not ((confidence >= 0) & (confidence <= 1)).all():  # a NaN is not
        raise ValueError("confidence holds a number outside 0 to 1; allowed are probabilities")
    return confidence, correct.astype(bool)


def edges(values: np.ndarray) -> np.ndarray:
    """Upper edges f64[at most BINS - 1] of bins (lo, hi] that hold as equally many values f[N] as
    ties allow.

    Sorted values are split into parts whose sizes differ by at most one, the larger first. An edge
    lies midway between two parts, so that equal values are in one bin, whatever the order of the
    examples.
    """
    ordered = np.sort(values)
    parts = np.array_split(ordered, min(BINS, len(ordered)))
    first = np.cumsum([len(part) for part in parts])[:-1]
    return np.unique((ordered[first - 1].astype(np.float64) + ordered[first]) / 2)


def equal_mass(prob: np.ndarray, hits: np.ndarray) -> Bins:
    """Sums over BINS bins of equal mass, of probabilities f[N] and of what they are of, bool[N].

    Where values are tied or few, the last bins stay empty.
    """
    member = np.searchsorted(edges(prob), prob)
    sums = [np.bincount(member, weights, BINS) for weights in (None, prob, hits)]
    return Bins(*(values.astype(np.float64) for values in sums))


def debiased(bins: Bins) -> np.ndarray:
    """Squared L2 calibration error without the bias of small bins, f64[...]; it may be negative.

    Sum over bins of their share times (gap^2 - h (1 - h) / (n - 1)), h the share of hits among the
    n examples: the second term is an unbiased estimate of how much noise adds to the first (Kumar,
    Liang and Ma 2019, section 4.2). Bins of one example, which have no such estimate, are left out;
    NaN where no bin has two.
    """
    share = bins.hits / np.maximum(bins.count, 1)
    error = bins.gap() ** 2 - share * (1 - share) / np.maximum(bins.count - 1, 1)
    used = np.where(bins.count > 1, bins.count, 0)
    total = used.sum(-1)
    return np.where(total > 0, (used * error).sum(-1) / np.maximum(total, 1), np.nan)


@lru_cache(None)
def shown() -> dict[str, Shown]:
    """How every figure of this folder is shown, in order of groups and of positions within them."""
    folder = Path(__file__).parent
    modules = [
        importlib.import_module(f"ldl_jax.metrics.{path.stem}")
        for path in sorted(folder.glob("*.py"))
    ]
    figures = {
        name: how for module in modules for name, how in getattr(module, "SHOWN", {}).items()
    }
    return dict(
        sorted(figures.items(), key=lambda item: (GROUPS.index(item[1].group), item[1].position))
    )
