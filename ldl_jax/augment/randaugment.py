"""RandAugment: a few operations at random, all of the same strength."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ldl_jax.augment import operations
from ldl_jax.augment.base import Pixels
from ldl_jax.augment.operations import spaces

MOST = 20  # operations in a row


def make(
    pixels: Pixels,
    *,
    operations_in_row: int = 2,  # number of operations, N, 1 to 20
    magnitude: int = 9,  # strength of each, M, 0 to bins - 1
    bins: int = 31,  # number of strengths that the magnitude counts in
) -> Callable:
    """N of 14 operations, each at strength M (Cubuk et al. 2020), with torchvision's ranges.

    Signed operations go either way. Raises ValueError if an option is out of range.
    """
    spaces.check("randaugment", pixels.shape)
    field = "config.augment.randaugment"
    if not 1 <= operations_in_row <= MOST:
        raise ValueError(
            f"{field}.operations_in_row must be between 1 and {MOST}, got {operations_in_row}"
        )
    if not 2 <= bins <= spaces.LARGEST_BINS:
        raise ValueError(f"{field}.bins must be between 2 and {spaces.LARGEST_BINS}, got {bins}")
    if not 0 <= magnitude < bins:
        raise ValueError(f"{field}.magnitude must be between 0 and {bins - 1}, got {magnitude}")
    space = spaces.usual(pixels.shape, bins)

    def member(key, image):
        def step(number, levels):
            step_key = jax.random.fold_in(key, number)
            return spaces.draw(step_key, space, levels, lambda _: jnp.int32(magnitude))

        # A loop, since many copies of an operation take long to compile.
        levels = jax.lax.fori_loop(0, operations_in_row, step, operations.to_levels(image))
        return operations.to_image(levels, image.dtype)

    return member
