"""Files: paths, atomic writes and digests, and the face of the folder: safe readers of arrays."""

import hashlib
import json
import os
import secrets
import tempfile
from pathlib import Path

import numpy as np

from ldl_jax.files.npz import (
    UNREADABLE,
    is_npz,
    mapped_file,
    npz_names,
    read_array,
    read_npy,
    read_npz,
)
from ldl_jax.files.reading import check_file

__all__ = [
    "UNREADABLE",
    "cache_folder",
    "check_writable",
    "digest",
    "home",
    "is_npz",
    "mapped_file",
    "no_link",
    "npz_names",
    "read_array",
    "read_npy",
    "read_npz",
    "refuse_links",
    "sha256",
    "write",
    "write_json",
    "write_npz",
    "write_with",
]

PROBE = 2**16  # bytes written to test a folder


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
    """The SHA-256 of a file, in hexadecimal. Raises OSError, also if it is no regular file."""
    check_file(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value) -> str:
    """The SHA-256 of a JSON value in hexadecimal, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def cache_folder(name: str) -> Path:
    """The folder of a cache: ldl_jax/<name> in $XDG_CACHE_HOME or ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "ldl_jax" / name
