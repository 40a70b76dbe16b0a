"""The two forms in which CIFAR-10 and CIFAR-100 are published, as arrays.

Python version: pickles of uint8 [n, 3072] and lists of labels. Binary version: records of label
bytes and 3,072 pixels. In both, an image is its red plane, then green, then blue, each row by row
(Krizhevsky 2009, and the data sets' page).
"""

import numpy as np

from ldl_jax.data.readers import archive
from ldl_jax.data.readers.archive import Found

SHAPE = (32, 32, 3)  # height, width, channels
PIXELS = 32 * 32 * 3
MEAN = (0.5071, 0.4867, 0.4408)  # of CIFAR-100's training images
STD = (0.2675, 0.2565, 0.2761)


def pickled(contents: Found, files: tuple[str, ...], labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Images u8[N, 32, 32, 3] and labels i64[N] of some files of a python version, in their order.

    labels: the entry that holds them. Raises ValueError naming the file if it has another form.
    """
    images = []
    numbers = []
    for file in files:
        file_images, file_numbers = _batch(contents.name(file), contents.files[file], labels)
        images.append(file_images)
        numbers.append(file_numbers)
    return np.concatenate(images), np.concatenate(numbers)


def _batch(name: str, content: bytes, labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one pickled file."""
    batch = archive.unpickle(name, content)
    for entry in ("data", labels):
        if entry not in batch:
            raise ValueError(f"{name} has no entry {entry!r}, only {', '.join(map(str, batch))}")
    # A pickle may hold anything, so check types as well as shapes.
    data = batch["data"]
    numbers = batch[labels]
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != PIXELS:
        form = list(data.shape) if isinstance(data, np.ndarray) else type(data).__name__
        raise ValueError(f"{name}: 'data' must be uint8 [n, {PIXELS}], got {form}")
    whole = isinstance(numbers, list) and all(type(number) is int for number in numbers)
    if not whole or len(numbers) != len(data):
        raise ValueError(
            f"{name}: {labels!r} must be a list of {len(data)} integers, one per image"
        )
    return _images(data), np.array(numbers, np.int64)


def binary(
    contents: Found, files: tuple[str, ...], heads: int, column: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images u8[N, 32, 32, 3] and labels i64[N] of some files of a binary version, in their order.

    heads: label bytes before each image; column: which of them is the label. Raises ValueError
    naming the file if it has another form.
    """
    parts = []
    record = heads + PIXELS
    for file in files:
        size = len(contents.files[file])
        # The records have no mark of their own: only the size tells a truncated file.
        if not size or size % record:
            raise ValueError(
                f"{contents.name(file)} has {size:,} bytes, which is not a whole number of records of "
                f"{record:,} bytes; it is truncated, or belongs to another data set"
            )
        parts.append(np.frombuffer(contents.files[file], np.uint8).reshape(-1, record))
    records = np.concatenate(parts)
    return _images(records[:, heads:]), records[:, column].astype(np.int64)


def _images(planes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def names(contents: Found, file: str, entry: str, count: int) -> tuple[str, ...]:
    """The class names in a python version's meta file. Raises ValueError if they are not `count`
    texts.
    """
    class_names = archive.unpickle(contents.name(file), contents.files[file]).get(entry)
    texts = isinstance(class_names, list) and all(isinstance(name, str) for name in class_names)
    if not texts or len(class_names) != count:
        raise ValueError(f"{contents.name(file)}: {entry!r} must be a list of {count} names")
    return tuple(class_names)
