"""The user's own images as arrays in a Python program: what `ldl_jax.train(data=...)` trains on."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ldl_jax import arrays
from ldl_jax.data.base import Dataset, Request, Split, pixel_statistics

ARGUMENTS = "images, labels, test_images, test_labels"


def make(request: Request) -> Dataset:
    """Arrays of a Python program (ldl_jax.train with data=...), which no command can read.

    Always raises ValueError: a run on such arrays is resumed or measured with `ldl_jax.train`.
    """
    del request
    raise ValueError(
        "config.data.name='in_memory' means arrays in a Python program, which no file holds; call "
        f"ldl_jax.train(..., data=({ARGUMENTS})) there, or store them as an .npz file for "
        "config.data.name='arrays'"
    )


def dataset(data: Sequence[Any], classes: Sequence[str] | None = None) -> Dataset:
    """The data set of (images, labels, test_images, test_labels).

    images: u8[N, H, W, C]; labels: class numbers [N] from 0; of any library that `arrays` reads.
    classes: a name for each class; by default the numbers up to the highest training label. mean
    and std are those of the training images. Raises ValueError that names the array that does not
    fit.
    """
    if isinstance(data, np.ndarray) or not isinstance(data, Sequence) or len(data) != 4:
        raise ValueError(f"data must be ({ARGUMENTS}), got {_described(data)}")
    train_images = arrays.checked_images(data[0], "images")
    test_images = arrays.checked_images(data[2], "test_images")
    if train_images.shape[1:] != test_images.shape[1:]:
        raise ValueError(
            f"test_images must have the shape of images, {list(train_images.shape[1:])} each, got "
            f"{list(test_images.shape[1:])}"
        )
    names = _class_names(data[1], classes)
    train = _split(train_images, data[1], len(names), "labels")
    test = _split(test_images, data[3], len(names), "test_labels")
    digest = _digest((train.images, train.labels, test.images, test.labels), names)
    return Dataset(train, test, names, *pixel_statistics(train.images), digest=digest)


def _class_names(labels: Any, classes: Sequence[str] | None) -> tuple[str, ...]:
    if classes is not None:
        names = tuple(map(str, classes))
        if len(set(names)) < len(names):
            raise ValueError(f"classes must be different names, got {list(names)}")
        return names
    numbers = arrays.as_numpy(labels, "labels")
    # Labels that are no class numbers are refused later, with any number of classes.
    count = numbers.shape[1] if numbers.ndim == 2 else 1
    finite = numbers[np.isfinite(numbers)]
    if numbers.ndim == 1 and finite.size:
        lowest, highest = finite.min(), finite.max()
        if lowest == 1:
            raise ValueError(
                f"labels must count from 0, got 1 to {highest:g}; pass labels - 1, or classes= if "
                "no image is of class 0"
            )
        if highest >= len(numbers):
            raise ValueError(
                f"labels must be class numbers from 0, got {lowest:g} to {highest:g} for "
                f"{len(numbers)} images; pass classes= if there are so many classes"
            )
        count = max(1, int(highest) + 1)
    return tuple(map(str, range(count)))


def _split(images: np.ndarray, labels: Any, classes: int, name: str) -> Split:
    label = arrays.checked_labels(labels, len(images), classes, name, of="images")
    return Split(len(images), images.shape[1:], np.ascontiguousarray(images), label)


def _digest(parts: Sequence[np.ndarray], classes: tuple[str, ...]) -> str:
    """The SHA-256 of arrays, with their shapes, and of class names."""
    total = hashlib.sha256(repr(classes).encode())
    for part in parts:
        total.update(f"{part.dtype.str}{part.shape}".encode())
        total.update(np.ascontiguousarray(part).data)
    return total.hexdigest()


def _described(data: Any) -> str:
    try:
        return f"{type(data).__name__} of {len(data)}"
    except TypeError:
        return type(data).__name__
