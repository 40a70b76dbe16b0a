"""What a data set is: two splits of labelled images, each resident in memory or streamed."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

CHANNELS = (1, 3, 4)  # of images, usually


class Request(NamedTuple):
    """Options of `config.data` that every data set receives."""

    root: str = ""  # folder or file of the data on disk
    verify: bool = True  # compare published checksums
    # keep the whole set in the device's memory; False: stream it batch by batch
    resident: bool = True
    # what to do with an unreadable image: 'raise', or 'skip' (its slot stays, with mask 0)
    on_error: str = "raise"
    # share of each class to test on, if the data have no test split; None: the data set's default
    test_share: float | None = None
    test_seed: int = 0  # seed of that split


class Split(NamedTuple):
    """One split in its published order; example i is the i-th of that order.

    Resident: `images` holds all images and `stream` is None. Streamed: the other way round.
    `stream(batches, seed)` takes an iterable of (epoch, index i32[b]) and yields for each a dict
    of numpy arrays {'image' u8[b, H, W, C], 'label' i32[b], 'index' i32[b], 'mask' f32[b]} with
    exactly these examples, in their order. With a seed, the crop of an example is drawn from
    (seed, epoch, index); with None, it is the crop of evaluation. An image that cannot be read
    keeps its index and has mask 0; its pixels are a copy of a good image of the batch or, in
    evaluation, black if the batch has none.
    """

    num_examples: int  # N
    shape: tuple[int, int, int]  # H, W, C of an image as it reaches the device
    images: np.ndarray | None = None  # u8[N, H, W, C]
    labels: np.ndarray | None = None  # i32[N]; streamed: None, unless known without reading
    stream: Callable[[Iterable, int | None], Iterator[dict]] | None = None
    # dict of [N, ...], one row per example: 'label' i32 to train on instead, 'table' f32[N, K]
    given: Any = ()
    # f32[N], resident: 0 for images that could not be read; None: all are good
    mask: np.ndarray | None = None


class Dataset(NamedTuple):
    """A data set: its splits, class names, and pixel statistics with pixels scaled to [0, 1]."""

    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    subset: np.ndarray | None = None  # i64[n]: positions of `train` to train on; None: all
    # SHA-256 of its file, or of the names of its files in their order; '': not known
    digest: str = ""
    notes: tuple[str, ...] = ()  # sentences on how the data were read, for the log
    # JSON: how the splits were drawn, to be written with the run; None: they are published
    record: dict[str, Any] | None = None


def streamed(split: Split) -> Split:
    """The same split, streamed from the host's memory batch by batch."""

    def stream(batches, seed):
        del seed  # nothing is drawn: the images are as they are
        for _, index in batches:
            mask = np.ones(len(index), np.float32) if split.mask is None else split.mask[index]
            yield {
                "image": split.images[index],
                "label": split.labels[index],
                "index": np.asarray(index, np.int32),
                "mask": mask,
            }

    return split._replace(images=None, labels=None, stream=stream, mask=None)


def unread(num_examples: int, shape: tuple[int, int, int]) -> Split:
    """A resident split of a published size that takes no memory: black images, all of class 0."""
    images = np.broadcast_to(np.uint8(0), (num_examples, *shape))
    labels = np.broadcast_to(np.int32(0), num_examples)
    return Split(num_examples, shape, images, labels)


def pixel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of images u8[N, H, W, C], with pixels in [0, 1]."""
    mean = images.mean((0, 1, 2)) / 255
    # Pixels are divided by the deviation, which is 0 for images of a single colour.
    std = np.maximum(images.std((0, 1, 2)) / 255, 1 / 255)
    return tuple(mean.tolist()), tuple(std.tolist())


def check_split(name: str, images, labels, num_classes: int) -> Split:
    """Make a resident split from uint8 images [N, H, W, C] and integer labels [N].

    Raises ValueError with one sentence that names `name` if a shape or type is wrong or a label
    is out of range.
    """
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ValueError(
            f"{name}: images must be uint8[N, H, W, C], got {images.dtype}{list(images.shape)}"
            f"{_advice(images)}"
        )
    # Trained as they are, they would be images of few rows with many channels.
    if is_channels_first(images.shape):
        height, width, channels = images.shape[1:]
        raise ValueError(
            f"{name}: images must be uint8[N, H, W, C], got {list(images.shape)}, that is height "
            f"{height}, width {width} and {channels} channels; if they are [N, C, H, W], store "
            "images.transpose(0, 2, 3, 1)"
        )
    labels = check_labels(name, labels, len(images), num_classes)
    return Split(len(images), images.shape[1:], np.ascontiguousarray(images), labels)


def counted_from_one(labels: np.ndarray, num_classes: int) -> str:
    """A hint for labels from 1 to K, as the end of a sentence; '' for others."""
    hinted = labels.min() >= 1 and labels.max() == num_classes
    return "; they count from 1: store labels - 1" if hinted else ""


def is_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether images [N, H, W, C] of this shape are rather [N, C, H, W], as in PyTorch."""
    if len(shape) != 4:
        return False
    _, first, second, last = shape
    return first in CHANNELS and last not in CHANNELS and second > max(CHANNELS)


def _advice(images: np.ndarray) -> str:
    """How to make uint8 pixels of these, as the end of a sentence; '' if that is not known."""
    kind = images.dtype.kind
    if images.dtype == np.uint8 or kind not in "fiu" or not images.size:
        return "; store images[..., None]" if images.ndim == 3 and kind == "u" else ""
    lowest = images.min()
    highest = images.max()
    if kind in "iu":
        return "; store images.astype(np.uint8)" if lowest >= 0 and highest <= 255 else ""
    if not lowest >= 0 or not highest <= 255:
        return f" from {lowest:.3g} to {highest:.3g}; store the pixels, before normalisation"
    if highest <= 1:
        return "; all are in [0, 1], so store (images * 255).round().astype(np.uint8)"
    return f"; all are in [0, 255] (up to {highest:g}), so store images.round().astype(np.uint8)"


def check_labels(name: str, labels, count: int, num_classes: int) -> np.ndarray:
    """The labels i32[N] of `count` images. Raises ValueError as `check_split` does."""
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{name}: labels must be integers [{count}], one per image, got "
            f"{labels.dtype}{list(labels.shape)}"
        )
    if not count:
        raise ValueError(f"{name} holds no images; at least one is needed")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"{name}: labels must be between 0 and {num_classes - 1}, got {labels.min()} to "
            f"{labels.max()}{counted_from_one(labels, num_classes)}"
        )
    return labels.astype(np.int32)
