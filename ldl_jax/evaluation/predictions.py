"""Predictions of any framework: read and checked, handed on in chunks, and reduced to one number an example.

A matrix of scores is never in memory as a whole where its file can be mapped, which an .npy and an uncompressed .npz
can: chunk by chunk it is copied, and its pages are let go.
"""

import mmap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ldl_jax import files
from ldl_jax.evaluation import prediction_files
from ldl_jax.evaluation.prediction_files import LOGITS, PROBABILITIES
from ldl_jax.metrics.base import Metric, Seen

SUM_TOLERANCE = 1e-3  # a row of probabilities may be off 1 by so much, as half precision leaves it
FLOOR = float(np.finfo(np.float32).tiny)  # 1.2e-38: a probability below it counts as it, 87.3 nat
ELEMENTS = 2**20  # of a chunk, 4 MB in float32

Transform = Callable[[np.ndarray], jax.Array]  # logits f32[B, K] -> log-probabilities f[B, K]


class Predictions(NamedTuple):
    """What a network said of N examples, checked."""

    name: str  # of the file, without its ending
    values: np.ndarray  # f[N, K]: logits or probabilities, mapped where the file allows
    label: np.ndarray | None  # i32[N]; None where they were not asked for
    kind: str  # 'logits' or 'probabilities'
    index: np.ndarray | None = None  # i64[N]: the examples' positions in their data set, where the file has them
    notes: tuple[str, ...] = ()  # sentences on how the file was understood
    classes: tuple[str, ...] | None = None  # their names, where they are known


class Reduced(NamedTuple):
    """One number an example."""

    confidence: np.ndarray  # f64[N]: the largest probability
    correct: np.ndarray  # bool[N]
    predicted: np.ndarray  # i32[N]: the lowest class of the largest probability
    label: np.ndarray  # i32[N]
    nll: np.ndarray  # f64[N], in nat
    brier: np.ndarray  # f64[N], in [0, 2]
    entropy: np.ndarray  # f64[N] of the probabilities, in nat


def read(path, *, labels=None, kind: str | None = None, labelled: bool = True) -> Predictions:
    """Predictions of an .npz, .npy or .csv file (see `prediction_files` for where the labels are).

    Scores are probabilities where an .npz names them so, or, without a name, where all are in [0, 1] and each row sums
    to 1 within SUM_TOLERANCE; logits otherwise. `kind` decides instead. Rows in [0, 1] without a name that do not sum
    to 1 are refused, since neither reading is safe. `labelled`: False reads no labels. Raises ValueError naming the
    file, what was found and what is allowed.
    """
    path = Path(path)
    found = prediction_files.read(path, labels=labels, kind=kind, labelled=labelled)
    values = found.scores
    if values.ndim != 2 or values.dtype.kind != "f" or values.shape[0] < 1 or values.shape[1] < 2:
        raise ValueError(
            f"{path}: its scores are {values.dtype}{list(values.shape)}; allowed are floating-point numbers [N, K] of "
            "at least one example and two classes"
        )
    kind, note = _kind(path, values, found.field, kind)
    label = _checked_label(labels or path, found.label, *values.shape) if labelled else None
    index = _checked_index(path, found.index, len(values))
    return Predictions(path.stem, values, label, kind, index, (note,), found.classes)


class Logits:
    """The logits of predictions in chunks, from the beginning as often as asked: what a calibrator is fitted on."""

    def __init__(self, predictions: Predictions):
        self.predictions = predictions

    def __iter__(self) -> Iterator[np.ndarray]:
        """Chunks f[B, K], the last one shorter."""
        for _, part in _parts(self.predictions.values):
            yield np.asarray(as_logits(part, self.predictions.kind))


def _kind(path, values, field: str, forced: str | None) -> tuple[str, str]:
    """'logits' or 'probabilities', and the sentence that says why; every value is looked at."""
    lowest, highest, row, total = _examined(path, values)
    within = _in_range(lowest, highest)
    fits = within and abs(total - 1) <= SUM_TOLERANCE
    named = "probabilities" if field in PROBABILITIES else "logits" if field in LOGITS else None
    wanted = forced or named
    if wanted == "probabilities" and not within:
        raise ValueError(
            f"{path}: its probabilities are from {lowest:g} to {highest:g}; allowed are 0 to 1 (--kind=logits reads "
            "them as logits)"
        )
    if wanted != "logits" and within and not fits:
        raise ValueError(
            f"{path}: its scores are from 0 to 1, but row {row} sums to {total:.6g}; allowed for probabilities is 1 "
            f"within {SUM_TOLERANCE:g} (--kind=logits reads them as logits)"
        )
    if wanted:
        doubt = ", though each row is a distribution" if fits and wanted == "logits" else ""
        return wanted, f"{wanted} by {'--kind' if forced else f'the name {field}'}{doubt}"
    if fits:
        return "probabilities", f"probabilities, since all are in [0, 1] and rows sum to 1 within {SUM_TOLERANCE:g}"
    return "logits", f"logits, since not all are in [0, 1] (from {lowest:.4g} to {highest:.4g})"


def _in_range(lowest, highest) -> bool:
    """Whether scores may be probabilities, for which a rounding above 1 or below 0 is none."""
    return bool(lowest >= -SUM_TOLERANCE and highest <= 1 + SUM_TOLERANCE)


def _examined(path, values) -> tuple[float, float, int, float]:
    """The extremes of the scores, and of those in [0, 1] the row whose sum is farthest from 1, with that sum."""
    lowest, highest, row, total = np.inf, -np.inf, 0, 1.0
    for begin, part in _parts(values):
        low, high = float(part.min()), float(part.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            first = int(np.argmin(np.isfinite(part).all(1)))
            bad = values[begin + first][~np.isfinite(part[first])][0]
            raise ValueError(f"{path}: row {begin + first} holds {bad}; allowed are finite {part.dtype} numbers")
        lowest, highest = min(lowest, low), max(highest, high)
        if _in_range(lowest, highest):
            sums = part.sum(1, dtype=np.float64)
            place = int(np.argmax(abs(sums - 1)))
            if abs(sums[place] - 1) > abs(total - 1):
                row, total = begin + place, float(sums[place])
    return lowest, highest, row, total


def _checked_label(path, label, count: int, classes: int) -> np.ndarray:
    label = np.asarray(label)
    if label.ndim != 1 or label.dtype.kind not in "iuf":
        raise ValueError(
            f"{path}: its labels are {label.dtype}{list(label.shape)}; allowed are class numbers [{count}]"
        )
    if len(label) != count:
        raise ValueError(f"{path}: has {len(label):,} labels for {count:,} rows of scores; allowed is one for each")
    wrong = ~((label >= 0) & (label < classes) & (label % 1 == 0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"{path}: the label of row {row} is {label[row]:g}; allowed are 0 to {classes - 1}")
    return label.astype(np.int32)


def _checked_index(path, index, count: int) -> np.ndarray | None:
    if index is None:
        return None
    if index.shape != (count,) or index.dtype.kind not in "iu" or index.min() < 0:
        raise ValueError(f"{path}: its index is {index.dtype}{list(index.shape)}; allowed are positions [{count}]")
    return np.asarray(index, np.int64)


def _parts(values, rows: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """(place of the first, the next rows) of a matrix, in float32 or wider as jax computes; of a mapped file a copy."""
    file = files.mapped_file(values)
    rows = rows or max(1, ELEMENTS // values.shape[1])
    dtype = jax.dtypes.canonicalize_dtype(np.promote_types(values.dtype, np.float32))
    for begin in range(0, len(values), rows):
        with np.errstate(over="ignore"):
            part = np.array(values[begin : begin + rows], dtype, order="C", copy=None if file is None else True)
        if file is not None and hasattr(mmap, "MADV_DONTNEED"):  # its pages may leave memory
            file.madvise(mmap.MADV_DONTNEED)
        yield begin, part


def chunks(predictions: Predictions, rows: int | None = None) -> Iterator[tuple[np.ndarray, Seen]]:
    """Scores f[rows, K] with their labels, in order; the last chunk is padded with zeros, which the mask leaves out.

    rows: at most all examples; ELEMENTS decide unless given. Labels that were not read are 0.
    """
    count, classes = predictions.values.shape
    rows = min(count, rows or max(1, ELEMENTS // classes))
    label = np.zeros(count, np.int32) if predictions.label is None else predictions.label
    for begin, part in _parts(predictions.values, rows):
        used, padding = len(part), rows - len(part)
        mask = (np.arange(rows) < used).astype(np.float32)
        part = np.pad(part, ((0, padding), (0, 0))) if padding else part
        yield part, Seen(np.pad(label[begin : begin + used], (0, padding)), mask)


def picked(predictions: Predictions, places: np.ndarray) -> Predictions:
    """The predictions at rising places i64[n], in memory; single rows of a mapped file would map all around them."""
    parts = (
        part[places[(places >= begin) & (places < begin + len(part))] - begin]
        for begin, part in _parts(predictions.values)
    )
    return predictions._replace(values=np.concatenate(list(parts)), label=predictions.label[places], index=None)


def as_logits(values, kind: str):
    """Logits of scores: probabilities by their logarithm, of which the softmax is again the probabilities."""
    return values if kind == "logits" else jnp.log(jnp.maximum(values, FLOOR))


def _said(predictions, transform, rows) -> Iterator[tuple[jax.Array, str, Seen]]:
    """Chunks with their kind, after `transform`, which makes them log-probabilities."""
    for values, seen in chunks(predictions, rows):
        if transform is None:
            yield values, predictions.kind, seen
        else:
            yield transform(as_logits(values, predictions.kind)), "logits", seen


@partial(jax.jit, static_argnames="kind")
def _columns(values, label, kind):
    own = jnp.take_along_axis(values, label[:, None], axis=-1)[:, 0]
    highest = jnp.max(values, -1)
    numbers = jnp.arange(values.shape[-1], dtype=jnp.int32)
    predicted = jnp.min(jnp.where(values == highest[:, None], numbers, values.shape[-1]), -1)  # faster than argmax
    if kind == "logits":
        below = values - highest[:, None]
        # The exponentials are made once, not once for each of their sums, and a product with ones is the fastest sum.
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
        "confidence": confidence, "correct": predicted == label, "predicted": predicted, "label": label, "nll": nll,
        "brier": jnp.maximum(squares - 2 * own + 1, 0), "entropy": jnp.maximum(entropy, 0),
    }  # fmt: skip


def _row_sum(values):
    return jnp.matmul(values, jnp.ones(values.shape[-1], values.dtype), precision="highest")


def reduce(predictions: Predictions, transform: Transform | None = None, *, rows: int | None = None) -> Reduced:
    """One number an example, in chunks of `rows`; `transform` is applied to the logits first.

    Probabilities are taken as they are, so that none moves across the edge of a bin; in float32, or float64 where jax
    computes in it. Without labels every example counts as of class 0.
    """
    parts = []
    for values, kind, seen in _said(predictions, transform, rows):
        used = int(seen.mask.sum())
        parts.append({name: x[:used] for name, x in jax.device_get(_columns(values, seen.label, kind)).items()})
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    wide = {name: x.astype(np.float64) if x.dtype.kind == "f" else x for name, x in whole.items()}
    return Reduced(**wide | {name: whole[name].astype(np.int32) for name in ("predicted", "label")})


def _filled(values, first: int, count: int) -> np.ndarray:
    """`count` rows from `first` on, those behind the end zero."""
    part = values[first : first + count]
    return np.pad(part, ((0, count - len(part)), *((0, 0),) * (values.ndim - 1)))


def probabilities(predictions: Predictions, transform: Transform | None = None, *, places=None) -> np.ndarray:
    """The probabilities of all examples, or of those at rising places i64[n], in memory at once: f32[n, K]."""
    count, classes = predictions.values.shape
    places = np.arange(count) if places is None else places
    whole, first = np.empty((len(places), classes), np.float32), 0
    for values, kind, _ in _said(predictions, transform, None):
        begin, end = np.searchsorted(places, (first, first + len(values)))
        probs = np.asarray(jax.nn.softmax(values) if kind == "logits" else jnp.clip(values, 0, 1))
        whole[begin:end] = probs[places[begin:end] - first]
        first += len(values)
    return whole


@partial(jax.jit, static_argnames=("metrics", "kind"))
def _sums(values, seen, metrics, kind):
    if kind == "probabilities":
        seen = seen._replace(probs=jnp.clip(values, 0, 1))
    return {name: metric.sums(as_logits(values, kind), seen) for name, metric in metrics}


def streamed(
    predictions: Predictions, metrics: dict[str, Metric], transform: Transform | None = None, *,
    given: dict[str, np.ndarray] | None = None, rows: int | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """The values of streaming metrics, their sums added up over chunks of `rows` in float64.

    Bins and ranks are of the probabilities as they are, as in `reduce`.
    given: what they may know of the examples beside the labels, [N, ...] each, such as 'table'.
    """
    total, first = None, 0
    for values, kind, seen in _said(predictions, transform, rows):
        seen = seen._replace(given={name: _filled(x, first, len(values)) for name, x in (given or {}).items()})
        first += len(values)
        part = jax.device_get(_sums(values, seen, tuple(metrics.items()), kind))
        part = jax.tree.map(lambda x: np.asarray(x, np.float64), part)
        total = part if total is None else jax.tree.map(np.add, total, part)
    found = {}
    for name, metric in metrics.items():
        found |= jax.device_get(metric.value(total[name]))
    return found
