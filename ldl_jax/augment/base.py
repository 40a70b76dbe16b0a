"""Pixel operations on the device: a batch of images and one key for each of them.

Crop, flip and cutout are options of `config.augment`. The members of this folder are named in
`augment.names` and come in that order between flip and cutout; a member's `make(pixels, *,
options)` gives (key, image[H, W, C]) -> image.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ldl_jax.contract import Array


class Pixels(NamedTuple):
    """What a member may know of the images."""

    shape: tuple[int, int, int]  # H, W, C
    mean: tuple[float, ...]  # of each channel, of pixels in [0, 1]


def shifted_crop(key, image: Array, pad: int) -> Array:
    """A crop of the image's own size [H, W, C], shifted by up to `pad` pixels each way over a black
    border.
    """
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    start = jax.random.randint(key, (2,), 0, 2 * pad + 1)
    return jax.lax.dynamic_slice(padded, (start[0], start[1], 0), image.shape)


def mirror_half(key, image: Array) -> Array:
    """The image or, with probability 1/2, its mirror: [H, W, C]."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def erase_square(key, image: Array, side: int, fill: Array) -> Array:
    """The image with a square of `side` pixels around a random pixel set to `fill` f32[C]: [H, W,
    C].
    """
    height, width, _ = image.shape
    centre = jax.random.randint(key, (2,), 0, jnp.asarray([height, width]))
    start = centre - side // 2

    def hit(length, first):
        return (jnp.arange(length) >= first) & (jnp.arange(length) < first + side)

    return jnp.where(
        (hit(height, start[0])[:, None] & hit(width, start[1]))[..., None], fill, image
    )


def make(
    mean: tuple[float, ...],
    members: Sequence[Callable] = (),
    *,
    pad: int = 0,  # pixels: a random crop of the image padded with so many on each side; 0 = off
    flip: bool = False,  # mirror an image with probability 1/2
    cutout: int = 0,  # side of the erased square in pixels, filled with the mean colour; 0 = off
) -> Callable:
    """Pad and crop, flip, cutout: (keys[B], image[B, H, W, C] in [0, 1]) -> image, each image by
    its own key.

    members: further operations (key, image[H, W, C]) -> image, in their order between flip and
    cutout. Raises ValueError for negative sizes.
    """
    if pad < 0 or cutout < 0:
        raise ValueError(
            f"augment.pad is {pad} and augment.cutout {cutout}; both are pixels, from 0"
        )

    def one(key, image):
        first, second, third = jax.random.split(key, 3)
        if pad:
            image = shifted_crop(first, image, pad)
        if flip:
            image = mirror_half(second, image)
        for number, member in enumerate(members, start=3):  # 0 to 2 are the keys of the split above
            image = member(jax.random.fold_in(key, number), image)
        if cutout:
            image = erase_square(third, image, cutout, jnp.asarray(mean, image.dtype))
        return image

    if not (pad or flip or cutout or members):
        return lambda keys, image: image
    return jax.vmap(one)
