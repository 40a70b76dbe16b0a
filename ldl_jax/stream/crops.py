"""From encoded bytes to pixels: which part of an image is shown, and how it is brought to its size."""

import math
from collections.abc import Callable
from typing import NamedTuple

from ldl_jax.stream.base import tensorflow

ATTEMPTS = 10  # boxes that are drawn before the middle is taken, as torchvision does
JPEG = b"\xff\xd8\xff"  # the first bytes of a file; what has others is decoded as PNG


class View(NamedTuple):
    """What of an image is shown; the options of streamed data sets."""

    size: int = 0  # pixels: side of the square that comes out; 0 = images are shown as they are stored
    crop: bool = False  # in training: a random box of the image; False: the same as in evaluation
    eval_resize: int = 0  # pixels: shorter side before the middle `size` is cut out; 0 = the middle square is resized
    scale: tuple[float, float] = (0.08, 1.0)  # share of the image's area in a random box, lowest and highest
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width / height of a random box, lowest and highest
    antialias: bool = True  # of the bilinear filter


def check(view: View, block: str) -> View:
    """The view. Raises ValueError in one sentence naming the field of `block` where a value is not allowed."""
    low, high = view.scale if len(view.scale) == 2 else (0, 0)
    if view.size < 0:
        raise ValueError(f"{block}.size is {view.size}; allowed are numbers from 0, in pixels")
    if view.crop and not view.size:
        raise ValueError(f"{block}.crop is True and size 0; allowed with a random crop is a size in pixels")
    if view.eval_resize and not 0 < view.size <= view.eval_resize:
        raise ValueError(
            f"{block}.eval_resize is {view.eval_resize} and size {view.size}; allowed are 0, or numbers from size"
        )
    if not 0 < low <= high <= 1:
        raise ValueError(f"{block}.scale is {view.scale}; allowed are two shares, 0 < lowest <= highest <= 1")
    low, high = view.ratio if len(view.ratio) == 2 else (0, 0)
    if not 0 < low <= high < math.inf:
        raise ValueError(f"{block}.ratio is {view.ratio}; allowed are two numbers, 0 < lowest <= highest")
    return view


def random_box(draws, height, width, scale, ratio):
    """A box (top, left, height, width) i32[4] as torchvision's RandomResizedCrop draws it.

    draws: f64[10, 4] in [0, 1): for each attempt area, ratio, row, column. The first box that fits is taken: its area
    uniform in `scale`, its ratio log-uniform in `ratio`; where none fits, the largest in the middle whose ratio is
    allowed. height, width: i32[].
    """
    tf = tensorflow()
    tall, wide = tf.cast(height, tf.float64), tf.cast(width, tf.float64)
    area = tall * wide * (scale[0] + draws[:, 0] * (scale[1] - scale[0]))
    shape = tf.exp(math.log(ratio[0]) + draws[:, 1] * (math.log(ratio[1]) - math.log(ratio[0])))
    across, down = tf.round(tf.sqrt(area * shape)), tf.round(tf.sqrt(area / shape))
    fits = (across > 0) & (across <= wide) & (down > 0) & (down <= tall)
    first = tf.argmax(tf.cast(fits, tf.int32))
    top = tf.floor(draws[:, 2] * (tall - down + 1))
    left = tf.floor(draws[:, 3] * (wide - across + 1))
    drawn = tf.stack([top, left, down, across], 1)[first]
    low, high = min(ratio), max(ratio)
    down = tf.where(wide / tall < low, tf.round(wide / low), tall)
    across = tf.where(wide / tall > high, tf.round(tall * high), wide)
    middle = tf.stack([tf.floor((tall - down) / 2), tf.floor((wide - across) / 2), down, across])
    return tf.cast(tf.where(tf.reduce_any(fits), drawn, middle), tf.int32)


def decoder(view: View, channels: int, shape: tuple[int, int, int], *, train: bool) -> Callable:
    """(bytes, draw i64[], index i32[]) -> u8[H, W, C], to be traced by TensorFlow.

    draw: seed and epoch as one number, which with the index seeds the box. A JPEG is decoded no further than its box
    needs; where the rest of the file is damaged, that box is good. shape: what must come out.
    """
    tf = tensorflow()
    random = train and view.crop

    def box_of(draw, index, height, width):
        seed = tf.stack([draw, tf.cast(index, tf.int64)])
        draws = tf.random.stateless_uniform([ATTEMPTS, 4], seed, dtype=tf.float64, alg="philox")
        return random_box(draws, height, width, view.scale, view.ratio)

    def from_jpeg(content, draw, index):
        exact = {"channels": channels, "dct_method": "INTEGER_ACCURATE"}  # to the bit what Pillow decodes
        if not random:
            return tf.image.decode_jpeg(content, **exact)
        size = tf.image.extract_jpeg_shape(content)
        return tf.image.decode_and_crop_jpeg(content, box_of(draw, index, size[0], size[1]), **exact)

    def from_png(content, draw, index):
        image = tf.image.decode_png(content, channels=channels)
        if not random:
            return image
        size = tf.shape(image)
        box = box_of(draw, index, size[0], size[1])
        return tf.slice(image, [box[0], box[1], 0], [box[2], box[3], channels])

    def decode(content, draw, index):
        jpeg = tf.strings.substr(content, 0, len(JPEG)) == JPEG
        image = tf.cond(jpeg, lambda: from_jpeg(content, draw, index), lambda: from_png(content, draw, index))
        image.set_shape([None, None, channels])
        if random:
            image = _resize(image, [view.size] * 2, view.antialias)
        elif view.eval_resize:
            image = _middle_of_resized(image, view)
        elif view.size:
            image = _middle_square(image, view.size)
        return tf.ensure_shape(image, shape)

    return decode


def _resize(image, size, antialias: bool):
    """Bilinear, rounded to whole values."""
    tf = tensorflow()
    return tf.cast(tf.image.resize(image, size, "bilinear", antialias=antialias) + 0.5, tf.uint8)


def _middle_of_resized(image, view: View):
    """The shorter side brought to `eval_resize`, then the middle square of `size`: torchvision's roundings."""
    tf = tensorflow()
    now = tf.shape(image)[:2]
    longer = view.eval_resize * now // tf.reduce_min(now)  # of the shorter side: eval_resize
    image = _resize(image, longer, view.antialias)
    start = tf.cast(tf.round(tf.cast(longer - view.size, tf.float32) / 2), tf.int32)
    return tf.slice(image, [start[0], start[1], 0], [view.size, view.size, -1])


def _middle_square(image, size: int):
    """The middle square resized by bicubic interpolation with antialiasing, as resident image folders are."""
    tf = tensorflow()
    now = tf.cast(tf.shape(image)[:2], tf.float32)
    side = tf.reduce_min(now)
    scale = tf.fill([2], size / side)
    made = tf.raw_ops.ScaleAndTranslate(
        images=image[None], size=[size, size], scale=scale, translation=-(now - side) / 2 * scale,
        kernel_type="keyscubic", antialias=True,
    )[0]  # fmt: skip
    return tf.cast(tf.clip_by_value(tf.round(made), 0, 255), tf.uint8)
