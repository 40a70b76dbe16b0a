"""Reading scores and labels from .npz, .npy and .csv files of any framework.

An .npz holds the scores as `logits`, `probs` or `probabilities`, the labels as `label`, `labels`,
`target` or the like, and optionally the names of the classes as `classes`. In a .csv with a
header, `csv_columns` says which columns are the labels, which are classes of their names, and which
are neither. In a .csv without a header, the labels are the last or the first column, if exactly one
of them holds class numbers. Labels are class numbers or names of classes. They come from the file
given for them, else from the predictions' file, else from `<stem>_labels.npy` in the same folder.
Nothing in these files is trusted.
"""

import unicodedata
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from ldl_jax import files
from ldl_jax.evaluation import csv_columns, csv_table
from ldl_jax.evaluation.csv_columns import LABELS, MORE_LABELS, Options, bare, listed

LOGITS = ("logits",)
PROBABILITIES = ("probs", "probabilities")
ENDINGS = (".npz", ".npy", ".csv")
ANY = Options()


class Stored(NamedTuple):
    """The contents of a file, not yet checked."""

    scores: np.ndarray  # [N, K], memory-mapped if the file stores it uncompressed
    label: np.ndarray | None  # [N]: class numbers, or names of classes
    index: np.ndarray | None  # [N], if an .npz has one
    field: str  # name of the scores in an .npz, or ''
    classes: tuple[str, ...] | None = None  # names of the classes
    notes: tuple[str, ...] = ()  # sentences on what was not taken as it is


def read(path, *, labels=None, labelled: bool = True, options: Options = ANY) -> Stored:
    """Scores and labels of a file.

    labels: the file that holds the labels, if it is another one. labelled: False reads no labels.
    options: what is known of its columns; its kind also says which to read if an .npz holds both.
    Raises ValueError naming the file.
    """
    path = check_path(path)
    own_labels = labelled and labels is None
    readers = {".npy": _from_npy, ".csv": _from_csv, ".npz": _from_npz}
    stored = readers[path.suffix.lower()](path, options, own_labels)
    if not labelled:
        return stored._replace(label=None)
    if not (own_labels and stored.label is not None):
        stored = stored._replace(label=read_labels(labels or _beside(path), options.label_column))
    return _with_numbers(labels or path, stored, options)


def _beside(path: Path) -> Path:
    """The file of labels next to a file of scores. Raises ValueError if there is none."""
    labels = _labels_of(path)
    if not labels.is_file():
        raise ValueError(
            f"{path}: has no labels, and there is no {labels.name} next to it. Add an array or a "
            f"column named {listed(LABELS)}, or pass --label-column=NAME or --labels=FILE."
        )
    return labels


def _labels_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}_labels.npy")


def read_labels(path, name: str | None = None) -> np.ndarray:
    """Labels [N] of an .npy, of a .csv with one column, or of an .npz or .csv by a name of LABELS.

    name: the name of the array or column, if it is another one.
    """
    path = check_path(path)
    if path.suffix.lower() == ".npy":
        return files.read_npy(path)
    if path.suffix.lower() == ".csv":
        table = csv_table.read(path, csv_columns.never_a_class)
        return table.column(csv_columns.label_of(path, table, name))
    members = files.npz_names(path)
    names = _label_arrays(path, members, name)
    if len(names) != 1:
        raise ValueError(
            f"{path}: must hold one array named {listed(LABELS)}, got {listed(members)}"
        )
    return files.read_npz(path, names=names, mapped=True)[names[0]]


def _label_arrays(path: Path, members: list[str], wanted: str | None) -> list[str]:
    """The arrays of labels in an .npz. Raises ValueError if --label-column names none of them."""
    if wanted is None:
        usual = [name for name in LABELS if name in members]
        return usual or [name for name in MORE_LABELS if name in members]
    if wanted not in members:
        raise ValueError(
            f"{path}: --label-column must be one of its arrays, {listed(members)}, got {wanted!r}"
        )
    return [wanted]


def check_path(path) -> Path:
    """The path of a file of numbers. Raises ValueError if it is of another type, missing or empty."""
    path = files.home(path)
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"{path}: must end in {listed(ENDINGS)}, got {path.suffix!r}")
    if not path.is_file():
        raise ValueError(f"{path}: does not exist or is not a file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: must hold at least one example, but is empty (0 bytes)")
    return path


def readable(array: np.ndarray) -> np.ndarray:
    """An array of a file in a type to compute with.

    numpy stores bfloat16 as two bytes without a name; no other common type does that.
    """
    return array.view(jax.dtypes.bfloat16) if array.dtype == np.dtype("V2") else array


def _from_npy(path: Path, options: Options, own_labels: bool) -> Stored:
    del own_labels  # an .npy holds only scores
    return Stored(readable(files.read_npy(path)), None, None, "", options.classes)


def _from_npz(path: Path, options: Options, own_labels: bool) -> Stored:
    # Which arrays hold the scores and the labels.
    members = files.npz_names(path)
    score_names = (*LOGITS, *PROBABILITIES)
    if options.kind == "probabilities":
        score_names = (*PROBABILITIES, *LOGITS)
    field = next((name for name in score_names if name in members), None)
    if field is None:
        raise ValueError(
            f"{path}: must hold scores named {listed(score_names)}, got {listed(members)}"
        )
    labels = _label_arrays(path, members, options.label_column) if own_labels else []
    if len(labels) > 1:
        raise ValueError(
            f"{path}: must hold one array of labels, got {listed(labels)}; pass --label-column=NAME"
        )
    # Read these alone: an .npz may hold large arrays of other kinds.
    arrays = files.read_npz(path, names=[field, "index", "classes", *labels], mapped=True)
    scores = readable(arrays[field])
    label = arrays[labels[0]] if labels else None
    classes = options.classes
    if classes is None and "classes" in arrays:
        classes = _class_names(path, arrays["classes"], scores)
    return Stored(scores, label, arrays.get("index"), field, classes)


def _class_names(path, names, scores) -> tuple[str, ...]:
    if names.dtype.kind != "U" or names.shape != scores.shape[1:]:
        raise ValueError(
            f"{path}: classes must be a text array with a name for each class, of shape "
            f"{list(scores.shape[1:])}, got {names.dtype}{list(names.shape)}"
        )
    return tuple(names.tolist())


def _from_csv(path: Path, options: Options, own_labels: bool) -> Stored:
    table = csv_table.read(path, _left_out(options))
    if table.names is not None:
        return _of_columns(path, table, options, own_labels)
    # Without a header, columns are named by their numbers, from 1.
    numbered = table._replace(names=[str(column + 1) for column in table.numeric])
    named = options.classes is not None or options.label_column is not None
    if named:
        return _of_columns(path, numbered, options, own_labels)._replace(classes=None)
    used, counting = csv_columns.without_row_numbers(table, table.numeric)
    label = None
    if own_labels and not _labels_of(path).is_file():
        label = _label_column(path, table, used)
        used = [column for column in used if column != label]
    used = csv_columns.weighed(path, numbered, used, options.kind)
    notes = ("not used: the row numbers",) if counting else ()
    values = None if label is None else table.column(label)
    return Stored(table.columns(used), values, None, "", None, notes)


def _left_out(options: Options):
    """Which columns are not read: those that are no class, unless they are asked for."""
    asked = [*(options.classes or ()), options.label_column or ""]
    wanted = [csv_columns.plain(name) for name in asked if name]

    def leave_out(name: str) -> bool:
        return csv_columns.never_a_class(name) and csv_columns.plain(name) not in wanted

    return leave_out


def _of_columns(path: Path, table: csv_table.Table, options: Options, own_labels: bool) -> Stored:
    """The columns in use of a table with names."""
    chosen = csv_columns.choose(path, table, options, own_labels=own_labels)
    label = None
    if own_labels and chosen.label is not None:
        label = table.column(chosen.label)
    # All columns in their order need no copy.
    scores = table.numbers
    if chosen.classes != table.numeric:
        scores = table.columns(chosen.classes)
    return Stored(scores, label, None, "", chosen.names, chosen.notes)


def _label_column(path: Path, table: csv_table.Table, columns: list[int]) -> int:
    """The column of the labels in a table without a header: the last or the first one.

    Raises ValueError if both, or neither, can be class numbers.
    """
    classes = max(2, len(columns) - 1)  # one column of scores is that of two classes
    ends = dict.fromkeys((columns[-1], columns[0]))
    candidates = [end for end in ends if _are_classes(table.column(end), classes)]
    if len(candidates) == 1 and len(columns) > 1:
        return candidates[0]
    which = (
        "both its last and its first column hold"
        if candidates
        else ("neither its last nor its first column holds")
    )
    raise ValueError(
        f"{path}: has no header, and {which} class numbers 0 to {classes - 1}, so the labels are "
        f"unknown. Add a header with a column {listed(LABELS)}, or pass "
        "--label-column=NUMBER (from 1) or --labels=FILE."
    )


def _are_classes(values: np.ndarray, classes: int) -> bool:
    return bool(((values >= 0) & (values < classes) & (values % 1 == 0)).all())


def _with_numbers(path, stored: Stored, options: Options) -> Stored:
    """Class numbers instead of names of classes, which may be numbers too.

    Raises ValueError for a label that is no class, and for one that may be a name or a number.
    """
    label = np.asarray(stored.label)
    if label.ndim != 1 or not len(label):
        return stored
    if label.dtype.kind == "U":
        return _by_name(path, label, stored)
    # In an .npz, class numbers are positions, as its own arrays show.
    names = stored.classes or ()
    if (
        stored.field
        or label.dtype.kind not in "iuf"
        or not all(map(str.isdecimal, map(_digits, names)))
    ):
        return stored
    numbers = [int(_digits(name)) for name in names]
    if not numbers or numbers == list(range(len(numbers))) or not np.isin(label, numbers).all():
        return stored
    positions = (label >= 0) & (label < len(numbers))
    if not positions.all():
        note = "labels are the numbers in the names of the classes"
        place = {number: position for position, number in enumerate(numbers)}
        label = np.array([place[number] for number in label.tolist()], np.int64)
        return stored._replace(label=label, notes=(*stored.notes, note))
    if options.classes is not None:
        return stored
    raise ValueError(
        f"{path}: labels such as {label[0]:g} may count the classes {listed(names)} from 0, or be "
        "the numbers in their names; pass --classes=A,B,C with the classes in the order in which "
        "labels count them from 0"
    )


def _digits(name: str) -> str:
    """The number in the name of a class such as '3', 'p(3)' or 'class 3'; '' if there is none."""
    match = csv_columns.NUMBERED.fullmatch(name)
    return match[2] if match else ""


def _by_name(path, label: np.ndarray, stored: Stored) -> Stored:
    """The numbers of labels that are names of classes; perhaps of one column of two classes."""
    classes = stored.classes
    names, place = np.unique(label, return_inverse=True)
    if classes is not None and len(classes) == 1 and len(names) == 2:
        # The scores are those of one class, so the other name is that of the other class.
        positive = [name for name in names.tolist() if _same(name) == _same(bare(classes[0]))]
        if len(positive) == 1:
            other = next(name for name in names.tolist() if name != positive[0])
            classes = (other, positive[0])
    if not classes and all(map(str.isdecimal, names.tolist())):
        return stored._replace(label=label.astype(np.int64))
    # Exact names come first: others may differ in case alone.
    number_of: dict[str, int] = {}
    for form in (str, bare, _same, lambda name: _same(bare(name))):
        for number, name in enumerate(classes or ()):
            number_of.setdefault(form(name), number)
    numbers = [number_of.get(name, number_of.get(_same(name))) for name in names.tolist()]
    if None in numbers:
        unknown = names[numbers.index(None)]
        raise ValueError(
            f"{path}: label {str(unknown)!r} in row {int(np.argmax(label == unknown))} must be one "
            f"of the classes, {listed(classes or ())}; pass --classes=A,B,C with their names"
        )
    return stored._replace(label=np.array(numbers, np.int64)[place], classes=classes)


def _same(name: str) -> str:
    """A name of a class up to case, spaces around it, and the form of its accents."""
    return unicodedata.normalize("NFC", name.strip()).casefold()
