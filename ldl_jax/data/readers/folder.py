"""Folders of image files: their published order, and a cached index of it.

Listing a million files on a network disk takes minutes, so a streamed folder's index is cached. It
is used while no folder in it has another modification time: adding, removing or renaming a file
changes that of its folder. The content of the files is not part of the index. Only `Files.read`
needs TensorFlow.
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

# Tiny ImageNet's file: one line per image of images/, with its name, class and box.
ANNOTATIONS = "val_annotations.txt"
LISTING = 1  # raise it if the same folder gets another index
# seconds: a folder that changed this recently may change again within the clock's resolution
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
    """The training files and the test files, which have the same classes.

    data: the data set's name, for messages; index: folder of cached indices (None: list the files
    anew). Raises ValueError with one sentence if folders are missing or do not match.
    """
    path = Path(root)
    if not root or not (path / "train").is_dir():
        raise ValueError(
            "config.data.root must be a folder with train/<class>/* and val/<class>/* (or "
            f"test/<class>/*) for data.name={data!r}, got {root!r}"
        )
    test_name = next((name for name in ("val", "test") if (path / name).is_dir()), None)
    if test_name is None:
        raise ValueError(
            f"{root} has neither val/ nor test/; one of them must hold the classes of train/"
        )
    if index:
        train = kept_listing(path / "train", index)
        test = kept_listing(path / test_name, index)
    else:
        train = listing(path / "train")
        test = listing(path / test_name)
    # Labels are positions in the sorted class names, so a missing class would shift them.
    for complete, lacking in ((train, test), (test, train)):
        missing = sorted(set(complete.classes) - set(lacking.classes))
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise ValueError(
                f"{lacking.folder} lacks the classes {', '.join(missing[:3])}{more} of "
                f"{complete.folder}; both must have the same classes"
            )
    return train, test


def digest(*parts: Listing) -> str:
    """SHA-256 of the names of the files in their order, each below its split's folder name."""
    total = hashlib.sha256()
    for part in parts:
        folder_name = os.fsencode(part.folder.name)
        total.update(b"".join(b"%s/%s\n" % (folder_name, name) for name in part.names.tolist()))
    return total.hexdigest()


def listing(folder: Path) -> Listing:
    """The image files of a split. Raises ValueError if there are fewer than two classes, or one is
    empty.
    """
    return _listed(folder)[0]


def kept_listing(folder: Path, index: Path) -> Listing:
    """`listing` from the cache in the folder `index`, or made and cached if it is outdated."""
    path = array_cache.path_of(index, "listing", LISTING, str(folder.absolute()))
    cached = array_cache.load(path)
    if cached is not None:
        times = _times(cached["folders"].tolist())
        if np.array_equal(times, cached["times"]):
            classes = tuple(map(os.fsdecode, cached["classes"].tolist()))
            return Listing(folder, classes, cached["names"], cached["labels"])
    begun = time.time_ns()
    fresh, dependencies = _listed(folder)
    folders = np.array(list(map(os.fsencode, dependencies)))
    times = _times(folders.tolist())
    # A folder that has just changed may change again without a new modification time.
    if begun - times.max() > SETTLED * 10**9:
        arrays = {
            "names": fresh.names,
            "labels": fresh.labels,
            "classes": np.array(list(map(os.fsencode, fresh.classes))),
            "folders": folders,
            "times": times,
        }
        array_cache.save(path, arrays)
    return fresh


def _times(folders: Iterable[bytes]) -> np.ndarray:
    """Modification times in ns, i64[n]; -1 for a missing folder."""

    def modified(folder):
        try:
            return os.stat(folder).st_mtime_ns
        except OSError:
            return -1

    return np.array(list(map(modified, folders)), np.int64)


def _listed(folder: Path) -> tuple[Listing, list[Path]]:
    """The files of a split, and what its index depends on: all folders, and the annotations."""
    subfolders = []
    for path in folder.iterdir():
        if path.is_dir() and not path.name.startswith("."):
            subfolders.append(path)
    subfolders.sort(key=lambda path: path.name)
    flat = (folder / ANNOTATIONS).is_file()
    if len(subfolders) < 2 and not flat:
        raise ValueError(
            f"{folder} must have at least two class folders with images, got {len(subfolders)} "
            "class folders"
        )
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
    images = {}
    for subfolder, (names, below) in zip(subfolders, walked, strict=True):
        images[subfolder.name] = names
        dependencies += below
    if flat:
        names = [name for names in images.values() for name in names]
        return _annotated(folder, names), [*dependencies, folder / ANNOTATIONS]
    for label, names in images.items():
        if not names:
            raise ValueError(
                f"{folder / label} has no images ({', '.join(IMAGE_ENDINGS)}); add some or remove "
                "the folder"
            )
    return _in_order(folder, images), dependencies


def _in_order(folder: Path, images: dict[str, list[str]]) -> Listing:
    """Class by class in the order of their names, each with its sorted paths."""
    classes = sorted(images)
    names = []
    counts = []
    for label in classes:
        names += map(os.fsencode, sorted(images[label]))
        counts.append(len(images[label]))
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), counts)
    return Listing(folder, tuple(classes), np.array(names), labels)


def _images_in(subfolder: Path, folder: Path) -> tuple[list[str], list[Path]]:
    """Images below a subfolder, relative to the split's folder, and all folders they are in."""
    images = []
    folders = []
    for where, deeper, files in os.walk(subfolder):
        # Changing the list in place keeps os.walk out of hidden folders.
        deeper[:] = [name for name in deeper if not name.startswith(".")]
        folders.append(Path(where))
        above = Path(where).relative_to(folder).as_posix()
        for name in files:
            if name.lower().endswith(IMAGE_ENDINGS) and not name.startswith("."):
                images.append(f"{above}/{name}")
    return images, folders


def _annotated(folder: Path, names: list[str]) -> Listing:
    """Tiny ImageNet's own form: all images in one folder, their classes in a text file."""
    file = folder / ANNOTATIONS
    labels = {}
    for line in file.read_text(errors="replace").splitlines():
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
    """The files of a listing as a source of encoded images."""

    channels = 3

    def __init__(self, listing: Listing):
        self.listing = listing
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
        """Read whole files, some at a time, in their order."""
        tf = tensorflow()

        @tf.autograph.experimental.do_not_convert
        def element(sides, places, serial, path, label):
            return sides, places, serial, tf.io.read_file(path), label

        return dataset.map(element, num_parallel_calls=READS, deterministic=True)

    def content(self, index: int) -> tuple[bytes, int]:
        """A whole file and its label."""
        try:
            return Path(self.name(index)).read_bytes(), int(self.listing.labels[index])
        except FileNotFoundError:
            raise Unreadable("does not exist, or is a link to a missing file") from None
        except OSError as error:
            raise Unreadable(f"cannot be read ({error.strerror or error})") from None
