"""Reading scores and labels from .npz, .npy and .csv files of any framework.

An .npz holds the scores as `logits`, `probs` or `probabilities`, the labels as `label`, `labels`,
`target` or `targets`, and optionally the names of the classes as `classes`. In a .csv with a
header, the column with one of the label names holds the labels, columns such as index,
image and predicted are ignored, and every other column is a class of that name. In a .csv without a
header, the labels are the last or the first column, if exactly one of them holds class numbers.
Labels come from the file given for them, else from the predictions' file, else from
`<stem>_labels.npy` in the same folder. Nothing in these files is trusted.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ldl_jax import files

LOGITS = ("logits",)
PROBABILITIES = ("probs", "probabilities")
LABELS = ("label", "labels", "target", "targets", "y_true", "true_label")
# Columns of a .csv that are not classes.
_EXAMPLE_COLUMNS = ("index", "id", "file", "filename", "image", "path")
_RESULT_COLUMNS = ("predicted", "prediction", "pred", "confidence", "correct")
# Names that pandas and others give to a column of row numbers or ids. No name that a class may
# have: leaving a class out would move the labels of those after it.
_ID_COLUMN = re.compile(r"|unnamed: ?\d+|idx|\w+_id")


def beside(name: str) -> bool:
    """Whether a column of this name, in lower case, describes the example and is no class."""
    known = name in _EXAMPLE_COLUMNS or name in _RESULT_COLUMNS
    return known or _ID_COLUMN.fullmatch(name) is not None


ENDINGS = (".npz", ".npy", ".csv")


class Stored(NamedTuple):
    """The contents of a file, not yet checked."""

    scores: np.ndarray  # [N, K], memory-mapped if the file stores it uncompressed
    label: np.ndarray | None  # [N]
    index: np.ndarray | None  # [N], if an .npz has one
    field: str  # name of the scores in an .npz, or ''
    classes: tuple[str, ...] | None = None  # names of the classes


def read(path, *, labels=None, kind: str | None = None, labelled: bool = True) -> Stored:
    """Scores and labels of a file.

    labels: the file that holds the labels, if it is another one. kind: 'logits' or 'probabilities',
    which to read if an .npz holds both. labelled: False reads no labels. Raises ValueError naming
    the file.
    """
    path = check_path(path)
    own_labels = labelled and labels is None
    readers = {".npy": _from_npy, ".csv": _from_csv, ".npz": _from_npz}
    stored = readers[path.suffix](path, kind, own_labels)
    if not labelled:
        return stored._replace(label=None)
    if own_labels and stored.label is not None:
        return stored
    return stored._replace(label=read_labels(labels or _beside(path)))


def _beside(path: Path) -> Path:
    """The file of labels next to a file of scores. Raises ValueError if there is none."""
    labels = _labels_of(path)
    if not labels.is_file():
        raise ValueError(
            f"{path}: has no labels, and there is no {labels.name} next to it. Add an array or a "
            f"column named {_listed(LABELS)}, or pass --labels=FILE."
        )
    return labels


def _labels_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}_labels.npy")


def read_labels(path) -> np.ndarray:
    """Labels [N] of an .npy, of a .csv with one column, or of an .npz or .csv by a name of LABELS."""
    path = check_path(path)
    if path.suffix == ".npy":
        return files.read_npy(path)
    if path.suffix == ".csv":
        return _labels_in_csv(path)
    members = files.npz_names(path)
    names = _label_arrays(members)
    if len(names) != 1:
        raise ValueError(
            f"{path}: must hold one array named {_listed(LABELS)}, got {_listed(members)}"
        )
    return files.read_npz(path, names=names, mapped=True)[names[0]]


def _label_arrays(members: list[str]) -> list[str]:
    return [name for name in LABELS if name in members]


def _labels_in_csv(path: Path) -> np.ndarray:
    table, names = files.read_csv(path, beside)
    columns = [0] if table.shape[1] == 1 else _label_columns(names or ())
    if len(columns) != 1:
        raise ValueError(
            f"{path}: must have one column, or one named {_listed(LABELS)}, "
            f"got {table.shape[1]} columns"
        )
    return table[:, columns[0]]


def _label_columns(names: Iterable[str]) -> list[int]:
    return [column for column, name in enumerate(names) if name.lower() in LABELS]


def check_path(path) -> Path:
    """The path of a file of numbers. Raises ValueError if it is of another type, missing or empty."""
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise ValueError(f"{path}: must end in {_listed(ENDINGS)}, got {path.suffix!r}")
    if not path.is_file():
        raise ValueError(f"{path}: does not exist or is not a file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: must hold at least one example, but is empty (0 bytes)")
    return path


def _from_npy(path: Path, kind: str | None, own_labels: bool) -> Stored:
    del kind, own_labels  # an .npy holds only scores
    return Stored(files.read_npy(path), None, None, "")


def _from_npz(path: Path, kind: str | None, own_labels: bool) -> Stored:
    # Which arrays hold the scores and the labels.
    members = files.npz_names(path)
    score_names = (
        (*PROBABILITIES, *LOGITS) if kind == "probabilities" else (*LOGITS, *PROBABILITIES)
    )
    field = next((name for name in score_names if name in members), None)
    labels = _label_arrays(members)
    if field is None:
        raise ValueError(
            f"{path}: must hold scores named {_listed(score_names)}, got {_listed(members)}"
        )
    if own_labels and len(labels) > 1:
        raise ValueError(f"{path}: must hold one array of labels, got {_listed(labels)}")
    # Read these alone: an .npz may hold large arrays of other kinds.
    names = [field, "index", "classes", *(labels if own_labels else ())]
    arrays = files.read_npz(path, names=names, mapped=True)
    scores = arrays[field]
    label = arrays[labels[0]] if own_labels and labels else None
    classes = _class_names(path, arrays["classes"], scores) if "classes" in arrays else None
    return Stored(scores, label, arrays.get("index"), field, classes)


def _class_names(path, names, scores) -> tuple[str, ...]:
    if names.dtype.kind != "U" or names.shape != scores.shape[1:]:
        raise ValueError(
            f"{path}: classes must be a text array with a name for each class, of shape "
            f"{list(scores.shape[1:])}, got {names.dtype}{list(names.shape)}"
        )
    return tuple(names.tolist())


def _from_csv(path: Path, kind: str | None, own_labels: bool) -> Stored:
    del kind  # a .csv does not name its scores
    table, names = files.read_csv(path, beside)
    table, names = _without_row_numbers(table, names)
    # Without a header, the position of the labels follows from their values.
    if names is None:
        if not own_labels or _labels_of(path).is_file():
            return Stored(table, None, None, "")
        column = _label_column(path, table)
        return Stored(np.delete(table, column, axis=1), table[:, column], None, "")
    columns = _label_columns(names)
    classes = tuple(name for column, name in enumerate(names) if column not in columns)
    if own_labels and len(columns) > 1:
        label_names = [names[column] for column in columns]
        raise ValueError(f"{path}: must have one column of labels, got {_listed(label_names)}")
    label = table[:, columns[0]] if own_labels and columns else None
    return Stored(np.delete(table, columns, axis=1), label, None, "", classes)


def _without_row_numbers(table: np.ndarray, names: list[str] | None) -> tuple:
    """The table without a first column that counts its rows, whatever its name."""
    first = table[:, 0]
    counts = len(table) > 2 and table.shape[1] > 3 and (np.diff(first) == 1).all()
    if not counts or first[0] not in (0, 1):
        return table, names
    if names is not None and names[0].lower() in LABELS:
        return table, names
    return table[:, 1:], None if names is None else names[1:]


def _label_column(path: Path, table: np.ndarray) -> int:
    """The column of the labels in a table without a header: the last or the first one.

    Raises ValueError if both, or neither, can be class numbers.
    """
    classes = table.shape[1] - 1
    candidates = [column for column in (classes, 0) if _are_classes(table[:, column], classes)]
    if len(candidates) == 1 and classes:
        return candidates[0]
    which = (
        "both its last and its first column hold"
        if candidates
        else ("neither its last nor its first column holds")
    )
    raise ValueError(
        f"{path}: has no header, and {which} class numbers 0 to {classes - 1}, so the labels are "
        f"unknown. Add a header with a column {_listed(LABELS)}, or pass --labels=FILE."
    )


def _are_classes(values: np.ndarray, classes: int) -> bool:
    return bool(((values >= 0) & (values < classes) & (values % 1 == 0)).all())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"
