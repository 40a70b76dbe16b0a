"""TFRecord shards of a prepared TFDS directory as a source of encoded images.

A TFRecord file is a sequence of records: the length of the data as a little-endian u64, its
checksum (4 bytes), the data, their checksum (4 bytes). Checksums are masked CRC-32C.
"""

import contextlib
import os
from typing import NamedTuple

import numpy as np

from ldl_jax.data.readers.base import crc32c, reason_of, tensorflow
from ldl_jax.errors import Unreadable
from ldl_jax.files.reading import check_file

HEAD = 12  # bytes of a record before its data
FOOT = 4  # and after them
CHANGED = "has changed since its shard was indexed"
GROUP = 32  # records read by one call
READS = 16  # calls at a time


class Prepared(NamedTuple):
    """What the metadata of a version say."""

    folder: str
    classes: tuple[str, ...]
    image: str  # names of the features
    label: str
    channels: int
    splits: dict  # name -> (shards' paths, their published lengths)
    identified: bool  # whether each example has a text 'id'


class Shards(NamedTuple):
    """Where the records of a split are, in the order of their index."""

    paths: tuple[str, ...]
    shard: np.ndarray  # i32[N]
    record: np.ndarray  # i32[N]: number within its shard
    offset: np.ndarray  # i64[N]: of the record's head; -1: its shard ends before it
    length: np.ndarray  # i64[N]: bytes of data


def matches(data: bytes, checksum: bytes) -> bool:
    """Whether data have this masked CRC-32C, 4 bytes.

    The mask keeps a file that holds checksums from having trivial ones of its own.
    """
    crc = crc32c()(data)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return checksum == masked.to_bytes(4, "little")


@contextlib.contextmanager
def opened(path: str):
    """Open a file, local or remote, as (read, size): read(offset, count) -> bytes."""
    if "://" in path:
        with tensorflow().io.gfile.GFile(path, "rb") as file:

            def read(offset, count):
                file.seek(offset)
                return file.read(count)

            yield read, file.size()
    else:
        check_file(path)
        # Unbuffered, since records are read at random; pread needs no seek of its own.
        with open(path, "rb", buffering=0) as file:

            def read(offset, count):
                return os.pread(file.fileno(), count, offset)

            yield read, os.fstat(file.fileno()).st_size


class Records:
    """The records of a split as a source of encoded images."""

    def __init__(self, prepared: Prepared, shards: Shards):
        self.prepared = prepared
        self.shards = shards
        self.channels = prepared.channels
        self.num_examples = len(shards.shard)
        self.num_classes = len(prepared.classes)

    def name(self, index: int) -> str:
        """The shard, and the number of the record in it."""
        return f"{self.shards.paths[self.shards.shard[index]]}, record {self.shards.record[index]}"

    def fields(self, index: np.ndarray) -> tuple[np.ndarray, ...]:
        """Numbers of the shards, offsets and lengths, [b] each."""
        shards = self.shards
        return shards.shard[index], shards.offset[index], shards.length[index]

    def read(self, dataset):
        """Read groups of records, some at a time.

        A record that cannot be read becomes an empty one, which has no image.
        """
        tf = tensorflow()

        def read_group(shard, offset, length):
            contents = []
            for fields in zip(shard.tolist(), offset.tolist(), length.tolist(), strict=True):
                data = self._data(*fields)
                contents.append(data if isinstance(data, bytes) else b"")
            return np.array(contents, object)

        @tf.autograph.experimental.do_not_convert
        def group(sides, places, serial, *fields):
            content = tf.numpy_function(read_group, fields, tf.string, stateful=False)
            content.set_shape([None])
            example = tf.io.parse_example(content, self._features())
            image = example[self.prepared.image]
            label = example[self.prepared.label]
            # A label out of range is a fault of the example, found later by its missing image.
            image = tf.where((label >= 0) & (label < self.num_classes), image, "")
            return sides, places, serial, image, tf.cast(label, tf.int32)

        # A call of Python for each record would take longer than decoding its image.
        groups = dataset.batch(GROUP)
        return groups.map(group, num_parallel_calls=READS, deterministic=True).unbatch()

    def _features(self) -> dict:
        """The features to parse, with the values of a record that has none."""
        tf = tensorflow()
        return {
            self.prepared.image: tf.io.FixedLenFeature([], tf.string, b""),
            self.prepared.label: tf.io.FixedLenFeature([], tf.int64, -1),
        }

    def _data(self, shard: int, offset: int, length: int) -> bytes | str:
        """The data of a record, or what is wrong, as text."""
        if offset < 0:
            return "is lost, because its shard ends before it"
        try:
            with opened(self.shards.paths[shard]) as (read, _):
                content = read(offset, HEAD + length + FOOT)
        except FileNotFoundError:
            return "is lost, because its shard does not exist"
        except Exception as error:  # OSError, or what a remote file system raises
            return f"cannot be read ({reason_of(error)})"
        # The index knows the length of each record, which tells a shard that was replaced.
        if len(content) < HEAD + length + FOOT or int.from_bytes(content[:8], "little") != length:
            return CHANGED
        data = content[HEAD : HEAD + length]
        if not matches(content[:8], content[8:HEAD]):
            return CHANGED
        if not matches(data, content[HEAD + length :]):
            return "is damaged: its data do not match their checksum (CRC-32C)"
        return data

    def _example(self, index: int):
        """The parsed features of one record. Raises Unreadable."""
        shard, offset, length = self.fields(index)
        data = self._data(shard.item(), offset.item(), length.item())
        if isinstance(data, str):
            raise Unreadable(data)
        try:
            return tensorflow().train.Example.FromString(data).features.feature
        except Exception:  # protobuf's DecodeError
            raise Unreadable("is damaged: it holds no example") from None

    def content(self, index: int) -> tuple[bytes, int]:
        """The encoded image and the label of one record. Raises Unreadable."""
        feature = self._example(index)
        image = feature[self.prepared.image].bytes_list.value
        label = feature[self.prepared.label].int64_list.value
        if not image or not label:
            raise Unreadable("is damaged: it holds no image with a label")
        return image[0], label[0]

    def identity(self, index: int) -> bytes:
        """The text `id` of one record. Raises Unreadable."""
        value = self._example(index)["id"].bytes_list.value
        return value[0] if value else b""
