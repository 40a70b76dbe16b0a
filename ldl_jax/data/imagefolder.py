"""The user's own image files: one folder per class."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
from tqdm import tqdm

from ldl_jax.data.base import Dataset, Request, Split, check_split
from ldl_jax.data.readers import array_cache, crops, folder, pillow, splits, tfdata
from ldl_jax.data.readers.base import IMAGENET
from ldl_jax.data.readers.folder import Listing
from ldl_jax.data.readers.tfdata import fault
from ldl_jax.errors import warn

BLOCK = "config.data.imagefolder"
DECODING = 1  # raise it if the same file is decoded to other pixels


def make(
    request: Request,
    *,
    size: int = 0,  # side in pixels to resize the center square to (0: stored sizes, all equal)
    cache: str = "",  # cache folder ('': ldl_jax/images in $XDG_CACHE_HOME or ~/.cache)
    crop: bool = False,  # streamed training: resize a random box of each image to `size`
    scale: tuple[float, float] = (0.08, 1.0),  # random box: share of the image's area, min, max
    ratio: tuple[float, float] = (0.75, 1.3333333333333333),  # random box: width / height, min, max
    eval_resize: int = 0,  # streamed: shorter side in pixels before evaluation's center crop (0: center square)
    antialias: bool = True,  # antialias the bilinear filter of random boxes and eval_resize
    exif: bool = False,  # turn photos as the orientation in their EXIF metadata says
) -> Dataset:
    """An image folder, <root>/{train,val}/<class>/* (or test/ for val/), or <root>/<class>/*.

    Without val/ and test/, a part of each class is drawn for the test (`data.test_share`,
    `data.test_seed`). The sorted names of the class folders are the classes 0 to K - 1; of the
    test, some may be missing, with a warning. The published order is class by class, each with its
    sorted paths, including files in deeper folders (so `data.examples` takes the first classes
    only). Files with an ending of IMAGE_ENDINGS are used, except those whose name begins with a
    dot. Tiny ImageNet's own val/ (one folder, classes in val_annotations.txt) is read as well.
    Images become RGB as stored: EXIF rotation (without `exif`), transparency and all but the first
    frame are ignored. Resident images are decoded once and cached; streamed ones
    (`data.resident=False`) have the same pixels if `crop` and `eval_resize` are off, except for
    rounding if `size` resizes them. mean and std are ImageNet's. Raises ValueError with one
    sentence if folders are missing, empty or do not match, an image cannot be read
    (`on_error='raise'`), or sizes differ.
    """
    view = crops.check(
        crops.View(size, crop, eval_resize, tuple(scale), tuple(ratio), antialias), BLOCK
    )
    if request.resident and (crop or eval_resize):
        raise ValueError(
            f"{BLOCK}.crop must be False and eval_resize 0 with config.data.resident=True, because "
            f"resident images are decoded only once; got crop {crop} and eval_resize {eval_resize}"
        )
    cache_folder = array_cache.folder(cache)
    # The cache of decoded images knows each file, so only streaming needs a cached listing.
    index = None if request.resident else cache_folder
    listed = splits.read(
        request.root,
        "imagefolder",
        index=index,
        share=request.test_share,
        seed=request.test_seed,
    )
    pair = []
    for listing in (listed.train, listed.test):
        if request.resident:
            pair.append(_resident_split(listing, size, exif, cache_folder, request.on_error))
        else:
            streamed = tfdata.split(folder.Files(listing, exif=exif), view, request.on_error)
            pair.append(streamed._replace(labels=listing.labels))
    train, test = pair
    if train.shape != test.shape:
        raise ValueError(
            f"{listed.test.folder}: images must have the size of those in {listed.train.folder}, "
            f"{_pixels(train.shape)}, got {_pixels(test.shape)}; set {BLOCK}.size to resize them"
        )
    digest = folder.digest(listed.train, listed.test)
    dataset = Dataset(train, test, listed.train.classes, *IMAGENET, digest=digest)
    return dataset._replace(notes=listed.notes, record=listed.record)


def _resident_split(
    listing: Listing, size: int, exif: bool, cache_folder: Path, on_error: str
) -> Split:
    """The split's images, from the cache, or decoded and then cached."""
    # Name the cache by all that the pixels depend on, so that an outdated one is never found.
    stamps = []
    for index, name in enumerate(listing.names):
        stamps.append([os.fsdecode(name), *_size_and_time(Path(listing.path(index)))])
    # Without `exif`, the name is that of versions that did not have it.
    options = [size, "exif"] if exif else [size]
    path = array_cache.path_of(cache_folder, DECODING, PIL.__version__, *options, stamps)
    decoded = array_cache.load(path)
    if decoded is None:
        decoded = decode_all(listing, size, on_error, exif=exif)
        array_cache.save(path, decoded)
    images = decoded["images"]
    bad = decoded["bad"]
    # The cache may come from a run with on_error='skip', so check its faults as well.
    for index, reason in zip(bad, decoded["reasons"], strict=True):
        if on_error == "raise":
            raise ValueError(fault(listing.path(index), reason))
        warn(f"{listing.path(index)}: {reason}; skipped (config.data.on_error='skip')")
    split = check_split(str(listing.folder), images, listing.labels, len(listing.classes))
    mask = np.ones(len(images), np.float32)
    mask[bad] = 0
    return split._replace(mask=mask) if len(bad) else split


def _size_and_time(path: Path) -> tuple[int, int]:
    """Size in bytes and modification time in ns; -1 and -1 for a broken link."""
    try:
        stat = os.stat(path)
    except OSError:  # reported when the file is decoded
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def decode_all(
    listing: Listing, size: int, on_error: str, *, exif: bool = False
) -> dict[str, np.ndarray]:
    """Decode all images of a split in threads.

    Returns {'images' u8[N, H, W, 3], 'bad' i64[n], 'reasons' str[n]}: an image that cannot be read
    is listed in `bad`, and its pixels are a copy of the first good image. Raises ValueError if
    on_error is 'raise' and an image cannot be read, if none can, or if sizes differ.
    """
    count = len(listing.names)
    paths = [Path(listing.path(index)) for index in range(count)]
    if size:
        shape, first = (size, size, 3), None
    else:
        shape, first = _first_shape(paths, listing.folder, on_error, exif)
    images = np.zeros((count, *shape), np.uint8)
    reasons = {}

    def decode(index):
        image = pillow.decode(paths[index], size, exif=exif)
        if isinstance(image, str):
            if on_error == "raise":
                raise ValueError(fault(paths[index], image))
            reasons[index] = image
        elif image.shape != shape:
            raise ValueError(
                f"{paths[index]} is {_pixels(image.shape)}, but {first} is {_pixels(shape)}; all "
                f"images must have one size. Set {BLOCK}.size to resize them."
            )
        else:
            images[index] = image

    _in_threads(decode, count, f"decoding {listing.folder}")
    bad = np.array(sorted(reasons), np.int64)
    if len(bad) == count:
        raise ValueError(_none_readable(paths, listing.folder, reasons[0]))
    # A masked image still passes through the network, so give it pixels that do no harm.
    if len(bad):
        good = next(index for index in range(count) if index not in reasons)
        images[bad] = images[good]
    texts = np.array([reasons[index] for index in bad], str)
    return {"images": images, "bad": bad, "reasons": texts}


def _first_shape(paths: list[Path], folder: Path, on_error: str, exif: bool) -> tuple[tuple, Path]:
    """The shape of the first image that can be read, and its path."""
    reasons = []
    for path in paths:
        image = pillow.decode(path, exif=exif)
        if not isinstance(image, str):
            return image.shape, path
        if on_error == "raise":
            raise ValueError(fault(path, image))
        reasons.append(image)
    raise ValueError(_none_readable(paths, folder, reasons[0]))


def _none_readable(paths: list[Path], folder: Path, reason: str) -> str:
    return f"none of the {len(paths)} images in {folder} can be read ({paths[0]}: {reason})"


def _in_threads(work: Callable, count: int, title: str) -> None:
    """Call work(0) to work(count - 1) in threads; the first exception ends it."""
    pool = ThreadPoolExecutor(min(32, os.cpu_count() or 1))
    results = pool.map(work, range(count))
    try:
        for _ in tqdm(results, title, count, unit="image", leave=False, disable=None):
            pass
    finally:
        # After an exception, do not decode the images that are still queued.
        pool.shutdown(cancel_futures=True)


def _pixels(shape) -> str:
    return f"{shape[0]}x{shape[1]} pixels"
