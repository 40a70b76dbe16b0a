"""A prepared TFDS directory: what its metadata say, and every record of its TFRecord shards
reachable by index.

A TFRecord file is a row of records: the length of the data as a little-endian u64, its checksum (4
bytes), the data, their checksum (4 bytes). Walking over the lengths gives each record's offset;
that is done once and kept.
"""

import contextlib
import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ldl_jax.data.readers import array_cache
from ldl_jax.data.readers.base import reason_of, tensorflow
from ldl_jax.errors import Unreadable, warn

WALK = 1  # raise it where the same shards come to another index
HEAD, FOOT = 12, 4  # bytes of a record before and after its data
GROUP, READS = 32, 16  # records read by one call, and calls at a time
DEEP = 3  # folders between data.root and the version's: <set>/<config>/<version>


class Prepared(NamedTuple):
    """What a version's metadata say of it."""

    folder: str
    classes: tuple[str, ...]
    image: str  # names of the features
    label: str
    channels: int
    splits: dict  # name -> (shards' paths, their published lengths)
    identified: bool  # whether each example has a text 'id'


class Shards(NamedTuple):
    """Where the records of a split lie, in the order of their index."""

    paths: tuple[str, ...]
    shard: np.ndarray  # i32[N]
    record: np.ndarray  # i32[N]: number in its shard
    offset: np.ndarray  # i64[N]: of the record's head; -1: its shard ends before it
    length: np.ndarray  # i64[N]: bytes of data


def prepared(root: str, data: str) -> Prepared:
    """The metadata of the one version at or below `root`, local or gs://.

    data: the data set's name, for messages. Raises ValueError in one sentence where there is none,
    there are several, or it has no labelled images in TFRecord files.
    """
    tf, field = tensorflow(f"config.data.name={data!r}"), f"config.data.root is {root!r}"
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(
            f"{field}, which needs tensorflow-datasets ({error}): pip install -e '.[stream]'"
        ) from None
    above = root.rstrip("/")
    found = (
        [
            p
            for n in range(DEEP + 1)
            for p in tf.io.gfile.glob(f"{above}{'/*' * n}/dataset_info.json")
        ]
        if root
        else []
    )
    if len(found) != 1:
        there = ", ".join(os.path.dirname(path) for path in sorted(found)[:3]) or "nothing"
        raise ValueError(
            f"{field}; for data.name={data!r} it names a prepared TFDS directory, the one folder at or below it with a "
            f"dataset_info.json; found is {there}"
        )
    folder = os.path.dirname(found[0])
    try:
        info = tfds.builder_from_directory(folder).info
    except Exception as error:  # whatever damaged metadata lead to
        raise ValueError(f"{folder}: its metadata cannot be read ({reason_of(error)})") from None
    if info.file_format is None or info.file_format.value != "tfrecord":
        raise ValueError(
            f"{folder}: its format is {getattr(info.file_format, 'value', None)!r}; allowed is 'tfrecord'"
        )
    features = dict(info.features.items()) if hasattr(info.features, "items") else {}
    image, label = (
        next((name for name, feature in features.items() if isinstance(feature, kind)), None)
        for kind in (tfds.features.Image, tfds.features.ClassLabel)
    )
    if image is None or label is None:
        raise ValueError(
            f"{folder}: its features are {', '.join(features)}; needed are an image and a class label"
        )
    splits = {
        name: (tuple(map(str, part.filepaths)), tuple(map(int, part.shard_lengths)))
        for name, part in info.splits.items()
    }
    identified = isinstance(features.get("id"), tfds.features.Text)
    classes = tuple(features[label].names)
    return Prepared(
        folder, classes, image, label, features[image].shape[-1] or 3, splits, identified
    )


def source(
    made: Prepared, split: str, *, field: str, order: str, index: Path, on_error: str
) -> "Records":
    """A split as a source of encoded images.

    field: of the config, that names the split; order: 'stored' or 'id'; index: the folder where
    walks are kept. Raises ValueError in one sentence where there is no such split, or with
    `on_error='raise'` a shard is missing, cut off or of another length than published.
    """
    if split not in made.splits:
        raise ValueError(f"{field} is {split!r}; {made.folder} has {', '.join(made.splits)}")
    paths, lengths = made.splits[split]
    facts = [[os.path.basename(path), *_facts(path)] for path in paths]
    kept_at = array_cache.path_of(index, "records", WALK, order, facts, lengths)
    kept = array_cache.load(kept_at)
    if kept is None:
        shards, faults = _walked(paths, lengths, f"{made.folder} ({split})", on_error)
        if order == "id":
            by_id = _by_id(Records(made, shards), split)
            shards = Shards(paths, *(array[by_id] for array in shards[1:]))
        kept = dict(zip(Shards._fields[1:], shards[1:], strict=True))
        if faults:  # not kept: the next run may find them mended
            warn(
                f"{'; '.join(faults)}; what is lost counts for nothing (config.data.on_error='skip')"
            )
        else:
            array_cache.save(kept_at, kept)
    return Records(made, Shards(paths, *(kept[name] for name in Shards._fields[1:])))


def digest(*parts: "Records") -> str:
    """SHA-256 of where the examples lie: the shards' names, and the order of the records."""
    total = hashlib.sha256()
    for part in parts:
        total.update("\n".join(os.path.basename(path) for path in part.shards.paths).encode())
        total.update(part.shards.shard.tobytes() + part.shards.record.tobytes())
    return total.hexdigest()


def _facts(path: str) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns; -1 and -1 where there is no such file."""
    try:
        found = tensorflow().io.gfile.stat(path)
    except Exception:  # of each file system its own; told of when it is walked
        return -1, -1
    return int(found.length), int(found.mtime_nsec)


@contextlib.contextmanager
def _opened(path: str):
    """(read, size) of a file, local or remote: read(offset, count) -> bytes."""
    if "://" in path:
        with tensorflow().io.gfile.GFile(path, "rb") as file:

            def read(offset, count):
                file.seek(offset)
                return file.read(count)

            yield read, file.size()
    else:
        with open(path, "rb", buffering=0) as file:
            yield (
                lambda offset, count: os.pread(file.fileno(), count, offset),
                os.fstat(file.fileno()).st_size,
            )


def walk(path: str) -> tuple[list[int], list[int], str]:
    """(offsets, lengths of data, fault) of the whole records of a shard; '' is the fault of a good
    one.
    """
    offsets, lengths, place = [], [], 0
    try:
        with _opened(path) as (read, size):
            while place < size:
                head = read(place, HEAD)
                length = int.from_bytes(head[:8], "little")
                if len(head) < HEAD or place + HEAD + length + FOOT > size:
                    return offsets, lengths, f"is cut off or damaged after {len(offsets)} records"
                offsets.append(place)
                lengths.append(length)
                place += HEAD + length + FOOT
    except FileNotFoundError:
        return offsets, lengths, "is not there"
    except Exception as error:  # OSError, or what a remote file system raises
        return offsets, lengths, f"cannot be read ({reason_of(error)})"
    return offsets, lengths, ""


def _walked(paths, published, title, on_error) -> tuple[Shards, list[str]]:
    """All shards walked in threads, records that are lost included, and what is wrong."""
    with ThreadPoolExecutor(READS) as pool:
        each, title = pool.map(walk, paths), f"indexing {title}"
        bar = tqdm(each, title, len(paths), unit="shard", leave=False, delay=2, disable=None)
        walks = list(bar)
    count = sum(published)
    offset, length = np.full(count, -1, np.int64), np.zeros(count, np.int64)
    faults, start = [], 0
    for path, (offsets, lengths, fault), number in zip(paths, walks, published, strict=True):
        if not fault and len(offsets) != number:
            fault = f"holds {len(offsets)} records"
        if fault:
            faults.append(f"{path}: {fault}; published are {number}")
            if on_error == "raise":
                raise ValueError(
                    f"{faults[0]}; prepare it again (config.data.on_error='skip' leaves out what is lost)"
                )
        whole = min(len(offsets), number)
        offset[start : start + whole], length[start : start + whole] = (
            offsets[:whole],
            lengths[:whole],
        )
        start += number
    shard = np.repeat(np.arange(len(paths), dtype=np.int32), published)
    record = np.concatenate([np.arange(number, dtype=np.int32) for number in published])
    return Shards(paths, shard, record, offset, length), faults


def _by_id(records: "Records", split: str) -> np.ndarray:
    """Positions i64[N] in the order of the numbers at the end of the examples' ids."""
    field = "config.data.tfds.order is 'id'"
    if not records.made.identified:
        raise ValueError(
            f"{field}, but {records.made.folder} has no text feature 'id'; allowed is 'stored'"
        )
    numbers = []
    for index in tqdm(
        range(records.num_examples), f"reading ids of {split}", leave=False, delay=2, disable=None
    ):
        try:
            found = re.search(rb"(\d+)$", records.identity(index))
        except Unreadable as error:
            raise ValueError(
                f"{field}, but {records.name(index)}: {error}; allowed is 'stored'"
            ) from None
        numbers.append(int(found[1]) if found else -1)
    order = np.argsort(np.array(numbers), kind="stable")
    if not np.array_equal(np.array(numbers)[order], np.arange(len(order))):
        raise ValueError(
            f"{field}, but the ids of {records.made.folder} ({split}) do not end in the numbers 0 to {len(order) - 1}; "
            "allowed is 'stored'"
        )
    return order


class Records:
    """The records of a split as a source of encoded images."""

    def __init__(self, made: Prepared, shards: Shards):
        self.made, self.shards, self.channels = made, shards, made.channels
        self.num_examples, self.num_classes = len(shards.shard), len(made.classes)

    def name(self, index: int) -> str:
        """The shard and the number of a record in it."""
        return f"{self.shards.paths[self.shards.shard[index]]}, record {self.shards.record[index]}"

    def fields(self, index: np.ndarray) -> tuple[np.ndarray, ...]:
        """Numbers of the shards, offsets and lengths, [b] each."""
        s = self.shards
        return s.shard[index], s.offset[index], s.length[index]

    def read(self, dataset):
        """Groups of records, some at a time; one that cannot be read becomes an empty one, which
        has no image.
        """
        tf = tensorflow()

        def data(shard, offset, length):
            found = [
                self._data(*place)
                for place in zip(shard.tolist(), offset.tolist(), length.tolist(), strict=True)
            ]
            return np.array([one if isinstance(one, bytes) else b"" for one in found], object)

        @tf.autograph.experimental.do_not_convert
        def group(sides, places, serial, *place):
            content = tf.numpy_function(data, place, tf.string, stateful=False)
            content.set_shape([None])
            found = tf.io.parse_example(content, self._kinds())
            image, label = found[self.made.image], found[self.made.label]
            image = tf.where((label >= 0) & (label < self.num_classes), image, "")
            return sides, places, serial, image, tf.cast(label, tf.int32)

        return (
            dataset.batch(GROUP).map(group, num_parallel_calls=READS, deterministic=True).unbatch()
        )

    def _kinds(self) -> dict:
        tf = tensorflow()
        image, label = (
            tf.io.FixedLenFeature([], tf.string, b""),
            tf.io.FixedLenFeature([], tf.int64, -1),
        )
        return {self.made.image: image, self.made.label: label}

    def _data(self, shard: int, offset: int, length: int) -> bytes | str:
        """The data of a record, or what is wrong."""
        if offset < 0:
            return "is lost, for its shard ends before it"
        try:
            with _opened(self.shards.paths[shard]) as (read, _):
                found = read(offset, HEAD + length)
        except FileNotFoundError:
            return "is lost, for its shard is not there"
        except Exception as error:  # OSError, or what a remote file system raises
            return f"cannot be read ({reason_of(error)})"
        if len(found) < HEAD + length or int.from_bytes(found[:8], "little") != length:
            return "has changed since its shard was indexed"
        return found[HEAD:]

    def _example(self, index: int):
        found = self._data(
            *(
                array[index].item()
                for array in (self.shards.shard, self.shards.offset, self.shards.length)
            )
        )
        if isinstance(found, str):
            raise Unreadable(found)
        try:
            return tensorflow().train.Example.FromString(found).features.feature
        except Exception:  # protobuf's DecodeError
            raise Unreadable("is damaged: it holds no example") from None

    def content(self, index: int) -> tuple[bytes, int]:
        """The encoded image and the label of one record."""
        feature = self._example(index)
        image, label = (
            feature[self.made.image].bytes_list.value,
            feature[self.made.label].int64_list.value,
        )
        if not image or not label:
            raise Unreadable("is damaged: it holds no image with a label")
        return image[0], label[0]

    def identity(self, index: int) -> bytes:
        """The text `id` of one record. Raises Unreadable."""
        value = self._example(index)["id"].bytes_list.value
        return value[0] if value else b""
