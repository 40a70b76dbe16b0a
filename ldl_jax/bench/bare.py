"""The least that JPEGs cost: read files, decode known boxes, resize; for the input benchmark."""

from collections.abc import Iterator

import numpy as np

from ldl_jax.data.readers.base import Source, tensorflow
from ldl_jax.data.readers.crops import View, attempts, random_box, uniform
from ldl_jax.data.readers.tfdata import cores, options


def boxes(source: Source, view: View, *, epochs: int, seed: int) -> np.ndarray:
    """A stream's boxes i32[epochs, N, 4] (top, left, height, width) of JPEGs, from epoch 0."""
    tf = tensorflow()
    shapes = []
    for index in range(source.num_examples):
        shapes.append(tf.io.extract_jpeg_shape(source.content(index)[0]))

    @tf.function(autograph=False)
    def box(sides, places, size):
        return random_box(sides, places, size, view.ratio)

    drawn = []
    for epoch in range(epochs):
        drawn.append([])
        for index, shape in enumerate(shapes):
            sides, places = attempts(uniform(seed, epoch, [index]), view.scale, view.ratio)
            drawn[-1].append(box(tf.constant(sides[0]), tf.constant(places[0]), shape[:2]))
    return np.array(drawn)


def stream(
    source: Source, view: View, order: np.ndarray, places: np.ndarray, batch_size: int
) -> Iterator[np.ndarray]:
    """Batches u8[b, size, size, C] without end, of images `order` i32[n] and boxes i32[n, 4]."""
    tf = tensorflow()
    size = [view.size] * 2

    @tf.autograph.experimental.do_not_convert
    def element(path, box):
        content = tf.io.read_file(path)
        exact = {"channels": source.channels, "dct_method": "INTEGER_ACCURATE"}
        image = tf.image.decode_and_crop_jpeg(content, box, **exact)
        return tf.cast(tf.image.resize(image, size, "bilinear", antialias=view.antialias), tf.uint8)

    # The same threads and prefetching as the training pipeline, so that only its work differs.
    batches = tf.data.Dataset.from_tensor_slices((source.fields(order)[0], places)).repeat()
    batches = batches.map(element, num_parallel_calls=cores(), deterministic=True)
    batches = batches.batch(batch_size).prefetch(2)
    return batches.with_options(options()).as_numpy_iterator()
