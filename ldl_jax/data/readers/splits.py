"""The training split and the test split of a folder of images.

Either the folder has a subfolder for each, or it has the class folders, and a part of each class is
drawn for the test.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ldl_jax.data.readers import folder
from ldl_jax.data.readers.folder import Listing
from ldl_jax.errors import warn
from ldl_jax.escape import line

TEST_SHARE = 0.2  # of each class, where `data.test_share` is not set
TEST_NAMES = ("val", "test")
# Names of folders that are splits rather than classes, in lower case.
SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "test", "testing", "eval", "dev")
SHOWN = 3  # names in a message


class Splits(NamedTuple):
    """The files of both splits, labelled by the classes of the training split."""

    train: Listing
    test: Listing
    notes: tuple[str, ...] = ()  # sentences for the log
    record: dict[str, Any] | None = None  # how the split was drawn; None: the folder has it


def read(
    root: str, data: str, *, index: Path | None = None, share: float | None = None, seed: int = 0
) -> Splits:
    """The training files and the test files below `root`.

    data: the data set's name, for messages. index: folder of cached indices (None: list the files
    anew). share, seed: of `draw`, if the folder has no test split; None: TEST_SHARE, and only for
    folders without train/. Classes without test images are warned of. Raises ValueError with one
    sentence if folders are missing or do not match.
    """
    path = Path(root)
    takes_classes = data == "imagefolder"
    test_name = next((name for name in TEST_NAMES if (path / name).is_dir()), None)
    drawn = takes_classes and test_name is None
    if not root or not path.is_dir() or not ((path / "train").is_dir() or drawn):
        classes = "<class>/*, or with " if takes_classes else ""
        raise ValueError(
            f"config.data.root must be a folder with {classes}train/<class>/* and val/<class>/* "
            f"(or test/<class>/*) for data.name={data!r}, got {root!r}"
        )
    if drawn and (not _is_split(path) or share is not None):
        place = path / "train" if _is_split(path) else path
        if place == path:
            _check_names(path)
        whole = folder.checked(folder.found(place, index))
        return draw(whole, TEST_SHARE if share is None else share, seed)
    if test_name is None:
        hint = ", or set config.data.test_share, as to 0.2, to test on a part of train/"
        raise ValueError(
            f"{root} has neither val/ nor test/; one of them must hold the classes of train/"
            f"{hint if drawn else ''}"
        )
    if share is not None:
        raise ValueError(
            f"config.data.test_share must be None, because {root} has a split of its own in "
            f"{test_name}/; got {share}"
        )
    train = folder.checked(folder.found(path / "train", index))
    test = _matched(folder.found(path / test_name, index), train)
    return Splits(train, test, _notes(_left_out(train), _left_out(test)))


def _notes(*sentences: str) -> tuple[str, ...]:
    return tuple(line(sentence) for sentence in sentences if sentence)


def _is_split(root: Path) -> bool:
    """Whether train/ is a split: a folder of folders, not a class of that name."""
    train = root / "train"
    return train.is_dir() and bool(folder.class_folders(train)[0])


def _check_names(root: Path) -> None:
    """Raise ValueError if the folders are named like splits, as Training and Testing."""
    subfolders = folder.class_folders(root)[0]
    named = [path for path in subfolders if path.name.lower() in SPLIT_NAMES]
    nested = [path for path in named if folder.class_folders(path)[0]]
    # A single one without folders in it may well be a class.
    if len(named) > 1 or nested:
        names = ", ".join(path.name for path in named[:SHOWN])
        raise ValueError(
            f"{root} must have either class folders, or train/ and val/ (or test/) with class "
            f"folders; got {names}, which look like splits: rename them to train and val"
        )


def draw(whole: Listing, share: float, seed: int) -> Splits:
    """Draw a share of each class for the test: at least one image, and not all.

    Which images are drawn depends on the seed and their paths alone: neither on the order of the
    files in the folder nor, except at the edge, on other images. A class with a single image stays
    in training, with a warning.
    """
    is_test = np.zeros(len(whole.names), bool)
    alone = []
    for label, name in enumerate(whole.classes):
        positions = np.flatnonzero(whole.labels == label)
        if len(positions) == 1:
            alone.append(name)
            continue
        count = min(max(round(share * len(positions)), 1), len(positions) - 1)
        ranks = [_rank(seed, whole.names[position]) for position in positions]
        is_test[positions[np.argsort(ranks)[:count]]] = True
    if not is_test.any():
        raise ValueError(
            f"{whole.folder} must have more than one image in some class, so that a part can be "
            "drawn for the test; got one image per class"
        )
    if alone:
        warn(
            f"{whole.folder}: {_listed(alone)} {'has' if len(alone) == 1 else 'have'} a single "
            "image, which is trained on; the test has none of it"
        )
    train = _part(whole, ~is_test, "train")
    test = _part(whole, is_test, "test")
    note = (
        f"{whole.folder} has no test split: {len(test.names):,} of {len(is_test):,} images "
        f"({share:g} of each class) are drawn for the test with config.data.test_seed={seed}"
    )
    record = {
        "test_share": share,
        "test_seed": seed,
        "train": len(train.names),
        "test": list(map(os.fsdecode, test.names.tolist())),
    }
    return Splits(train, test, _notes(note, _left_out(whole)), record)


def _rank(seed: int, name: bytes) -> str:
    return hashlib.sha256(b"%d/%s" % (seed, name)).hexdigest()


def _part(whole: Listing, chosen: np.ndarray, title: str) -> Listing:
    return whole._replace(names=whole.names[chosen], labels=whole.labels[chosen], title=title)


def _matched(test: Listing, train: Listing) -> Listing:
    """The test files with the classes of the training split, of which some may have no image."""
    number = {folder.normal(name): label for label, name in enumerate(train.classes)}
    unknown = [name for name in test.classes if folder.normal(name) not in number]
    if unknown:
        raise ValueError(
            f"{train.folder} lacks the classes {_listed(unknown)} of {test.folder}; all test "
            "images must be of classes that are trained on"
        )
    if not test.classes:
        raise ValueError(
            f"{test.folder} must have class folders with images, as {train.folder} has; got none"
        )
    names = [folder.normal(name) for name in test.classes]
    missing = [name for name in train.classes if folder.normal(name) not in names]
    if missing:
        warn(
            f"{test.folder} has no images of {_listed(missing)} (trained on: {len(train.classes)} "
            "classes); metrics tell nothing about "
            f"{'this class' if len(missing) == 1 else 'these classes'}"
        )
    # Labels are positions in the training split's names, which sort as those of the test split
    # except in other normal forms.
    labels = np.array([number[name] for name in names], np.int32)[test.labels]
    order = np.argsort(labels, kind="stable")
    return test._replace(
        classes=train.classes, names=test.names[order], labels=labels[order], empty=()
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _left_out(part: Listing) -> str:
    """A sentence about the files that are no images; '' if there are none."""
    counts = sorted((part.left_out or {}).items(), key=lambda item: (-item[1], item[0]))
    kinds = ", ".join(f"{count:,} {ending}" for ending, count in counts)
    return f"{part.folder}: left out {kinds} (files that are not read as images)" if kinds else ""
