"""Operations of automatic augmentation as Pillow defines them, one drawn operation for each image.

An image is held as levels f32[H, W, C], whole numbers from 0 to 255. Under `vmap` every branch of a
choice would be computed, so all operations are parameters of four stages that always run: a warp, a
table of levels, a blend with grey, and a blend with a smoothed image. The definitions are those of
Pillow 13 as torchvision calls it; results agree with it up to one level where it computes in
double precision, and but for ties of positions in rotations.
"""

import jax
import jax.numpy as jnp

from ldl_jax.augment.operations import geometry, levels
from ldl_jax.contract import Array

NAMES = (
    *geometry.NAMES,  # identity, shear_x, shear_y, translate_x, translate_y, rotate
    *levels.NAMES,  # brightness, contrast, posterize, solarize, invert, autocontrast, equalize
    "color",
    "sharpness",
)
SIGNED = frozenset(geometry.NAMES[1:]) | {"brightness", "contrast", "color", "sharpness"}


def number(name: str) -> int:
    """The number by which `apply` knows an operation."""
    return NAMES.index(name)


def to_levels(image: Array) -> Array:
    """Levels of an image of bytes, or in [0, 1] and rounded."""
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32)
    return jnp.round(255 * jnp.clip(image.astype(jnp.float32), 0, 1))


def to_image(pixels: Array, dtype) -> Array:
    """The image of levels: bytes, or in [0, 1]."""
    return pixels.astype(dtype) if dtype == jnp.uint8 else pixels.astype(dtype) / 255


def apply(pixels: Array, operation: Array, magnitude: Array, *, bilinear: bool = False) -> Array:
    """Apply an operation to levels f32[H, W, C].

    operation: i32[], its `number`. magnitude: f32[]: shear, or pixels (whole) to the right or down,
    or degrees counter-clockwise; of blends the factor - 1; bits that posterize keeps; level from
    which solarize inverts. bilinear: interpolate when warping, as AugMix does, instead of taking the
    nearest pixel.
    """
    magnitude = jnp.asarray(magnitude, jnp.float32)
    warp = geometry.bilinear if bilinear else geometry.nearest
    pixels = warp(pixels, geometry.matrix(operation, magnitude, pixels.shape))
    pixels = levels.look_up(pixels, operation - len(geometry.NAMES), magnitude)
    for name, base in (("color", levels.grey), ("sharpness", levels.smoothed)):
        chosen = operation == number(name)
        # A blend with the factor 1 is exactly the image.
        pixels = levels.blend(base(pixels), pixels, jnp.where(chosen, magnitude, 0))
    return pixels


def draw_signs(key, signed: Array) -> Array:
    """1, or -1 with probability 1/2 where an operation is signed: f32 of the shape of `signed`."""
    negative = signed & jax.random.bernoulli(key, shape=signed.shape)
    return jnp.where(negative, jnp.float32(-1), jnp.float32(1))
