"""From encoded bytes to pixels: which part of an image is shown, and how it is brought to its size."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ldl_jax.stream.base import tensorflow

LARGEST = 8192  # pixels of a side that an image is brought to
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
    if not (0 <= view.size <= LARGEST and view.eval_resize <= LARGEST):
        raise ValueError(
            f"{block}.size is {view.size} and eval_resize {view.eval_resize}; allowed are numbers from 0 to {LARGEST}, "
            "in pixels"
        )
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


def draws(key, counter):
    """Uniform numbers f64[10, 4] in [0, 1) of one example: Philox with a key u64[1] and a counter u64[2]."""
    tf = tensorflow()
    philox = tf.random.Algorithm.PHILOX.value
    return tf.raw_ops.StatelessRandomUniformV2(
        shape=[ATTEMPTS, 4], key=key, counter=counter, alg=philox, dtype=tf.float64
    )


def random_box(uniform, size, scale, ratio):
    """A box (top, left, height, width) i32[4] as torchvision's RandomResizedCrop draws it.

    uniform: f64[10, 4] in [0, 1): for each attempt area, ratio, row, column. The first box that fits is taken: its area
    uniform in `scale`, its ratio log-uniform in `ratio`; where none fits, the largest in the middle whose ratio is
    allowed. size: height and width, i32[2]. Written with few operations: they cost a tenth of decoding a JPEG.
    """
    tf = tensorflow()
    low, high = math.log(ratio[0]), math.log(ratio[1])
    limit = tf.cast(size, tf.float64)
    spread, least = np.array([scale[1] - scale[0], high - low, 1, 1]), np.array([scale[0], low, 0, 0])
    drawn = uniform * spread + least
    area = drawn[:, :1] * tf.reduce_prod(limit)
    sides = tf.round(tf.sqrt(area * tf.exp(drawn[:, 1:2] * np.array([[-1.0, 1.0]]))))  # height, width
    fits = tf.reduce_all(tf.equal(sides, tf.clip_by_value(sides, 1, limit)), 1)
    some, first = tf.reduce_any(fits), tf.argmax(tf.cast(fits, tf.int32))
    largest = tf.minimum(limit, tf.round(tf.reverse(limit, [0]) * np.array([1 / ratio[0], ratio[1]])))
    side = tf.where(some, tf.gather(sides, first), largest)
    place = tf.where(some, tf.gather(drawn, first)[2:], 0.5)
    start = tf.floor(place * (limit - side + tf.cast(some, tf.float64)))
    return tf.cast(tf.concat([start, side], 0), tf.int32)


def decoder(view: View, channels: int, shape: tuple[int, int, int], *, train: bool) -> Callable:
    """(key u64[1], counter u64[2], bytes) -> u8[H, W, C], to be traced by TensorFlow.

    key and counter draw the box of the image. A JPEG is decoded no further than its box needs; where the rest of the
    file is damaged, that box is good. shape: what must come out.
    """
    tf = tensorflow()
    exact = {"channels": channels, "dct_method": "INTEGER_ACCURATE"}  # to the bit what Pillow decodes

    def boxed(key, counter, content):
        jpeg = tf.strings.substr(content, 0, len(JPEG)) == JPEG
        size = tf.cond(jpeg, lambda: tf.image.extract_jpeg_shape(content)[:2], lambda: _png_size(content))
        box = random_box(draws(key, counter), size, view.scale, view.ratio)
        return tf.cond(
            jpeg, lambda: tf.image.decode_and_crop_jpeg(content, box, **exact),
            lambda: tf.image.crop_to_bounding_box(tf.image.decode_png(content, channels), *tf.unstack(box)),
        )  # fmt: skip

    def decode(key, counter, content):
        if train and view.crop:
            image = boxed(key, counter, content)
            image.set_shape([None, None, channels])
            image = _resize(image, [view.size] * 2, view.antialias)
        else:
            image = tf.image.decode_jpeg(content, **exact)  # PNG as well, in spite of its name
            if view.eval_resize:
                image = _middle_of_resized(image, view)
            elif view.size:
                image = _middle_square(image, view.size)
        return tf.ensure_shape(image, shape)

    return decode


def _png_size(content):
    """Height and width i32[2] of a PNG, from the place where its header has width and height."""
    tf = tensorflow()
    return tf.reverse(tf.io.decode_raw(tf.strings.substr(content, 16, 8), tf.int32, little_endian=False), [0])


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
