"""STL-10: 5,000 + 8,000 labelled images of 96x96 pixels in 10 classes."""

import numpy as np

from ldl_jax.data.base import Dataset, Request, Split, check_split, unread
from ldl_jax.data.readers import archive
from ldl_jax.data.readers.archive import Found, Published
from ldl_jax.data.readers.base import IMAGENET

SHAPE = (96, 96, 3)  # height, width, channels
CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
FOLDS = 10  # predefined parts of the training images, 1,000 each, that overlap
# MD5 checksums from torchvision, which has none for the two text files.
BINARY = Published(
    "stl10_binary.tar.gz",
    "91f7769df0f17e558f3565bffb0c7dfb",
    "stl10_binary",
    {
        "train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
        "train_y.bin": "5a34089d4802c674881badbb80307741",
        "test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
        "test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
        "class_names.txt": "",
        "fold_indices.txt": "",
    },
)


def make(
    request: Request,
    *,
    fold: int | None = None,  # predefined fold of 1,000 images to train on, 0 to 9 (None: all)
) -> Dataset:
    """STL-10 without its unlabelled images: the folder stl10_binary, or its .tar.gz.

    mean and std are ImageNet's, as in the code of arXiv 2301.13444's authors. The archive also
    holds 2.6 GB of unlabelled images, which have to be decompressed on the way: the extracted
    folder is read much faster. Raises ValueError with one sentence if nothing is found, a file is
    damaged or has another checksum, or `fold` is out of range.
    """
    if fold is not None and not 0 <= fold < FOLDS:
        raise ValueError(
            f"config.data.stl10.fold must be between 0 and {FOLDS - 1}, or None to use all images; "
            f"got {fold}"
        )
    contents = archive.read(request.root, (BINARY,), verify=request.verify)
    classes = tuple(_text(contents, "class_names.txt").split())
    if len(classes) != 10:
        raise ValueError(
            f"{contents.name('class_names.txt')} must hold 10 class names, got {len(classes)}"
        )
    train = _split(contents, "train")
    test = _split(contents, "test")
    # A fold is a subset of the published split, so that positions keep their meaning.
    subset = None if fold is None else _fold(contents, fold, train.num_examples)
    return Dataset(train, test, classes, *IMAGENET, subset)


def published(*, fold: int | None = None) -> Dataset:
    """The published sizes; no file is read. A fold has 1,000 images, but not the real ones."""
    subset = None if fold is None else np.arange(1000)
    return Dataset(unread(5000, SHAPE), unread(8000, SHAPE), CLASSES, *IMAGENET, subset)


def _split(contents: Found, part: str) -> Split:
    images = _images(contents, f"{part}_X.bin")
    labels = _labels(contents, f"{part}_y.bin")
    return check_split(f"{contents.place} ({part})", images, labels, 10)


def _images(contents: Found, file: str) -> np.ndarray:
    """Images u8[N, 96, 96, 3]: in the file each is three planes, stored column by column."""
    height, width, channels = SHAPE
    size = len(contents.files[file])
    record = height * width * channels
    if not size or size % record:
        raise ValueError(
            f"{contents.name(file)} has {size:,} bytes, which is not a whole number of images of "
            f"{record:,} bytes; it is truncated, or belongs to another data set"
        )
    columns = np.frombuffer(contents.files[file], np.uint8).reshape(-1, channels, width, height)
    return np.ascontiguousarray(columns.transpose(0, 3, 2, 1))


def _labels(contents: Found, file: str) -> np.ndarray:
    """Labels i64[N] from 0: the file counts from 1."""
    return np.frombuffer(contents.files[file], np.uint8).astype(np.int64) - 1


def _text(contents: Found, file: str) -> str:
    try:
        return contents.files[file].decode("ascii")
    except UnicodeDecodeError:
        raise ValueError(f"{contents.name(file)} is damaged: it is not plain text") from None


def _fold(contents: Found, fold: int, num_examples: int) -> np.ndarray:
    """Positions i64[n], rising, of one fold: a line of numbers in fold_indices.txt."""
    name = contents.name("fold_indices.txt")
    lines = _text(contents, "fold_indices.txt").split("\n")
    # A truncated file has fewer lines than folds; its missing lines count as empty.
    words = lines[fold].split() if fold < len(lines) else []
    if not words or not all(word.isdigit() and int(word) < num_examples for word in words):
        raise ValueError(
            f"{name}: line {fold + 1} must be a list of numbers from 0 to {num_examples - 1}"
        )
    if len(set(map(int, words))) < len(words):
        raise ValueError(f"{name}: line {fold + 1} lists an image twice")
    return np.sort(np.array(words, np.int64))
