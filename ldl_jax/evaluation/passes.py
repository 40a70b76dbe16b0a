"""One pass over a matrix of scores: a number an example, sums of streaming metrics, and
probabilities.

A pass hands each chunk to collectors in turn, so that a large file is read once for all that is
wanted of it.
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
    """One number an example."""

    confidence: np.ndarray  # f64[N]: the largest probability
    correct: np.ndarray  # bool[N]
    predicted: np.ndarray  # i32[N]: the lowest class of the largest probability
    label: np.ndarray  # i32[N]
    nll: np.ndarray  # f64[N], in nat
    brier: np.ndarray  # f64[N], in [0, 2]
    entropy: np.ndarray  # f64[N] of the probabilities, in nat


class _Chunk(NamedTuple):
    """Some rows of the scores, padded at the end of the matrix."""

    first: int  # position of the first row
    stored: np.ndarray  # f[rows, K]: the scores as they are stored
    values: jax.Array  # f[rows, K]: the same after the transform
    kind: str  # of `values`
    seen: Seen


def _chunks(predictions, transform, rows) -> Iterator[_Chunk]:
    """Chunks in order; a transform makes log-probabilities of the scores."""
    first = 0
    for stored_rows, seen in chunks(predictions, rows):
        if transform is None:
            yield _Chunk(first, stored_rows, stored_rows, predictions.kind, seen)
        else:
            yield _Chunk(
                first,
                stored_rows,
                transform(as_logits(stored_rows, predictions.kind)),
                "logits",
                seen,
            )
        first += len(stored_rows)


def _pass(predictions, transform, collectors, rows=None) -> list:
    """What each collector makes of the chunks; the matrix is read once."""
    for chunk in _chunks(predictions, transform, rows):
        for collector in collectors:
            collector.add(chunk)
    return [collector.result() for collector in collectors]


class _Columns:
    """One number an example: `Reduced`."""

    def __init__(self):
        self.parts = []

    def add(self, chunk: _Chunk) -> None:
        used = int(chunk.seen.mask.sum())
        columns = jax.device_get(_columns(chunk.values, chunk.seen.label, chunk.kind))
        self.parts.append({name: column[:used] for name, column in columns.items()})

    def result(self) -> Reduced:
        whole = {
            name: np.concatenate([part[name] for part in self.parts]) for name in self.parts[0]
        }
        wide = {
            name: x.astype(np.float64) if x.dtype.kind == "f" else x for name, x in whole.items()
        }
        return Reduced(
            **wide | {name: whole[name].astype(np.int32) for name in ("predicted", "label")}
        )


class _Sums:
    """The values of streaming metrics, whose sums are added up in float64."""

    def __init__(self, metrics: dict[str, Metric], given: dict[str, np.ndarray] | None):
        self.metrics = metrics
        self.given = given or {}
        self.total = None

    def add(self, chunk: _Chunk) -> None:
        rows = {name: _filled(x, chunk.first, len(chunk.values)) for name, x in self.given.items()}
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
    """The probabilities f32[n, K] of the examples at rising positions i64[n] (None: all)."""

    def __init__(self, predictions: Predictions, index: np.ndarray | None):
        count, classes = predictions.values.shape
        self.index = np.arange(count) if index is None else index
        self.whole = np.empty((len(self.index), classes), np.float32)

    def add(self, chunk: _Chunk) -> None:
        begin, end = np.searchsorted(self.index, (chunk.first, chunk.first + len(chunk.stored)))
        probs = (
            jax.nn.softmax(chunk.values) if chunk.kind == "logits" else jnp.clip(chunk.values, 0, 1)
        )
        self.whole[begin:end] = np.asarray(probs)[self.index[begin:end] - chunk.first]

    def result(self) -> np.ndarray:
        return self.whole


class _Swept:
    """The columns of some examples after each of several transforms, as `reduce` gives them.

    Rows are gathered until they fill a chunk, so that no more than one is in memory.
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
        some = self.index[begin:end] - chunk.first
        while len(some):
            taken, some = np.split(some, [len(self.label) - self.filled])
            place = slice(self.filled, self.filled + len(taken))
            self.stored[place] = chunk.stored[taken]
            self.label[place] = chunk.seen.label[taken]
            self.filled += len(taken)
            if self.filled == len(self.label):
                self._flush()

    def _flush(self) -> None:
        self.stored[self.filled :], self.label[self.filled :] = 0, 0
        mask = (np.arange(len(self.label)) < self.filled).astype(np.float32)
        logits, seen = as_logits(self.stored, self.kind), Seen(self.label, mask)
        for transform, columns in zip(self.transforms, self.columns, strict=True):
            columns.add(_Chunk(0, self.stored, transform(logits), "logits", seen))
        self.filled = 0

    def result(self) -> list[Reduced]:
        if self.filled:
            self._flush()
        return [columns.result() for columns in self.columns]


class Pass(NamedTuple):
    """What one pass over the scores gives."""

    reduced: Reduced
    values: dict[str, np.ndarray]  # of the streaming metrics
    probs: np.ndarray | None  # f32[n, K]; None where they were not asked for
    swept: list[Reduced]  # of some examples, one for each transform


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
    """All that figures are made from, of a matrix that is read once.

    metrics, given: as in `streamed`. probs: whether to gather probabilities, of the examples at
    `index` i64[n] (rising; None: all). swept: rising positions i64[m] of examples, and transforms
    to reduce these after, in place of `transform`.
    """
    collectors = {"reduced": _Columns()}
    if metrics:
        collectors["values"] = _Sums(metrics, given)
    if probs:
        collectors["probs"] = _Probabilities(predictions, index)
    if swept is not None:
        collectors["swept"] = _Swept(predictions, *swept)
    results = dict(zip(collectors, _pass(predictions, transform, collectors.values()), strict=True))
    return Pass(
        results["reduced"],
        results.get("values", {}),
        results.get("probs"),
        results.get("swept", []),
    )


def reduce(
    predictions: Predictions, transform: Transform | None = None, *, rows: int | None = None
) -> Reduced:
    """One number an example, in chunks of `rows`; `transform` is applied to the logits first.

    Probabilities are taken as they are, so that none moves across the edge of a bin; in float32, or
    float64 where jax computes in it. Without labels every example counts as of class 0.
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
    """The values of streaming metrics, their sums added up over chunks of `rows` in float64.

    Bins and ranks are of the probabilities as they are, as in `reduce`.
    given: what they may know of the examples beside the labels, [N, ...] each, such as 'table'.
    """
    (values,) = _pass(predictions, transform, [_Sums(metrics, given)], rows)
    return values


@partial(jax.jit, static_argnames="kind")
def _columns(values, label, kind):
    own = jnp.take_along_axis(values, label[:, None], axis=-1)[:, 0]
    highest = jnp.max(values, -1)
    numbers = jnp.arange(values.shape[-1], dtype=jnp.int32)
    # faster than argmax
    predicted = jnp.min(jnp.where(values == highest[:, None], numbers, values.shape[-1]), -1)
    if kind == "logits":
        below = values - highest[:, None]
        # The exponentials are made once, not once for each of their sums, and a product with ones
        # is the fastest sum.
        share = jax.lax.optimization_barrier(jnp.exp(below))
        size = _row_sum(share)
        confidence, nll = 1 / size, jnp.log(size) - (own - highest)
        own, squares = jnp.exp(own - highest) / size, _row_sum(share**2) / size**2
        entropy = jnp.log(size) - _row_sum(jnp.where(share > 0, share * below, 0)) / size
    else:
        probs = jnp.clip(values, 0, 1)
        own, confidence, squares = jnp.clip(own, 0, 1), jnp.max(probs, -1), _row_sum(probs**2)
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
    return jnp.matmul(values, jnp.ones(values.shape[-1], values.dtype), precision="highest")


def _filled(values, first: int, count: int) -> np.ndarray:
    """`count` rows from `first` on, those behind the end zero."""
    part = values[first : first + count]
    return np.pad(part, ((0, count - len(part)), *((0, 0),) * (values.ndim - 1)))


@partial(jax.jit, static_argnames=("metrics", "kind"))
def _sums(values, seen, metrics, kind):
    if kind == "probabilities":
        seen = seen._replace(probs=jnp.clip(values, 0, 1))
    return {name: metric.sums(as_logits(values, kind), seen) for name, metric in metrics}
