"""Random grey: some images lose their colours."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ldl_jax.augment import operations
from ldl_jax.augment.base import Pixels
from ldl_jax.augment.operations import levels, spaces


def make(
    pixels: Pixels,
    *,
    probability: float = 0.1,  # probability that an image becomes grey, [0, 1]
) -> Callable:
    """Grey levels in all channels with a probability, as torchvision's RandomGrayscale with Pillow's
    weights.

    Raises ValueError if the probability is out of range.
    """
    spaces.check("grayscale", pixels.shape)
    if not 0 <= probability <= 1:
        raise ValueError(
            f"config.augment.grayscale.probability must be in [0, 1], got {probability}"
        )

    def member(key, image):
        grey = operations.to_image(levels.grey(operations.to_levels(image)), image.dtype)
        return jnp.where(jax.random.bernoulli(key, probability), grey, image)

    return member
