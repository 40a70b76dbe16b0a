"""The user's own images: one .npz file with train_images, train_labels, test_images, test_labels."""

import os
import zipfile
import zlib

import numpy as np

from ldl_jax import files
from ldl_jax.data.base import Dataset, Request, check_split

FIELDS = ("train_images", "train_labels", "test_images", "test_labels")
# What numpy and zipfile raise for files of another kind, bare arrays, and archives that are broken or encrypted.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, AttributeError, TypeError, RuntimeError)


def _read(root: str) -> dict[str, np.ndarray]:
    if not os.path.isfile(root):
        raise ValueError(
            f"data.root is {root!r}; for data.name='arrays' it names an .npz file with {', '.join(FIELDS)}"
        )
    try:
        with np.load(root, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*FIELDS, "classes") if name in file.files}
    except _UNREADABLE as error:
        raise ValueError(f"{root}: cannot be read as an .npz file of plain arrays ({error})") from None
    missing = [name for name in FIELDS if name not in arrays]
    if missing:
        raise ValueError(f"{root}: has no {', '.join(missing)}; needed are {', '.join(FIELDS)}")
    return arrays


def make(request: Request) -> Dataset:
    """The user's own .npz: uint8 images [N, H, W, C] and integer labels [N] of two splits, and `classes` if named.

    Raises ValueError naming the file and field where something is missing, of another shape or out of range.
    """
    root = request.root
    arrays = _read(root)
    labels = arrays["train_labels"]
    named = arrays.get("classes")
    if named is not None and named.ndim != 1:
        raise ValueError(
            f"{root}: classes are {named.dtype}{list(named.shape)}; allowed is a list of names, one a class"
        )
    num_classes = (
        len(named) if named is not None else int(labels.max(initial=0)) + 1 if labels.dtype.kind in "iu" else 1
    )
    train, test = (
        check_split(f"{root} ({part})", arrays[f"{part}_images"], arrays[f"{part}_labels"], num_classes)
        for part in ("train", "test")
    )
    if train.shape != test.shape:
        raise ValueError(f"{root}: test images are {test.shape}; allowed is the shape of train images, {train.shape}")
    classes = tuple(str(name) for name in (named if named is not None else range(num_classes)))
    mean = tuple(float(value) for value in train.images.mean((0, 1, 2)) / 255)
    std = tuple(float(max(value, 1 / 255)) for value in train.images.std((0, 1, 2)) / 255)
    return Dataset(train, test, classes, mean, std, digest=files.sha256(root))
