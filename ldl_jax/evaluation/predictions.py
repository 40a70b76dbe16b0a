"""Predictions of any framework: reading, checking, and iterating over them in chunks.

If a file can be memory-mapped, as an .npy and an uncompressed .npz can, its matrix of scores is
never in memory as a whole: each chunk is copied and its pages are released.
"""

import mmap
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ldl_jax import distributions, files
from ldl_jax.evaluation import prediction_files
from ldl_jax.evaluation.csv_columns import Options
from ldl_jax.evaluation.prediction_files import LOGITS, PROBABILITIES
from ldl_jax.metrics.base import ELEMENTS, FLOOR, SUM_TOLERANCE, Seen


class Predictions(NamedTuple):
    """A network's predictions on N examples, checked."""

    name: str  # name of the file, without its suffix
    values: np.ndarray  # f[N, K]: logits or probabilities, memory-mapped if the file allows it
    label: np.ndarray | None  # i32[N]; None if not requested
    kind: str  # 'logits' or 'probabilities'
    # i64[N]: positions of the examples in their data set, if the file has them.
    index: np.ndarray | None = None
    notes: tuple[str, ...] = ()  # sentences on how the file was interpreted
    classes: tuple[str, ...] | None = None  # names of the classes, if known
    normalise: bool = False  # whether rows are divided by their sums: rounded, or percentages


def read(
    path,
    *,
    labels=None,
    kind: str | None = None,
    labelled: bool = True,
    classes: tuple[str, ...] | None = None,
    label_column: str | None = None,
) -> Predictions:
    """Predictions of an .npz, .npy or .csv file; `prediction_files` says where the labels are.

    Scores are probabilities if an .npz names them so, or, without a name, if all are in [0, 1] and
    each row sums to 1 (`distributions.rows`); otherwise they are logits. `kind` overrides this. Rows in
    [0, 1] without a name that do not sum to 1 raise an error, since both interpretations are
    doubtful. One column of numbers in [0, 1] is the probability of class 1 of two. labelled: False
    reads no labels. classes: the columns of a .csv that are classes, in this order, or the names of
    the classes of another file. label_column: the column or array of the labels. Raises ValueError
    naming the file.
    """
    path = files.home(path)
    options = Options(kind, classes, label_column)
    stored = prediction_files.read(path, labels=labels, labelled=labelled, options=options)
    values, notes = _two_classes(path, stored, kind)
    is_float = values.dtype.kind == "f" or values.dtype == jax.dtypes.bfloat16
    if values.ndim != 2 or not is_float or values.shape[0] < 1 or values.shape[1] < 2:
        hint = "; store them as float32 if they are scores" if values.dtype.kind in "iub" else ""
        raise ValueError(
            f"{path}: scores must be floating-point numbers [N, K] of at least one example and two "
            f"classes, got {values.dtype}{list(values.shape)}{hint}"
        )
    # One name cannot name two classes.
    names = None if stored.classes and len(stored.classes) == 1 else stored.classes
    if names is not None and len(names) != values.shape[1]:
        raise ValueError(
            f"{path}: --classes must name each of {values.shape[1]} classes, got {len(names)}"
        )
    kind, note, normalise = _kind(path, values, stored.field, kind)
    label = _checked_label(labels or path, stored.label, *values.shape) if labelled else None
    index = _checked_index(path, stored.index, len(values))
    notes = (note, *stored.notes, *notes)
    return Predictions(path.stem, values, label, kind, index, notes, names, normalise)


def _two_classes(path, stored: prediction_files.Stored, kind: str | None) -> tuple:
    """(scores, notes); those of one column become the probabilities of two classes.

    Raises ValueError if one column cannot be probabilities.
    """
    values = stored.scores
    single = values.ndim == 2 and values.shape[1] == 1
    flat = values.ndim == 1 and (stored.field in PROBABILITIES or kind == "probabilities")
    if not (single or flat) or not len(values) or values.dtype.kind != "f":
        return values, ()
    column = np.asarray(values, computed_in(values)).reshape(-1)
    if kind == "logits" or stored.field in LOGITS or not ((column >= 0) & (column <= 1)).all():
        raise ValueError(
            f"{path}: scores must be of at least two classes; one column is only taken if it holds "
            f"probabilities of class 1, from 0 to 1, got {values.dtype}{list(values.shape)} from "
            f"{column.min():.4g} to {column.max():.4g}"
        )
    note = "one column was read as the probability of class 1 of two"
    return np.stack([1 - column, column], 1), (note,)


def same(one: Predictions, other: Predictions) -> bool:
    """Whether two sets of predictions have equal scores and labels, however they are stored."""
    if one.values.shape != other.values.shape or not np.array_equal(one.label, other.label):
        return False
    rows = max(1, ELEMENTS // one.values.shape[1])
    for first in range(0, len(one.values), rows):
        part = slice(first, first + rows)
        if not np.array_equal(one.values[part], other.values[part]):
            return False
    return True


class Logits:
    """The logits of predictions in chunks, to fit a calibrator; may be iterated over repeatedly."""

    def __init__(self, predictions: Predictions):
        self.predictions = predictions

    def __iter__(self) -> Iterator[np.ndarray]:
        """Chunks f[B, K], the last one shorter."""
        for _, part in _scores(self.predictions):
            yield np.asarray(as_logits(part, self.predictions.kind))


def _kind(path, values, field: str, forced: str | None) -> tuple[str, str, bool]:
    """'logits' or 'probabilities', a sentence that says why, and whether to normalise rows.

    Checks every value.
    """
    known = distributions.sums(_finite_parts(path, values))
    in_range = known.lowest >= -SUM_TOLERANCE and known.highest <= 1 + SUM_TOLERANCE
    named = None
    if field in PROBABILITIES:
        named = "probabilities"
    elif field in LOGITS:
        named = "logits"
    kind = forced or named
    source = "given by --kind" if forced else f"from the array name {field!r}"
    found = distributions.rows(lambda: (part for _, part in _parts(values)), known)
    if kind == "logits":
        doubt = ", although each row is a distribution" if found and found.exact else ""
        return kind, f"{kind}, {source}{doubt}", False

    if found is not None:
        if not found.exact:
            why = f"{found.reason}; rows were divided by their sums"
        elif kind:
            why = source
        else:
            why = f"since all are in [0, 1] and rows sum to 1 within {SUM_TOLERANCE:g}"
        return "probabilities", f"probabilities, {why}", not found.exact

    # Refuse what cannot be probabilities, though it says so or looks like it.
    if kind == "probabilities" and not in_range:
        raise ValueError(
            f"{path}: probabilities must be between 0 and 1, got {known.lowest:g} to "
            f"{known.highest:g}. If they are logits, pass --kind=logits."
        )
    if in_range:
        raise ValueError(
            f"{path}: row {known.row} sums to {known.total:.6g}, so these are neither probabilities "
            f"(rows must sum to 1 within {SUM_TOLERANCE:g}, or within what rounding to "
            f"{min(distributions.DECIMALS)} decimals or more explains) nor, with all values in [0, 1], "
            "likely logits. If they are logits, pass --kind=logits."
        )
    reason = f"since not all are in [0, 1] (from {known.lowest:.4g} to {known.highest:.4g})"
    return "logits", f"logits, {reason}", False


def _finite_parts(path, values) -> Iterator[np.ndarray]:
    """The rows in parts. Raises ValueError for scores that are not finite."""
    for begin, part in _parts(values):
        # Sums would not do: those of finite numbers may be infinite.
        if not (np.isfinite(part.min()) and np.isfinite(part.max())):
            wrong = int(np.argmin(np.isfinite(part).all(1)))
            bad = values[begin + wrong][~np.isfinite(part[wrong])][0]
            raise ValueError(
                f"{path}: scores must be finite {part.dtype} numbers, but row {begin + wrong} "
                f"holds {bad}"
            )
        yield part


def _checked_label(path, label, count: int, classes: int) -> np.ndarray:
    label = np.asarray(label)
    if label.ndim != 1 or label.dtype.kind not in "iuf":
        raise ValueError(
            f"{path}: labels must be class numbers of shape [{count}], "
            f"got {label.dtype}{list(label.shape)}"
        )
    if len(label) != count:
        raise ValueError(
            f"{path}: must have a label for each row of scores, "
            f"got {len(label):,} labels for {count:,} rows"
        )
    wrong = ~((label >= 0) & (label < classes) & (label % 1 == 0))
    if wrong.any():
        row = int(np.argmax(wrong))
        counted = label.min() == 1 and label.max() == classes
        hint = "; they seem to count from 1, so subtract 1" if counted else ""
        raise ValueError(
            f"{path}: labels must be whole numbers between 0 and {classes - 1}, "
            f"got {label[row]:g} in row {row}{hint}"
        )
    return label.astype(np.int32)


def _checked_index(path, index, count: int) -> np.ndarray | None:
    if index is None:
        return None
    if index.shape != (count,) or index.dtype.kind not in "iu" or index.min() < 0:
        raise ValueError(
            f"{path}: index must be non-negative integers of shape [{count}], "
            f"got {index.dtype}{list(index.shape)}"
        )
    return np.asarray(index, np.int64)


def computed_in(values) -> np.dtype:
    """The type to compute in: float32, or a wider one if the values have it and jax allows it."""
    wide = np.promote_types(values.dtype, np.float32)
    # jax has no long double.
    return jax.dtypes.canonicalize_dtype(np.float64 if wide == np.longdouble else wide)


def _parts(values, rows: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """(position of the first row, the next rows) of a matrix, in the type of `computed_in`."""
    file = files.mapped_file(values)
    rows = rows or chunk_rows(values)
    dtype = computed_in(values)
    # Rows of a mapped file are always copied, since its pages are released below.
    copy = None if file is None else True
    for begin in range(0, len(values), rows):
        with np.errstate(over="ignore"):
            part = np.array(values[begin : begin + rows], dtype, order="C", copy=copy)
        # Without this, the pages that were read would fill the memory of the process.
        if file is not None and hasattr(mmap, "MADV_DONTNEED"):
            file.madvise(mmap.MADV_DONTNEED)
        yield begin, part


def _scores(predictions: Predictions, rows: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """The same of predictions, normalised where that was found necessary."""
    for begin, part in _parts(predictions.values, rows):
        if predictions.normalise:
            part = distributions.normalised(part)
        yield begin, part


def chunk_rows(values) -> int:
    """Number of rows of a chunk, so that it has at most ELEMENTS numbers."""
    return min(len(values), max(1, ELEMENTS // values.shape[1]))


def chunks(predictions: Predictions, rows: int | None = None) -> Iterator[tuple[np.ndarray, Seen]]:
    """Chunks of scores f[rows, K] with their labels, in order.

    The last chunk is padded with zeros, which the mask leaves out. rows: at most the number of
    examples; by default, chunks have at most ELEMENTS numbers. Labels that were not read are 0.
    """
    count = len(predictions.values)
    rows = min(count, rows or chunk_rows(predictions.values))
    label = np.zeros(count, np.int32) if predictions.label is None else predictions.label
    for begin, part in _scores(predictions, rows):
        used = len(part)
        padding = rows - used
        # All chunks have the same shape, so that what is jitted compiles once.
        mask = (np.arange(rows) < used).astype(np.float32)
        part = np.pad(part, ((0, padding), (0, 0))) if padding else part
        yield part, Seen(np.pad(label[begin : begin + used], (0, padding)), mask)


def as_logits(values, kind: str):
    """Logits of scores. Those of probabilities are their logarithms, whose softmax they are."""
    return values if kind == "logits" else jnp.log(jnp.maximum(values, FLOOR))
