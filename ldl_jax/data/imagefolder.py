"""The user's own image files: one folder a class."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image
from tqdm import tqdm

from ldl_jax import cache as caches
from ldl_jax.data.base import Dataset, Request, Split, check_split, warn

ENDINGS = (".jpg", ".jpeg", ".png")  # in lower or upper case
DECODING = 1  # raise it where the same file comes to other pixels


class Listing(NamedTuple):
    """The files of one split, in the published order."""

    folder: Path
    classes: tuple[str, ...]
    names: tuple[str, ...]  # relative to the folder, with '/'
    labels: np.ndarray  # i64[N]


def make(
    request: Request,
    *,
    size: int = 0,  # pixels: the middle square (the whole shorter side) is resized to it; 0 = all are of one size
    cache: str = "",  # folder for the decoded images; '' = ldl_jax/images below $XDG_CACHE_HOME or ~/.cache
) -> Dataset:
    """An image folder, <root>/train/<class>/* and <root>/val/<class>/* (test/ where there is no val/), decoded once.

    The sorted names of the class folders are the classes 0 to K - 1; the published order is class by class, in each
    the sorted paths, files in deeper folders included (so that `data.examples` takes the first classes alone). JPEG and
    PNG files count; those whose name begins with a dot do not. Every image becomes RGB as it is stored: no rotation
    by EXIF, no transparency. mean and std are ImageNet's. Raises ValueError in one sentence where folders are missing,
    empty or do not fit, an image cannot be read (`on_error='raise'`), or sizes differ.
    """
    if size < 0:
        raise ValueError(f"config.data.imagefolder.size is {size}; allowed are numbers from 0, in pixels")
    found = _listings(request.root)
    train, test = (_split(part, size, caches.folder(cache, "images"), request.on_error) for part in found)
    if train.shape != test.shape:
        raise ValueError(
            f"{found[1].folder}: images are {_pixels(test.shape)}, those of {found[0].folder} {_pixels(train.shape)}; "
            "allowed is one size, or a size in config.data.imagefolder.size"
        )
    return Dataset(train, test, found[0].classes, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def _listings(root: str) -> tuple[Listing, Listing]:
    """Files to train on and to test on, of the same classes."""
    place = Path(root)
    if not root or not (place / "train").is_dir():
        raise ValueError(
            f"config.data.root is {root!r}; for data.name='imagefolder' it names a folder with train/<class>/* and "
            "val/<class>/* (or test/<class>/*)"
        )
    other = next((name for name in ("val", "test") if (place / name).is_dir()), None)
    if other is None:
        raise ValueError(f"{root}: has neither val/ nor test/; one of them is needed, with the classes of train/")
    train, test = listing(place / "train"), listing(place / other)
    for one, against in ((train, test), (test, train)):
        lacking = sorted(set(one.classes) - set(against.classes))
        if lacking:
            more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
            raise ValueError(
                f"{against.folder}: lacks the classes {', '.join(lacking[:3])}{more} of {one.folder}; allowed are the "
                "same classes"
            )
    return train, test


def _class_folders(folder: Path) -> list[Path]:
    found = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(found, key=lambda path: path.name)


def listing(folder: Path) -> Listing:
    """The image files of a split. Raises ValueError where there are fewer than two classes, or one is empty."""
    classes = _class_folders(folder)
    if len(classes) < 2:
        raise ValueError(f"{folder}: has {len(classes)} class folders; needed are at least two, with images in them")
    names, labels = [], []
    for number, place in enumerate(classes):
        inside = sorted(_images_in(place, folder))
        if not inside:
            raise ValueError(f"{place}: this class has no image ({', '.join(ENDINGS)}); remove the folder, or fill it")
        names += inside
        labels += [number] * len(inside)
    return Listing(folder, tuple(path.name for path in classes), tuple(names), np.array(labels))


def _images_in(place: Path, folder: Path) -> list[str]:
    found = []
    for where, deeper, files in os.walk(place):
        deeper[:] = [name for name in deeper if not name.startswith(".")]
        above = Path(where).relative_to(folder).as_posix()
        found += [f"{above}/{n}" for n in files if n.lower().endswith(ENDINGS) and not n.startswith(".")]
    return found


def _split(found: Listing, size: int, cache: Path, on_error: str) -> Split:
    """The split's images, from the cache or decoded and then cached."""
    facts = [[name, *_facts(found.folder / name)] for name in found.names]
    path = cache / f"{caches.key(DECODING, PIL.__version__, size, facts)}.npz"
    kept = caches.load(path)
    if kept is None:
        kept = decode_all(found, size, on_error)
        caches.save(path, kept)
    images, bad, reasons = kept["images"], kept["bad"], kept["reasons"]
    faults = [f"{found.folder / found.names[i]}: {reason}" for i, reason in zip(bad, reasons, strict=True)]
    if faults and on_error == "raise":
        raise ValueError(_unreadable(faults[0]))
    for fault in faults:
        warn(f"{fault}; its slot counts for nothing (config.data.on_error='skip')")
    split = check_split(str(found.folder), images, found.labels, len(found.classes))
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


def _unreadable(fault: str) -> str:
    return f"{fault}; mend or remove it (config.data.on_error='skip' leaves such images out)"


def decode_all(found: Listing, size: int, on_error: str) -> dict[str, np.ndarray]:
    """All images of a split: {'images' u8[N, H, W, 3], 'bad' i64[n], 'reasons' str[n]}, decoded in threads.

    A slot that could not be read holds a copy of the first good image. Raises ValueError where on_error is 'raise'
    and an image cannot be read, where none can, or where sizes differ.
    """
    count, paths = len(found.names), [found.folder / name for name in found.names]
    shape, first = ((size, size, 3), None) if size else _first_shape(paths, on_error)
    images, reasons = np.zeros((count, *shape), np.uint8), {}

    def one(number):
        image = _decode(paths[number], size)
        if isinstance(image, str):
            if on_error == "raise":
                raise ValueError(_unreadable(f"{paths[number]}: {image}"))
            reasons[number] = image
        elif image.shape != shape:
            raise ValueError(
                f"{paths[number]}: is {_pixels(image.shape)}, but {first} is {_pixels(shape)}; allowed is one size, or "
                "a size in config.data.imagefolder.size"
            )
        else:
            images[number] = image

    _in_threads(one, count, f"decoding {found.folder}")
    bad = np.array(sorted(reasons), np.int64)
    if len(bad) == count:
        raise ValueError(f"{paths[0]}: {reasons[0]}; of the {count} images of {found.folder} none can be read")
    if len(bad):
        images[bad] = images[next(number for number in range(count) if number not in reasons)]
    return {"images": images, "bad": bad, "reasons": np.array([reasons[number] for number in bad], str)}


def _first_shape(paths, on_error: str):
    """The shape of the first image that can be read, and its path."""
    for path in paths:
        image = _decode(path, 0)
        if not isinstance(image, str):
            return image.shape, path
        if on_error == "raise":
            raise ValueError(_unreadable(f"{path}: {image}"))
    raise ValueError(f"{paths[0]}: {image}; of {len(paths)} images none can be read")


def _in_threads(work: Callable, count: int, title: str) -> None:
    pool = ThreadPoolExecutor(min(32, os.cpu_count() or 1))
    try:
        for _ in tqdm(pool.map(work, range(count)), title, count, unit="image", leave=False, disable=None):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def _decode(path: Path, size: int) -> np.ndarray | str:
    """The image u8[H, W, 3], or what is wrong with it."""
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip and not scale
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image = image.convert("RGB")
        return np.asarray(_fit(image, size) if size else image)
    except FileNotFoundError:
        return "is a link to a file that is not there"
    except PIL.UnidentifiedImageError:
        return "holds no bytes" if not path.stat().st_size else "is neither JPEG nor PNG"
    except Exception as error:  # whatever a decoder makes of damaged bytes
        return f"cannot be decoded ({' '.join(str(error).split())})"


def _fit(image: Image.Image, size: int) -> Image.Image:
    """The middle square of the image, resized to `size` by bicubic interpolation with antialiasing."""
    side = min(image.size)
    left, top = ((length - side) / 2 for length in image.size)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


def _pixels(shape) -> str:
    return f"{shape[0]}x{shape[1]} pixels"
