"""Scores and labels in .npz, .npy and .csv files, as any framework may have written them; nothing in them is trusted.

An .npz holds the scores as `logits`, `probs` or `probabilities`, the labels as `label`, `labels`, `target` or
`targets`, and may hold the names of the classes as `classes`. A .csv with a header has a column of one of these names
for the labels; columns of BESIDE, such as index, image and predicted, are left out, and every other one is a class of
that name. In a .csv without a header the labels are the last column where that alone holds class numbers, or the first
where that one alone does. Labels come from the file that was named for them, or else from the file itself, or else from
`<stem>_labels.npy` beside it.
"""

import csv
import math
import mmap
import struct
import zipfile
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ldl_jax.errors import one_line

LOGITS, PROBABILITIES = ("logits",), ("probs", "probabilities")
LABELS = ("label", "labels", "target", "targets")
BESIDE = (  # columns of a .csv that are no class
    "index", "id", "file", "filename", "image", "path", "predicted", "prediction", "pred", "confidence", "correct",
)  # fmt: skip
ENDINGS = (".npz", ".npy", ".csv")
LINES = 4096  # of a .csv, read at a time


class Stored(NamedTuple):
    """What a file holds, before it is checked."""

    scores: np.ndarray  # [N, K], mapped where it stands in the file as it is in memory
    label: np.ndarray | None  # [N]
    index: np.ndarray | None  # [N], of an .npz that has it
    field: str  # the scores' name in an .npz, or ''
    classes: tuple[str, ...] | None = None  # their names


def read(path, *, labels=None, kind: str | None = None, labelled: bool = True) -> Stored:
    """Scores and labels of a file; `labels`: the file that holds the labels; `labelled`: False reads none.

    kind: of an .npz with both logits and probabilities, which. Raises ValueError naming the file.
    """
    path = Path(path)
    found = _read(path, kind, split=labelled and labels is None)
    if not labelled:
        return found._replace(label=None)
    if labels is None and found.label is None:
        beside = path.with_name(f"{path.stem}_labels.npy")
        if not beside.is_file():
            raise ValueError(
                f"{path}: has no labels, and {beside.name} is not beside it; allowed are {_listed(LABELS)} in an .npz, "
                "a column of such a name in a .csv, and a file named by --labels"
            )
        labels = beside
    return found if labels is None else found._replace(label=read_labels(labels))


def read_labels(path) -> np.ndarray:
    """The labels of an .npy, of an .npz or .csv under a name of LABELS, or of a .csv of one column: [N]."""
    path = Path(path)
    _check_path(path)
    if path.suffix == ".csv":
        table, names = _read_csv(path)
        columns = [i for i, name in enumerate(names or ()) if name.lower() in LABELS]
        columns = [0] if table.shape[1] == 1 else columns
        if len(columns) != 1:
            raise ValueError(f"{path}: has {table.shape[1]} columns; allowed is one, or one named {_listed(LABELS)}")
        return table[:, columns[0]]
    if path.suffix == ".npy":
        return read_array(path)
    members = _members(path)
    names = [name for name in LABELS if name in members]
    if len(names) != 1:
        raise ValueError(f"{path}: holds {_listed(members)}; allowed is one array named {_listed(LABELS)}")
    return _member(path, members[names[0]])


def read_array(path) -> np.ndarray:
    """The array of an .npy file, mapped. Raises ValueError naming the file."""
    path = Path(path)
    _check_path(path)
    return _guarded(path, _mapped, path, 0, path.stat().st_size)


def read_table(path) -> np.ndarray:
    """The numbers of a .csv, without columns of BESIDE: f32[N, columns]. Raises ValueError naming the file."""
    path = Path(path)
    _check_path(path)
    return _read_csv(path)[0]


def read_members(path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, mapped where they are not compressed. Raises ValueError naming the file."""
    path = Path(path)
    _check_path(path)
    return {name: _member(path, info) for name, info in _members(path).items()}


def mapped_file(values) -> mmap.mmap | None:
    """The file that an array is mapped from; None where it is in memory."""
    while isinstance(values, np.ndarray):
        values = values.base
    return values if isinstance(values, mmap.mmap) else None


def _check_path(path: Path) -> None:
    if path.suffix not in ENDINGS:
        raise ValueError(f"{path}: ends in {path.suffix or 'nothing'!r}; allowed are {_listed(ENDINGS)}")
    if not path.is_file():
        raise ValueError(f"{path}: is not there; allowed is a file that ends in {_listed(ENDINGS)}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: is empty (0 bytes); allowed is a file with at least one example")


def _read(path, kind, split) -> Stored:
    _check_path(path)
    if path.suffix == ".npy":
        return Stored(read_array(path), None, None, "")
    if path.suffix == ".csv":
        return _from_csv(path, split)
    members = _members(path)
    wanted = (*PROBABILITIES, *LOGITS) if kind == "probabilities" else (*LOGITS, *PROBABILITIES)
    field = next((name for name in wanted if name in members), None)
    named = [name for name in LABELS if name in members]
    if field is None:
        raise ValueError(f"{path}: holds {_listed(members)}; allowed are scores named {_listed(wanted)}")
    if split and len(named) > 1:
        raise ValueError(f"{path}: holds labels as {_listed(named)}; allowed is one of them")
    label = _member(path, members[named[0]]) if split and named else None
    index = _member(path, members["index"]) if "index" in members else None
    scores = _member(path, members[field])
    classes = _names(path, _member(path, members["classes"]), scores) if "classes" in members else None
    return Stored(scores, label, index, field, classes)


def _names(path, names, scores) -> tuple[str, ...]:
    if names.dtype.kind != "U" or names.shape != scores.shape[1:]:
        raise ValueError(
            f"{path}: its classes are {names.dtype}{list(names.shape)}; allowed is text {list(scores.shape[1:])}, one "
            "name for each"
        )
    return tuple(names.tolist())


def _guarded(path, function, *arguments):
    """`function(*arguments)`, with whatever a file that is no such array leads to as one sentence."""
    try:
        return function(*arguments)
    except Exception as error:
        raise ValueError(f"{path}: cannot be read as {path.suffix} ({one_line(error)})") from None


def _members(path) -> dict[str, zipfile.ZipInfo]:
    def read():
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile:
            raise ValueError("it is no zip archive, or not a whole one") from None
        with archive:
            return {info.filename.removesuffix(".npy"): info for info in archive.infolist()}

    return _guarded(path, read)


def _member(path, info) -> np.ndarray:
    return _guarded(path, _read_member, path, info)


def _read_member(path, info) -> np.ndarray:
    """An entry of an .npz: mapped where it is stored as it is, decompressed into memory otherwise."""
    with zipfile.ZipFile(path) as archive, archive.open(info) as member:
        if info.compress_type != zipfile.ZIP_STORED:
            return np.lib.format.read_array(member, allow_pickle=False)
    with open(path, "rb") as file:
        file.seek(info.header_offset + 26)  # of the entry's own header: its name and extra field may differ in length
        name, extra = struct.unpack("<HH", file.read(4))
    begin = info.header_offset + 30 + name + extra
    return _mapped(path, begin, begin + info.file_size)


def _mapped(path, begin: int, end: int) -> np.ndarray:
    """The array in .npy format between two bytes of a file, read-only and mapped."""
    with open(path, "rb") as file:
        file.seek(begin)
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"its format is {version}; allowed are (1, 0) and (2, 0)")
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(file)
        begin = file.tell()
    if dtype.hasobject:
        raise ValueError("it holds pickled Python objects, which are refused; allowed are numbers")
    size = math.prod(shape) * dtype.itemsize
    if begin + size > min(end, path.stat().st_size):
        raise ValueError(f"it is truncated: {dtype}{list(shape)} has {size:,} bytes, and {end - begin:,} are there")
    if size == 0:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", begin, shape, "F" if fortran else "C")


def _from_csv(path, split) -> Stored:
    table, names = _read_csv(path)
    place, classes = None, None
    if names is not None:
        labels = [i for i, name in enumerate(names) if name.lower() in LABELS]
        classes = tuple(name for i, name in enumerate(names) if i not in labels)
        if split and len(labels) > 1:
            raise ValueError(f"{path}: has columns {_listed(names[i] for i in labels)}; allowed is one of them")
        place = labels[0] if labels else None
        scores = np.delete(table, labels, axis=1)
    elif split and not path.with_name(f"{path.stem}_labels.npy").is_file():
        place = _label_column(path, table)
        scores = np.delete(table, place, axis=1)
    else:
        scores = table
    return Stored(scores, table[:, place] if split and place is not None else None, None, "", classes)


def _label_column(path, table) -> int:
    """The place of the labels in a table without a header: the last or the first column, if one of them can be it."""
    classes = table.shape[1] - 1
    able = [
        i for i in (classes, 0) if ((table[:, i] >= 0) & (table[:, i] < classes) & (table[:, i] % 1 == 0)).all()
    ]  # fmt: skip
    if len(able) == 1 and classes:
        return able[0]
    raise ValueError(
        f"{path}: has no header, and {'both' if able else 'neither'} of its last and first column hold class numbers "
        f"0 to {classes - 1}; allowed are one of them, a header with {_listed(LABELS)}, and a file named by --labels"
    )


def _read_csv(path) -> tuple[np.ndarray, list[str] | None]:
    """The numbers of a .csv f32[N, columns], without columns of BESIDE, and the names of its header, if it has one."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
            first = next(lines, (1, ""))
            fields = _fields(first[1])
            header = not all(map(_is_number, fields))
            used = [i for i, name in enumerate(fields) if not header or name.lower() not in BESIDE]
            parts, batch = [], list(islice(lines, LINES))
            batch = [first, *batch] if fields and not header else batch
            while batch:
                parts.append(_numbers(path, batch, len(fields), used))
                batch = list(islice(lines, LINES))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as .csv ({error})") from None
    if not parts:
        raise ValueError(f"{path}: has no rows of numbers; allowed is a file with at least one example")
    return np.concatenate(parts), [fields[i] for i in used] if header else None


def _numbers(path, batch, width, used) -> np.ndarray:
    lines = [line for _, line in batch]
    some = len(used) < width  # then loadtxt does not count the fields
    try:
        if some and any(len(_fields(line)) != width for line in lines):
            raise ValueError
        columns = used if some else None
        table = np.loadtxt(lines, delimiter=",", comments=None, quotechar='"', ndmin=2, usecols=columns)
        if table.shape != (len(lines), len(used)):
            raise ValueError
    except ValueError:
        raise ValueError(_bad_row(path, batch, width, used)) from None
    with np.errstate(over="ignore"):  # the infinity is a fault that is found later
        return table.astype(np.float32)


def _bad_row(path, batch, width, used) -> str:
    for number, line in batch:
        fields = _fields(line)
        if len(fields) != width:
            return f"{path}, line {number}: has {len(fields)} fields; allowed are {width}, as in the first line"
        for i in used:
            if not _is_number(fields[i]):
                return f"{path}, line {number}: column {i + 1} holds {fields[i][:40]!r}; allowed are numbers"
    return f"{path}, lines {batch[0][0]} to {batch[-1][0]}: cannot be read; allowed are numbers separated by commas"


def _fields(line: str) -> list[str]:
    return [field.strip() for field in next(csv.reader([line]), [])]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _listed(names) -> str:
    return ", ".join(names) or "nothing"
