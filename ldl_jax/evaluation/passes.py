"""Single passes over a matrix of scores: per-example numbers, streaming metrics, probabilities.

A pass hands each chunk to several collectors, so that a large file is read only once.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ldl_jax.evaluation.predictions import Predictions, as_logits, chunk_rows, chunks, computed_in
from ldl_jax.metrics.base import Metric, Seen

Transform = Callable[[np.ndarray], jax.Array]  # logits f32[B, K] -> log-probabilities f[B, K]


class Reduced(NamedTuple):
    """Per-example numbers."""

    confidence: np.ndarray  # f64[N]: the largest probability
    correct: np.ndarray  # bool[N]
    predicted: np.ndarray  # i32[N]: the class of the largest probability; the lowest if tied
    label: np.ndarray  # i32[N]
    nll: np.ndarray  # f64[N], in nat
    brier: np.ndarray  # f64[N], in [0, 2]
    entropy: np.ndarray  # f64[N] of the probabilities, in nat


class _Chunk(NamedTuple):
    """Consecutive rows of the scores, padded at the end of the matrix."""

    first: int  # position of the first row
    stored: np.ndarray  # f[rows, K]: the scores as stored
    values: jax.Array  # f[rows, K]: the scores after the transform
    kind: str  # kind of `values`: 'logits' or 'probabilities'
    seen: Seen


def _chunks(predictions, transform, rows) -> Iterator[_Chunk]:
    """Chunks in order. After a transform, which gives log-probabilities, they are logits."""
    first = 0
    for stored, seen in chunks(predictions, rows):
        if transform is None:
            yield _Chunk(first, stored, stored, predictions.kind, seen)
        else:
            values = transform(as_logits(stored, predictions.kind))
            yield _Chunk(first, stored, values, "logits", seen)
        first += len(stored)


def _pass(predictions, transform, collectors, rows=None) -> list:
    """Results of the collectors; the matrix is read once."""
    for chunk in _chunks(predictions, transform, rows):
        for collector in collectors:
            collector.add(chunk)
    return [collector.result() for collector in collectors]


class _Columns:
    """Collects the per-example numbers of `Reduced`."""

    def __init__(self):
        self.parts = []

    def add(self, chunk: _Chunk) -> None:
        used = int(chunk.seen.mask.sum())
        columns = jax.device_get(_columns(chunk.values, chunk.seen.label, chunk.kind))
        self.parts.append({name: column[:used] for name, column in columns.items()})

    def result(self) -> Reduced:
        columns = {}
        for name in self.parts[0]:
            column = np.concatenate([part[name] for part in self.parts])
            # float64 for the sums to come, whatever precision the device computed in.
            if column.dtype.kind == "f":
                column = column.astype(np.float64)
            elif name in ("predicted", "label"):
                column = column.astype(np.int32)
            columns[name] = column
        return Reduced(**columns)


class _Sums:
    """Collects the values of streaming metrics; sums are added up in float64."""

    def __init__(self, metrics: dict[str, Metric], given: dict[str, np.ndarray] | None):
        self.metrics = metrics
        self.given = given or {}
        self.total = None

    def add(self, chunk: _Chunk) -> None:
        count = len(chunk.values)
        rows = {name: _filled(x, chunk.first, count) for name, x in self.given.items()}
        seen = chunk.seen._replace(given=rows)
        sums = jax.device_get(_sums(chunk.values, seen, tuple(self.metrics.items()), chunk.kind))
        sums = jax.tree.map(lambda x: np.asarray(x, np.float64), sums)
        self.total = sums if self.total is None else jax.tree.map(np.add, self.total, sums)

    def result(self) -> dict[str, np.ndarray]:
        values = {}
        for name, metric in self.metrics.items():
            values |= jax.device_get(metric.value(self.total[name]))
        return values


class _Probabilities:
    """Collects the probabilities f32[n, K] of examples at increasing positions i64[n] (None: all)."""

    def __init__(self, predictions: Predictions, index: np.ndarray | None):
        count, classes = predictions.values.shape
        self.index = np.arange(count) if index is None else index
        self.whole = np.empty((len(self.index), classes), np.float32)

    def add(self, chunk: _Chunk) -> None:
        begin, end = np.searchsorted(self.index, (chunk.first, chunk.first + len(chunk.stored)))
        values = chunk.values
        probs = jax.nn.softmax(values) if chunk.kind == "logits" else jnp.clip(values, 0, 1)
        self.whole[begin:end] = np.asarray(probs)[self.index[begin:end] - chunk.first]

    def result(self) -> np.ndarray:
        return self.whole


class _Swept:
    """Collects `Reduced` of a subset of the examples for each of several transforms.

    Rows are gathered until they fill a chunk, so that only one chunk is in memory.
    """

    def __init__(self, predictions: Predictions, index: np.ndarray, transforms: list[Transform]):
        self.kind = predictions.kind
        self.index = index
        self.transforms = transforms
        self.columns = [_Columns() for _ in transforms]
        rows = chunk_rows(predictions.values[: len(index)])
        self.stored = np.zeros((rows, predictions.values.shape[1]), computed_in(predictions.values))
        self.label = np.zeros(rows, np.int32)
        self.filled = 0

    def add(self, chunk: _Chunk) -> None:
        begin, end = np.searchsorted(self.index, (chunk.first, chunk.first + len(chunk.stored)))
        rows = self.index[begin:end] - chunk.first
        # Rows may fill the gathered chunk in the middle: reduce it, then go on with the rest.
        while len(rows):
            taken, rows = np.split(rows, [len(self.label) - self.filled])
            target = slice(self.filled, self.filled + len(taken))
            self.stored[target] = chunk.stored[taken]
            self.label[target] = chunk.seen.label[taken]
            self.filled += len(taken)
            if self.filled == len(self.label):
                self._flush()

    def _flush(self) -> None:
        """Reduce the gathered rows; the rest of the chunk is padding, which the mask leaves out."""
        self.stored[self.filled :] = 0
        self.label[self.filled :] = 0
        mask = (np.arange(len(self.label)) < self.filled).astype(np.float32)
        logits = as_logits(self.stored, self.kind)
        seen = Seen(self.label, mask)
        for transform, columns in zip(self.transforms, self.columns, strict=True):
            columns.add(_Chunk(0, self.stored, transform(logits), "logits", seen))
        self.filled = 0

    def result(self) -> list[Reduced]:
        if self.filled:
            self._flush()
        return [columns.result() for columns in self.columns]


class Pass(NamedTuple):
    """Results of one pass over the scores."""

    reduced: Reduced
    values: dict[str, np.ndarray]  # values of the streaming metrics
    probs: np.ndarray | None  # f32[n, K]; None if not requested
    swept: list[Reduced]  # of a subset of the examples, one for each transform


def one_pass(
    predictions: Predictions,
    transform: Transform | None = None,
    *,
    metrics: dict[str, Metric],
    given: dict[str, np.ndarray] | None = None,
    probs: bool = True,
    index: np.ndarray | None = None,
    swept: tuple[np.ndarray, list[Transform]] | None = None,
) -> Pass:
    """Everything that figures are computed from, in one pass over the matrix.

    metrics, given: as in `streamed`. probs: whether to collect probabilities, of the examples at
    `index` i64[n] (increasing; None: all). swept: increasing positions i64[m] of examples, and the
    transforms to reduce these examples with, instead of `transform`.
    """
    collectors = {"reduced": _Columns()}
    if metrics:
        collectors["values"] = _Sums(metrics, given)
    if probs:
        collectors["probs"] = _Probabilities(predictions, index)
    if swept is not None:
        collectors["swept"] = _Swept(predictions, *swept)
    collected = _pass(predictions, transform, collectors.values())
    results = dict(zip(collectors, collected, strict=True))
    return Pass(
        results["reduced"],
        results.get("values", {}),
        results.get("probs"),
        results.get("swept", []),
    )


def reduce(
    predictions: Predictions, transform: Transform | None = None, *, rows: int | None = None
) -> Reduced:
    """Per-example numbers, in chunks of `rows`; `transform` is applied to the logits first.

    Stored probabilities are used directly, so that no rounding moves one across the edge of a bin,
    in float32 or, if jax computes in it, float64. Without labels every example counts as class 0.
    """
    (reduced,) = _pass(predictions, transform, [_Columns()], rows)
    return reduced


def streamed(
    predictions: Predictions,
    metrics: dict[str, Metric],
    transform: Transform | None = None,
    *,
    given: dict[str, np.ndarray] | None = None,
    rows: int | None = None,
) -> dict[str, np.ndarray]:
    """Values of streaming metrics, their sums added up over chunks of `rows` in float64.

    Bins and ranks use stored probabilities directly, as in `reduce`. given: further arrays [N, ...]
    of the examples, such as 'table'.
    """
    (values,) = _pass(predictions, transform, [_Sums(metrics, given)], rows)
    return values


@partial(jax.jit, static_argnames="kind")
def _columns(values, label, kind):
    """The fields of `Reduced` of a chunk of scores f[B, K]; `own` is the score of the label."""
    own = jnp.take_along_axis(values, label[:, None], axis=-1)[:, 0]
    highest = jnp.max(values, -1)
    numbers = jnp.arange(values.shape[-1], dtype=jnp.int32)
    # The lowest class of the largest score, as argmax gives it, but faster.
    predicted = jnp.min(jnp.where(values == highest[:, None], numbers, values.shape[-1]), -1)
    if kind == "logits":
        below = values - highest[:, None]
        # The barrier keeps XLA from computing the exponentials once for each of their sums.
        share = jax.lax.optimization_barrier(jnp.exp(below))
        size = _row_sum(share)
        confidence = 1 / size
        nll = jnp.log(size) - (own - highest)
        own = jnp.exp(own - highest) / size
        squares = _row_sum(share**2) / size**2
        entropy = jnp.log(size) - _row_sum(jnp.where(share > 0, share * below, 0)) / size
    else:
        probs = jnp.clip(values, 0, 1)
        own = jnp.clip(own, 0, 1)
        confidence = jnp.max(probs, -1)
        squares = _row_sum(probs**2)
        nll = -as_logits(own, kind)
        entropy = -_row_sum(probs * as_logits(probs, kind))
    return {
        "confidence": confidence,
        "correct": predicted == label,
        "predicted": predicted,
        "label": label,
        "nll": nll,
        "brier": jnp.maximum(squares - 2 * own + 1, 0),
        "entropy": jnp.maximum(entropy, 0),
    }


def _row_sum(values):
    """Sums of rows, as a product with ones: faster than a reduction."""
    return jnp.matmul(values, jnp.ones(values.shape[-1], values.dtype), precision="highest")


def _filled(values, first: int, count: int) -> np.ndarray:
    """`count` rows from `first` on, padded with zeros after the end."""
    part = values[first : first + count]
    return np.pad(part, ((0, count - len(part)), *((0, 0),) * (values.ndim - 1)))


@partial(jax.jit, static_argnames=("metrics", "kind"))
def _sums(values, seen, metrics, kind):
    if kind == "probabilities":
        seen = seen._replace(probs=jnp.clip(values, 0, 1))
    return {name: metric.sums(as_logits(values, kind), seen) for name, metric in metrics}
