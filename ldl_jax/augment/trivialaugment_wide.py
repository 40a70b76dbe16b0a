"""TrivialAugment: one operation at random, of random strength."""

from collections.abc import Callable

import jax

from ldl_jax.augment import operations
from ldl_jax.augment.base import Pixels
from ldl_jax.augment.operations import spaces


def make(
    pixels: Pixels,
    *,
    bins: int = 31,  # number of strengths, 2 to 1000
) -> Callable:
    """One of 14 operations, at a strength drawn from wide ranges (Mueller and Hutter 2021, table 8,
    'Wide'), as in torchvision.

    Raises ValueError if an option is out of range.
    """
    spaces.check("trivialaugment_wide", pixels.shape)
    if not 2 <= bins <= spaces.LARGEST_BINS:
        raise ValueError(
            f"config.augment.trivialaugment_wide.bins must be between 2 and {spaces.LARGEST_BINS}, "
            f"got {bins}"
        )
    space = spaces.wide(pixels.shape, bins)

    def member(key, image):
        levels = operations.to_levels(image)
        levels = spaces.draw(
            key, space, levels, lambda bin_key: jax.random.randint(bin_key, (), 0, bins)
        )
        return operations.to_image(levels, image.dtype)

    return member
