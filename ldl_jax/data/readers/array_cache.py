"""A cache on disk for arrays that take long to compute: used if complete and unchanged.

Outdated files are not removed; the folder may be deleted at any time.
"""

import hashlib
from pathlib import Path

import numpy as np

from ldl_jax import files
from ldl_jax.errors import UnreadableFile, warn

DIGEST = "sha256"  # entry of the file: the digest of all other entries


def folder(chosen: str) -> Path:
    """The chosen folder or, for '', ldl_jax/images in $XDG_CACHE_HOME or ~/.cache."""
    return Path(chosen) if chosen else files.cache_folder("images")


def path_of(place: Path, *parts) -> Path:
    """The file in the folder `place` for these JSON values: it is named by their SHA-256."""
    return place / f"{files.digest(parts)}.npz"


def load(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays that `save` wrote; None if there are none, or, with a warning, if the file is
    damaged.
    """
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
    warn(f"{path} is damaged and will be rebuilt ({reason})")
    return None


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Store arrays. If the folder cannot be written, warn and continue without the cache."""
    try:
        files.write_npz(path, **arrays, **{DIGEST: np.array(_digest(arrays))})
    except OSError as error:
        warn(
            f"{path} cannot be written ({error.strerror or error}); the next run will compute it "
            "again"
        )


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    # Types and shapes count too: the same bytes may stand for other arrays.
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()
