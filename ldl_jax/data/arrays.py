"""The user's own images in one .npz file: train_images, train_labels, test_images, test_labels."""

import os
from typing import NamedTuple

import numpy as np

from ldl_jax import files
from ldl_jax.data.base import (
    Dataset,
    Request,
    Split,
    check_labels,
    check_split,
    is_channels_first,
    pixel_statistics,
)
from ldl_jax.errors import UnreadableFile

FIELDS = ("train_images", "train_labels", "test_images", "test_labels")
# Images to predict -> their labels; the first pair that the file holds is used.
TO_PREDICT = {"images": "labels", "test_images": "test_labels"}


class Images(NamedTuple):
    """Images of an .npz file that need not have labels."""

    images: np.ndarray  # u8[N, H, W, C]
    labels: np.ndarray | None  # i32[N]


def read_images(path, shape: tuple[int, int, int], num_classes: int) -> Images:
    """Read `images` (or `test_images`) of an .npz file, and `labels` (or `test_labels`) if any.

    shape: H, W, C. Raises ValueError naming the file if an array is missing, has another shape or
    is out of range.
    """
    noun = "an .npz file of images"
    names = set(files.npz_names(path, noun))
    field = next((name for name in TO_PREDICT if name in names), None)
    if field is None:
        raise UnreadableFile(path, noun, f"it has no {' or '.join(TO_PREDICT)}")
    arrays = files.read_npz(path, noun, (field, TO_PREDICT[field]))
    images = arrays[field]
    labels = arrays.get(TO_PREDICT[field])
    # The network's input has one fixed shape, so refuse other images before it is loaded.
    if images.dtype != np.uint8 or images.shape[1:] != tuple(shape) or not len(images):
        raise ValueError(
            f"{path}: {field} must be uint8[N, {', '.join(map(str, shape))}] with N >= 1, got "
            f"{images.dtype}{list(images.shape)}{_as_stored(images, shape)}"
        )
    if labels is not None:
        labels = check_labels(str(path), labels, len(images), num_classes)
    return Images(images, labels)


def _as_stored(images: np.ndarray, shape: tuple[int, int, int]) -> str:
    """A hint for images [N, C, H, W], as the end of a sentence; '' for others."""
    height, width, channels = shape
    transposed = images.shape[1:] == (channels, height, width) and is_channels_first(images.shape)
    return "; store images.transpose(0, 2, 3, 1)" if transposed else ""


def _read(root: str) -> dict[str, np.ndarray]:
    """The arrays of the file, including `classes` if it has them."""
    if not os.path.isfile(root):
        raise ValueError(
            "config.data.root must be an .npz file for data.name='arrays', with "
            f"{', '.join(FIELDS)}; got {root!r}"
        )
    arrays = files.read_npz(root, "an .npz file of plain arrays", (*FIELDS, "classes"))
    missing = [name for name in FIELDS if name not in arrays]
    if missing:
        raise ValueError(f"{root} has no {', '.join(missing)}; it must hold {', '.join(FIELDS)}")
    return arrays


def _class_names(root: str, arrays: dict[str, np.ndarray]) -> tuple[str, ...]:
    """The entry `classes`, or the numbers 0 to the highest training label."""
    names = arrays.get("classes")
    labels = arrays["train_labels"]
    if names is None:
        # Labels that are not integers are refused later, with any number of classes.
        count = int(labels.max(initial=0)) + 1 if labels.dtype.kind in "iu" else 1
        _check_from_zero(root, labels, arrays["test_labels"])
        names = np.arange(count)
    if names.ndim != 1:
        raise ValueError(
            f"{root}: classes must be a list with one name per class, got "
            f"{names.dtype}{list(names.shape)}"
        )
    return tuple(map(str, names))


def _check_from_zero(root: str, train: np.ndarray, test: np.ndarray) -> None:
    """Raise ValueError for labels 1 to K, which would make a class more, without images."""
    found = np.unique(train)
    count = len(found)
    is_full = count > 1 and np.array_equal(found, np.arange(1, count + 1))
    if is_full and test.size and test.min() >= 1:
        raise ValueError(
            f"{root}: train_labels must be between 0 and {count - 1} for {count} classes, got 1 to "
            f"{count}: they count from 1; store labels - 1, or, if class 0 has no images, name all "
            f"{count + 1} classes in `classes`"
        )


def _split(root: str, arrays: dict[str, np.ndarray], part: str, num_classes: int) -> Split:
    images = arrays[f"{part}_images"]
    labels = arrays[f"{part}_labels"]
    return check_split(f"{root} ({part})", images, labels, num_classes)


def make(request: Request) -> Dataset:
    """The user's own .npz: uint8 images [N, H, W, C] and integer labels [N] of two splits.

    Classes are named by `classes` if the file has it. mean and std are those of the training
    images. Raises ValueError naming the file and the field if an array is missing, has another
    shape or is out of range.
    """
    root = request.root
    arrays = _read(root)
    classes = _class_names(root, arrays)
    train = _split(root, arrays, "train", len(classes))
    test = _split(root, arrays, "test", len(classes))
    if train.shape != test.shape:
        raise ValueError(
            f"{root}: test images must have the shape of the training images, {train.shape}, got "
            f"{test.shape}"
        )
    mean, std = pixel_statistics(train.images)
    return Dataset(train, test, classes, mean, std, digest=files.sha256(root))
