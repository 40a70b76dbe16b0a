"""What people said of each example: votes, or the distributions they make."""

from pathlib import Path

import numpy as np

from ldl_jax.evaluation import stored
from ldl_jax.evaluation.predictions import Predictions

NAMES = ("table", "votes", "counts", *stored.PROBABILITIES)


def read(path, predictions: Predictions) -> np.ndarray:
    """The true distributions f64[N, K] of the predictions' examples: rows of a file, each divided by its sum.

    path: an .npy, an .npz that holds one array or one of NAMES, or a .csv without other columns. The table's rows are
    the positions of a data set, looked up by the predictions' index, where every index is one of them: the whole split
    for a part of it, or all its examples in another order. Where there is no index, or it goes beyond the table, the
    table has a row for each prediction, in their order. Raises ValueError naming the file, also where there are as many
    rows as predictions and the index names one of them twice: either reading could be meant.
    """
    path = Path(path)
    table = _table(path)
    count, classes = predictions.values.shape
    if table.ndim != 2 or table.shape[1] != classes or table.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: holds {table.dtype}{list(table.shape)}; allowed are votes or distributions [{count}, {classes}]"
        )
    places = _places(path, len(table), predictions.index, count)
    table = np.asarray(table[places], np.float64)
    total = table.sum(1)
    wrong = ~((table >= 0).all(1) & (total > 0) & np.isfinite(total))  # a NaN is wrong
    if wrong.any():
        row = places[np.argmax(wrong)]
        raise ValueError(f"{path}: row {row} has a negative entry, none above 0 or no number; allowed are votes")
    return table / total[:, None]


def _places(path, rows: int, index, count: int) -> np.ndarray:
    """The row i64[N] of the table that belongs to each prediction."""
    if index is not None and index.max() < rows:
        if rows == count > len(np.unique(index)):
            raise ValueError(
                f"{path}: has a row for each of {count:,} predictions, whose index names some rows twice and others "
                "not at all; allowed is an index that names each once, or none where rows are in the predictions' order"
            )
        return index
    if rows != count:
        highest = "" if index is None else f" with an index up to {index.max():,}"
        raise ValueError(
            f"{path}: has {rows:,} rows for {count:,} predictions{highest}; allowed is one for each, in their order, "
            "or one for each position up to the highest that the predictions' index names"
        )
    return np.arange(count)


def _table(path) -> np.ndarray:
    if path.suffix == ".npz":
        members = stored.read_members(path)
        names = [name for name in NAMES if name in members] or list(members)
        if len(names) != 1:
            raise ValueError(
                f"{path}: holds {', '.join(members)}; allowed is one array, or one named {', '.join(NAMES)}"
            )
        return members[names[0]]
    return stored.read_table(path) if path.suffix == ".csv" else stored.read_array(path)
