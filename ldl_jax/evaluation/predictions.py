"""Predictions of any framework: read and checked, and handed on in chunks.

A matrix of scores is never in memory as a whole where its file can be mapped, which an .npy and an
uncompressed .npz can: chunk by chunk it is copied, and its pages are let go.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ldl_jax import files
from ldl_jax.evaluation import prediction_files
from ldl_jax.evaluation.prediction_files import LOGITS, PROBABILITIES
from ldl_jax.metrics.base import ELEMENTS, FLOOR, SUM_TOLERANCE, Seen


class Predictions(NamedTuple):
    """What a network said of N examples, checked."""

    name: str  # of the file, without its ending
    values: np.ndarray  # f[N, K]: logits or probabilities, mapped where the file allows
    label: np.ndarray | None  # i32[N]; None where they were not asked for
    kind: str  # 'logits' or 'probabilities'
    # i64[N]: the examples' positions in their data set, where the file has them
    index: np.ndarray | None = None
    notes: tuple[str, ...] = ()  # sentences on how the file was understood
    classes: tuple[str, ...] | None = None  # their names, where they are known


def read(path, *, labels=None, kind: str | None = None, labelled: bool = True) -> Predictions:
    """Predictions of an .npz, .npy or .csv file (see `prediction_files` for where the labels are).

    Scores are probabilities where an .npz names them so, or, without a name, where all are in [0,
    1] and each row sums to 1 within SUM_TOLERANCE; logits otherwise. `kind` decides instead. Rows
    in [0, 1] without a name that do not sum to 1 are refused, since neither reading is safe.
    `labelled`: False reads no labels. Raises ValueError naming the file, what was found and what is
    allowed.
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


def same(one: Predictions, other: Predictions) -> bool:
    """Whether two hold the same numbers and labels, however they are stored."""
    if one.values.shape != other.values.shape or not np.array_equal(one.label, other.label):
        return False
    rows = max(1, ELEMENTS // one.values.shape[1])
    return all(
        np.array_equal(one.values[first : first + rows], other.values[first : first + rows])
        for first in range(0, len(one.values), rows)
    )


class Logits:
    """The logits of predictions in chunks, from the beginning as often as asked: what a calibrator
    is fitted on.
    """

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
        return (
            "probabilities",
            f"probabilities, since all are in [0, 1] and rows sum to 1 within {SUM_TOLERANCE:g}",
        )
    return "logits", f"logits, since not all are in [0, 1] (from {lowest:.4g} to {highest:.4g})"


def _in_range(lowest, highest) -> bool:
    """Whether scores may be probabilities, for which a rounding above 1 or below 0 is none."""
    return bool(lowest >= -SUM_TOLERANCE and highest <= 1 + SUM_TOLERANCE)


def _examined(path, values) -> tuple[float, float, int, float]:
    """The extremes of the scores, and of those in [0, 1] the row whose sum is farthest from 1, with
    that sum.
    """
    lowest, highest, row, total = np.inf, -np.inf, 0, 1.0
    for begin, part in _parts(values):
        low, high = float(part.min()), float(part.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            first = int(np.argmin(np.isfinite(part).all(1)))
            bad = values[begin + first][~np.isfinite(part[first])][0]
            raise ValueError(
                f"{path}: row {begin + first} holds {bad}; allowed are finite {part.dtype} numbers"
            )
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
        raise ValueError(
            f"{path}: has {len(label):,} labels for {count:,} rows of scores; allowed is one for each"
        )
    wrong = ~((label >= 0) & (label < classes) & (label % 1 == 0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{path}: the label of row {row} is {label[row]:g}; allowed are 0 to {classes - 1}"
        )
    return label.astype(np.int32)


def _checked_index(path, index, count: int) -> np.ndarray | None:
    if index is None:
        return None
    if index.shape != (count,) or index.dtype.kind not in "iu" or index.min() < 0:
        raise ValueError(
            f"{path}: its index is {index.dtype}{list(index.shape)}; allowed are positions [{count}]"
        )
    return np.asarray(index, np.int64)


def computed_in(values) -> np.dtype:
    """float32, or a wider type where jax computes in it."""
    return jax.dtypes.canonicalize_dtype(np.promote_types(values.dtype, np.float32))


def _parts(values, rows: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """(place of the first, the next rows) of a matrix, in float32 or wider as jax computes; of a
    mapped file a copy.
    """
    file = files.mapped_file(values)
    rows = rows or chunk_rows(values)
    dtype = computed_in(values)
    for begin in range(0, len(values), rows):
        with np.errstate(over="ignore"):
            part = np.array(
                values[begin : begin + rows], dtype, order="C", copy=None if file is None else True
            )
        if file is not None and hasattr(mmap, "MADV_DONTNEED"):  # its pages may leave memory
            file.madvise(mmap.MADV_DONTNEED)
        yield begin, part


def chunk_rows(values) -> int:
    """Rows of a chunk of a matrix: at most all."""
    return min(len(values), max(1, ELEMENTS // values.shape[1]))


def chunks(predictions: Predictions, rows: int | None = None) -> Iterator[tuple[np.ndarray, Seen]]:
    """Scores f[rows, K] with their labels, in order; the last chunk is padded with zeros, which the
    mask leaves out.

    rows: at most all examples; ELEMENTS decide unless given. Labels that were not read are 0.
    """
    count = len(predictions.values)
    rows = min(count, rows or chunk_rows(predictions.values))
    label = np.zeros(count, np.int32) if predictions.label is None else predictions.label
    for begin, part in _parts(predictions.values, rows):
        used, padding = len(part), rows - len(part)
        mask = (np.arange(rows) < used).astype(np.float32)
        part = np.pad(part, ((0, padding), (0, 0))) if padding else part
        yield part, Seen(np.pad(label[begin : begin + used], (0, padding)), mask)


def as_logits(values, kind: str):
    """Logits of scores: probabilities by their logarithm, of which the softmax is again the
    probabilities.
    """
    return values if kind == "logits" else jnp.log(jnp.maximum(values, FLOOR))
