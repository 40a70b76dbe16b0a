"""Human votes, or label distributions, for each example."""

from pathlib import Path

import jax
import numpy as np

from ldl_jax import distributions, files
from ldl_jax.errors import warn
from ldl_jax.evaluation import csv_columns, csv_table, prediction_files
from ldl_jax.evaluation.predictions import Predictions

NAMES = ("table", "votes", "counts", *prediction_files.PROBABILITIES)


def read(path, predictions: Predictions) -> np.ndarray:
    """True distributions f64[N, K] of the predictions' examples: rows of a file, normalised.

    The rows may be whole-number votes or distributions, see `distributions.checked`.

    path: an .npy, an .npz with one array or one of NAMES, or a .csv of votes alone. If the
    predictions have an index and every index is a row of the table, rows are looked up by it: the
    table covers a whole split, the predictions a part of it or another order. Otherwise the table
    must have one row for each prediction, in the same order. Raises ValueError naming the file,
    also if there are as many rows as predictions but the index repeats a row, since both readings
    would be possible.
    """
    path = prediction_files.check_path(path)
    votes = prediction_files.readable(_table(path))
    count, classes = predictions.values.shape
    if votes.ndim != 2 or votes.shape[1] != classes or not _are_numbers(votes.dtype):
        raise ValueError(
            f"{path}: must hold votes or distributions of shape [{count}, {classes}], "
            f"got {votes.dtype}{list(votes.shape)}"
        )
    rows = _rows(path, len(votes), predictions.index, count)
    table, note = distributions.checked(np.asarray(votes[rows]), str(path), rows)
    # Votes are what is expected here, so only the rest is worth a line.
    if note and distributions.VOTES not in note:
        warn(note)
    return table


def _are_numbers(dtype: np.dtype) -> bool:
    return dtype.kind in "fiu" or dtype == jax.dtypes.bfloat16


def _table(path: Path) -> np.ndarray:
    """The table of a file. Raises ValueError if an .npz holds several arrays and none of NAMES."""
    if path.suffix.lower() == ".npy":
        return files.read_npy(path)
    if path.suffix.lower() == ".csv":
        table = csv_table.read(path, csv_columns.never_a_class)
        return table.columns(csv_columns.without_row_numbers(table, table.numeric)[0])
    members = files.npz_names(path)
    names = [name for name in NAMES if name in members] or members
    if len(names) != 1:
        raise ValueError(
            f"{path}: must hold one array, or one named {', '.join(NAMES)}, got {', '.join(members)}"
        )
    return files.read_npz(path, names=names, mapped=True)[names[0]]


def _rows(path: Path, num_rows: int, index: np.ndarray | None, count: int) -> np.ndarray:
    """The table's row i64[N] for each prediction."""
    # Every index is a row of the table: look the rows up.
    if index is not None and index.max() < num_rows:
        if num_rows == count > len(np.unique(index)):
            raise ValueError(
                f"{path}: has as many rows as there are predictions ({count:,}), but the "
                "predictions' index repeats some rows and omits others. Use an index without "
                "repetitions, or none if the rows are in the order of the predictions."
            )
        return index
    # Otherwise the rows must be in the predictions' own order.
    if num_rows != count:
        highest = "" if index is None else f" with an index up to {index.max():,}"
        raise ValueError(
            f"{path}: must have a row for each prediction, or one for each position up to the "
            f"largest index, got {num_rows:,} rows for {count:,} predictions{highest}"
        )
    return np.arange(count)
