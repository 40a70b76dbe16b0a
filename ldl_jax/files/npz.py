"""Safe readers of arrays: .npz, .npy, and those that JSON files hold."""

import contextlib
import io
import lzma
import math
import mmap
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from ldl_jax.errors import UnreadableFile, one_line
from ldl_jax.files.reading import check_file

# Limits of an .npz file whose arrays are packed: larger arrays must not be many times the file.
LARGEST_UNPACKED = 2**32  # bytes
HIGHEST_RATIO = 100  # deflate reaches 1,032 with zeros, and scores about 1.1
LONGEST_HEADER = 10_000  # bytes before the numbers of an array, the limit of numpy too
ARCHIVE = b"PK\3\4"  # the first bytes of an .npz file
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


def is_npz(path) -> bool:
    """Whether a file starts like an .npz file, whatever its name.

    Raises OSError, also if it is no regular file.
    """
    return _begins(path, ARCHIVE)


def _begins(path, magic: bytes) -> bool:
    check_file(path)
    with open(path, "rb") as file:
        return file.read(len(magic)) == magic


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
        wanted = [name for name in (members if names is None else names) if name in members]
        _check_unpacked(path, [members[name] for name in wanted])
        return {name: _read_member(path, archive, members[name], mapped) for name in wanted}


def read_npy(path, noun: str = ".npy") -> np.ndarray:
    """The array of an .npy file, memory-mapped and read-only.

    Raises UnreadableFile, calling the file `noun`.
    """
    with _reading(path, noun):
        if is_npz(path):
            raise ValueError("it is an .npz archive, not an .npy file of one array")
        return _map(path, 0, os.stat(path).st_size)


def read_array(path, name: str, stored: dict) -> np.ndarray:
    """The array that a JSON file has as {'dtype', 'shape', 'values'}.

    Raises ValueError naming the file and the array.
    """
    try:
        dtype = np.dtype(stored["dtype"])
        if dtype.kind not in "fiub":
            raise ValueError(f"its type is {dtype}")
        return np.array(stored["values"], dtype).reshape(stored["shape"])
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise ValueError(
            f"{path}: {name} must be an array of numbers ({one_line(error, 100)})"
        ) from None


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
        # Without the number of the error and the path, which is named anyway.
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UnreadableFile(path, noun, reason) from None


def _archive(path) -> zipfile.ZipFile:
    if _begins(path, np.lib.format.MAGIC_PREFIX):
        raise ValueError("it is an .npy file of one array, not an .npz archive")
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise ValueError("not a zip archive, or a truncated one") from None


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name in members:
            raise ValueError(f"it has the array {name!r} more than once")
        members[name] = info
    return members


def _check_unpacked(path, members: list[zipfile.ZipInfo]) -> None:
    """Check, before they are read, that packed arrays do not unpack to absurd sizes."""
    unpacked = sum(info.file_size for info in members)
    packed = os.stat(path).st_size
    if unpacked > max(LARGEST_UNPACKED, HIGHEST_RATIO * packed):
        raise ValueError(
            f"its arrays unpack from {packed:,} to {unpacked:,} bytes; more than "
            f"{LARGEST_UNPACKED:,} bytes must not be over {HIGHEST_RATIO} times the file, so store "
            "such arrays uncompressed"
        )


def _read_member(path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, mapped: bool) -> np.ndarray:
    # Opening the entry also checks that its local header agrees with the archive's directory.
    with archive.open(info) as member:
        if not mapped or info.compress_type != zipfile.ZIP_STORED:
            header = _header(member)
            _check_size(header, info.file_size - header.begin)
            # Only a member that is read to its end is compared with its checksum.
            if header.size < info.file_size - header.begin:
                raise ValueError(f"{info.filename} has bytes after its array")
            member.seek(0)
            return np.lib.format.read_array(member, allow_pickle=False)
    with open(path, "rb") as file:
        # The lengths in the local header: they may differ from those in the directory.
        file.seek(info.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", file.read(4))
    begin = info.header_offset + 30 + name_length + extra_length
    return _map(path, begin, begin + info.file_size)


class _Header(NamedTuple):
    """What the header of an array in .npy format says."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    size: int  # bytes of the array
    begin: int  # bytes of the header


def _header(file) -> _Header:
    """The header at the position of a file; its length is checked before it is read."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        read = np.lib.format.read_array_header_1_0
        length_bytes = 2
    elif version == (2, 0):
        read = np.lib.format.read_array_header_2_0
        length_bytes = 4
    else:
        raise ValueError(f"the .npy format version must be (1, 0) or (2, 0), got {version}")
    prefix = file.read(length_bytes)
    length = int.from_bytes(prefix, "little")
    if length > LONGEST_HEADER:
        raise ValueError(f"its header must have at most {LONGEST_HEADER:,} bytes, got {length:,}")
    shape, fortran, dtype = read(io.BytesIO(prefix + file.read(length)))
    if dtype.hasobject:
        raise ValueError("it contains pickled Python objects, which are refused; use plain arrays")
    count = math.prod(shape)
    if dtype.names or dtype.subdtype or any(length < 0 for length in shape):
        raise ValueError(f"it must be a plain array, got {dtype}{list(shape)}")
    if count and not dtype.itemsize:
        raise ValueError(f"its elements must have at least one byte, got {dtype}{list(shape)}")
    begin = len(np.lib.format.MAGIC_PREFIX) + 2 + length_bytes + length
    return _Header(shape, fortran, dtype, count * dtype.itemsize, begin)


def _check_size(header: _Header, present: int) -> None:
    """Raise ValueError if an array is longer than what is there: nothing is allocated for it."""
    if header.size > present:
        array = f"{header.dtype}{list(header.shape)}"
        raise ValueError(
            f"truncated: {array} needs {header.size:,} bytes, but only {max(present, 0):,} are "
            "present"
        )


def _map(path, begin: int, end: int) -> np.ndarray:
    """The array in .npy format between two offsets of a file, memory-mapped and read-only."""
    with open(path, "rb") as file:
        file.seek(begin)
        header = _header(file)
        file_size = os.fstat(file.fileno()).st_size
    begin += header.begin
    # A mapping beyond the end of the file would crash the process on access.
    _check_size(header, min(end, file_size) - begin)
    if header.size == 0:
        return np.empty(header.shape, header.dtype)
    order = "F" if header.fortran else "C"
    return np.memmap(path, header.dtype, "r", begin, header.shape, order)
