"""A prepared TFDS directory: its metadata, and an index of every record in its TFRecord shards.

Stepping over the lengths of the records gives the offset of each; this is done once and cached.
"""

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ldl_jax.data.readers import array_cache
from ldl_jax.data.readers.base import crc32c, reason_of, tensorflow
from ldl_jax.data.readers.records import (
    FOOT,
    HEAD,
    READS,
    Prepared,
    Records,
    Shards,
    matches,
    opened,
)
from ldl_jax.errors import Unreadable, warn
from ldl_jax.files.reading import LARGEST, check_file

WALK = 1  # raise it if the same shards get another index
DEEP = 3  # folders between data.root and the version's: <set>/<config>/<version>


def prepared(root: str, data: str) -> Prepared:
    """The metadata of the single version at or below `root`, local or gs://.

    data: the data set's name, for messages. Raises ValueError with one sentence if there is none,
    there are several, or it has no labelled images in TFRecord files.
    """
    tensorflow(f"config.data.name={data!r}")
    crc32c()
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(
            f"config.data.name={data!r} needs tensorflow-datasets, which cannot be imported "
            f"({error}); install it with pip install -e '.[stream]'"
        ) from None
    folder = _version_folder(root, data)
    _check_metadata(folder)
    try:
        info = tfds.builder_from_directory(folder).info
    except Exception as error:  # damaged metadata may raise anything
        raise ValueError(f"{folder}: its metadata cannot be read ({reason_of(error)})") from None
    file_format = getattr(info.file_format, "value", None)
    if file_format != "tfrecord":
        raise ValueError(f"{folder} must have the format 'tfrecord', got {file_format!r}")
    # Sets that hold something else than dicts of features have no named ones.
    features = dict(info.features.items()) if hasattr(info.features, "items") else {}
    image = _first_of(features, tfds.features.Image)
    label = _first_of(features, tfds.features.ClassLabel)
    if image is None or label is None:
        raise ValueError(
            f"{folder} must have an image and a class label among its features, got "
            f"{', '.join(features)}"
        )
    splits = {}
    for name, part in info.splits.items():
        splits[name] = tuple(map(str, part.filepaths)), tuple(map(int, part.shard_lengths))
    return Prepared(
        folder=folder,
        classes=tuple(features[label].names),
        image=image,
        label=label,
        channels=features[image].shape[-1] or 3,
        splits=splits,
        identified=isinstance(features.get("id"), tfds.features.Text),
    )


def _version_folder(root: str, data: str) -> str:
    """The one folder at or below `root` with a dataset_info.json."""
    above = root.rstrip("/")
    paths = []
    # An empty root would search from the root of the file system.
    if root:
        for depth in range(DEEP + 1):
            paths += tensorflow().io.gfile.glob(f"{above}{'/*' * depth}/dataset_info.json")
    if len(paths) != 1:
        folders = ", ".join(map(os.path.dirname, sorted(paths)[:3])) or "none"
        raise ValueError(
            f"config.data.root must be a prepared TFDS directory for data.name={data!r}, with one "
            f"dataset_info.json in it or below, got {root!r}; found in: {folders}"
        )
    return os.path.dirname(paths[0])


def _check_metadata(folder: str) -> None:
    """Raise ValueError if a local file of metadata is none that can be read to its end."""
    if "://" in folder:
        return
    for path in Path(folder).iterdir():
        if path.suffix in (".json", ".txt"):
            try:
                check_file(path, LARGEST)
            except OSError as error:
                raise ValueError(f"{path} cannot be read ({error.strerror})") from None


def _first_of(features: dict, kind: type) -> str | None:
    """The name of the first feature of a kind."""
    return next((name for name, feature in features.items() if isinstance(feature, kind)), None)


def source(
    prepared: Prepared, split: str, *, field: str, order: str, index: Path, on_error: str
) -> Records:
    """A split as a source of encoded images.

    field: config field that names the split, for messages; order: 'stored' or 'id'; index: folder
    of cached indices. Raises ValueError with one sentence if there is no such split or, with
    `on_error='raise'`, if a shard is missing, cut off or of another length than published.
    """
    if split not in prepared.splits:
        raise ValueError(
            f"{field} must be one of {', '.join(prepared.splits)} (the splits of "
            f"{prepared.folder}), got {split!r}"
        )
    paths, lengths = prepared.splits[split]
    # Paths are not part of the key: the same shards may be mounted elsewhere.
    stamps = [[os.path.basename(path), *_size_and_time(path)] for path in paths]
    cache = array_cache.path_of(index, "records", WALK, order, stamps, lengths)
    columns = array_cache.load(cache)
    if columns is None:
        shards, faults = _walked(paths, lengths, f"{prepared.folder} ({split})", on_error)
        if order == "id":
            by_id = _by_id(Records(prepared, shards), split)
            shards = Shards(paths, *(array[by_id] for array in shards[1:]))
        columns = dict(zip(Shards._fields[1:], shards[1:], strict=True))
        # An index with faults is not cached, since the shards may be repaired before the next run.
        if faults:
            warn(f"{'; '.join(faults)}; lost records are skipped (config.data.on_error='skip')")
        else:
            array_cache.save(cache, columns)
    return Records(prepared, Shards(paths, *(columns[name] for name in Shards._fields[1:])))


def digest(*parts: Records) -> str:
    """SHA-256 of where the examples are: the shards' names, and the order of the records."""
    total = hashlib.sha256()
    for part in parts:
        names = map(os.path.basename, part.shards.paths)
        total.update("\n".join(names).encode())
        total.update(part.shards.shard.tobytes() + part.shards.record.tobytes())
    return total.hexdigest()


def _size_and_time(path: str) -> tuple[int, int]:
    """Size in bytes and modification time in ns; -1 and -1 if there is no such file."""
    try:
        stat = tensorflow().io.gfile.stat(path)
    except Exception:  # depends on the file system; reported when the shard is indexed
        return -1, -1
    return int(stat.length), int(stat.mtime_nsec)


def walk(path: str) -> tuple[list[int], list[int], str]:
    """(offsets, lengths of data, fault) of the complete records of a shard; '' means no fault."""
    offsets = []
    lengths = []
    position = 0
    try:
        with opened(path) as (read, size):
            while position < size:
                head = read(position, HEAD)
                length = int.from_bytes(head[:8], "little")
                end = position + HEAD + length + FOOT
                # A length is checked before it is believed: it says where the next record begins.
                if end > size or not matches(head[:8], head[8:]):
                    return offsets, lengths, f"is cut off or damaged after {len(offsets)} records"
                offsets.append(position)
                lengths.append(length)
                position = end
    except FileNotFoundError:
        return offsets, lengths, "does not exist"
    except Exception as error:  # OSError, or what a remote file system raises
        return offsets, lengths, f"cannot be read ({reason_of(error)})"
    return offsets, lengths, ""


def _walked(paths, published, title, on_error) -> tuple[Shards, list[str]]:
    """All records, including lost ones, and what is wrong with the shards.

    published: the number of records of each shard.
    """
    # On a network disk most of the time is waiting, so walk over the shards in parallel.
    with ThreadPoolExecutor(READS) as pool:
        results = pool.map(walk, paths)
        title = f"indexing {title}"
        bar = tqdm(results, title, len(paths), unit="shard", leave=False, delay=2, disable=None)
        walks = list(bar)
    # Lost records keep their index, so that the others do not change theirs.
    offset = np.full(sum(published), -1, np.int64)
    length = np.zeros(sum(published), np.int64)
    faults = []
    start = 0
    for path, (offsets, lengths, fault), number in zip(paths, walks, published, strict=True):
        if not fault and len(offsets) != number:
            fault = f"holds {len(offsets)} records"
        if fault:
            faults.append(f"{path} {fault}; {number} were published")
            if on_error == "raise":
                raise ValueError(
                    f"{faults[0]}. Prepare it again, or skip lost records with "
                    "config.data.on_error='skip'."
                )
        whole = min(len(offsets), number)
        offset[start : start + whole] = offsets[:whole]
        length[start : start + whole] = lengths[:whole]
        start += number
    shard = np.repeat(np.arange(len(paths), dtype=np.int32), published)
    record = np.concatenate([np.arange(number, dtype=np.int32) for number in published])
    return Shards(paths, shard, record, offset, length), faults


def _by_id(records: Records, split: str) -> np.ndarray:
    """Positions i64[N] in the order of the numbers at the end of the examples' ids."""
    fault = "config.data.tfds.order must be 'stored', got 'id':"
    folder = records.prepared.folder
    if not records.prepared.identified:
        raise ValueError(f"{fault} {folder} has no text feature 'id'")
    numbers = []
    indices = range(records.num_examples)
    for index in tqdm(indices, f"reading ids of {split}", leave=False, delay=2, disable=None):
        try:
            digits = re.search(rb"(\d+)$", records.identity(index))
        except Unreadable as error:
            raise ValueError(f"{fault} {records.name(index)}: {error}") from None
        numbers.append(int(digits[1]) if digits else -1)
    order = np.argsort(np.array(numbers), kind="stable")
    # Gaps or repeats mean that the numbers are not positions in the source.
    if not np.array_equal(np.array(numbers)[order], np.arange(len(order))):
        raise ValueError(
            f"{fault} the ids of {folder} ({split}) do not end in the numbers 0 to {len(order) - 1}"
        )
    return order
