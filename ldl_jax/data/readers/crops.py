"""From encoded bytes to pixels: which part of an image is shown, and how it is resized."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ldl_jax.data.readers.base import JPEG, tensorflow

LARGEST = 8192  # pixels of a side after resizing
EPOCHS = 2**31  # a seed below 2**32 and an epoch below this fit into one i64
ATTEMPTS = 10  # random boxes to try before the middle is used, as in torchvision


class View(NamedTuple):
    """Which part of an image is shown; the options of streamed data sets."""

    # side in pixels of the square that is shown; 0: images are shown as stored
    size: int = 0
    crop: bool = False  # training shows a random box of the image; False: the view of evaluation
    # pixels: shorter side, of which the middle `size` is shown; 0: the middle square is resized
    eval_resize: int = 0
    # share of the image's area in a random box, min and max
    scale: tuple[float, float] = (0.08, 1.0)
    # width / height of a random box, min and max
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    antialias: bool = True  # of the bilinear filter


def check(view: View, block: str) -> View:
    """Return the view. Raises ValueError naming the option of `block` that is out of range."""
    if not (0 <= view.size <= LARGEST and view.eval_resize <= LARGEST):
        raise ValueError(
            f"{block}.size and eval_resize must be between 0 and {LARGEST} pixels, got {view.size} "
            f"and {view.eval_resize}"
        )
    if view.crop and not view.size:
        raise ValueError(f"{block}.size must be above 0 pixels if crop is True, got 0")
    if view.eval_resize and not 0 < view.size <= view.eval_resize:
        raise ValueError(
            f"{block}.eval_resize must be 0, or at least size (which must be above 0); got "
            f"eval_resize {view.eval_resize} and size {view.size}"
        )
    # A tuple from the command line may have any length; (0, 0) fails the checks below.
    low, high = view.scale if len(view.scale) == 2 else (0, 0)
    if not 0 < low <= high <= 1:
        raise ValueError(
            f"{block}.scale must be two numbers with 0 < min <= max <= 1, got {view.scale}"
        )
    low, high = view.ratio if len(view.ratio) == 2 else (0, 0)
    if not 0 < low <= high < math.inf:
        raise ValueError(f"{block}.ratio must be two numbers with 0 < min <= max, got {view.ratio}")
    return view


def uniform(seed: int, epoch: int, index: np.ndarray) -> np.ndarray:
    """Uniform numbers f64[b, 10, 4] in [0, 1) for examples i32[b].

    Philox with the key (seed, epoch) and the example's index as its counter. NumPy draws them a
    batch at a time: in tf.data's graph, for one image, they cost as much as the rest of its box.
    """
    drawn = np.empty((len(index), ATTEMPTS, 4))
    philox = np.random.Philox(key=seed * EPOCHS + epoch)
    generator = np.random.Generator(philox)
    # Setting the counter of one generator is much cheaper than making one for each example.
    state = philox.state
    for numbers, example in zip(drawn, np.asarray(index).tolist(), strict=True):
        state["state"]["counter"][:] = 0, example, 0, 0
        philox.state = state
        generator.random(out=numbers)
    return drawn


def attempts(drawn: np.ndarray, scale, ratio) -> tuple[np.ndarray, np.ndarray]:
    """The boxes that `random_box` tries, from uniform numbers f64[b, 10, 4].

    The four numbers of an attempt stand for area, ratio, row and column. The area is uniform in
    `scale`, the ratio log-uniform in `ratio`. Returns sides f64[b, 10, 2] (height, width) in units
    of the square root of the image's area, and places f64[b, 11, 2] in [0, 1), the last one being
    the middle.
    """
    area = scale[0] + drawn[..., :1] * (scale[1] - scale[0])
    low = math.log(ratio[0])
    high = math.log(ratio[1])
    sides = np.sqrt(area * np.exp((low + drawn[..., 1:2] * (high - low)) * np.array([-1.0, 1.0])))
    # Just below 1/2, so that of an odd remainder the smaller half comes first.
    middle = np.full((len(drawn), 1, 2), np.nextafter(0.5, 0))
    return sides, np.concatenate([drawn[..., 2:], middle], 1)


def random_box(sides, places, size, ratio):
    """A box (top, left, height, width) i32[4], drawn as by torchvision's RandomResizedCrop.

    sides, places: f64[10, 2] and f64[11, 2], one image's `attempts`. The first attempt that fits is
    used or, if none fits, the largest box in the middle with an allowed ratio. size: height and
    width, i32[2]. Written with few operations: each costs half a percent of decoding a JPEG.
    """
    tf = tensorflow()
    limit = tf.cast(size, tf.float64)
    tried = tf.round(sides * tf.sqrt(tf.reduce_prod(limit)))
    largest = tf.round(tf.reverse(limit, [0]) * np.array([1 / ratio[0], ratio[1]]))
    # The largest box comes last and always fits, so the first that fits is the answer.
    side = tf.concat([tried, tf.clip_by_value(largest, 1, limit)[None]], 0)
    fits = tf.reduce_all(tf.equal(side, tf.clip_by_value(side, 1, limit)), 1)
    first = tf.argmax(tf.cast(fits, tf.int32))
    side = tf.gather(side, first)
    start = tf.floor(tf.gather(places, first) * (limit - side + 1))
    return tf.cast(tf.concat([start, side], 0), tf.int32)


def decoder(view: View, channels: int, shape: tuple[int, int, int], *, train: bool) -> Callable:
    """Make (sides f64[10, 2], places f64[11, 2], bytes) -> u8[H, W, C], to be traced by TensorFlow.

    sides and places: the image's `attempts` at a box. Of a JPEG, only what the box needs is
    decoded; if the rest of the file is damaged, the box is good. shape: what must come out.
    """
    tf = tensorflow()
    # This method decodes to the same bits as Pillow.
    exact = {"channels": channels, "dct_method": "INTEGER_ACCURATE"}

    def boxed(sides, places, content):
        def box(size):
            return random_box(sides, places, size, view.ratio)

        def jpeg():
            size = tf.image.extract_jpeg_shape(content)[:2]
            return tf.image.decode_and_crop_jpeg(content, box(size), **exact)

        def png():
            image = tf.image.decode_png(content, channels)
            return tf.image.crop_to_bounding_box(image, *tf.unstack(box(_png_size(content))))

        # Endings may be wrong, so the first bytes decide; what is not a JPEG is decoded as PNG.
        return tf.cond(tf.strings.substr(content, 0, len(JPEG)) == JPEG, jpeg, png)

    def decode(sides, places, content):
        if train and view.crop:
            image = boxed(sides, places, content)
            image.set_shape([None, None, channels])
            image = _resize(image, [view.size] * 2, view.antialias)
        else:
            # In spite of its name, this decodes PNG as well.
            image = tf.image.decode_jpeg(content, **exact)
            if view.eval_resize:
                image = _middle_of_resized(image, view)
            elif view.size:
                image = _middle_square(image, view.size)
        return tf.ensure_shape(image, shape)

    return decode


def _png_size(content):
    """Height and width i32[2] of a PNG, read from its header."""
    tf = tensorflow()
    # Bytes 16 to 23 are width and height, big-endian.
    header = tf.strings.substr(content, 16, 8)
    return tf.reverse(tf.io.decode_raw(header, tf.int32, little_endian=False), [0])


def _resize(image, size, antialias: bool):
    """Resize bilinearly and round."""
    tf = tensorflow()
    return tf.cast(tf.image.resize(image, size, "bilinear", antialias=antialias) + 0.5, tf.uint8)


def _middle_of_resized(image, view: View):
    """Resize the shorter side to `eval_resize`, then cut out the middle square of `size`.

    Rounds as torchvision does.
    """
    tf = tensorflow()
    stored = tf.shape(image)[:2]
    resized = view.eval_resize * stored // tf.reduce_min(stored)
    image = _resize(image, resized, view.antialias)
    start = tf.cast(tf.round(tf.cast(resized - view.size, tf.float32) / 2), tf.int32)
    return tf.slice(image, [start[0], start[1], 0], [view.size, view.size, -1])


def _middle_square(image, size: int):
    """Resize the middle square by antialiased bicubic interpolation, as in resident folders."""
    tf = tensorflow()
    stored = tf.cast(tf.shape(image)[:2], tf.float32)
    side = tf.reduce_min(stored)
    scale = tf.fill([2], size / side)
    # tf.image.resize has Pillow's bicubic filter too, but cannot resize a part of an image.
    resized = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=[size, size],
        scale=scale,
        translation=-(stored - side) / 2 * scale,
        kernel_type="keyscubic",
        antialias=True,
    )[0]
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
