"""What was recorded while a run trained, against epochs."""

import math
from collections.abc import Sequence

import numpy as np

SPLITS = ("test", "train")


def curve(rows: Sequence[dict], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(epochs f64[m], values f64[m]) of an entry of the rows of metrics.jsonl, such as 'test/nll',
    where it is finite.
    """
    points = []
    for row in rows:
        value = row.get(name)
        if value is not None and math.isfinite(value):
            points.append((row["epoch"], value))
    epochs, values = np.array(points, np.float64).reshape(-1, 2).T
    return epochs, values


def curves(rows: Sequence[dict], metric: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{split: its `curve`} of a metric on the test and the training images, as far as recorded."""
    found = {split: curve(rows, f"{split}/{metric}") for split in SPLITS}
    return {split: points for split, points in found.items() if len(points[0])}
