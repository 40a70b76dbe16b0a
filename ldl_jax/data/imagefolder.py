"""The user's own image files: one folder a class."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
from tqdm import tqdm

from ldl_jax.data.base import Dataset, Request, Split, check_split
from ldl_jax.data.readers import array_cache, crops, folder, pillow, tfdata
from ldl_jax.data.readers.base import IMAGENET
from ldl_jax.data.readers.folder import Listing
from ldl_jax.data.readers.tfdata import fault
from ldl_jax.errors import warn

BLOCK = "config.data.imagefolder"
DECODING = 1  # raise it where the same file comes to other pixels


def make(
    request: Request,
    *,
    size: int = 0,  # pixels: the middle square (the whole shorter side) is resized to it; 0 = all are of one size
    cache: str = "",  # folder for what took long to make; '' = ldl_jax/images below $XDG_CACHE_HOME or ~/.cache
    crop: bool = False,  # streamed, in training: a random box of the image, resized to `size`
    scale: tuple[float, float] = (
        0.08,
        1.0,
    ),  # share of the image's area in a random box, lowest and highest
    ratio: tuple[float, float] = (
        0.75,
        1.3333333333333333,
    ),  # width / height of a random box, lowest and highest
    eval_resize: int = 0,  # streamed, pixels: shorter side before the middle `size` is cut out; 0 = the middle square
    antialias: bool = True,  # of the bilinear filter after a random box or eval_resize
) -> Dataset:
    """An image folder, <root>/train/<class>/* and <root>/val/<class>/* (test/ where there is no
    val/).

    The sorted names of the class folders are the classes 0 to K - 1; the published order is class
    by class, in each the sorted paths, files in deeper folders included (so that `data.examples`
    takes the first classes alone). JPEG and PNG files count; those whose name begins with a dot do
    not. Tiny ImageNet's own val/ (one folder, classes in val_annotations.txt) is read as well.
    Every image becomes RGB as it is stored: no rotation by EXIF, no transparency. Resident images
    are decoded once and kept in the cache; streamed ones (`data.resident=False`) are the same
    pixels where `crop` and `eval_resize` are off, but for rounding where `size` resizes them. mean
    and std are ImageNet's. Raises ValueError in one sentence where folders are missing, empty or do
    not fit, an image cannot be read (`on_error='raise'`), or sizes differ.
    """
    view = crops.check(
        crops.View(size, crop, eval_resize, tuple(scale), tuple(ratio), antialias), BLOCK
    )
    if request.resident and (crop or eval_resize):
        raise ValueError(
            f"{BLOCK}.crop is {crop} and eval_resize {eval_resize} with config.data.resident=True; allowed for "
            "resident images, which are decoded once, are False and 0"
        )
    kept_in = array_cache.folder(cache)
    listings = folder.listings(
        request.root, "imagefolder", index=None if request.resident else kept_in
    )
    if request.resident:
        train, test = (_split(listing, size, kept_in, request.on_error) for listing in listings)
    else:
        train, test = (
            tfdata.split(folder.Files(listing), view, request.on_error) for listing in listings
        )
    if train.shape != test.shape:
        raise ValueError(
            f"{listings[1].folder}: images are {_pixels(test.shape)}, those of {listings[0].folder} "
            f"{_pixels(train.shape)}; allowed is one size, or a size in config.data.imagefolder.size"
        )
    return Dataset(train, test, listings[0].classes, *IMAGENET, digest=folder.digest(*listings))


def _split(listing: Listing, size: int, kept_in: Path, on_error: str) -> Split:
    """The split's images, from the cache or decoded and then cached."""
    facts = [
        [os.fsdecode(name), *_facts(Path(listing.path(index)))]
        for index, name in enumerate(listing.names)
    ]
    path = array_cache.path_of(kept_in, DECODING, PIL.__version__, size, facts)
    decoded = array_cache.load(path)
    if decoded is None:
        decoded = decode_all(listing, size, on_error)
        array_cache.save(path, decoded)
    images, bad = decoded["images"], decoded["bad"]
    for number, reason in zip(bad, decoded["reasons"], strict=True):
        if on_error == "raise":
            raise ValueError(fault(listing.path(number), reason))
        warn(
            f"{listing.path(number)}: {reason}; its slot counts for nothing (config.data.on_error='skip')"
        )
    split = check_split(str(listing.folder), images, listing.labels, len(listing.classes))
    mask = np.ones(len(images), np.float32)
    mask[bad] = 0
    return split._replace(mask=mask) if len(bad) else split


def _facts(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns; of a link that leads nowhere, -1 and -1."""
    try:
        stat = os.stat(path)
    except OSError:  # told of when it is decoded
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def decode_all(listing: Listing, size: int, on_error: str) -> dict[str, np.ndarray]:
    """All images of a split: {'images' u8[N, H, W, 3], 'bad' i64[n], 'reasons' str[n]}, decoded in
    threads.

    A slot that could not be read holds a copy of the first good image. Raises ValueError where
    on_error is 'raise' and an image cannot be read, where none can, or where sizes differ.
    """
    count = len(listing.names)
    paths = [Path(listing.path(number)) for number in range(count)]
    shape, first = ((size, size, 3), None) if size else _first_shape(paths, on_error)
    images, reasons = np.zeros((count, *shape), np.uint8), {}

    def decode(number):
        image = pillow.decode(paths[number], size)
        if isinstance(image, str):
            if on_error == "raise":
                raise ValueError(fault(paths[number], image))
            reasons[number] = image
        elif image.shape != shape:
            raise ValueError(
                f"{paths[number]}: is {_pixels(image.shape)}, but {first} is {_pixels(shape)}; allowed is one size, or "
                "a size in config.data.imagefolder.size"
            )
        else:
            images[number] = image

    _in_threads(decode, count, f"decoding {listing.folder}")
    bad = np.array(sorted(reasons), np.int64)
    if len(bad) == count:
        raise ValueError(
            f"{paths[0]}: {reasons[0]}; of the {count} images of {listing.folder} none can be read"
        )
    if len(bad):
        images[bad] = images[next(number for number in range(count) if number not in reasons)]
    return {
        "images": images,
        "bad": bad,
        "reasons": np.array([reasons[number] for number in bad], str),
    }


def _first_shape(paths, on_error: str):
    """The shape of the first image that can be read, and its path."""
    for path in paths:
        image = pillow.decode(path)
        if not isinstance(image, str):
            return image.shape, path
        if on_error == "raise":
            raise ValueError(fault(path, image))
    raise ValueError(f"{paths[0]}: {image}; of {len(paths)} images none can be read")


def _in_threads(work: Callable, count: int, title: str) -> None:
    pool = ThreadPoolExecutor(min(32, os.cpu_count() or 1))
    try:
        for _ in tqdm(
            pool.map(work, range(count)), title, count, unit="image", leave=False, disable=None
        ):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def _pixels(shape) -> str:
    return f"{shape[0]}x{shape[1]} pixels"
