"""Folders of image files: their published order, and the index of it that is kept.

Listing a million files on a network disk takes minutes, so a streamed folder's index is kept and
used while no folder in it has another time of its last change: a file that is added, removed or
renamed changes that of its folder. The content of a file is no part of the index. Nothing here
needs TensorFlow but `Files.read`.
"""

import hashlib
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ldl_jax.data.readers import array_cache
from ldl_jax.data.readers.base import IMAGE_ENDINGS, tensorflow
from ldl_jax.errors import Unreadable

# Tiny ImageNet's: file name, class, box; a line for each image of images/
ANNOTATIONS = "val_annotations.txt"
LISTING = 1  # raise it where the same folder comes to another index
# seconds: a folder changed later than that before it was listed may change again in the same tick
SETTLED = 3
READS = 16  # files read at a time: on a network disk most of them wait


class Listing(NamedTuple):
    """The files of one split, in the published order."""

    folder: Path
    classes: tuple[str, ...]
    names: np.ndarray  # S[N], relative to the folder, with '/'
    labels: np.ndarray  # i32[N]

    def path(self, index: int) -> str:
        """The path of an image."""
        return os.path.join(self.folder, os.fsdecode(self.names[index]))


def listings(root: str, data: str, *, index: Path | None = None) -> tuple[Listing, Listing]:
    """Files to train on, and to test on, of the same classes.

    data: the data set's name, for messages; index: the folder where indices are kept, None to list
    anew. Raises ValueError in one sentence where folders are missing or do not fit.
    """
    place = Path(root)
    if not root or not (place / "train").is_dir():
        raise ValueError(
            f"config.data.root is {root!r}; for data.name={data!r} it names a folder with train/<class>/* and "
            "val/<class>/* (or test/<class>/*)"
        )
    other = next((name for name in ("val", "test") if (place / name).is_dir()), None)
    if other is None:
        raise ValueError(
            f"{root}: has neither val/ nor test/; one of them is needed, with the classes of train/"
        )
    train, test = (
        kept_listing(place / name, index) if index else listing(place / name)
        for name in ("train", other)
    )
    for one, against in ((train, test), (test, train)):
        lacking = sorted(set(one.classes) - set(against.classes))
        if lacking:
            more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
            raise ValueError(
                f"{against.folder}: lacks the classes {', '.join(lacking[:3])}{more} of {one.folder}; allowed are the "
                "same classes"
            )
    return train, test


def digest(*found: Listing) -> str:
    """SHA-256 of the names of the files in their order, each below the name of its split's folder."""
    total = hashlib.sha256()
    for part in found:
        total.update(
            b"".join(
                b"%s/%s\n" % (os.fsencode(part.folder.name), name) for name in part.names.tolist()
            )
        )
    return total.hexdigest()


def listing(folder: Path) -> Listing:
    """The image files of a split. Raises ValueError where there are fewer than two classes, or one
    is empty.
    """
    return _listed(folder)[0]


def kept_listing(folder: Path, index: Path) -> Listing:
    """`listing` from the index kept in `index` or, where there is none or a folder has changed,
    made and kept.
    """
    path = array_cache.path_of(index, "listing", LISTING, str(folder.absolute()))
    kept = array_cache.load(path)
    if kept is not None and np.array_equal(_times(kept["folders"].tolist()), kept["times"]):
        classes = tuple(os.fsdecode(name) for name in kept["classes"].tolist())
        return Listing(folder, classes, kept["names"], kept["labels"])
    begun = time.time_ns()
    found, folders = _listed(folder)
    folders = np.array([os.fsencode(place) for place in folders])
    times = _times(folders.tolist())
    if begun - times.max() > SETTLED * 10**9:
        classes = np.array([os.fsencode(name) for name in found.classes])
        held = {
            "names": found.names,
            "labels": found.labels,
            "classes": classes,
            "folders": folders,
            "times": times,
        }
        array_cache.save(path, held)
    return found


def _times(folders: Iterable[bytes]) -> np.ndarray:
    def changed(place):
        try:
            return os.stat(place).st_mtime_ns
        except OSError:
            return -1

    return np.array([changed(place) for place in folders], np.int64)


def _listed(folder: Path) -> tuple[Listing, list[Path]]:
    """The files of a split, and all that its index hangs on: its folders, and the annotations if
    there are such.
    """
    places = sorted(
        (p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")),
        key=lambda p: p.name,
    )
    flat = (folder / ANNOTATIONS).is_file()
    if len(places) < 2 and not flat:
        raise ValueError(
            f"{folder}: has {len(places)} class folders; needed are at least two, with images in them"
        )
    with ThreadPoolExecutor(READS) as pool:
        walks = pool.map(lambda place: _images_in(place, folder), places)
        bar = tqdm(
            walks,
            f"listing {folder}",
            len(places),
            unit="class",
            leave=False,
            delay=2,
            disable=None,
        )
        walked = list(bar)
    inside = [images for images, _ in walked]
    seen = [folder, *(place for _, below in walked for place in below)]
    if flat:
        return _annotated(folder, [name for names in inside for name in names]), [
            *seen,
            folder / ANNOTATIONS,
        ]
    for place, names in zip(places, inside, strict=True):
        if not names:
            raise ValueError(
                f"{place}: this class has no image ({', '.join(IMAGE_ENDINGS)}); remove the folder, or fill it"
            )
    return _in_order(
        folder, {place.name: names for place, names in zip(places, inside, strict=True)}
    ), seen


def _in_order(folder: Path, images: dict[str, list[str]]) -> Listing:
    """Class by class in the order of their names, in each the sorted paths."""
    classes = sorted(images)
    names = np.array([os.fsencode(name) for label in classes for name in sorted(images[label])])
    counts = [len(images[label]) for label in classes]
    return Listing(
        folder, tuple(classes), names, np.repeat(np.arange(len(classes), dtype=np.int32), counts)
    )


def _images_in(place: Path, folder: Path) -> tuple[list[str], list[Path]]:
    """Images below a folder, relative to the split's, and all folders below it, itself included."""
    found, seen = [], []
    for where, deeper, files in os.walk(place):
        deeper[:] = [name for name in deeper if not name.startswith(".")]
        seen.append(Path(where))
        above = Path(where).relative_to(folder).as_posix()
        found += [
            f"{above}/{n}"
            for n in files
            if n.lower().endswith(IMAGE_ENDINGS) and not n.startswith(".")
        ]
    return found, seen


def _annotated(folder: Path, names: list[str]) -> Listing:
    """Tiny ImageNet's own form: all images in one folder, their classes in a text file."""
    place = folder / ANNOTATIONS
    lines = [
        line.split("\t") for line in place.read_text(errors="replace").splitlines() if line.strip()
    ]
    if not all(len(line) > 1 for line in lines):
        raise ValueError(
            f"{place}: has a line without a tab; needed are a file name and a class, one image a line"
        )
    labels, images = {line[0]: line[1] for line in lines}, {}
    for name in names:
        label = labels.pop(name.rsplit("/", 1)[-1], None)
        if label is None:
            raise ValueError(f"{place}: has no line for {name}; needed is one for each image")
        images.setdefault(label, []).append(name)
    if labels:
        raise ValueError(
            f"{place}: names {next(iter(labels))}, which is not there; needed are all of its images"
        )
    if len(images) < 2:
        raise ValueError(f"{place}: names {len(images)} classes; needed are at least two")
    return _in_order(folder, images)


class Files:
    """The files of a listing as a source of encoded images."""

    channels = 3

    def __init__(self, found: Listing):
        self.found, self.num_examples, self.num_classes = (
            found,
            len(found.names),
            len(found.classes),
        )

    def name(self, index: int) -> str:
        """The path of an image."""
        return self.found.path(index)

    def fields(self, index: np.ndarray) -> tuple[np.ndarray, ...]:
        """Paths S[b] and labels i32[b]."""
        above = os.fsencode(self.found.folder) + b"/"
        paths = np.array([above + name for name in self.found.names[index].tolist()], object)
        return paths, self.found.labels[index]

    def read(self, dataset):
        """Whole files, some at a time, in their order."""
        tf = tensorflow()

        @tf.autograph.experimental.do_not_convert
        def one(sides, places, serial, path, label):
            return sides, places, serial, tf.io.read_file(path), label

        return dataset.map(one, num_parallel_calls=READS, deterministic=True)

    def content(self, index: int) -> tuple[bytes, int]:
        """A whole file."""
        try:
            return Path(self.name(index)).read_bytes(), int(self.found.labels[index])
        except FileNotFoundError:
            raise Unreadable("is not there, or a link to a file that is not there") from None
        except OSError as error:
            raise Unreadable(f"cannot be read ({error.strerror or error})") from None
