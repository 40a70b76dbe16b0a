"""Images to predict: files, folders and arrays, with the labels that their folders name."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ldl_jax import files
from ldl_jax.data.arrays import read_images
from ldl_jax.data.readers import pillow
from ldl_jax.data.readers.base import IMAGE_ENDINGS
from ldl_jax.data.readers.folder import normal

ARRAYS = ".npz"


class Images(NamedTuple):
    """Images to predict, decoded when they are needed."""

    names: list[str]  # a path, below the folder if there is only one; or a position in the array
    label: np.ndarray | None  # i32[n], if known of all of them
    pixels: Iterator[np.ndarray | str]  # u8[H, W, C] each, or what is wrong with it, as text


def find(sources: Sequence[str | Path], spec: dict, shorter: int, exif: bool = False) -> Images:
    """The images of files and folders, or of one .npz, as a run's evaluation shows them.

    Folders are searched at any depth, and sorted by path. spec: of the run's network. shorter: the
    length to which evaluation resizes the shorter side of an image; 0: it does not. exif: turn images
    as their EXIF data say. If every image
    is in a folder named like one of the run's classes, that is its label. Raises ValueError naming
    a source that is missing, of another type, or without images.
    """
    sources = [files.home(source) for source in sources]
    is_array = [source.suffix.lower() == ARRAYS and source.is_file() for source in sources]
    if any(is_array):
        if len(sources) > 1:
            raise ValueError(
                f"an {ARRAYS} must be the only source of images, got {len(sources)} sources"
            )
        images, label = read_images(sources[0], spec["shape"], spec["num_classes"])
        return Images(list(map(str, range(len(images)))), label, iter(images))
    # A file that is named twice is predicted once.
    paths: dict[Path, Path] = {}
    for source in sources:
        paths |= dict.fromkeys(_files_of(source), source)
    _check_shape(sources[0], spec["shape"])
    alone = len(sources) == 1 and sources[0].is_dir()
    names = [str(path.relative_to(sources[0]) if alone else path) for path in paths]
    return Images(
        names, _labels(paths, spec["classes"]), _pixels(paths, spec["shape"], shorter, exif)
    )


def _files_of(source: Path) -> list[Path]:
    """The image files of a source."""
    if not source.exists():
        raise ValueError(
            f"IMAGES must be image files, folders of images or an {ARRAYS} file, got {source}, which "
            "does not exist"
        )
    endings = ", ".join(IMAGE_ENDINGS)
    if source.is_dir():
        found = sorted(file for file in source.rglob("*") if _is_image(file, source))
        if not found:
            raise ValueError(f"{source} must hold images ({endings}), got none")
        return found
    if source.suffix.lower() not in IMAGE_ENDINGS:
        raise ValueError(f"{source} must be an image ({endings}) or an {ARRAYS} file")
    return [source]


def _is_image(file: Path, folder: Path) -> bool:
    """Whether a file below a folder is an image, and neither it nor a folder above it is hidden."""
    parts = file.relative_to(folder).parts
    hidden = any(part.startswith(".") for part in parts)
    return file.suffix.lower() in IMAGE_ENDINGS and not hidden and not file.is_dir()


def _check_shape(source: Path, shape: Sequence[int]) -> None:
    height, width, channels = shape
    if height != width or channels not in pillow.MODES:
        raise ValueError(
            f"{source}: to predict image files, the run's images must be square, grey or RGB, got "
            f"[{', '.join(map(str, shape))}]"
        )


def _pixels(paths, shape: Sequence[int], shorter: int, exif: bool) -> Iterator[np.ndarray | str]:
    height, _, channels = shape
    for path in paths:
        yield pillow.decode(path, height, shorter=shorter, channels=channels, exif=exif)


def _labels(paths: dict[Path, Path], classes: Sequence[str]) -> np.ndarray | None:
    """Classes i32[n] that the folders of images name; None unless those of all images do.

    Labels of some images only could not be told from wrong ones, so it is all or none. paths: an
    image -> the file or folder through which it was named.
    """
    number = {normal(name): index for index, name in enumerate(classes)}
    labels = []
    for path, source in paths.items():
        # From the innermost folder to the one that was named, which may be a class itself.
        folders = [source.resolve().parent.name]
        if source != path:
            within = path.relative_to(source).parts[:-1]
            folders = [*reversed(within), source.resolve().name]
        found = [number[normal(name)] for name in folders if normal(name) in number]
        if not found:
            return None
        labels.append(found[0])
    return np.array(labels, np.int32)
