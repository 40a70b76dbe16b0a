"""Files: written whole or not at all, read as arrays (.npz, .npy, .csv) with nothing in them
trusted, and digests.
"""

import contextlib
import csv
import hashlib
import json
import lzma
import math
import mmap
import os
import secrets
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from ldl_jax.errors import UnreadableFile, one_line

LINES = 4096  # of a .csv, read at a time
# What numpy, zipfile and the decompressors raise for files that are damaged, encrypted or of
# another kind.
UNREADABLE = (
    OSError, EOFError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError, MemoryError,
    SyntaxError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip


def write(path, data: bytes | str) -> Path:
    """Write `data` to `path` through a temporary name beside it; returns the path. Raises OSError
    naming the path.
    """
    content = data.encode() if isinstance(data, str) else data
    return _through(
        f".{Path(path).name}.{secrets.token_hex(4)}.tmp",
        path,
        lambda temporary: temporary.write_bytes(content),
    )


def write_with(path, writer) -> Path:
    """Let `writer(temporary path)` write a file, then rename it to `path`; the temporary keeps the
    ending.

    Raises OSError naming `path`, not the temporary.
    """
    return _through(f".{secrets.token_hex(4)}.tmp.{Path(path).name}", path, writer)


def _through(name: str, path, writer) -> Path:
    path = Path(path)
    temporary = path.with_name(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            writer(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    return path


def write_json(path, value) -> Path:
    """Write `value` as indented JSON."""
    return write(path, json.dumps(value, indent=2, sort_keys=False) + "\n")


def write_npz(path, **arrays) -> Path:
    """Write named arrays as an .npz file."""
    return write_with(path, lambda temporary: np.savez(temporary, **arrays))


def sha256(path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value) -> str:
    """The SHA-256 of a JSON value, whatever the order of its keys, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def cache_folder(name: str) -> Path:
    """The folder of a cache: ldl_jax/<name> below $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ldl_jax" / name


def is_npz(path) -> bool:
    """Whether a file begins as an .npz does, whatever its name."""
    with open(path, "rb") as file:
        return file.read(4) == b"PK\3\4"


def npz_names(path, noun: str = ".npz") -> list[str]:
    """The names of the arrays in an .npz file. Raises UnreadableFile, where the file is called
    `noun`.
    """
    with _reading(path, noun), _archive(path) as archive:
        return list(_members(archive))


def read_npz(
    path, noun: str = ".npz", names: Iterable[str] | None = None, *, mapped: bool = False
) -> dict[str, np.ndarray]:
    """The arrays of an .npz file: those of `names` that it holds, or all of them.

    mapped: read-only from the disk where they are not compressed, which passes over their
    checksums. Raises UnreadableFile, where the file is called `noun`, also for Python objects: no
    pickle is opened.
    """
    with _reading(path, noun), _archive(path) as archive:
        members = _members(archive)
        wanted = [name for name in (members if names is None else names) if name in members]
        return {name: _read_member(path, archive, members[name], mapped) for name in wanted}


def read_npy(path, noun: str = ".npy") -> np.ndarray:
    """The array of an .npy file, read-only and mapped. Raises UnreadableFile, where the file is
    called `noun`.
    """
    with _reading(path, noun):
        return _map(path, 0, os.stat(path).st_size)


def mapped_file(values) -> mmap.mmap | None:
    """The file that an array is mapped from; None where it is in memory."""
    while isinstance(values, np.ndarray):
        values = values.base
    return values if isinstance(values, mmap.mmap) else None


@contextlib.contextmanager
def _reading(path, noun: str) -> Iterator[None]:
    """Make one sentence of whatever a file that is no such arrays leads to."""
    try:
        yield
    except UNREADABLE as error:
        raise UnreadableFile(path, noun, one_line(error)) from None


def _archive(path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise ValueError("it is no zip archive, or not a whole one") from None


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    return {info.filename.removesuffix(".npy"): info for info in archive.infolist()}


def _read_member(path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, mapped: bool) -> np.ndarray:
    with archive.open(info) as member:  # refuses an entry whose own header is another one's
        if not mapped or info.compress_type != zipfile.ZIP_STORED:
            return np.lib.format.read_array(member, allow_pickle=False)
    with open(path, "rb") as file:
        # of the entry's own header: its name and extra field may differ in length
        file.seek(info.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
    begin = info.header_offset + 30 + name + extra
    return _map(path, begin, begin + info.file_size)


def _map(path, begin: int, end: int) -> np.ndarray:
    """The array in .npy format between two bytes of a file, read-only and mapped."""
    with open(path, "rb") as file:
        file.seek(begin)
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"its format is {version}; allowed are (1, 0) and (2, 0)")
        header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = header(file)
        begin, there = file.tell(), os.fstat(file.fileno()).st_size
    if dtype.hasobject:
        raise ValueError("it holds pickled Python objects, which are refused; allowed are numbers")
    size = math.prod(shape) * dtype.itemsize
    if begin + size > min(end, there):
        raise ValueError(
            f"it is truncated: {dtype}{list(shape)} has {size:,} bytes, and {end - begin:,} are there"
        )
    if size == 0:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", begin, shape, "F" if fortran else "C")


def read_csv(path, leave_out: Iterable[str] = ()) -> tuple[np.ndarray, list[str] | None]:
    """The numbers f32[N, columns] of a .csv file, and the names of its columns; None where it has
    no header.

    leave_out: names, in lower case, of columns that are not read. Raises ValueError naming the
    file, and the line that holds something else than numbers.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            return _read_lines(path, file, leave_out)
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise UnreadableFile(path, ".csv", one_line(error)) from None


def _read_lines(path, file: Iterable[str], leave_out) -> tuple[np.ndarray, list[str] | None]:
    lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
    first = next(lines, (1, ""))
    fields = _fields(first[1])
    header = not all(map(_is_number, fields))
    used = [
        column for column, name in enumerate(fields) if not header or name.lower() not in leave_out
    ]
    batch = list(islice(lines, LINES))
    if fields and not header:
        batch = [first, *batch]
    tables = []
    while batch:
        tables.append(_numbers(path, batch, len(fields), used))
        batch = list(islice(lines, LINES))
    if not tables:
        raise ValueError(
            f"{path}: has no rows of numbers; allowed is a file with at least one example"
        )
    return np.concatenate(tables), [fields[column] for column in used] if header else None


def _numbers(path, batch: list[tuple[int, str]], width: int, used: list[int]) -> np.ndarray:
    """The used columns of some numbered lines: f32[n, columns]."""
    lines = [line for _, line in batch]
    columns = used if len(used) < width else None
    try:
        # With some columns alone, loadtxt does not count the fields.
        if columns is not None and any(len(_fields(line)) != width for line in lines):
            raise ValueError
        table = np.loadtxt(
            lines, delimiter=",", comments=None, quotechar='"', ndmin=2, usecols=columns
        )
        if table.shape != (len(lines), len(used)):
            raise ValueError
    except ValueError:
        raise ValueError(_bad_row(path, batch, width, used)) from None
    with np.errstate(over="ignore"):  # the infinity is a fault that is found later
        return table.astype(np.float32)


def _bad_row(path, batch: list[tuple[int, str]], width: int, used: list[int]) -> str:
    """What is wrong with the first line that is no row of numbers."""
    for number, line in batch:
        fields = _fields(line)
        if len(fields) != width:
            return f"{path}, line {number}: has {len(fields)} fields; allowed are {width}, as in the first line"
        for column in used:
            if not _is_number(fields[column]):
                return f"{path}, line {number}: column {column + 1} holds {fields[column][:40]!r}; allowed are numbers"
    return f"{path}, lines {batch[0][0]} to {batch[-1][0]}: cannot be read; allowed are numbers separated by commas"


def _fields(line: str) -> list[str]:
    return [field.strip() for field in next(csv.reader([line]), [])]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
