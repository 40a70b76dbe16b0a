"""Files that are either whole or not there: written under a temporary name, then renamed."""

import hashlib
import json
import os
import secrets
from pathlib import Path

import numpy as np


def write(path, data: bytes | str) -> Path:
    """Write `data` to `path` through a temporary name beside it; returns the path. Raises OSError naming the path."""
    content = data.encode() if isinstance(data, str) else data
    return _through(
        f".{Path(path).name}.{secrets.token_hex(4)}.tmp", path, lambda temporary: temporary.write_bytes(content)
    )


def write_with(path, writer) -> Path:
    """Let `writer(temporary path)` write a file, then rename it to `path`; the temporary keeps the ending.

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


def cache_folder(name: str) -> Path:
    """The folder of a cache: ldl_jax/<name> below $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ldl_jax" / name
