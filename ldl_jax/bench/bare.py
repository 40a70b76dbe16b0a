"""What JPEGs cost at least: files read, known boxes decoded and resized, nothing else; for the
benchmark.
"""

from collections.abc import Iterator

import numpy as np

from ldl_jax.data.readers.base import Source, tensorflow
from ldl_jax.data.readers.crops import View, attempts, random_box, uniform
from ldl_jax.data.readers.tfdata import cores, options


def boxes(source: Source, view: View, *, epochs: int, seed: int) -> np.ndarray:
    """The boxes i32[epochs, N, 4] (top, left, height, width) that a stream draws for JPEGs in its
    first epochs.
    """
    tf = tensorflow()
    shapes = [
        tf.io.extract_jpeg_shape(source.content(index)[0]) for index in range(source.num_examples)
    ]

    @tf.function(autograph=False)
    def box(sides, places, size):
        return random_box(sides, places, size, view.ratio)

    def of(epoch, index):
        sides, places = attempts(uniform(seed, epoch, [index]), view.scale, view.ratio)
        return box(tf.constant(sides[0]), tf.constant(places[0]), shapes[index][:2])

    return np.array([[of(epoch, index) for index in range(len(shapes))] for epoch in range(epochs)])


def stream(
    source: Source, view: View, order: np.ndarray, places: np.ndarray, batch_size: int
) -> Iterator[np.ndarray]:
    """Batches u8[b, size, size, C] without end of the images `order` i32[n] with their boxes i32[n,
    4].
    """
    tf = tensorflow()
    size = [view.size] * 2

    @tf.autograph.experimental.do_not_convert
    def one(path, box):
        content = tf.io.read_file(path)
        exact = {"channels": source.channels, "dct_method": "INTEGER_ACCURATE"}
        image = tf.image.decode_and_crop_jpeg(content, box, **exact)
        return tf.cast(tf.image.resize(image, size, "bilinear", antialias=view.antialias), tf.uint8)

    batches = tf.data.Dataset.from_tensor_slices((source.fields(order)[0], places)).repeat()
    batches = (
        batches.map(one, num_parallel_calls=cores(), deterministic=True)
        .batch(batch_size)
        .prefetch(2)
    )
    return batches.with_options(options()).as_numpy_iterator()
