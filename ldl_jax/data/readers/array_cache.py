"""Arrays that took long to make, kept on disk: whole and unchanged, or not used.

Nothing that is out of date is removed; the folder may be deleted at any time.
"""

import hashlib
from pathlib import Path

import numpy as np

from ldl_jax import files
from ldl_jax.errors import UnreadableFile, warn

DIGEST = "sha256"  # entry of the file: the digest of all the others


def folder(chosen: str) -> Path:
    """The folder that was chosen or, for '', ldl_jax/images below $XDG_CACHE_HOME or ~/.cache."""
    return Path(chosen) if chosen else files.cache_folder("images")


def path_of(place: Path, *parts) -> Path:
    """The file in a folder for what is made from these JSON values: its name is their SHA-256."""
    return place / f"{files.digest(parts)}.npz"


def load(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of `save`; None where there are none, or with a warning where the file is damaged."""
    if not path.is_file():
        return None
    try:
        arrays = files.read_npz(path)
    except UnreadableFile as error:
        reason = error.reason
    else:
        if str(arrays.pop(DIGEST, "")) == _digest(arrays):
            return arrays
        reason = "its content has another SHA-256"
    warn(f"{path} is damaged and will be made again ({reason})")
    return None


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Keep arrays; where the folder cannot be written, warn and go on without."""
    try:
        files.write_npz(path, **arrays, **{DIGEST: np.array(_digest(arrays))})
    except OSError as error:
        warn(
            f"{path} cannot be written ({error.strerror or error}); the next run will make it again"
        )


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()
