"""From encoded bytes to pixels: which part of an image is shown, and how it is brought to its size."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ldl_jax.data.readers.base import JPEG, tensorflow

LARGEST = 8192  # pixels of a side that an image is brought to
EPOCHS = 2**31  # seeds below 2**32 and epochs below this make one i64
ATTEMPTS = 10  # boxes that are drawn before the middle is taken, as torchvision does


class View(NamedTuple):
    """What of an image is shown; the options of streamed data sets."""

    # pixels: side of the square that comes out; 0 = images are shown as they are stored
    size: int = 0
    crop: bool = False  # in training: a random box of the image; False: the same as in evaluation
    # pixels: shorter side before the middle `size` is cut out; 0 = the middle square is resized
    eval_resize: int = 0
    # share of the image's area in a random box, lowest and highest
    scale: tuple[float, float] = (0.08, 1.0)
    # width / height of a random box, lowest and highest
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    antialias: bool = True  # of the bilinear filter


def check(view: View, block: str) -> View:
    """The view. Raises ValueError in one sentence naming the field of `block` where a value is not
    allowed.
    """
    low, high = view.scale if len(view.scale) == 2 else (0, 0)
    if not (0 <= view.size <= LARGEST and view.eval_resize <= LARGEST):
        raise ValueError(
            f"{block}.size is {view.size} and eval_resize {view.eval_resize}; allowed are numbers from 0 to {LARGEST}, "
            "in pixels"
        )
    if view.crop and not view.size:
        raise ValueError(
            f"{block}.crop is True and size 0; allowed with a random crop is a size in pixels"
        )
    if view.eval_resize and not 0 < view.size <= view.eval_resize:
        raise ValueError(
            f"{block}.eval_resize is {view.eval_resize} and size {view.size}; allowed are 0, or numbers from size"
        )
    if not 0 < low <= high <= 1:
        raise ValueError(
            f"{block}.scale is {view.scale}; allowed are two shares, 0 < lowest <= highest <= 1"
        )
    low, high = view.ratio if len(view.ratio) == 2 else (0, 0)
    if not 0 < low <= high < math.inf:
        raise ValueError(
            f"{block}.ratio is {view.ratio}; allowed are two numbers, 0 < lowest <= highest"
        )
    return view


def uniform(seed: int, epoch: int, index: np.ndarray) -> np.ndarray:
    """Uniform numbers f64[b, 10, 4] in [0, 1) of examples i32[b]: Philox by seed and epoch,
    counting from the index.

    Drawn by NumPy a batch at a time: in tf.data's graph, for one image, they cost as much as the
    rest of its box.
    """
    drawn = np.empty((len(index), ATTEMPTS, 4))
    philox = np.random.Philox(key=seed * EPOCHS + epoch)
    generator, state = np.random.Generator(philox), philox.state
    for one, place in zip(drawn, np.asarray(index).tolist(), strict=True):
        state["state"]["counter"][:] = 0, place, 0, 0
        philox.state = state
        generator.random(out=one)
    return drawn


def attempts(drawn: np.ndarray, scale, ratio) -> tuple[np.ndarray, np.ndarray]:
    """What `random_box` tries, of uniform numbers f64[b, 10, 4]: for each attempt area, ratio, row,
    column.

    The area is uniform in `scale`, the ratio log-uniform in `ratio`. Returns sides f64[b, 10, 2]
    (height, width) by the square root of the image's area, and places f64[b, 11, 2] in [0, 1), the
    last the middle.
    """
    area = scale[0] + drawn[..., :1] * (scale[1] - scale[0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    sides = np.sqrt(area * np.exp((low + drawn[..., 1:2] * (high - low)) * np.array([-1.0, 1.0])))
    # of an odd rest, the smaller half comes first
    middle = np.full((len(drawn), 1, 2), np.nextafter(0.5, 0))
    return sides, np.concatenate([drawn[..., 2:], middle], 1)


def random_box(sides, places, size, ratio):
    """A box (top, left, height, width) i32[4] as torchvision's RandomResizedCrop draws it.

    sides, places: f64[10, 2] and f64[11, 2], one image's `attempts`. The first that fits is taken;
    where none fits, the largest in the middle whose ratio is allowed. size: height and width,
    i32[2]. Written with few operations: each costs half a hundredth of decoding a JPEG.
    """
    tf = tensorflow()
    limit = tf.cast(size, tf.float64)
    tried = tf.round(sides * tf.sqrt(tf.reduce_prod(limit)))
    largest = tf.round(tf.reverse(limit, [0]) * np.array([1 / ratio[0], ratio[1]]))
    side = tf.concat([tried, tf.clip_by_value(largest, 1, limit)[None]], 0)
    fits = tf.reduce_all(tf.equal(side, tf.clip_by_value(side, 1, limit)), 1)
    first = tf.argmax(tf.cast(fits, tf.int32))
    side = tf.gather(side, first)
    start = tf.floor(tf.gather(places, first) * (limit - side + 1))
    return tf.cast(tf.concat([start, side], 0), tf.int32)


def decoder(view: View, channels: int, shape: tuple[int, int, int], *, train: bool) -> Callable:
    """(sides f64[10, 2], places f64[11, 2], bytes) -> u8[H, W, C], to be traced by TensorFlow.

    sides and places: the image's `attempts` at a box. A JPEG is decoded no further than its box
    needs; where the rest of the file is damaged, that box is good. shape: what must come out.
    """
    tf = tensorflow()
    # to the bit what Pillow decodes
    exact = {"channels": channels, "dct_method": "INTEGER_ACCURATE"}

    def boxed(sides, places, content):
        def box(size):
            return random_box(sides, places, size, view.ratio)

        def png():
            image = tf.image.decode_png(content, channels)
            return tf.image.crop_to_bounding_box(image, *tf.unstack(box(_png_size(content))))

        # What does not begin as a JPEG is decoded as PNG.
        return tf.cond(
            tf.strings.substr(content, 0, len(JPEG)) == JPEG,
            lambda: tf.image.decode_and_crop_jpeg(
                content, box(tf.image.extract_jpeg_shape(content)[:2]), **exact
            ),
            png,
        )

    def decode(sides, places, content):
        if train and view.crop:
            image = boxed(sides, places, content)
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
    return tf.reverse(
        tf.io.decode_raw(tf.strings.substr(content, 16, 8), tf.int32, little_endian=False), [0]
    )


def _resize(image, size, antialias: bool):
    """Bilinear, rounded to whole values."""
    tf = tensorflow()
    return tf.cast(tf.image.resize(image, size, "bilinear", antialias=antialias) + 0.5, tf.uint8)


def _middle_of_resized(image, view: View):
    """The shorter side brought to `eval_resize`, then the middle square of `size`: torchvision's
    roundings.
    """
    tf = tensorflow()
    now = tf.shape(image)[:2]
    longer = view.eval_resize * now // tf.reduce_min(now)  # of the shorter side: eval_resize
    image = _resize(image, longer, view.antialias)
    start = tf.cast(tf.round(tf.cast(longer - view.size, tf.float32) / 2), tf.int32)
    return tf.slice(image, [start[0], start[1], 0], [view.size, view.size, -1])


def _middle_square(image, size: int):
    """The middle square resized by bicubic interpolation with antialiasing, as resident image
    folders are.
    """
    tf = tensorflow()
    now = tf.cast(tf.shape(image)[:2], tf.float32)
    side = tf.reduce_min(now)
    scale = tf.fill([2], size / side)
    resized = tf.raw_ops.ScaleAndTranslate(
        images=image[None], size=[size, size], scale=scale, translation=-(now - side) / 2 * scale,
        kernel_type="keyscubic", antialias=True,
    )[0]  # fmt: skip
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
