"""Random erasing: a rectangle of random size, shape and position is replaced by the mean colour."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ldl_jax.augment.base import Pixels

TRIES = 10  # rectangles drawn until one fits, as in torchvision's RandomErasing


def make(
    pixels: Pixels,
    *,
    probability: float = 0.5,  # probability that an image is erased, [0, 1]
    smallest: float = 0.02,  # smallest area of the rectangle, as a share of the image's, (0, 1)
    largest: float = 0.33,  # largest area of the rectangle, as a share of the image's, (0, 1)
    ratio: float = 0.3,  # height / width is log-uniform in [ratio, 1 / ratio], (0, 1]
) -> Callable:
    """Random erasing with the mean colour (Zhong et al. 2020, algorithm 1, with the mean in place
    of random values).

    An image into which none of TRIES rectangles fits is not erased. Raises ValueError if an option
    is out of range.
    """
    if not 0 <= probability <= 1:
        raise ValueError(
            f"config.augment.random_erasing.probability must be in [0, 1], got {probability}"
        )
    if not 0 < smallest <= largest < 1:
        raise ValueError(
            "config.augment.random_erasing.smallest and largest must satisfy 0 < smallest <= largest < 1, "
            f"got {smallest} and {largest}"
        )
    if not 0 < ratio <= 1:
        raise ValueError(f"config.augment.random_erasing.ratio must be in (0, 1], got {ratio}")
    height, width, _ = pixels.shape

    def member(key, image):
        use_key, area_key, ratio_key, corner_key = jax.random.split(key, 4)
        area = (
            height * width * jax.random.uniform(area_key, (TRIES,), minval=smallest, maxval=largest)
        )
        log_ratio = jax.random.uniform(
            ratio_key, (TRIES,), minval=math.log(ratio), maxval=-math.log(ratio)
        )
        root = jnp.exp(log_ratio / 2)
        sides = jnp.stack([jnp.sqrt(area) * root, jnp.sqrt(area) / root], axis=1)
        sides = jnp.round(sides).astype(jnp.int32)
        # All tries are drawn at once, since a loop would have no fixed length; argmax is the first
        # that fits.
        fits = (sides < jnp.asarray([height, width])).all(1)
        side = sides[jnp.argmax(fits)]
        room = jnp.asarray([height, width]) - side + 1
        top, left = jax.random.randint(corner_key, (2,), 0, room)
        y = jnp.arange(height)[:, None]
        x = jnp.arange(width)
        inside = (y >= top) & (y < top + side[0]) & (x >= left) & (x < left + side[1])
        erased = jnp.where(inside[..., None], jnp.asarray(pixels.mean, image.dtype), image)
        return jnp.where(fits.any() & jax.random.bernoulli(use_key, probability), erased, image)

    return member
