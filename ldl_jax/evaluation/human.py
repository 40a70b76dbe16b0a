"""What people said of each example: votes, or the distributions they make."""

from pathlib import Path

import numpy as np

from ldl_jax import files
from ldl_jax.evaluation import prediction_files
from ldl_jax.evaluation.predictions import Predictions

NAMES = ("table", "votes", "counts", *prediction_files.PROBABILITIES)


def read(path, predictions: Predictions) -> np.ndarray:
    """The true distributions f64[N, K] of the predictions' examples: rows of a file, each divided
    by its sum.

    path: an .npy, an .npz that holds one array or one of NAMES, or a .csv without other columns.
    The table's rows are the positions of a data set, looked up by the predictions' index, where
    every index is one of them: the whole split for a part of it, or all its examples in another
    order. Where there is no index, or it goes beyond the table, the table has a row for each
    prediction, in their order. Raises ValueError naming the file, also where there are as many rows
    as predictions and the index names one of them twice: either reading could be meant.
    """
    path = prediction_files.check_path(path)
    votes = _table(path)
    count, classes = predictions.values.shape
    if votes.ndim != 2 or votes.shape[1] != classes or votes.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: holds {votes.dtype}{list(votes.shape)}; allowed are votes or distributions [{count}, {classes}]"
        )
    rows = _rows(path, len(votes), predictions.index, count)
    votes = np.asarray(votes[rows], np.float64)
    total = votes.sum(1)
    good = (votes >= 0).all(1) & (total > 0) & np.isfinite(total)  # a NaN is not
    if not good.all():
        row = rows[np.argmin(good)]
        raise ValueError(
            f"{path}: row {row} has a negative entry, none above 0 or no number; allowed are votes"
        )
    return votes / total[:, None]


def _table(path: Path) -> np.ndarray:
    """The one table of a file."""
    if path.suffix == ".npy":
        return files.read_npy(path)
    if path.suffix == ".csv":
        return files.read_csv(path, prediction_files.BESIDE)[0]
    members = files.npz_names(path)
    names = [name for name in NAMES if name in members] or members
    if len(names) != 1:
        raise ValueError(
            f"{path}: holds {', '.join(members)}; allowed is one array, or one named {', '.join(NAMES)}"
        )
    return files.read_npz(path, names=names, mapped=True)[names[0]]


def _rows(path: Path, num_rows: int, index: np.ndarray | None, count: int) -> np.ndarray:
    """The row i64[N] of the table that belongs to each prediction."""
    if index is not None and index.max() < num_rows:
        if num_rows == count > len(np.unique(index)):
            raise ValueError(
                f"{path}: has a row for each of {count:,} predictions, whose index names some rows twice and others "
                "not at all; allowed is an index that names each once, or none where rows are in the predictions' order"
            )
        return index
    if num_rows != count:
        highest = "" if index is None else f" with an index up to {index.max():,}"
        raise ValueError(
            f"{path}: has {num_rows:,} rows for {count:,} predictions{highest}; allowed is one for each, in their "
            "order, or one for each position up to the highest that the predictions' index names"
        )
    return np.arange(count)
