"""Augmentation on the device, of a batch of images with one key for each.

Crop, flip and cutout are options of `config.augment`. The operations of this folder are named in
`augment.names` and run in that order between flip and cutout; their `make(pixels, *, options)`
returns a function (key, image[H, W, C]) -> image.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ldl_jax.contract import Array


class Pixels(NamedTuple):
    """What an operation may know about the images."""

    shape: tuple[int, int, int]  # H, W, C
    mean: tuple[float, ...]  # of each channel, of pixels in [0, 1]


def shifted_crop(key, image: Array, pad: int) -> Array:
    """A random crop of the image padded with `pad` black pixels on each side, at its own size
    [H, W, C].
    """
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    start = jax.random.randint(key, (2,), 0, 2 * pad + 1)
    return jax.lax.dynamic_slice(padded, (start[0], start[1], 0), image.shape)


def mirror_half(key, image: Array) -> Array:
    """The image or, with probability 1/2, its horizontal mirror image: [H, W, C]."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def erase_square(key, image: Array, side: int, fill: Array) -> Array:
    """The image [H, W, C] with a square of `side` pixels around a random pixel set to `fill`
    f32[C].
    """
    # The centre is any pixel, so a square at the border is cut off, as in the paper's code.
    height, width, _ = image.shape
    centre = jax.random.randint(key, (2,), 0, jnp.asarray([height, width]))
    start = centre - side // 2

    def covered(length, first):
        return (jnp.arange(length) >= first) & (jnp.arange(length) < first + side)

    inside = covered(height, start[0])[:, None] & covered(width, start[1])
    return jnp.where(inside[..., None], fill, image)


def make(
    mean: tuple[float, ...],
    members: Sequence[Callable] = (),
    *,
    pad: int = 0,  # padding of the random crop on each side, in pixels (0: off)
    flip: bool = False,  # mirror each image with probability 1/2
    cutout: int = 0,  # side of the erased square, in pixels, filled with the mean colour (0: off)
) -> Callable:
    """Random crop, flip and cutout: (keys[B], image[B, H, W, C] in [0, 1]) -> image, each image
    with its own key.

    members: further operations (key, image[H, W, C]) -> image, in their order between flip and
    cutout. Raises ValueError if a size is negative.
    """
    if pad < 0:
        raise ValueError(f"config.augment.pad must be at least 0 pixels, got {pad}")
    if cutout < 0:
        raise ValueError(f"config.augment.cutout must be at least 0 pixels, got {cutout}")

    def augment(key, image):
        # All keys are drawn whether used or not, so that one option does not change the others.
        crop_key, flip_key, cutout_key = jax.random.split(key, 3)
        if pad:
            image = shifted_crop(crop_key, image, pad)
        if flip:
            image = mirror_half(flip_key, image)
        # Numbers 0 to 2 belong to the split above.
        for number, member in enumerate(members, start=3):
            image = member(jax.random.fold_in(key, number), image)
        # Last, so that no later operation moves or recolours the erased square.
        if cutout:
            image = erase_square(cutout_key, image, cutout, jnp.asarray(mean, image.dtype))
        return image

    if not (pad or flip or cutout or members):
        return lambda keys, image: image
    return jax.vmap(augment)
