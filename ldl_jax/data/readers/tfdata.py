"""The stream: any list of examples, decoded by tf.data in parallel and yielded in their order.

What comes out is a function of (seed, epoch, index) alone. An element that fails ends tf.data's
pass or, with `on_error='skip'`, is dropped by it and missed here by its serial number. It is then
decoded once more on its own, which heals a passing fault and gives the reason of a lasting one. No
list of bad files is kept, since a resumed run would not have it.
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

# tf.data receives at most this many examples (or batches, if that is more) ahead of its output.
AHEAD = 4096, 64
AT_ONCE = 512  # images decoded together when a whole split is read into memory
# With 'skip', evaluation ends with an error after this many batches in a row without a good image.
LOST = 8


def split(source: Source, view: View, on_error: str) -> Split:
    """The streamed split of a source.

    With `on_error='raise'` the stream raises ValueError naming the first example that cannot be
    read. With 'skip' it warns once about each; such an example has mask 0 and the pixels of a good
    image of its batch. A batch without a good image is black in evaluation, where it does not
    change the network; in training it raises ValueError, and so do `LOST` of them in a row in
    evaluation. Raises ValueError if the size has to be read from the first image and none can be
    read.
    """
    tensorflow()
    shape = (view.size, view.size, source.channels) if view.size else first_shape(source, on_error)
    # Shared by all passes, so that each example is warned about once; nothing else depends on it.
    warned = set()

    def stream(batches, seed):
        def boxes(epoch, index):
            return attempts(uniform(seed or 0, epoch, index), view.scale, view.ratio)

        decode = decoder(view, source.channels, shape, train=seed is not None)
        most_lost = LOST if seed is None else 1
        return _Stream(source, shape, boxes, decode, on_error, warned, most_lost).run(batches)

    return Split(source.num_examples, shape, stream=stream)


def resident(streamed: Split, title: str) -> Split:
    """Read a whole streamed split into memory, as evaluation shows it."""
    from tqdm import tqdm

    count = streamed.num_examples
    images = np.empty((count, *streamed.shape), np.uint8)
    labels = np.empty(count, np.int32)
    mask = np.empty(count, np.float32)
    parts = []
    for start in range(0, count, AT_ONCE):
        parts.append(np.arange(start, min(start + AT_ONCE, count), dtype=np.int32))
    batches = streamed.stream(((0, part) for part in parts), None)
    bar = tqdm(batches, f"decoding {title}", len(parts), unit="batch", leave=False, disable=None)
    for batch in bar:
        index = batch["index"]
        images[index] = batch["image"]
        labels[index] = batch["label"]
        mask[index] = batch["mask"]
    if not mask.any():
        raise ValueError(f"{title}: none of the {count} images can be read")
    # Without a mask, the step needs no gather of it.
    return Split(count, streamed.shape, images, labels, mask=None if mask.all() else mask)


def first_shape(source: Source, on_error: str) -> tuple[int, int, int]:
    """The stored shape of the first image that can be read."""
    tf = tensorflow()
    reason = "does not exist"
    for index in range(source.num_examples):
        try:
            content = source.content(index)[0]
            image = tf.io.decode_image(content, source.channels, expand_animations=False)
            return tuple(image.shape)
        except (Unreadable, tf.errors.OpError) as error:
            reason = reason_of(error)
            if on_error == "raise":
                raise ValueError(fault(source.name(index), reason)) from None
    raise ValueError(
        f"none of the {source.num_examples} images can be read ({source.name(0)}: {reason})"
    )


def fault(name: str, reason: str) -> str:
    """One sentence about an example that stops a run."""
    return f"{name}: {reason}; repair or remove it, or set config.data.on_error='skip' to skip it"


class _Stream:
    """One pass over some batches."""

    def __init__(self, source, shape, boxes, decode, on_error, warned, most_lost):
        self.source = source
        self.shape = shape
        self.boxes = boxes  # (epoch, index) -> the `attempts` at a box of each example
        self.decode = decode
        self.decode_alone = None  # `decode`, compiled for one example when it is first needed
        self.on_error = on_error
        self.warned = warned
        self.most_lost = most_lost
        self.lock = threading.Lock()  # held while a batch is requested
        # (first serial number, epoch, index) of batches that are not yet yielded
        self.requested = collections.deque()
        self.examples_in = 0  # examples given to tf.data
        self.examples_out = 0  # examples yielded
        self.lost = 0  # batches in a row without an image that could be read
        self.last_fault = ""  # why the last image could not be read
        self.failed = None  # what the iterable of batches raised, to be raised by `run`

    def run(self, batches: Iterable) -> Iterator[dict]:
        """Yield the requested batches in their order."""
        batches = iter(batches)
        serial = 0
        # After a failure tf.data hands out nothing more, so begin a new pipeline with the rest.
        while True:
            first = next(batches, None)
            if first is None:
                return
            for batch in self._through(first, batches, serial):
                serial += len(batch["index"])
                self.lost = 0 if batch["mask"].any() else self.lost + 1
                if self.lost == self.most_lost:
                    where = "its batch" if self.lost == 1 else f"{self.lost} batches in a row"
                    raise ValueError(f"{self.last_fault}; no image of {where} can be read")
                yield batch
            if self.failed is not None:
                raise self.failed

    def _through(self, first, batches, serial) -> Iterator[dict]:
        """As many batches as one tf.data pipeline yields: all of them, unless it fails."""
        tf = tensorflow()
        ended = threading.Event()
        chunks = self._dataset(first, batches, serial, ended).as_numpy_iterator()
        pending = []  # chunks that are not used up
        last = -1  # the last serial number that came out
        while True:
            # Collect chunks until they cover the next batch.
            while not self.requested or last < _last_serial(self.requested[0]):
                try:
                    chunk = next(chunks, None)
                # The messages of tf.data's errors hold bytes of records, so decoding them can fail.
                except (tf.errors.OpError, UnicodeDecodeError):
                    # Decode what has been requested one by one; then tf.data begins anew.
                    with self.lock:
                        ended.set()
                    chunks = iter(())
                    chunk = None
                if chunk is None:
                    break
                pending.append(chunk)
                last = chunk[0][-1]
            if not self.requested:
                return
            start, epoch, index = self.requested.popleft()
            self.examples_out += len(index)
            stop = start + len(index)
            yield self._batch(start, epoch, index, pending)
            pending = [chunk for chunk in pending if chunk[0][-1] >= stop]

    def _dataset(self, first, batches, serial, ended):
        """A tf.data.Dataset of chunks (serial numbers, images, labels), in rising order.

        With `on_error='raise'` it ends before an element that fails; with 'skip' it leaves it out.
        """
        tf = tensorflow()
        ahead = max(AHEAD[0], AHEAD[1] * len(first[1]))

        def feed():
            nonlocal serial
            batch = first
            try:
                while True:
                    # The lock keeps batches from being requested after the pipeline has ended.
                    with self.lock:
                        room = self.examples_in - self.examples_out < ahead
                        if batch is None and not ended.is_set() and room:
                            batch = next(batches, None)
                        if batch is None:
                            return
                        epoch = batch[0]
                        index = np.asarray(batch[1], np.int32)
                        self.requested.append((serial, epoch, index))
                        self.examples_in += len(index)
                    serials = np.arange(serial, serial + len(index))
                    yield *self.boxes(epoch, index), serials, *self.source.fields(index)
                    serial += len(index)
                    batch = None
            # tf.data would treat it as an element that failed, so keep it for `run`.
            except Exception as error:
                self.failed = error

        @tf.autograph.experimental.do_not_convert
        def element(sides, places, serial, content, label):
            return serial, self.decode(sides, places, content), label

        examples = batches_of(feed(), self.source.fields(np.zeros(1, np.int32))).unbatch()
        decoded = self.source.read(examples)
        decoded = decoded.map(element, num_parallel_calls=cores(), deterministic=True)
        # Only if needed: without this operation, decoding writes straight into the batch.
        if self.on_error == "skip":
            decoded = decoded.ignore_errors()
        return decoded.batch(len(first[1])).prefetch(2).with_options(options())

    def _batch(self, start, epoch, index, chunks) -> dict:
        """One batch, from chunks that hold all of it that could be read."""
        mask = np.ones(len(index), np.float32)
        # Usually one chunk is exactly the batch, and nothing has to be copied.
        if len(chunks) == 1:
            serials, images, labels = chunks[0]
            if serials[0] == start and len(serials) == len(index) and _is_run(serials):
                return {"image": images, "label": labels, "index": index, "mask": mask}
        image = np.empty((len(index), *self.shape), np.uint8)
        label = np.zeros(len(index), np.int32)
        missing = np.ones(len(index), bool)
        for serials, images, labels in chunks:
            here = (serials >= start) & (serials < start + len(index))
            slots = serials[here] - start
            image[slots] = images[here]
            label[slots] = labels[here]
            missing[slots] = False
        for slot in np.flatnonzero(missing):
            try:
                image[slot], label[slot] = self._again(epoch, index[slot])
            except Unreadable as error:
                mask[slot] = 0
                self.last_fault = f"{self.source.name(index[slot])}: {error}"
        # Masked pixels still enter batch statistics, so copy those of a good image.
        image[mask == 0] = image[mask.argmax()] if mask.any() else 0
        return {"image": image, "label": label, "index": index, "mask": mask}

    def _again(self, epoch, index):
        """(image, label) of one example that tf.data failed on.

        Raises ValueError or, with `on_error='skip'`, Unreadable.
        """
        tf = tensorflow()
        name = self.source.name(index)
        try:
            content, label = self.source.content(index)
            if not content:
                raise Unreadable("is empty")
            if not 0 <= label < self.source.num_classes:
                raise Unreadable(
                    f"must have a label between 0 and {self.source.num_classes - 1}, got {label}"
                )
            # Most streams never need it, and tracing it takes a while.
            if self.decode_alone is None:
                self.decode_alone = tf.function(self.decode, autograph=False)
            sides, places = self.boxes(epoch, [index])
            image = self.decode_alone(
                tf.constant(sides[0]), tf.constant(places[0]), tf.constant(content)
            )
            return image.numpy(), label
        except Unreadable as error:
            reason = str(error)
        except tf.errors.OpError as error:
            reason = self._reason(content, error)
        if self.on_error == "raise":
            raise ValueError(fault(name, reason))
        if name not in self.warned:
            self.warned.add(name)
            count = f"{len(self.warned)} so far"
            warn(f"{name}: {reason}; skipped ({count}, config.data.on_error='skip')")
        raise Unreadable(reason)

    def _reason(self, content: bytes, error: Exception) -> str:
        """Why an image that was read cannot be shown."""
        if not content.startswith((JPEG, PNG)):
            return "is neither JPEG nor PNG"
        # If it can be decoded as a whole, the fault is its shape.
        try:
            image = tensorflow().io.decode_image(
                content, self.source.channels, expand_animations=False
            )
        except Exception:
            return f"cannot be decoded ({reason_of(error)})"
        height, width = self.shape[:2]
        return (
            f"is {image.shape[0]}x{image.shape[1]} pixels, but all images must be {height}x{width} "
            "(the data set's option size resizes them)"
        )


def batches_of(fed: Iterator[tuple], fields: tuple[np.ndarray, ...]):
    """A tf.data.Dataset of an iterator's batches (sides, places, serial, *fields).

    fields: an example of them. `from_generator` is not used because it makes malloc return all
    large blocks to the system at once, with which decoding and resizing took half as long again
    (TensorFlow 2.21).
    """
    tf = tensorflow()
    dtypes = [np.dtype(np.float64), np.dtype(np.float64), np.dtype(np.int64)]
    shapes = [(ATTEMPTS, 2), (ATTEMPTS + 1, 2), ()]
    for field in fields:
        dtypes.append(field.dtype)
        shapes.append(())
    # The range that is mapped never ends by itself, so an empty batch marks the end.
    end = [np.zeros((0, *shape), dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    kinds = [tf.string if dtype.hasobject else tf.as_dtype(dtype) for dtype in dtypes]

    @tf.autograph.experimental.do_not_convert
    def following(_):
        tensors = tf.numpy_function(lambda: list(next(fed, end)), [], kinds)
        for tensor, shape in zip(tensors, shapes, strict=True):
            tensor.set_shape([None, *shape])
        return tuple(tensors)

    numbers = tf.data.Dataset.range(2**62)
    return numbers.map(following).take_while(lambda sides, *_: tf.size(sides) > 0)


def _last_serial(request: tuple) -> int:
    serial, _, index = request
    return serial + len(index) - 1


def _is_run(serials: np.ndarray) -> bool:
    return serials[-1] - serials[0] == len(serials) - 1


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def options():
    """Options of a tf.data pipeline: deterministic, with a thread pool of its own."""
    tf = tensorflow()
    settings = tf.data.Options()
    settings.deterministic = True
    # Many more threads, for reads that wait, slow down decoding.
    settings.threading.private_threadpool_size = cores() + 2
    settings.threading.max_intra_op_parallelism = 1
    return settings
