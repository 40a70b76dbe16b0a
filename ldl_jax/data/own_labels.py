"""The user's own labels: noisy labels, tables of distributions, and which split is trained on.

Every table is an .npy file, or an array of an .npz, of plain numbers with one row per image of a
published split, in the published order.
"""

import numpy as np
from ml_collections import ConfigDict

from ldl_jax import files
from ldl_jax.data.base import Dataset, Split
from ldl_jax.errors import UnreadableFile, one_line

# A row may miss the sum 1 by this much, as in half precision; it is then divided by its sum.
TOLERANCE = 1e-3


def with_tables(dataset: Dataset, settings: ConfigDict) -> Dataset:
    """Attach `config.data.train_table` and `test_table` to the published splits: given['table']."""
    train = _with_table(
        dataset, dataset.train, "config.data.train_table", settings.train_table, settings
    )
    test = _with_table(
        dataset, dataset.test, "config.data.test_table", settings.test_table, settings
    )
    return dataset._replace(train=train, test=test)


def _with_table(
    dataset: Dataset, split: Split, field: str, path: str, settings: ConfigDict
) -> Split:
    if not path:
        return split
    table = read_table(field, path, settings.table_name, split.num_examples, len(dataset.classes))
    return split._replace(given={**dict(split.given), "table": table})


def trained_on(dataset: Dataset, settings: ConfigDict) -> Dataset:
    """Exchange the splits by `config.data.train_split`, and attach the labels of `labels_file`.

    With `folds`, `train` and `test` are the same split. Raises ValueError if the data set's own
    options select a part of its training images, but `train_split` is 'test'.
    """
    if settings.train_split == "test":
        # The subset lists positions of the published training split.
        if dataset.subset is not None:
            raise ValueError(
                "config.data.train_split must be 'train' if the data set's own options select a "
                "part of its training images (config.data.stl10.fold), got 'test'"
            )
        dataset = dataset._replace(train=dataset.test, test=dataset.train)
    if settings.labels_file:
        split = dataset.train
        labels = read_labels(
            settings.labels_file, settings.labels_name, split.num_examples, len(dataset.classes)
        )
        split = split._replace(given={**dict(split.given), "label": labels})
        dataset = dataset._replace(train=split)
    return dataset._replace(test=dataset.train) if settings.folds else dataset


def read_labels(path: str, name: str, num_examples: int, num_classes: int) -> np.ndarray:
    """Labels i32[N] of `config.data.labels_file`. Raises ValueError naming the file if they do not
    fit.
    """
    labels = _read("config.data.labels_file", path, "labels_name", name)
    if labels.shape != (num_examples,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"config.data.labels_file: {path} must hold integers [{num_examples}], one per image "
            f"of the split to train on, got {labels.dtype}{list(labels.shape)}"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"config.data.labels_file: labels of {path} must be between 0 and {num_classes - 1}, "
            f"got {labels.min()} to {labels.max()}"
        )
    return labels.astype(np.int32)


def read_table(field: str, path: str, name: str, num_examples: int, num_classes: int) -> np.ndarray:
    """Distributions f32[N, K], rows that sum to 1, of the file that `field` names.

    Rows whose sum is off by at most TOLERANCE are divided by it. Raises ValueError naming the file
    and the first row that is not a distribution.
    """
    table = _read(field, path, "table_name", name)
    if table.shape != (num_examples, num_classes) or table.dtype.kind not in "fiu":
        raise ValueError(
            f"{field}: {path} must hold numbers [{num_examples}, {num_classes}], one row per image "
            f"and one column per class, got {table.dtype}{list(table.shape)}"
        )
    table = table.astype(np.float64)
    total = table.sum(1)
    # Written with `not`, so that NaN is a fault too.
    negative = ~(table >= 0).all(1)
    unnormalized = ~(np.abs(total - 1) <= TOLERANCE)
    for fault, wrong in (
        ("has a negative or NaN entry", negative),
        (f"does not sum to 1 within {TOLERANCE}", unnormalized),
    ):
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(
                f"{field}: {path}: row {row} {fault} (its sum is {total[row]:g}); each row must be "
                "a distribution over the classes"
            )
    return (table / total[:, None]).astype(np.float32)


def _read(field: str, path: str, name_field: str, name: str) -> np.ndarray:
    """The array of an .npy file, the named array of an .npz, or its only one."""
    try:
        if not files.is_npz(path):
            return files.read_npy(path)
        names = files.npz_names(path)
        # A file with a single array needs no name.
        chosen = names[0] if not name and len(names) == 1 else name
        if chosen in names:
            return files.read_npz(path, names=[chosen])[chosen]
    except FileNotFoundError:
        raise ValueError(
            f"{field} must name an .npy or .npz file, got {path!r}, which does not exist"
        ) from None
    except (OSError, UnreadableFile) as error:
        reason = getattr(error, "reason", None) or one_line(error)
        raise ValueError(
            f"{field}: {path} cannot be read as an .npy or .npz file of numbers ({reason})"
        ) from None
    raise ValueError(
        f"config.data.{name_field} must be one of the arrays of {path} ({', '.join(names)}), got "
        f"{name!r}"
    )
