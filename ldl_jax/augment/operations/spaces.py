"""Magnitudes of the operations in the published search spaces, and how one is drawn."""

import jax
import jax.numpy as jnp
import numpy as np

from ldl_jax.augment import operations
from ldl_jax.contract import Array

LARGEST_BINS = 1000


def _linear(end: float, bins: int) -> np.ndarray:
    return np.linspace(0, end, bins, dtype=np.float32)


def _space(
    shape,
    bins: int,
    *,
    shear: float,
    shift: tuple[float, float],
    turn: float,
    blend: float,
    bits: int,
) -> dict[str, np.ndarray]:
    """{operation: magnitudes f32[bins]}; `shift` is across and down, in pixels."""
    # np.round takes halves to even numbers, as torch.round does.
    posterize = 8 - np.round(np.arange(bins) * (bits / max(bins - 1, 1)))
    space = {
        "identity": _linear(0, bins),
        "shear_x": _linear(shear, bins),
        "shear_y": _linear(shear, bins),
        "translate_x": _linear(shift[0], bins),
        "translate_y": _linear(shift[1], bins),
        "rotate": _linear(turn, bins),
        "posterize": posterize.astype(np.float32),
        "solarize": np.linspace(255, 0, bins, dtype=np.float32),
        "autocontrast": _linear(0, bins),
        "equalize": _linear(0, bins),
    }
    blends = ("brightness", "color", "contrast", "sharpness")
    return space | {name: _linear(blend, bins) for name in blends}


def usual(shape, bins: int) -> dict[str, np.ndarray]:
    """The space of AutoAugment and RandAugment for images of a shape [H, W, C], as in torchvision:
    shifts up to 150/331 of a side, 30 degrees, factors of blends from 0.1 to 1.9.
    """
    shift = (150 / 331 * shape[1], 150 / 331 * shape[0])
    return _space(shape, bins, shear=0.3, shift=shift, turn=30, blend=0.9, bits=4)


def wide(shape, bins: int) -> dict[str, np.ndarray]:
    """The wide space of TrivialAugment: shifts up to 32 pixels, 135 degrees, factors from 0.01 to
    1.99.
    """
    return _space(shape, bins, shear=0.99, shift=(32, 32), turn=135, blend=0.99, bits=6)


def draw(key, space: dict[str, np.ndarray], pixels: Array, bin_of) -> Array:
    """Levels f32[H, W, C] after an operation of a space, all of them equally likely.

    bin_of: (key) -> i32[], the bin of its magnitude.
    """
    operation_key, bin_key, sign_key = jax.random.split(key, 3)
    chosen = jax.random.randint(operation_key, (), 0, len(space))
    numbers = jnp.asarray([operations.number(name) for name in space])
    signed = jnp.asarray([name in operations.SIGNED for name in space])
    magnitude = jnp.asarray(np.stack(list(space.values())))[chosen, bin_of(bin_key)]
    sign = operations.draw_signs(sign_key, signed[chosen])
    return operations.apply(pixels, numbers[chosen], sign * magnitude)


def check(name: str, shape) -> None:
    """Raise ValueError, naming the member, unless images have one channel or three."""
    if shape[-1] not in (1, 3):
        raise ValueError(
            f"config.augment.names: {name} needs images of one channel or three, got {shape[-1]}"
        )
