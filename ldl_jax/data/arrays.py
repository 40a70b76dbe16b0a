"""The user's own images: one .npz file with train_images, train_labels, test_images, test_labels."""

import os
from typing import NamedTuple

import numpy as np

from ldl_jax import files
from ldl_jax.data.base import Dataset, Request, check_labels, check_split
from ldl_jax.errors import UnreadableFile

FIELDS = ("train_images", "train_labels", "test_images", "test_labels")
# the first that is there, and its labels
TO_PREDICT = {"images": "labels", "test_images": "test_labels"}


class Images(NamedTuple):
    """Images of an .npz file that need not have labels."""

    images: np.ndarray  # u8[N, H, W, C]
    labels: np.ndarray | None  # i32[N]


def read_images(path, shape: tuple[int, int, int], num_classes: int) -> Images:
    """`images` of an .npz file, or `test_images`, and `labels` or `test_labels` where it has them.

    shape: H, W, C. Raises ValueError naming the file where something is missing, of another shape
    or out of range.
    """
    noun = "an .npz file of images"
    names = set(files.npz_names(path, noun))
    field = next((name for name in TO_PREDICT if name in names), None)
    if field is None:
        raise UnreadableFile(path, noun, f"it has no {' or '.join(TO_PREDICT)}")
    arrays = files.read_npz(path, noun, (field, TO_PREDICT[field]))
    images, labels = arrays[field], arrays.get(TO_PREDICT[field])
    if images.dtype != np.uint8 or images.shape[1:] != tuple(shape) or not len(images):
        raise ValueError(
            f"{path}: {field} is {images.dtype}{list(images.shape)}; allowed is uint8 "
            f"[N, {', '.join(map(str, shape))}], N above 0"
        )
    return Images(
        images,
        None if labels is None else check_labels(str(path), labels, len(images), num_classes),
    )


def _read(root: str) -> dict[str, np.ndarray]:
    if not os.path.isfile(root):
        raise ValueError(
            f"data.root is {root!r}; for data.name='arrays' it names an .npz file with {', '.join(FIELDS)}"
        )
    arrays = files.read_npz(root, "an .npz file of plain arrays", (*FIELDS, "classes"))
    missing = [name for name in FIELDS if name not in arrays]
    if missing:
        raise ValueError(f"{root}: has no {', '.join(missing)}; needed are {', '.join(FIELDS)}")
    return arrays


def _classes(root: str, arrays: dict[str, np.ndarray]) -> tuple[str, ...]:
    """The classes' names: `classes`, or their numbers up to the highest label that is trained on."""
    names, labels = arrays.get("classes"), arrays["train_labels"]
    if names is None:
        # else the labels are refused, whatever the number of classes
        whole = labels.dtype.kind in "iu"
        names = np.arange(int(labels.max(initial=0)) + 1 if whole else 1)
    if names.ndim != 1:
        raise ValueError(
            f"{root}: classes are {names.dtype}{list(names.shape)}; allowed is a list of names, one a class"
        )
    return tuple(str(name) for name in names)


def make(request: Request) -> Dataset:
    """The user's own .npz: uint8 images [N, H, W, C] and integer labels [N] of two splits, and
    `classes` if named.

    Raises ValueError naming the file and field where something is missing, of another shape or out
    of range.
    """
    root = request.root
    arrays = _read(root)
    classes = _classes(root, arrays)
    train, test = (
        check_split(
            f"{root} ({part})", arrays[f"{part}_images"], arrays[f"{part}_labels"], len(classes)
        )
        for part in ("train", "test")
    )
    if train.shape != test.shape:
        raise ValueError(
            f"{root}: test images are {test.shape}; allowed is the shape of train images, {train.shape}"
        )
    mean = tuple(float(value) for value in train.images.mean((0, 1, 2)) / 255)
    std = tuple(float(max(value, 1 / 255)) for value in train.images.std((0, 1, 2)) / 255)
    return Dataset(train, test, classes, mean, std, digest=files.sha256(root))
