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


def pickled(found: Found, files: tuple[str, ...], labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Images u8[N, 32, 32, 3] and labels i64[N] of some files of a python version, joined in their
    order.

    labels: the entry that holds them. Raises ValueError naming the file that is of another form.
    """
    parts = [_batch(found.name(file), found.files[file], labels) for file in files]
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def _batch(name: str, content: bytes, labels: str):
    batch = archive.unpickle(name, content)
    for entry in ("data", labels):
        if entry not in batch:
            raise ValueError(
                f"{name}: has no entry {entry!r}; there are {', '.join(map(str, batch))}"
            )
    data, numbers = batch["data"], batch[labels]
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != PIXELS:
        what = list(data.shape) if isinstance(data, np.ndarray) else type(data).__name__
        raise ValueError(f"{name}: 'data' is {what}; allowed is uint8 [n, {PIXELS}]")
    if not (
        isinstance(numbers, list)
        and len(numbers) == len(data)
        and all(type(n) is int for n in numbers)
    ):
        raise ValueError(
            f"{name}: {labels!r} is not a list of {len(data)} integers, one for each image"
        )
    return _images(data), np.array(numbers, np.int64)


def binary(
    found: Found, files: tuple[str, ...], heads: int, column: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images u8[N, 32, 32, 3] and labels i64[N] of some files of a binary version, joined in their
    order.

    heads: label bytes before each image; column: which of them is the label. Raises ValueError
    naming the file that is of another form.
    """
    parts = []
    for file in files:
        size, record = len(found.files[file]), heads + PIXELS
        if not size or size % record:
            raise ValueError(
                f"{found.name(file)}: has {size:,} bytes, which is not a number of records of {record:,} bytes; it is "
                "truncated, or of another data set"
            )
        parts.append(np.frombuffer(found.files[file], np.uint8).reshape(-1, record))
    records = np.concatenate(parts)
    return _images(records[:, heads:]), records[:, column].astype(np.int64)


def _images(planes):
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def names(found: Found, file: str, entry: str, count: int) -> tuple[str, ...]:
    """The class names in a python version's meta file. Raises ValueError where they are not `count`
    texts.
    """
    texts = archive.unpickle(found.name(file), found.files[file]).get(entry)
    if (
        not isinstance(texts, list)
        or len(texts) != count
        or not all(isinstance(name, str) for name in texts)
    ):
        raise ValueError(f"{found.name(file)}: {entry!r} is not a list of {count} names")
    return tuple(texts)
