"""Labels of the user's own: noisy labels and tables of distributions beside the published ones, and
the folds.

Every table is .npy, or an entry of an .npz, of plain numbers with one row for each image of a
published split, in the published order.
"""

import numpy as np
from ml_collections import ConfigDict

from ldl_jax import files
from ldl_jax.data.base import Dataset
from ldl_jax.errors import UnreadableFile, one_line

# a row's sum may be off by so much, as half precision leaves it; the row is divided by its sum
TOLERANCE = 1e-3


def with_tables(dataset: Dataset, settings: ConfigDict) -> Dataset:
    """The data set with `config.data.train_table` and `test_table` as given['table'] of its
    published splits.
    """
    parts = {"train": dataset.train, "test": dataset.test}
    for name, split in parts.items():
        path = settings[f"{name}_table"]
        if path:
            table = read_table(
                f"config.data.{name}_table",
                path,
                settings.table_name,
                split.num_examples,
                len(dataset.classes),
            )
            parts[name] = split._replace(given={**dict(split.given), "table": table})
    return dataset._replace(**parts)


def trained_on(dataset: Dataset, settings: ConfigDict) -> Dataset:
    """The data set with `train` the split that `config.data.train_split` names, and its labels from
    `labels_file`.

    With `folds`, `train` and `test` are one and the same split. Raises ValueError where the data
    set was asked for a part of its training images, but is trained on its test images.
    """
    if settings.train_split == "test":
        if dataset.subset is not None:
            raise ValueError(
                "config.data.train_split is 'test', but the data set's own options choose among its training images; "
                "allowed is 'train'"
            )
        dataset = dataset._replace(train=dataset.test, test=dataset.train)
    if settings.labels_file:
        split = dataset.train
        labels = read_labels(
            settings.labels_file, settings.labels_name, split.num_examples, len(dataset.classes)
        )
        dataset = dataset._replace(
            train=split._replace(given={**dict(split.given), "label": labels})
        )
    return dataset._replace(test=dataset.train) if settings.folds else dataset


def read_labels(path: str, name: str, num_examples: int, num_classes: int) -> np.ndarray:
    """Labels i32[N] of `config.data.labels_file`. Raises ValueError naming the file where they do
    not fit.
    """
    labels = _read("config.data.labels_file", path, "labels_name", name)
    if labels.shape != (num_examples,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"config.data.labels_file: {path} holds {labels.dtype}{list(labels.shape)}; allowed are integers "
            f"[{num_examples}], one for each image of the split that is trained on"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"config.data.labels_file: {path} has labels from {labels.min()} to {labels.max()}; allowed are 0 to "
            f"{num_classes - 1}"
        )
    return labels.astype(np.int32)


def read_table(field: str, path: str, name: str, num_examples: int, num_classes: int) -> np.ndarray:
    """Distributions f32[N, K], rows that sum to 1, of the file that `field` names.

    Rows whose sum is off by TOLERANCE at most are divided by it. Raises ValueError naming the file,
    and the first row that is no distribution.
    """
    table = _read(field, path, "table_name", name)
    if table.shape != (num_examples, num_classes) or table.dtype.kind not in "fiu":
        raise ValueError(
            f"{field}: {path} holds {table.dtype}{list(table.shape)}; allowed are numbers "
            f"[{num_examples}, {num_classes}], one row for each image and one column for each class"
        )
    table = table.astype(np.float64)
    total = table.sum(1)
    # `not <=`, so that a NaN is a fault
    for fault, wrong in (
        ("has an entry that is negative or no number", ~(table >= 0).all(1)),
        (f"does not sum to 1 within {TOLERANCE}", ~(np.abs(total - 1) <= TOLERANCE)),
    ):
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(
                f"{field}: {path}, row {row} {fault} (its sum is {total[row]:g}); allowed are distributions"
            )
    return (table / total[:, None]).astype(np.float32)


def _read(field: str, path: str, name_field: str, name: str) -> np.ndarray:
    """The array of an .npy file, or the named entry of an .npz, or its only one."""
    try:
        if not files.is_npz(path):
            return files.read_npy(path)
        entries = files.npz_names(path)
        chosen = entries[0] if not name and len(entries) == 1 else name
        if chosen in entries:
            return files.read_npz(path, names=[chosen])[chosen]
    except FileNotFoundError:
        raise ValueError(
            f"{field} is {path!r}, which is not there; allowed is an .npy or .npz file"
        ) from None
    except (OSError, UnreadableFile) as error:
        reason = getattr(error, "reason", None) or one_line(error)
        raise ValueError(
            f"{field}: {path} cannot be read as an .npy or .npz file of numbers ({reason})"
        ) from None
    raise ValueError(f"config.data.{name_field} is {name!r}; {path} has {', '.join(entries)}")
