"""The labels to train on: noisy labels, tables of distributions, and which split is trained on.

Every table is an .npy file, or an array of an .npz, of plain numbers with one row per image of a
published split, in the published order.
"""

import numpy as np
from ml_collections import ConfigDict

from ldl_jax import distributions, files
from ldl_jax.data.base import Dataset, Split, counted_from_one
from ldl_jax.data.noise import noisy
from ldl_jax.errors import UnreadableFile, one_line

MAJORITY = 0.5  # a class is renamed if more than this share of its images has one other label
FEWEST = 5  # images of a class, to tell that from noise
SHOWN = 3  # classes in a message
BY_CHANCE = 0.95  # share of the disagreement that labels in a random order would have


def with_tables(dataset: Dataset, settings: ConfigDict) -> Dataset:
    """Attach `config.data.train_table` and `test_table` to the published splits: given['table']."""
    splits = {"train": dataset.train, "test": dataset.test}
    notes = dataset.notes
    for name, split in splits.items():
        path = settings[f"{name}_table"]
        if path:
            table, note = read_table(
                f"config.data.{name}_table",
                path,
                settings.table_name,
                split.num_examples,
                len(dataset.classes),
                settings.table_pseudo_count,
            )
            splits[name] = split._replace(given={**dict(split.given), "table": table})
            notes += (note,) if note else ()
    return dataset._replace(**splits, notes=notes)


def trained_on(dataset: Dataset, settings: ConfigDict, *, compare: bool = True) -> Dataset:
    """Exchange the splits by `config.data.train_split`, and attach the labels of `labels_file`, or
    those with `noise`.

    With `folds`, `train` and `test` are the same split. compare: whether the published labels are
    there, unless they are read with the images. Raises ValueError if the data set's own options
    select a part of its training images, but `train_split` is 'test', if the labels number the
    classes otherwise, or if labels that are not known cannot be changed.
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
        if compare and split.labels is not None:
            path = settings.labels_file
            note = disagreement(path, labels, split.labels, dataset.classes)
            dataset = dataset._replace(notes=(*dataset.notes, note))
        dataset = dataset._replace(train=_with_labels(split, labels))
    if settings.noise:
        split = dataset.train
        labels = _noisy_labels(split, settings, len(dataset.classes), known=compare)
        share = float((labels != split.labels).mean()) if compare else settings.noise
        changed = f"{share:.2%} of the labels to train on are wrong ({settings.noise_kind} noise)"
        dataset = dataset._replace(
            train=_with_labels(split, labels),
            notes=(*dataset.notes, f"config.data.noise: {changed}"),
        )
    return dataset._replace(test=dataset.train) if settings.folds else dataset


def _with_labels(split: Split, labels: np.ndarray) -> Split:
    return split._replace(given={**dict(split.given), "label": labels})


def _noisy_labels(
    split: Split, settings: ConfigDict, num_classes: int, *, known: bool
) -> np.ndarray:
    """The labels with `config.data.noise`; of published sizes alone, none."""
    if not known:
        return np.zeros(split.num_examples, np.int32)
    if split.labels is None:
        raise ValueError(
            f"config.data.noise needs labels that are known before the images are read, which those "
            f"of data.name={settings.name!r} are not; write noisy labels to a file and name it in "
            "config.data.labels_file"
        )
    options = {"share": settings.noise, "kind": settings.noise_kind, "seed": settings.noise_seed}
    return noisy(split.labels, num_classes, **options)


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
            f"got {labels.min()} to {labels.max()}{counted_from_one(labels, num_classes)}"
        )
    return labels.astype(np.int32)


def disagreement(path: str, labels: np.ndarray, published: np.ndarray, classes: tuple) -> str:
    """A sentence with the share of labels i32[N] that differ from the published ones i32[N].

    Raises ValueError if they number the classes otherwise: in most classes, most images have the
    same other label.
    """
    differs = float((labels != published).mean())
    _check_numbering(path, labels, published, classes, differs)
    note = (
        f"config.data.labels_file: {differs:.2%} of the labels of {path} differ from the published"
    )
    count = len(classes)
    shares = [np.bincount(array, minlength=count) / len(array) for array in (labels, published)]
    if differs and differs >= BY_CHANCE * (1 - float(shares[0] @ shares[1])):
        note += " ones, as many as in a random order: check that the rows are those of the images"
        return note
    return f"{note} ones"


def _check_numbering(
    path: str, labels: np.ndarray, published: np.ndarray, classes: tuple, differs: float
) -> None:
    count = len(classes)
    pairs = published.astype(np.int64) * count + labels
    table = np.bincount(pairs, minlength=count * count).reshape(count, count)
    size = table.sum(1)
    most = table.argmax(1)
    judged = size >= FEWEST
    renamed = judged & (most != np.arange(count)) & (table.max(1) > MAJORITY * size)
    if 2 * renamed.sum() > judged.sum():
        examples = []
        for label in np.flatnonzero(renamed)[:SHOWN]:
            examples.append(f"most images of class {label} ({classes[label]}) have {most[label]}")
        raise ValueError(
            f"config.data.labels_file: {path} must number the classes as the data set does, but "
            f"{differs:.0%} of its labels differ from the published ones, and consistently so in "
            f"{renamed.sum()} of {judged.sum()} classes: {', '.join(examples)}"
        )


def read_table(
    field: str,
    path: str,
    name: str,
    num_examples: int,
    num_classes: int,
    pseudo_count: float = 0.0,
) -> tuple[np.ndarray, str | None]:
    """Distributions f32[N, K], rows that sum to 1, of the file that `field` names.

    Also a note if they were not stored as such: `distributions.checked` says what is taken, and
    `distributions.smoothed` with a pseudo-count. Raises ValueError naming the file and a row that is
    not a distribution.
    """
    table = _read(field, path, "table_name", name)
    if table.shape != (num_examples, num_classes) or table.dtype.kind not in "fiu":
        raise ValueError(
            f"{field}: {path} must hold numbers [{num_examples}, {num_classes}], one row per image "
            f"and one column per class, got {table.dtype}{list(table.shape)}"
        )
    if pseudo_count:
        return distributions.smoothed(table, f"{field}: {path}", pseudo_count), None
    rows, note = distributions.checked(table, f"{field}: {path}")
    return rows.astype(np.float32), note


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
