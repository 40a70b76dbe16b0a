"""Operations that change levels f32[H, W, C] where they are: tables of levels, and blends."""

import jax
import jax.numpy as jnp

from ldl_jax.contract import Array

# In the order of the tables that `look_up` chooses from.
NAMES = ("brightness", "contrast", "posterize", "solarize", "invert", "autocontrast", "equalize")
RED, GREEN, BLUE, HALF = 19595, 38470, 7471, 32768  # Pillow's weights of grey, times 2^16


def grey(pixels: Array) -> Array:
    """The grey levels f32[H, W, 1] of an image of three channels, or of one."""
    if pixels.shape[-1] == 1:
        return pixels
    red, green, blue = jnp.moveaxis(pixels.astype(jnp.int32), -1, 0)
    level = (RED * red + GREEN * green + BLUE * blue + HALF) >> 16
    return level[..., None].astype(jnp.float32)


def smoothed(pixels: Array) -> Array:
    """The image smoothed by ones with 5 in the centre, over 13; its border is copied."""
    height, width, _ = pixels.shape
    if min(height, width) < 3:
        return pixels
    total = 4 * pixels[1:-1, 1:-1]
    for row in range(3):
        for column in range(3):
            total += pixels[row : height - 2 + row, column : width - 2 + column]
    # floor(total / 13 + 1/2), in whole numbers
    inner = (2 * total.astype(jnp.int32) + 13) // 26
    return pixels.at[1:-1, 1:-1].set(inner.astype(jnp.float32))


def blend(base: Array, pixels: Array, magnitude: Array) -> Array:
    """base + (1 + magnitude) (pixels - base), truncated to whole levels in [0, 255]."""
    return jnp.trunc(jnp.clip(base + (1 + magnitude) * (pixels - base), 0, 255))


def look_up(pixels: Array, operation: Array, magnitude: Array) -> Array:
    """Each level replaced by its entry in the table of an operation.

    operation: i32[] in the order of NAMES; any other leaves the image as it is.
    """
    level = jnp.arange(256, dtype=jnp.float32)[:, None]
    count = jax.vmap(_histogram, in_axes=-1, out_axes=-1)(pixels.astype(jnp.int32))
    # Pillow rounds the mean to the nearest whole level.
    mean = jnp.floor(grey(pixels).mean() + 0.5)
    step = 2.0 ** (8 - jnp.trunc(magnitude))
    tables = (
        blend(jnp.float32(0), level, magnitude),
        blend(mean, level, magnitude),
        jnp.floor(level / step) * step,
        jnp.where(level < magnitude, level, 255 - level),
        255 - level,
        _autocontrast(count),
        _equalize(count),
        level,
    )
    shape = (256, pixels.shape[-1])
    stacked = jnp.stack([jnp.broadcast_to(table, shape) for table in tables])
    is_known = (operation >= 0) & (operation < len(NAMES))
    table = stacked[jnp.where(is_known, operation, len(NAMES))]
    return jnp.take_along_axis(table, pixels.reshape(-1, shape[1]).astype(jnp.int32), 0).reshape(
        pixels.shape
    )


def _histogram(channel: Array) -> Array:
    """Counts i32[256] of the levels i32[H, W]."""
    return jnp.zeros(256, jnp.int32).at[channel].add(1)


def _autocontrast(count: Array) -> Array:
    """The table f32[256, C] that stretches the levels of each channel to 0 to 255."""
    level = jnp.arange(256)[:, None]
    used = count > 0
    low = jnp.argmax(used, 0)
    high = 255 - jnp.argmax(used[::-1], 0)
    # In whole numbers, so that all devices agree. Pillow's doubles may end one level below.
    stretched = (level - low) * 255 // jnp.maximum(high - low, 1)
    return jnp.where(high > low, jnp.clip(stretched, 0, 255), level).astype(jnp.float32)


def _equalize(count: Array) -> Array:
    """The table f32[256, C] that makes the histogram of each channel as flat as it can be."""
    level = jnp.arange(256)[:, None]
    highest = 255 - jnp.argmax((count > 0)[::-1], 0)
    last = jnp.take_along_axis(count, highest[None], 0)[0]
    step = (count.sum(0) - last) // 255
    below = jnp.cumsum(count, 0) - count
    flat = jnp.clip((step // 2 + below) // jnp.maximum(step, 1), 0, 255)
    return jnp.where(step > 0, flat, level).astype(jnp.float32)


def shift_hue(pixels: Array, shift: Array) -> Array:
    """Levels f32[H, W, 3] with the hue moved by a share of its circle; rounded."""
    highest = pixels.max(-1)
    lowest = pixels.min(-1)
    spread = highest - lowest
    safe = jnp.where(spread > 0, spread, 1)
    red, green, blue = jnp.moveaxis(pixels, -1, 0)
    sector = jnp.where(
        highest == red,
        (green - blue) / safe,
        jnp.where(highest == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = jnp.where(spread > 0, sector / 6, 0) + shift
    # Each channel is a trapezoid of the hue, moved by a third of the circle.
    distance = jnp.abs((6 * hue[..., None] - jnp.asarray([0.0, 2.0, 4.0]) + 3) % 6 - 3)
    strength = jnp.clip(2 - distance, 0, 1)
    return jnp.round(lowest[..., None] + strength * spread[..., None])
