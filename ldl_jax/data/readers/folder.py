"""Folders of image files: their published order, and a cached index of it.

Listing a million files on a network disk takes minutes, so a streamed folder's index is cached. It
is used while no folder in it has another modification time: adding, removing or renaming a file
changes that of its folder. The content of the files is not part of the index. Only `Files.read`
needs TensorFlow.
"""

import hashlib
import json
import os
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ldl_jax.data.readers import array_cache, pillow
from ldl_jax.data.readers.base import IMAGE_ENDINGS, JPEG, PNG, tensorflow
from ldl_jax.errors import Unreadable
from ldl_jax.files.reading import check_file, entries, is_special

# Tiny ImageNet's file: one line per image of images/, with its name, class and box.
ANNOTATIONS = "val_annotations.txt"
LISTING = 2  # raise it if the same folder gets another index
# seconds: a folder that changed this recently may change again within the clock's resolution
SETTLED = 3
READS = 16  # files read at a time: on a network disk most of them wait
OUTSIDE = " outside of class folders"
DECODED = (b".jpg", b".jpeg", b".jpe", b".jfif", b".png")  # endings that TensorFlow decodes
SPECIAL = "that are no regular files"  # FIFOs, sockets and devices
MACOSX = "__MACOSX"  # what a zip archive made by macOS holds beside its files


class Listing(NamedTuple):
    """The files of one split, in the published order."""

    folder: Path
    classes: tuple[str, ...]
    names: np.ndarray  # S[N], relative to the folder, with '/'
    labels: np.ndarray  # i32[N]
    empty: tuple[str, ...] = ()  # class folders without images
    left_out: dict[str, int] | None = None  # number of files that are not used, by ending
    title: str = ""  # name of the split; '': that of the folder

    def path(self, index: int) -> str:
        """The path of an image."""
        return os.path.join(self.folder, os.fsdecode(self.names[index]))


def digest(*parts: Listing) -> str:
    """SHA-256 of the names of the files in their order, each below its split's name."""
    total = hashlib.sha256()
    for part in parts:
        title = os.fsencode(part.title or part.folder.name)
        total.update(b"".join(b"%s/%s\n" % (title, name) for name in part.names.tolist()))
    return total.hexdigest()


def listing(folder: Path) -> Listing:
    """The image files of a split. Raises ValueError if there are fewer than two classes, or one is
    empty.
    """
    return checked(_listed(folder)[0])


def checked(part: Listing) -> Listing:
    """Return the files of a split to train on.

    Raises ValueError if there are fewer than two classes, or one is empty.
    """
    if len(part.classes) + len(part.empty) < 2:
        raise ValueError(
            f"{part.folder} must have at least two class folders with images, got "
            f"{len(part.classes) + len(part.empty)} class folders"
        )
    if part.empty:
        raise ValueError(
            f"{part.folder / part.empty[0]} has no images ({', '.join(IMAGE_ENDINGS)}); add "
            "some or remove the folder"
        )
    return part


def found(folder: Path, index: Path | None = None) -> Listing:
    """The image files of a split, which may lack classes.

    index: folder of cached indices, used and written (None: list the files anew).
    """
    return _listed(folder)[0] if index is None else kept_listing(folder, index)


def kept_listing(folder: Path, index: Path) -> Listing:
    """`found` from the cache in the folder `index`, or made and cached if it is outdated."""
    path = array_cache.path_of(index, "listing", LISTING, IMAGE_ENDINGS, str(folder.absolute()))
    cached = array_cache.load(path)
    if cached is not None:
        times = _times(cached["folders"].tolist())
        if np.array_equal(times, cached["times"]):
            classes = tuple(map(os.fsdecode, cached["classes"].tolist()))
            empty = tuple(map(os.fsdecode, cached["empty"].tolist()))
            left_out = json.loads(str(cached["left_out"]))
            return Listing(folder, classes, cached["names"], cached["labels"], empty, left_out)
    begun = time.time_ns()
    fresh, dependencies = _listed(folder)
    folders = _encoded(dependencies)
    times = _times(folders.tolist())
    # A folder that has just changed may change again without a new modification time.
    if begun - times.max() > SETTLED * 10**9:
        arrays = {
            "names": fresh.names,
            "labels": fresh.labels,
            "classes": _encoded(fresh.classes),
            "empty": _encoded(fresh.empty),
            "left_out": np.array(json.dumps(fresh.left_out)),
            "folders": folders,
            "times": times,
        }
        array_cache.save(path, arrays)
    return fresh


def _encoded(names: Iterable) -> np.ndarray:
    """Names or paths as the file system has them, S[n]: they need not be UTF-8."""
    return np.array(list(map(os.fsencode, names)), "S")


def _times(folders: Iterable[bytes]) -> np.ndarray:
    """Modification times in ns, i64[n]; -1 for a missing folder."""

    def modified(folder):
        try:
            return os.stat(folder).st_mtime_ns
        except OSError:
            return -1

    return np.array(list(map(modified, folders)), np.int64)


def class_folders(folder: Path) -> tuple[list[Path], Counter]:
    """The folders in a folder, sorted by name, and the number of files beside them, by ending.

    Hidden files and folders are passed over.
    """
    subfolders = []
    beside: Counter = Counter()
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name == MACOSX:
            continue
        if path.is_dir():
            subfolders.append(path)
        elif path.name.lower().endswith(IMAGE_ENDINGS):
            beside[f"{_ending(path.name)}{OUTSIDE}"] += 1
        else:
            beside[_ending(path.name)] += 1
    return sorted(subfolders, key=lambda path: path.name), beside


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower() or "without an ending"


def _listed(folder: Path) -> tuple[Listing, list[Path]]:
    """The files of a split, and what its index depends on: all folders, and the annotations."""
    subfolders, left_out = class_folders(folder)
    # On a network disk most of the time is waiting, so list the folders in parallel.
    with ThreadPoolExecutor(READS) as pool:
        walks = pool.map(lambda subfolder: _images_in(subfolder, folder), subfolders)
        bar = tqdm(
            walks,
            f"listing {folder}",
            len(subfolders),
            unit="class",
            leave=False,
            delay=2,
            disable=None,
        )
        walked = list(bar)
    dependencies = [folder]
    images: dict[str, list[str]] = {}
    for subfolder, (names, below, others) in zip(subfolders, walked, strict=True):
        images[subfolder.name] = names
        dependencies += below
        left_out += others
    if (folder / ANNOTATIONS).is_file():
        names = [name for names in images.values() for name in names]
        return _annotated(folder, names), [*dependencies, folder / ANNOTATIONS]
    by_class, empty = _by_class(images)
    return _in_order(folder, by_class)._replace(empty=empty, left_out=left_out), dependencies


def normal(name: str) -> str:
    """A class name in Unicode's normal form C: macOS stores the same name in form D."""
    return unicodedata.normalize("NFC", name)


def _by_class(images: dict[str, list[str]]) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Images by class, and the classes without images.

    Folders whose names are the same text in other normal forms are one class, named as the first.
    """
    first = {}
    by_class: dict[str, list[str]] = {}
    for name in sorted(images):
        label = first.setdefault(normal(name), name)
        by_class.setdefault(label, []).extend(images[name])
    empty = tuple(label for label, names in by_class.items() if not names)
    return {label: names for label, names in by_class.items() if names}, empty


def _in_order(folder: Path, images: dict[str, list[str]]) -> Listing:
    """Class by class in the order of their names, each with its sorted paths."""
    classes = sorted(images)
    names = []
    counts = []
    for label in classes:
        names += map(os.fsencode, sorted(images[label]))
        counts.append(len(images[label]))
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), counts)
    return Listing(folder, tuple(classes), np.array(names, "S"), labels)


def _images_in(subfolder: Path, folder: Path) -> tuple[list[str], list[Path], Counter]:
    """Images below a subfolder, relative to the split's folder, all folders they are in, and the
    number of other files by ending.
    """
    images = []
    folders = []
    others: Counter = Counter()
    pending = [subfolder]
    while pending:
        where = pending.pop()
        folders.append(where)
        above = where.relative_to(folder).as_posix()
        for entry in entries(where):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                # Links to folders are not followed: they may lead back to where they are.
                pending += [] if entry.is_symlink() else [where / entry.name]
            elif not entry.name.lower().endswith(IMAGE_ENDINGS):
                others[_ending(entry.name)] += 1
            elif is_special(entry):
                others[SPECIAL] += 1
            else:
                images.append(f"{above}/{entry.name}")
    return images, folders, others


def _annotated(folder: Path, names: list[str]) -> Listing:
    """Tiny ImageNet's own form: all images in one folder, their classes in a text file."""
    file = folder / ANNOTATIONS
    labels = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) < 2:
            raise ValueError(
                f"{file} has a line without a tab; each line must hold a file name, a tab and a "
                "class"
            )
        labels[fields[0]] = fields[1]
    images = {}
    for name in names:
        label = labels.pop(name.rsplit("/", 1)[-1], None)
        if label is None:
            raise ValueError(f"{file} has no line for {name}; every image needs one")
        images.setdefault(label, []).append(name)
    # Lines that are left over belong to images that were lost in copying.
    if labels:
        raise ValueError(f"{file} lists {next(iter(labels))}, which does not exist in {folder}")
    if len(images) < 2:
        raise ValueError(f"{file} must list at least two classes, got {len(images)}")
    return _in_order(folder, images)


class Files:
    """The files of a listing as a source of encoded images.

    exif: turn images as the orientation in their metadata says.
    """

    channels = 3

    def __init__(self, listing: Listing, *, exif: bool = False):
        self.listing = listing
        self.exif = exif
        self.num_examples = len(listing.names)
        self.num_classes = len(listing.classes)

    def name(self, index: int) -> str:
        """The path of an image."""
        return self.listing.path(index)

    def fields(self, index: np.ndarray) -> tuple[np.ndarray, ...]:
        """Paths S[b] and labels i32[b]."""
        above = os.fsencode(self.listing.folder) + b"/"
        paths = [above + name for name in self.listing.names[index].tolist()]
        return np.array(paths, object), self.listing.labels[index]

    def read(self, dataset):
        """Read whole files, some at a time, in their order.

        What TensorFlow cannot decode, or would show in another orientation, becomes a PNG.
        """
        tf = tensorflow()
        names = self.listing.names
        # Most folders hold JPEG and PNG files only, which need no Python code on the way.
        converts = self.exif or any(not name.lower().endswith(DECODED) for name in names.tolist())

        def converted(content):
            return tf.numpy_function(lambda data: self._plain(data), [content], tf.string)

        @tf.autograph.experimental.do_not_convert
        def element(sides, places, serial, path, label):
            content = tf.io.read_file(path)
            if converts:
                content = tf.ensure_shape(converted(content), ())
            return sides, places, serial, content, label

        return dataset.map(element, num_parallel_calls=READS, deterministic=True)

    def content(self, index: int) -> tuple[bytes, int]:
        """A whole file and its label."""
        try:
            check_file(self.name(index))
            content = Path(self.name(index)).read_bytes()
        except FileNotFoundError:
            raise Unreadable("does not exist, or is a link to a missing file") from None
        except OSError as error:
            raise Unreadable(f"cannot be read ({error.strerror or error})") from None
        return self._plain(content), int(self.listing.labels[index])

    def _plain(self, content: bytes) -> bytes:
        """A file as a JPEG or PNG to be shown as it is stored. Raises Unreadable."""
        if not content or (content.startswith((JPEG, PNG)) and not self.exif):
            return content
        return pillow.as_png(content, exif=self.exif)
