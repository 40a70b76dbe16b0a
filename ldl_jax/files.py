"""Files: paths, atomic writes, safe readers of arrays (.npz, .npy), and digests."""

import contextlib
import hashlib
import json
import lzma
import math
import mmap
import os
import secrets
import struct
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ldl_jax.errors import UnreadableFile, one_line

PROBE = 2**16  # bytes written to test a folder
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


def home(path) -> Path:
    """A path that a person gave, with `~` and `~user` as a shell expands them at the beginning."""
    # Path.expanduser raises if there is no such user; the file is then reported as missing.
    return Path(os.path.expanduser(path))


def write(path, data: bytes | str) -> Path:
    """Write `data` to `path` atomically, through a temporary file beside it; returns the path.

    Raises OSError naming the path.
    """
    # Names of files that are not UTF-8 keep their bytes.
    content = data.encode(errors="surrogateescape") if isinstance(data, str) else data
    temporary_name = f".{Path(path).name}.{secrets.token_hex(4)}.tmp"
    return _write_atomically(temporary_name, path, lambda file: file.write(content))


def write_with(path, writer) -> Path:
    """Let `writer(temporary path)` write a file, then rename it to `path`; returns the path.

    The temporary file has the suffix of `path`. Raises OSError naming `path`, not the temporary.
    """
    # Writers such as np.savez choose the format by the suffix, so it comes last here.
    temporary_name = f".{secrets.token_hex(4)}.tmp.{Path(path).name}"
    return _write_atomically(temporary_name, path, lambda file: writer(Path(file.name)))


def _write_atomically(temporary_name: str, path, writer) -> Path:
    """Let `writer` write the open temporary file, and rename it; a link at `path` is replaced."""
    path = Path(path)
    # In the same folder, because a rename is atomic only within one file system.
    temporary = path.with_name(temporary_name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file of its own ("x"): nothing that lies there is written through.
        file = open(temporary, "xb", opener=no_link)  # noqa: SIM115 (closed before it is renamed)
        try:
            with file:
                writer(file)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    return path


def no_link(path, flags: int) -> int:
    """An opener for `open`: raises OSError for symbolic links, and for pipes that nobody reads."""
    # Windows has neither flag.
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)


def refuse_links(*paths: Path, below: bool = False) -> None:
    """Raise ValueError if a path is a symbolic link, or with `below` an entry at any depth of it.

    Run directories come from others: what is written through a link lands anywhere.
    """
    for path in paths:
        if path.is_symlink():
            raise ValueError(
                f"{path} must not be a symbolic link, because results are written there; replace "
                "it by what it leads to, or remove it (the whole directory may be a link)"
            )
        if below and path.is_dir():
            refuse_links(*path.iterdir(), below=True)


def check_writable(folder) -> None:
    """Raise OSError, naming the folder, if no file can be written there; the folder need not exist.

    Nothing is left behind.
    """
    nearest = Path(folder)
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest) as file:
            # On a full disk, only writing fails.
            file.write(bytes(PROBE))
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(folder)) from error


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
