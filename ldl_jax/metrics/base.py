"""Metrics: each file of this folder measures the quality or the calibration of predictions.

There are two kinds. A streaming metric has `make(num_classes) -> Metric`: sums that can be added
over batches, devices and hosts, and the figures computed from them. A metric of stored predictions
has `of(stored) -> {name: value}` and sees all examples at once; it returns {} if an input that it
needs is missing. To add a metric:

1. Write a file with `make` or `of`, named after the metric.
2. In its SHOWN, describe how each figure is shown: one entry for each name it returns, except `n`.

Training, evaluation, tables and pages find the file by themselves; there is no registry.

Letters in shapes: B examples of a batch, N of a split, K classes.
"""

import importlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ldl_jax.contract import Array
from ldl_jax.errors import one_line, warn

BINS = 15  # number of bins (lo, hi] of equal width over [0, 1]; 0 is in the first
ELEMENTS = 2**20  # numbers in a chunk of predictions, 4 MB in float32
FLOOR = float(
    np.finfo(np.float32).tiny
)  # 1.2e-38, 87.3 nat: smaller probabilities are raised to it
# Largest allowed deviation of a row of probabilities from a sum of 1: that of half precision.
SUM_TOLERANCE = 1e-3

# Headings of figures, in the order in which they are shown.
GROUPS = (
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
    """How a figure is shown in tables, plots and pages: an entry of its metric's SHOWN."""

    label: str  # name of the figure, without the unit
    unit: str  # '%': a fraction, shown times 100; 'nat'; or '' for a plain number
    digits: int  # number of digits after the decimal point, as shown
    group: str  # heading: one of GROUPS
    position: float  # rank within the group
    better: str  # 'lower', 'higher', or '' if neither is better

    @property
    def factor(self) -> int:
        """The factor from the value to the number shown."""
        return 100 if self.unit == "%" else 1

    @property
    def title(self) -> str:
        """The label, with its unit if that is percent."""
        return f"{self.label} %" if self.unit == "%" else self.label


class Seen(NamedTuple):
    """The inputs of a streaming metric besides the logits."""

    label: Array  # i32[B]
    mask: Array  # f32[B]: 0 for padding
    given: Any = ()  # [B, ...]: the examples' rows of fixed tables, by name
    # f32[B, K]: the network's own probabilities, if it gave these instead of logits.
    probs: Array | None = None


class Metric(NamedTuple):
    """A streaming metric: masked sums of a batch, and the figures computed from their total."""

    sums: Callable  # (logits f32[B, K], Seen) -> pytree of sums
    value: Callable  # (sums) -> {name: scalar}


class Stored(NamedTuple):
    """The inputs of a metric of stored predictions; None if not given."""

    confidence: np.ndarray  # f64[N]: the largest probability
    correct: np.ndarray  # bool[N]
    classes: int  # K
    probs: np.ndarray | None = None  # f32[n, K]: of all examples, or of a sample of them
    label: np.ndarray | None = None  # i32[n]: of the examples of `probs`
    # f64[n, K]: true distributions of these examples, such as human votes.
    table: np.ndarray | None = None
    unknown: np.ndarray | None = None  # f64[M]: confidences of out-of-distribution examples


class Bins(NamedTuple):
    """Sums over the examples of each bin, f64[..., bins]; 0 for empty bins."""

    count: np.ndarray  # number of examples
    prob: np.ndarray  # sum of the probabilities
    hits: np.ndarray  # number of examples for which the predicted event occurred

    def gap(self) -> np.ndarray:
        """Mean probability minus the share of hits; 0 in an empty bin."""
        return (self.prob - self.hits) / np.maximum(self.count, 1)


def masked_sum(values: Array, seen: Seen) -> Array:
    """Sum over the examples that are not masked: f32[...] from f32[B, ...]."""
    mask = seen.mask.reshape(seen.mask.shape + (1,) * (values.ndim - 1)) > 0
    dtype = jnp.promote_types(values.dtype, jnp.float32)
    # Select, do not multiply: a masked slot may hold a NaN.
    return jnp.sum(jnp.where(mask, values, 0), axis=0, dtype=dtype)


def count(seen: Seen) -> Array:
    """Number of examples that are not masked, f32[]: exact up to 2^24."""
    return jnp.sum(seen.mask > 0, dtype=jnp.float32)


def probs_of(logits: Array, seen: Seen) -> Array:
    """Probabilities f[B, K]: the network's own, which must not be rounded, or else the softmax."""
    return jax.nn.softmax(logits) if seen.probs is None else seen.probs


def bin_number(probs: Array) -> Array:
    """Bin numbers i32[...] of probabilities f[...]: BINS bins (lo, hi] of equal width.

    Edges are rounded to the probabilities' own precision.
    """
    edges = jnp.asarray(np.linspace(0, 1, BINS + 1), probs.dtype)
    # A multiplication is faster than a search, but rounding may put it one bin off: correct that
    # by comparing with the edges.
    number = jnp.clip(jnp.ceil(probs * BINS).astype(jnp.int32) - 1, 0, BINS - 1)
    above = (probs > edges[number + 1]) & (number < BINS - 1)
    below = (probs <= edges[number]) & (number > 0)
    return number + above.astype(jnp.int32) - below.astype(jnp.int32)


def checked(confidence, correct) -> tuple[np.ndarray, np.ndarray]:
    """Confidences f[N] and bool[N]. Raises ValueError for wrong shapes or values outside [0, 1]."""
    confidence = np.asarray(confidence)
    correct = np.asarray(correct)
    if confidence.ndim != 1 or confidence.shape != correct.shape or not confidence.size:
        raise ValueError(
            "confidence and correct must both have shape [N] with N at least 1, got "
            f"{list(confidence.shape)} and {list(correct.shape)}"
        )
    # Comparisons with NaN are False, so a NaN is refused too.
    valid = (confidence >= 0) & (confidence <= 1)
    if not valid.all():
        raise ValueError(f"confidence must be between 0 and 1, got {confidence[~valid][0]:g}")
    return confidence, correct.astype(bool)


def edges(values: np.ndarray) -> np.ndarray:
    """Upper edges f64[at most BINS - 1] of bins (lo, hi] with equally many of the values f[N].

    Sorted values are split into parts whose sizes differ by at most one, the larger parts first. An
    edge lies midway between two parts. Equal values are in the same bin, regardless of the order of
    the examples, so ties make bins unequal.
    """
    ordered = np.sort(values)
    parts = np.array_split(ordered, min(BINS, len(ordered)))
    first = np.cumsum([len(part) for part in parts])[:-1]
    return np.unique((ordered[first - 1].astype(np.float64) + ordered[first]) / 2)


def equal_mass(prob: np.ndarray, hits: np.ndarray) -> Bins:
    """Sums over BINS bins of equal mass, of probabilities f[N] and outcomes bool[N].

    If values are tied or few, the last bins stay empty.
    """
    member = np.searchsorted(edges(prob), prob)

    def total(weights):
        return np.bincount(member, weights, BINS).astype(np.float64)

    return Bins(count=total(None), prob=total(prob), hits=total(hits))


def debiased(bins: Bins) -> np.ndarray:
    """Debiased squared L2 calibration error, f64[...]; it may be negative.

    The mean over examples of gap^2 - h (1 - h) / (n - 1) of their bin, with h the share of hits
    among the bin's n examples: the second term is an unbiased estimate of what noise adds to the
    first (Kumar, Liang and Ma 2019, section 4.2). Bins with one example, which have no such
    estimate, are left out; NaN if no bin has two.
    """
    share = bins.hits / np.maximum(bins.count, 1)
    error = bins.gap() ** 2 - share * (1 - share) / np.maximum(bins.count - 1, 1)
    used = np.where(bins.count > 1, bins.count, 0)
    total = used.sum(-1)
    return np.where(total > 0, (used * error).sum(-1) / np.maximum(total, 1), np.nan)


@lru_cache(None)
def modules() -> dict[str, ModuleType]:
    """The modules of this folder by name; one that cannot be imported is left out with a warning.

    All runs use all metrics, so a broken one must not stop those of everybody else.
    """
    loaded = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        try:
            loaded[path.stem] = importlib.import_module(f"ldl_jax.metrics.{path.stem}")
        except Exception as error:  # a broken file may raise anything
            warn(
                f"ldl_jax/metrics/{path.name} cannot be imported ({one_line(error, 300)}); left out"
            )
    return loaded


@lru_cache(None)
def shown() -> dict[str, Shown]:
    """The SHOWN of all metrics, in order of groups and of positions within them."""
    figures = {}
    for module in modules().values():
        figures |= getattr(module, "SHOWN", {})

    def order(item: tuple[str, Shown]) -> tuple[int, float]:
        return GROUPS.index(item[1].group), item[1].position

    return dict(sorted(figures.items(), key=order))


def checked_figures(name: str, figures) -> dict[str, float]:
    """The figures of a metric of the user's own. Raises ValueError if they are no {name: number}, or
    have the name of a figure of this folder.
    """
    if not isinstance(figures, dict) or not all(isinstance(key, str) for key in figures):
        raise ValueError(
            f"{name}: a metric must return {{name: number}}, got {type(figures).__name__}"
        )
    taken = sorted(set(figures) & set(shown()))
    if taken:
        raise ValueError(f"{name}: the figure {taken[0]!r} must have a name of its own")
    return figures
