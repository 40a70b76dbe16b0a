"""Arrays that took long to make, kept on disk: whole and unchanged, or not used.

Nothing that is out of date is removed; the folder may be deleted at any time.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from ldl_jax import files
from ldl_jax.errors import one_line, warn

DIGEST = "sha256"  # entry of the file: the digest of all the others


def folder(chosen: str, name: str) -> Path:
    """The folder that was chosen or, for '', ldl_jax/<name> below $XDG_CACHE_HOME or ~/.cache."""
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ldl_jax" / name


def key(*parts) -> str:
    """A file name for what was made from these JSON values: the SHA-256 of them, in hexadecimal."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def load(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of `save`; None where there are none, or with a warning where the file is damaged."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if str(arrays.pop(DIGEST)) != _digest(arrays):
            raise ValueError("its content has another SHA-256")
    except Exception as error:  # whatever a damaged file leads to
        warn(f"{path} is damaged and will be made again ({one_line(error)})")
        return None
    return arrays


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Keep arrays; where the folder cannot be written, warn and go on without."""
    try:
        files.write_npz(path, **arrays, **{DIGEST: np.array(_digest(arrays))})
    except OSError as error:
        warn(f"{path} cannot be written ({error.strerror or error}); the next run will make it again")


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()
