"""STL-10: 5,000 + 8,000 labelled images of 96x96 pixels in 10 classes."""

import numpy as np

from ldl_jax.data.base import Dataset, Request, check_split, unread
from ldl_jax.data.readers import archive
from ldl_jax.data.readers.archive import Found, Published
from ldl_jax.data.readers.base import IMAGENET

SHAPE = (96, 96, 3)  # height, width, channels
CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
FOLDS = 10  # predefined parts of the training images, 1,000 each, that overlap
BINARY = Published(
    "stl10_binary.tar.gz", "91f7769df0f17e558f3565bffb0c7dfb", "stl10_binary",
    {  # MD5, as torchvision's list has them; it has none of the two texts
        "train_X.bin": "918c2871b30a85fa023e0c44e0bee87f", "train_y.bin": "5a34089d4802c674881badbb80307741",
        "test_X.bin": "7f263ba9f9e0b06b93213547f721ac82", "test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
        "class_names.txt": "", "fold_indices.txt": "",
    },
)  # fmt: skip


def make(
    request: Request,
    *,
    fold: int
    | None = None,  # train on this predefined fold of 1,000 images alone, 0 to 9; None = on all
) -> Dataset:
    """STL-10 without its unlabelled images, from the binary version: the folder stl10_binary, or
    its .tar.gz.

    mean and std are ImageNet's, as in the code of arXiv 2301.13444's authors. The archive holds 2.6
    GB of unlabelled images that have to be passed over: its folder is read much faster. Raises
    ValueError in one sentence where nothing is there, a file is damaged or has another checksum, or
    `fold` is out of range.
    """
    if fold is not None and not 0 <= fold < FOLDS:
        raise ValueError(
            f"config.data.stl10.fold is {fold}; allowed are 0 to {FOLDS - 1}, or None for all images"
        )
    found = archive.read(request.root, (BINARY,), verify=request.verify)
    classes = tuple(_text(found, "class_names.txt").split())
    if len(classes) != 10:
        raise ValueError(
            f"{found.name('class_names.txt')}: holds {len(classes)} names; needed are 10"
        )
    train, test = (
        check_split(
            f"{found.place} ({part})",
            _images(found, f"{part}_X.bin"),
            _labels(found, f"{part}_y.bin"),
            10,
        )
        for part in ("train", "test")
    )
    subset = None if fold is None else _fold(found, fold, train.num_examples)
    return Dataset(train, test, classes, *IMAGENET, subset)


def published(*, fold: int | None = None) -> Dataset:
    """The published sizes, with no file read; a fold's are its 1,000 images, though not these very
    ones.
    """
    subset = None if fold is None else np.arange(1000)
    return Dataset(unread(5000, SHAPE), unread(8000, SHAPE), CLASSES, *IMAGENET, subset)


def _images(found: Found, file: str) -> np.ndarray:
    """Images u8[N, 96, 96, 3]: in the file each is three planes, stored column by column."""
    height, width, channels = SHAPE
    size, record = len(found.files[file]), height * width * channels
    if not size or size % record:
        raise ValueError(
            f"{found.name(file)}: has {size:,} bytes, which is not a number of images of {record:,} bytes; it is "
            "truncated, or of another data set"
        )
    columns = np.frombuffer(found.files[file], np.uint8).reshape(-1, channels, width, height)
    return np.ascontiguousarray(columns.transpose(0, 3, 2, 1))


def _labels(found: Found, file: str) -> np.ndarray:
    """Labels i64[N] from 0: the file counts from 1."""
    return np.frombuffer(found.files[file], np.uint8).astype(np.int64) - 1


def _text(found: Found, file: str) -> str:
    try:
        return found.files[file].decode("ascii")
    except UnicodeDecodeError:
        raise ValueError(f"{found.name(file)}: is no plain text; it is damaged") from None


def _fold(found: Found, fold: int, num_examples: int) -> np.ndarray:
    """Positions i64[n], rising, of one fold: a line of numbers in fold_indices.txt."""
    name, lines = found.name("fold_indices.txt"), _text(found, "fold_indices.txt").split("\n")
    words = lines[fold].split() if fold < len(lines) else []
    if not words or not all(word.isdigit() and int(word) < num_examples for word in words):
        raise ValueError(
            f"{name}: line {fold + 1} is not a list of numbers from 0 to {num_examples - 1}"
        )
    if len(set(map(int, words))) < len(words):
        raise ValueError(f"{name}: line {fold + 1} names an image twice")
    return np.sort(np.array(words, np.int64))
