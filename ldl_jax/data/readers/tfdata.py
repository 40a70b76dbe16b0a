"""The stream: any list of examples, decoded by tf.data in parallel, handed out in the order that
was asked for.

What comes out is a function of (seed, epoch, index) alone. An element that fails ends tf.data's
pass or, with `on_error='skip'`, is dropped and missed here by its serial number; it is then decoded
once more on its own, which heals a passing fault and tells the reason of a lasting one. No list of
bad files is kept: it would make a resumed run another one.
"""

import collections
import os
import threading
from collections.abc import Iterable, Iterator

import numpy as np

from ldl_jax.data.base import Split
from ldl_jax.data.readers.base import JPEG, PNG, Source, reason_of, tensorflow
from ldl_jax.data.readers.crops import ATTEMPTS, View, attempts, decoder, uniform
from ldl_jax.errors import Unreadable, warn

# Where so many examples (or batches, if that is more) were asked for and none has come, tf.data is
# given no more.
AHEAD = 4096, 64
AT_ONCE = 512  # images decoded together where a whole split is brought into memory
# batches of an evaluation, in a row without an image that can be read, after which 'skip' gives up
LOST = 8


def split(source: Source, view: View, on_error: str) -> Split:
    """The streamed split of a source.

    With `on_error='raise'` the stream raises ValueError naming the first example that cannot be
    read; with 'skip' it warns of each once, and its slot has mask 0 and a copy of a good image of
    its batch. A batch without any is black in evaluation, where the network is not changed by it;
    it ends training, and after `LOST` in a row evaluation too: ValueError. Raises ValueError where
    a size has to be read off the first image and none can be read.
    """
    tensorflow()
    shape = (view.size, view.size, source.channels) if view.size else first_shape(source, on_error)
    told = set()  # names that were warned about; nothing else hangs on it

    def stream(batches, seed):
        def tried(epoch, index):
            return attempts(uniform(seed or 0, epoch, index), view.scale, view.ratio)

        decode = decoder(view, source.channels, shape, train=seed is not None)
        most = LOST if seed is None else 1
        return _Stream(source, shape, tried, decode, on_error, told, most).run(batches)

    return Split(source.num_examples, shape, stream=stream)


def resident(streamed: Split, title: str) -> Split:
    """A streamed split whole in memory, as evaluation shows it."""
    from tqdm import tqdm

    count = streamed.num_examples
    images, labels = np.empty((count, *streamed.shape), np.uint8), np.empty(count, np.int32)
    mask = np.empty(count, np.float32)
    parts = [
        np.arange(n, min(n + AT_ONCE, count), dtype=np.int32) for n in range(0, count, AT_ONCE)
    ]
    batches = streamed.stream(((0, part) for part in parts), None)
    for batch in tqdm(
        batches, f"decoding {title}", len(parts), unit="batch", leave=False, disable=None
    ):
        place = batch["index"]
        images[place], labels[place], mask[place] = batch["image"], batch["label"], batch["mask"]
    if not mask.any():
        raise ValueError(f"{title}: of {count} images none can be read")
    return Split(count, streamed.shape, images, labels, mask=None if mask.all() else mask)


def first_shape(source: Source, on_error: str) -> tuple[int, int, int]:
    """The shape of the first image that can be read, as it is stored."""
    tf = tensorflow()
    reason = "is not there"
    for index in range(source.num_examples):
        try:
            content = source.content(index)[0]
            return tuple(
                tf.io.decode_image(content, source.channels, expand_animations=False).shape
            )
        except (Unreadable, tf.errors.OpError) as error:
            reason = reason_of(error)
            if on_error == "raise":
                raise ValueError(fault(source.name(index), reason)) from None
    raise ValueError(
        f"{source.name(0)}: {reason}; of {source.num_examples} images none can be read"
    )


def fault(name: str, reason: str) -> str:
    """One sentence about an example that stops a run."""
    return (
        f"{name}: {reason}; mend or remove it (config.data.on_error='skip' leaves such images out)"
    )


class _Stream:
    """One pass over some batches."""

    def __init__(self, source, shape, tried, decode, on_error, told, most):
        self.source, self.shape, self.tried, self.decode = source, shape, tried, decode
        self.on_error, self.told, self.most = on_error, told, most
        self.alone = None  # `decode`, compiled for one example; made when it is first needed
        # (first serial number, epoch, index) of batches not yet handed out
        self.asked = collections.deque()
        self.lock = threading.Lock()  # held while a batch is asked for
        self.given = self.done = 0  # examples asked for, and those handed out
        # batches in a row without an image that could be read, and why the last could not
        self.lost, self.why = 0, ""
        self.failed = None  # what the iterable of batches raised, to be raised where it is awaited

    def run(self, batches: Iterable) -> Iterator[dict]:
        """The batches asked for, in their order."""
        batches, serial = iter(batches), 0
        while True:
            first = next(batches, None)
            if first is None:
                return
            for batch in self._through(first, batches, serial):
                serial += len(batch["index"])
                self.lost = 0 if batch["mask"].any() else self.lost + 1
                if self.lost == self.most:
                    count = "in its batch" if self.lost == 1 else f"in {self.lost} batches in a row"
                    raise ValueError(f"{self.why}; {count} no image can be read")
                yield batch
            if self.failed is not None:
                raise self.failed

    def _through(self, first, batches, serial) -> Iterator[dict]:
        """As many batches as one tf.data pipeline takes: all, but where it hands out nothing any
        more.
        """
        tf, ended = tensorflow(), threading.Event()
        chunks = self._dataset(first, batches, serial, ended).as_numpy_iterator()
        held, last = [], -1  # chunks that are not used up; the last serial number seen
        while True:
            while not self.asked or last < self.asked[0][0] + len(self.asked[0][2]) - 1:
                try:
                    chunk = next(chunks, None)
                # its messages hold bytes of records
                except (tf.errors.OpError, UnicodeDecodeError):
                    # What was asked for by now is decoded one by one, then tf.data begins anew.
                    with self.lock:
                        ended.set()
                    chunks, chunk = iter(()), None
                if chunk is None:
                    break
                held.append(chunk)
                last = chunk[0][-1]
            if not self.asked:
                return
            start, epoch, index = self.asked.popleft()
            self.done += len(index)
            stop = start + len(index)
            yield self._batch(start, epoch, index, held)
            held = [part for part in held if part[0][-1] >= stop]

    def _dataset(self, first, batches, serial, ended):
        """tf.data: chunks of (serial number, image, label) in rising order, up to or without those
        that failed.
        """
        tf, source, decode = tensorflow(), self.source, self.decode
        ahead = max(AHEAD[0], AHEAD[1] * len(first[1]))

        def feed():
            nonlocal serial
            batch = first
            try:
                while True:
                    with self.lock:
                        if batch is None and not ended.is_set() and self.given - self.done < ahead:
                            batch = next(batches, None)
                        if batch is None:
                            return
                        epoch, index = batch[0], np.asarray(batch[1], np.int32)
                        self.asked.append((serial, epoch, index))
                        self.given += len(index)
                    numbers = np.arange(serial, serial + len(index))
                    yield *self.tried(epoch, index), numbers, *source.fields(index)
                    serial, batch = serial + len(index), None
            except Exception as error:  # tf.data would take it for an element that failed
                self.failed = error

        @tf.autograph.experimental.do_not_convert
        def element(sides, places, serial, content, label):
            return serial, decode(sides, places, content), label

        made = source.read(batches_of(feed(), source.fields(np.zeros(1, np.int32))).unbatch())
        made = made.map(element, num_parallel_calls=cores(), deterministic=True)
        # else not: an operation less, and decoding writes straight into the batch
        if self.on_error == "skip":
            made = made.ignore_errors()
        return made.batch(len(first[1])).prefetch(2).with_options(options())

    def _batch(self, start, epoch, index, held) -> dict:
        """One batch from chunks that hold all of it that could be read."""
        mask = np.ones(len(index), np.float32)
        if (
            len(held) == 1
            and held[0][0][0] == start
            and len(held[0][0]) == len(index)
            and _is_run(held[0][0])
        ):
            return {"image": held[0][1], "label": held[0][2], "index": index, "mask": mask}
        image, label = np.empty((len(index), *self.shape), np.uint8), np.zeros(len(index), np.int32)
        missed = np.ones(len(index), bool)
        for serials, images, labels in held:
            here = (serials >= start) & (serials < start + len(index))
            places = serials[here] - start
            image[places], label[places], missed[places] = images[here], labels[here], False
        for place in np.flatnonzero(missed):
            try:
                image[place], label[place] = self._again(epoch, index[place])
            except Unreadable as error:
                mask[place], self.why = 0, f"{self.source.name(index[place])}: {error}"
        image[mask == 0] = image[mask.argmax()] if mask.any() else 0
        return {"image": image, "label": label, "index": index, "mask": mask}

    def _again(self, epoch, index):
        """(image, label) of one example that tf.data failed on. Raises ValueError, or with 'skip'
        Unreadable.
        """
        tf = tensorflow()
        name = self.source.name(index)
        try:
            content, label = self.source.content(index)
            if not content:
                raise Unreadable("holds no bytes")
            if not 0 <= label < self.source.num_classes:
                raise Unreadable(
                    f"has label {label}; allowed are 0 to {self.source.num_classes - 1}"
                )
            if self.alone is None:
                self.alone = tf.function(self.decode, autograph=False)
            drawn = (tf.constant(one[0]) for one in self.tried(epoch, [index]))
            return self.alone(*drawn, tf.constant(content)).numpy(), label
        except (Unreadable, tf.errors.OpError) as error:
            reason = str(error) if isinstance(error, Unreadable) else self._reason(content, error)
        if self.on_error == "raise":
            raise ValueError(fault(name, reason))
        if name not in self.told:
            self.told.add(name)
            count = f"{len(self.told)} so far"
            warn(
                f"{name}: {reason}; its slot counts for nothing ({count}; config.data.on_error='skip')"
            )
        raise Unreadable(reason)

    def _reason(self, content: bytes, error: Exception) -> str:
        """Why an image that was read cannot be shown."""
        if not content.startswith((JPEG, PNG)):
            return "is neither JPEG nor PNG"
        try:
            shape = (
                tensorflow()
                .io.decode_image(content, self.source.channels, expand_animations=False)
                .shape
            )
        except Exception:
            return f"cannot be decoded ({reason_of(error)})"
        height, width = self.shape[:2]
        return f"is {shape[0]}x{shape[1]} pixels; allowed is one size, here {height}x{width}, or a size in its options"


def batches_of(fed: Iterator[tuple], fields: tuple[np.ndarray, ...]):
    """A tf.data.Dataset of the batches (sides, places, serial, *fields) of an iterator; `fields`
    are some of them.

    Not `from_generator`: it tells malloc to give all that is large back to the system at once, with
    which decoding and resizing took half as long again (TensorFlow 2.21).
    """
    tf = tensorflow()
    kinds = [
        np.dtype(np.float64),
        np.dtype(np.float64),
        np.dtype(np.int64),
        *(field.dtype for field in fields),
    ]
    wide = [(ATTEMPTS, 2), (ATTEMPTS + 1, 2), (), *((),) * len(fields)]
    end = [np.zeros((0, *one), kind) for one, kind in zip(wide, kinds, strict=True)]
    kinds = [tf.string if kind.hasobject else tf.as_dtype(kind) for kind in kinds]

    @tf.autograph.experimental.do_not_convert
    def following(_):
        found = tf.numpy_function(lambda: list(next(fed, end)), [], kinds)
        for tensor, one in zip(found, wide, strict=True):
            tensor.set_shape([None, *one])
        return tuple(found)

    numbers = tf.data.Dataset.range(2**62)
    return numbers.map(following).take_while(lambda sides, *_: tf.size(sides) > 0)


def _is_run(serials: np.ndarray) -> bool:
    return serials[-1] - serials[0] == len(serials) - 1


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def options():
    """Of a tf.data pipeline: threads of its own, in order, an operation on one of them."""
    tf = tensorflow()
    chosen = tf.data.Options()
    chosen.deterministic = True
    # many more, for reads that wait, slow down decoding
    chosen.threading.private_threadpool_size = cores() + 2
    chosen.threading.max_intra_op_parallelism = 1
    return chosen
