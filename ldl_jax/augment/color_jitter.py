"""Colour jitter: random brightness, contrast, saturation and hue, in random order."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ldl_jax.augment import operations
from ldl_jax.augment.base import Pixels
from ldl_jax.augment.operations import levels, spaces


def make(
    pixels: Pixels,
    *,
    brightness: float = 0.4,  # factors are drawn from [max(0, 1 - b), 1 + b], b >= 0
    contrast: float = 0.4,  # the same for the contrast
    saturation: float = 0.4,  # the same for the saturation
    hue: float = 0.0,  # the hue is shifted by a share of its circle in [-h, h], h in [0, 0.5]
) -> Callable:
    """Random factors of brightness, contrast and saturation and a shift of the hue, in random order,
    as in torchvision's ColorJitter with Pillow's rounding (the hue in real numbers, where Pillow has
    256 hues).

    Raises ValueError if an option is out of range.
    """
    spaces.check("color_jitter", pixels.shape)
    ranges = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, value in ranges.items():
        if not 0 <= value <= 100:
            raise ValueError(
                f"config.augment.color_jitter.{name} must be between 0 and 100, got {value}"
            )
    if not 0 <= hue <= 0.5:
        raise ValueError(f"config.augment.color_jitter.hue must be between 0 and 0.5, got {hue}")
    lowest = np.float32([*(max(0.0, 1 - value) for value in ranges.values()), -hue])
    highest = np.float32([*(1 + value for value in ranges.values()), hue])

    def member(key, image):
        order_key, amount_key = jax.random.split(key)
        amount = jax.random.uniform(amount_key, (4,), jnp.float32, lowest, highest)
        order = jax.random.permutation(order_key, 4)
        seen = operations.to_levels(image)
        for step in range(4):
            now = order[step]
            # A factor of 1, or a shift of 0, changes nothing.
            factor = jnp.where(now == jnp.arange(3), amount[:3], 1)
            mean = jnp.floor(levels.grey(seen).mean() + 0.5)
            for base, value in (
                (0.0, factor[0]),
                (mean, factor[1]),
                (levels.grey(seen), factor[2]),
            ):
                seen = levels.blend(base, seen, value - 1)
            if hue and pixels.shape[-1] == 3:
                shifted = levels.shift_hue(seen, amount[3])
                seen = jnp.where(now == 3, shifted, seen)
        return operations.to_image(seen, image.dtype)

    return member
