"""What people said of each example: votes, or the distributions they make."""

from pathlib import Path

import numpy as np

from ldl_jax import stored
from ldl_jax.predictions import Predictions

NAMES = ("table", "votes", "counts", *stored.PROBABILITIES)


def read(path, predictions: Predictions) -> np.ndarray:
    """The true distributions f64[N, K] of the predictions' examples: rows of a file, each divided by its sum.

    path: an .npy, an .npz that holds one array or one of NAMES, or a .csv without other columns. A file with more rows
    than there are predictions is looked up by their index, where they have one. Raises ValueError naming the file.
    """
    path = Path(path)
    table = _table(path)
    count, classes = predictions.values.shape
    if table.ndim != 2 or table.shape[1] != classes or table.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: holds {table.dtype}{list(table.shape)}; allowed are votes or distributions [{count}, {classes}]"
        )
    if len(table) > count and predictions.index is not None and predictions.index.max() < len(table):
        table = table[predictions.index]
    if len(table) != count:
        raise ValueError(
            f"{path}: has {len(table):,} rows for {count:,} predictions; allowed is one for each, or one for each "
            "position that the predictions' index names"
        )
    table = np.asarray(table, np.float64)
    total = table.sum(1)
    wrong = ~((table >= 0).all(1) & (total > 0) & np.isfinite(total))  # a NaN is wrong
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"{path}: row {row} has a negative entry, none above 0 or no number; allowed are votes")
    return table / total[:, None]


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
