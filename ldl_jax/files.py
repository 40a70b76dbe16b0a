"""Files: atomic writes, safe readers of arrays (.npz, .npy, .csv), and digests."""

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
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from ldl_jax.errors import UnreadableFile, one_line

LINES = 4096  # lines of a .csv read at a time
# What numpy, zipfile and the decompressors raise for files that are damaged, encrypted or of
# another kind.
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


def write(path, data: bytes | str) -> Path:
    """Write `data` to `path` atomically, through a temporary file beside it; returns the path.

    Raises OSError naming the path.
    """
    # Names of files that are not UTF-8 keep their bytes.
    content = data.encode(errors="surrogateescape") if isinstance(data, str) else data
    temporary_name = f".{Path(path).name}.{secrets.token_hex(4)}.tmp"
    return _write_atomically(temporary_name, path, lambda temporary: temporary.write_bytes(content))


def write_with(path, writer) -> Path:
    """Let `writer(temporary path)` write a file, then rename it to `path`; returns the path.

    The temporary file has the suffix of `path`. Raises OSError naming `path`, not the temporary.
    """
    # Writers such as np.savez choose the format by the suffix, so it comes last here.
    temporary_name = f".{secrets.token_hex(4)}.tmp.{Path(path).name}"
    return _write_atomically(temporary_name, path, writer)


def _write_atomically(temporary_name: str, path, writer) -> Path:
    path = Path(path)
    # In the same folder, because a rename is atomic only within one file system.
    temporary = path.with_name(temporary_name)
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
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value) -> str:
    """The SHA-256 of a JSON value in hexadecimal, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def cache_folder(name: str) -> Path:
    """The folder of a cache: ldl_jax/<name> in $XDG_CACHE_HOME or ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "ldl_jax" / name


def is_npz(path) -> bool:
    """Whether a file starts like an .npz file, whatever its name."""
    with open(path, "rb") as file:
        return file.read(4) == b"PK\3\4"


def npz_names(path, noun: str = ".npz") -> list[str]:
    """The names of the arrays in an .npz file. Raises UnreadableFile, calling the file `noun`."""
    with _reading(path, noun), _archive(path) as archive:
        return list(_members(archive))


def read_npz(
    path, noun: str = ".npz", names: Iterable[str] | None = None, *, mapped: bool = False
) -> dict[str, np.ndarray]:
    """The arrays of an .npz file: those of `names` that it contains, or all of them.

    mapped: memory-map uncompressed arrays, read-only; their checksums are then not verified. Raises
    UnreadableFile, calling the file `noun`, also for Python objects: pickles are never loaded.
    """
    with _reading(path, noun), _archive(path) as archive:
        members = _members(archive)
        arrays = {}
        for name in members if names is None else names:
            if name in members:
                arrays[name] = _read_member(path, archive, members[name], mapped)
        return arrays


def read_npy(path, noun: str = ".npy") -> np.ndarray:
    """The array of an .npy file, memory-mapped and read-only.

    Raises UnreadableFile, calling the file `noun`.
    """
    with _reading(path, noun):
        return _map(path, 0, os.stat(path).st_size)


def mapped_file(values) -> mmap.mmap | None:
    """The file that an array is mapped from; None if the array is in memory."""
    # A view keeps its parent in `base`, down to the mapping or to nothing.
    while isinstance(values, np.ndarray):
        values = values.base
    return values if isinstance(values, mmap.mmap) else None


@contextlib.contextmanager
def _reading(path, noun: str) -> Iterator[None]:
    """Turn every error that an unreadable file causes into one UnreadableFile."""
    try:
        yield
    except UNREADABLE as error:
        raise UnreadableFile(path, noun, one_line(error)) from None


def _archive(path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise ValueError("not a zip archive, or a truncated one") from None


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    return {info.filename.removesuffix(".npy"): info for info in archive.infolist()}


def _read_member(path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, mapped: bool) -> np.ndarray:
    # Opening the entry also checks that its local header agrees with the archive's directory.
    with archive.open(info) as member:
        if not mapped or info.compress_type != zipfile.ZIP_STORED:
            return np.lib.format.read_array(member, allow_pickle=False)
    with open(path, "rb") as file:
        # The lengths in the local header: they may differ from those in the directory.
        file.seek(info.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", file.read(4))
    begin = info.header_offset + 30 + name_length + extra_length
    return _map(path, begin, begin + info.file_size)


def _map(path, begin: int, end: int) -> np.ndarray:
    """The array in .npy format between two offsets of a file, memory-mapped and read-only."""
    with open(path, "rb") as file:
        file.seek(begin)
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            read_header = np.lib.format.read_array_header_1_0
        elif version == (2, 0):
            read_header = np.lib.format.read_array_header_2_0
        else:
            raise ValueError(f"the .npy format version must be (1, 0) or (2, 0), got {version}")
        shape, fortran, dtype = read_header(file)
        begin = file.tell()
        file_size = os.fstat(file.fileno()).st_size
    if dtype.hasobject:
        raise ValueError("it contains pickled Python objects, which are refused; use plain arrays")
    # A mapping beyond the end of the file would crash the process on access.
    size = math.prod(shape) * dtype.itemsize
    if begin + size > min(end, file_size):
        raise ValueError(
            f"truncated: {dtype}{list(shape)} needs {size:,} bytes, but only {end - begin:,} are present"
        )
    if size == 0:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", begin, shape, "F" if fortran else "C")


def read_csv(
    path, leave_out: Callable[[str], bool] = lambda name: False
) -> tuple[np.ndarray, list[str] | None]:
    """The numbers f32[N, columns] of a .csv file and its column names, or None without a header.

    leave_out: says of a column's name in lower case whether to skip it. Raises ValueError naming the file and,
    if a line is not a row of numbers, the line.
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
    has_header = not all(map(_is_number, fields))
    used = []
    for column, name in enumerate(fields):
        if not has_header or not leave_out(name.lower()):
            used.append(column)
    # The first line is the header, or already a row of numbers.
    batch = list(islice(lines, LINES))
    if fields and not has_header:
        batch = [first, *batch]
    # Read in batches: the text of a large file takes several times the memory of its numbers.
    tables = []
    while batch:
        tables.append(_numbers(path, batch, len(fields), used))
        batch = list(islice(lines, LINES))
    if not tables:
        raise ValueError(f"{path}: no rows of numbers; the file must have at least one example")
    names = [fields[column] for column in used] if has_header else None
    return np.concatenate(tables), names


def _numbers(path, batch: list[tuple[int, str]], width: int, used: list[int]) -> np.ndarray:
    """The used columns of a batch of numbered lines: f32[n, columns]."""
    lines = [line for _, line in batch]
    columns = used if len(used) < width else None
    try:
        # With `usecols`, loadtxt does not check the number of fields.
        if columns is not None and any(len(_fields(line)) != width for line in lines):
            raise ValueError
        table = np.loadtxt(
            lines, delimiter=",", comments=None, quotechar='"', ndmin=2, usecols=columns
        )
        if table.shape != (len(lines), len(used)):
            raise ValueError
    except ValueError:
        raise ValueError(_bad_row(path, batch, width, used)) from None
    # An overflow to infinity is reported later, by the checks of the values.
    with np.errstate(over="ignore"):
        return table.astype(np.float32)


def _bad_row(path, batch: list[tuple[int, str]], width: int, used: list[int]) -> str:
    """The message about the first line that is not a row of numbers."""
    for number, line in batch:
        fields = _fields(line)
        if len(fields) != width:
            return f"{path}, line {number}: expected {width} fields, as in the first line, got {len(fields)}"
        for column in used:
            if not _is_number(fields[column]):
                return f"{path}, line {number}: column {column + 1} must be a number, got {fields[column][:40]!r}"
    return f"{path}, lines {batch[0][0]} to {batch[-1][0]}: expected numbers separated by commas"


def _fields(line: str) -> list[str]:
    return [field.strip() for field in next(csv.reader([line]), [])]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
