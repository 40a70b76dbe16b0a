"""Random erasing: a rectangle of a random size, shape and place is replaced."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ldl_jax.augment.base import Pixels

TRIES = 10  # rectangles that are drawn until one fits, as torchvision's RandomErasing does


def make(
    pixels: Pixels,
    *,
    probability: float = 0.5,  # of an image being erased, [0, 1]
    smallest: float = 0.02,  # area of the rectangle, as a share of the image's, (0, 1)
    largest: float = 0.33,  # area of the rectangle, as a share of the image's, (0, 1)
    ratio: float = 0.3,  # of height to width: log-uniform in [ratio, 1 / ratio], (0, 1]
) -> Callable:
    """Random erasing with the mean colour (Zhong et al. 2020, algorithm 1, with the mean in place
    of random values).

    Where none of TRIES rectangles fits into the image, it stays as it is. Raises ValueError where
    an option is out of its range.
    """
    if not (0 <= probability <= 1 and 0 < smallest <= largest < 1 and 0 < ratio <= 1):
        raise ValueError(
            f"augment.random_erasing: probability {probability}, smallest {smallest}, largest {largest}, ratio "
            f"{ratio}; allowed are a probability in [0, 1], 0 < smallest <= largest < 1 and a ratio in (0, 1]"
        )
    height, width, _ = pixels.shape

    def member(key, image):
        touch, size, shape, place = jax.random.split(key, 4)
        area = height * width * jax.random.uniform(size, (TRIES,), minval=smallest, maxval=largest)
        root = jnp.exp(
            jax.random.uniform(shape, (TRIES,), minval=math.log(ratio), maxval=-math.log(ratio)) / 2
        )
        sides = jnp.round(jnp.stack([jnp.sqrt(area) * root, jnp.sqrt(area) / root], axis=1)).astype(
            jnp.int32
        )
        fits = (sides < jnp.asarray([height, width])).all(1)
        side = sides[jnp.argmax(fits)]  # the first that fits
        top, left = jax.random.randint(place, (2,), 0, jnp.asarray([height, width]) - side + 1)
        y, x = jnp.arange(height)[:, None], jnp.arange(width)
        inside = (y >= top) & (y < top + side[0]) & (x >= left) & (x < left + side[1])
        erased = jnp.where(inside[..., None], jnp.asarray(pixels.mean, image.dtype), image)
        return jnp.where(fits.any() & jax.random.bernoulli(touch, probability), erased, image)

    return member
