"""Scores and labels in .npz, .npy and .csv files, as any framework may have written them; nothing
in them is trusted.

An .npz holds the scores as `logits`, `probs` or `probabilities`, the labels as `label`, `labels`,
`target` or `targets`, and may hold the names of the classes as `classes`. A .csv with a header has
a column of one of these names for the labels; columns of BESIDE, such as index, image and
predicted, are left out, and every other one is a class of that name. In a .csv without a header the
labels are the last column where that alone holds class numbers, or the first where that one alone
does. Labels come from the file that was named for them, or else from the file itself, or else from
`<stem>_labels.npy` beside it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ldl_jax import files

LOGITS, PROBABILITIES = ("logits",), ("probs", "probabilities")
LABELS = ("label", "labels", "target", "targets")
BESIDE = (  # columns of a .csv that are no class
    "index", "id", "file", "filename", "image", "path", "predicted", "prediction", "pred", "confidence", "correct",
)  # fmt: skip
ENDINGS = (".npz", ".npy", ".csv")


class Stored(NamedTuple):
    """What a file holds, before it is checked."""

    scores: np.ndarray  # [N, K], mapped where it stands in the file as it is in memory
    label: np.ndarray | None  # [N]
    index: np.ndarray | None  # [N], of an .npz that has it
    field: str  # the scores' name in an .npz, or ''
    classes: tuple[str, ...] | None = None  # their names


def read(path, *, labels=None, kind: str | None = None, labelled: bool = True) -> Stored:
    """Scores and labels of a file; `labels`: the file that holds the labels; `labelled`: False
    reads none.

    kind: of an .npz with both logits and probabilities, which. Raises ValueError naming the file.
    """
    path = check_path(path)
    own = labelled and labels is None
    readers = {".npy": _from_npy, ".csv": _from_csv, ".npz": _from_npz}
    stored = readers[path.suffix](path, kind, own)
    if not labelled:
        return stored._replace(label=None)
    if own and stored.label is not None:
        return stored
    return stored._replace(label=read_labels(labels or _beside(path)))


def _beside(path: Path) -> Path:
    """The file of labels beside a file of scores. Raises ValueError where there is none."""
    labels = _labels_of(path)
    if not labels.is_file():
        raise ValueError(
            f"{path}: has no labels, and {labels.name} is not beside it; allowed are {_listed(LABELS)} in an .npz, "
            "a column of such a name in a .csv, and a file named by --labels"
        )
    return labels


def _labels_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}_labels.npy")


def read_labels(path) -> np.ndarray:
    """The labels of an .npy, of an .npz or .csv under a name of LABELS, or of a .csv of one column:
    [N].
    """
    path = check_path(path)
    if path.suffix == ".npy":
        return files.read_npy(path)
    if path.suffix == ".csv":
        return _labels_in_csv(path)
    members = files.npz_names(path)
    names = [name for name in LABELS if name in members]
    if len(names) != 1:
        raise ValueError(
            f"{path}: holds {_listed(members)}; allowed is one array named {_listed(LABELS)}"
        )
    return files.read_npz(path, names=names, mapped=True)[names[0]]


def _labels_in_csv(path: Path) -> np.ndarray:
    table, names = files.read_csv(path, BESIDE)
    columns = [column for column, name in enumerate(names or ()) if name.lower() in LABELS]
    if table.shape[1] == 1:
        columns = [0]
    if len(columns) != 1:
        raise ValueError(
            f"{path}: has {table.shape[1]} columns; allowed is one, or one named {_listed(LABELS)}"
        )
    return table[:, columns[0]]


def check_path(path) -> Path:
    """The path of a file of numbers. Raises ValueError for another ending, and where it is not
    there or is empty.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise ValueError(
            f"{path}: ends in {path.suffix or 'nothing'!r}; allowed are {_listed(ENDINGS)}"
        )
    if not path.is_file():
        raise ValueError(f"{path}: is not there; allowed is a file that ends in {_listed(ENDINGS)}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: is empty (0 bytes); allowed is a file with at least one example")
    return path


def _from_npy(path: Path, kind: str | None, own_labels: bool) -> Stored:
    del kind, own_labels  # it holds the scores alone
    return Stored(files.read_npy(path), None, None, "")


def _from_npz(path: Path, kind: str | None, own_labels: bool) -> Stored:
    members = files.npz_names(path)
    wanted = (*PROBABILITIES, *LOGITS) if kind == "probabilities" else (*LOGITS, *PROBABILITIES)
    field = next((name for name in wanted if name in members), None)
    labels = [name for name in LABELS if name in members]
    if field is None:
        raise ValueError(
            f"{path}: holds {_listed(members)}; allowed are scores named {_listed(wanted)}"
        )
    if own_labels and len(labels) > 1:
        raise ValueError(f"{path}: holds labels as {_listed(labels)}; allowed is one of them")
    names = [field, "index", "classes", *(labels if own_labels else ())]
    arrays = files.read_npz(path, names=names, mapped=True)
    scores = arrays[field]
    label = arrays[labels[0]] if own_labels and labels else None
    classes = _names(path, arrays["classes"], scores) if "classes" in arrays else None
    return Stored(scores, label, arrays.get("index"), field, classes)


def _names(path, names, scores) -> tuple[str, ...]:
    if names.dtype.kind != "U" or names.shape != scores.shape[1:]:
        raise ValueError(
            f"{path}: its classes are {names.dtype}{list(names.shape)}; allowed is text {list(scores.shape[1:])}, one "
            "name for each"
        )
    return tuple(names.tolist())


def _from_csv(path: Path, kind: str | None, own_labels: bool) -> Stored:
    del kind  # nothing in it says what the scores are
    table, names = files.read_csv(path, BESIDE)
    if names is None:
        if not own_labels or _labels_of(path).is_file():
            return Stored(table, None, None, "")
        column = _label_column(path, table)
        return Stored(np.delete(table, column, axis=1), table[:, column], None, "")
    columns = [column for column, name in enumerate(names) if name.lower() in LABELS]
    classes = tuple(name for column, name in enumerate(names) if column not in columns)
    if own_labels and len(columns) > 1:
        raise ValueError(
            f"{path}: has columns {_listed(names[i] for i in columns)}; allowed is one of them"
        )
    label = table[:, columns[0]] if own_labels and columns else None
    return Stored(np.delete(table, columns, axis=1), label, None, "", classes)


def _label_column(path: Path, table: np.ndarray) -> int:
    """The place of the labels in a table without a header: the last or the first column, if one of
    them can be it.
    """
    classes = table.shape[1] - 1
    able = [column for column in (classes, 0) if _are_classes(table[:, column], classes)]
    if len(able) == 1 and classes:
        return able[0]
    raise ValueError(
        f"{path}: has no header, and {'both' if able else 'neither'} of its last and first column hold class numbers "
        f"0 to {classes - 1}; allowed are one of them, a header with {_listed(LABELS)}, and a file named by --labels"
    )


def _are_classes(values: np.ndarray, classes: int) -> bool:
    return bool(((values >= 0) & (values < classes) & (values % 1 == 0)).all())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"
