"""Shears, translations and rotations of an image of levels f32[H, W, C]; 0 outside of it.

A matrix (a, b, c, d, e, f) maps the centre (x, y) of a pixel of the result to the position
(a x + b y + c, d x + e y + f) in the image.
"""

import jax.numpy as jnp

from ldl_jax.contract import Array

NAMES = ("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate")


def matrix(operation: Array, magnitude: Array, shape) -> Array:
    """The matrix f32[6] of an operation, i32[] in the order of NAMES; others are the identity.

    Shears are about the upper left corner, rotations about the centre, as in torchvision.
    """
    height, width = shape[:2]
    m = magnitude.astype(jnp.float32)
    moved = jnp.trunc(m)
    angle = jnp.deg2rad(-m)
    cos = jnp.cos(angle)
    sin = jnp.sin(angle)
    x = width / 2
    y = height / 2
    rotated = (cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y)
    rows = (
        (1, 0, 0, 0, 1, 0),
        (1, m, 0, 0, 1, 0),
        (1, 0, 0, m, 1, 0),
        (1, 0, -moved, 0, 1, 0),
        (1, 0, 0, 0, 1, -moved),
        rotated,
    )
    table = jnp.stack([jnp.stack([jnp.float32(entry) for entry in row]) for row in rows])
    return table[jnp.where(operation < len(NAMES), operation, 0)]


def _positions(matrix: Array, shape) -> tuple[Array, Array]:
    """Positions (x, y) in the image, f32[H, W] each, of the centres of the result's pixels."""
    a, b, c, d, e, f = matrix
    x = jnp.arange(shape[1], dtype=jnp.float32) + 0.5
    y = jnp.arange(shape[0], dtype=jnp.float32)[:, None] + 0.5
    return a * x + b * y + c, d * x + e * y + f


def _take(pixels: Array, column: Array, row: Array) -> Array:
    """The pixels f32[H, W, C] at whole positions i32[H, W], the nearest ones inside the image."""
    height, width, channels = pixels.shape
    at = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
    return pixels.reshape(-1, channels)[at]


def nearest(pixels: Array, matrix: Array) -> Array:
    """The warped image, of the nearest pixels."""
    x, y = _positions(matrix, pixels.shape)
    column = jnp.floor(x).astype(jnp.int32)
    row = jnp.floor(y).astype(jnp.int32)
    inside = (column >= 0) & (column < pixels.shape[1]) & (row >= 0) & (row < pixels.shape[0])
    return jnp.where(inside[..., None], _take(pixels, column, row), 0)


def bilinear(pixels: Array, matrix: Array) -> Array:
    """The warped image, interpolated between four pixels and truncated to whole levels."""
    height, width, _ = pixels.shape
    x, y = _positions(matrix, pixels.shape)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    # Less than half a pixel from the edge, the image continues with its last pixels.
    left = jnp.floor(x - 0.5)
    top = jnp.floor(y - 0.5)
    right_share = (x - 0.5 - left)[..., None]
    lower_share = (y - 0.5 - top)[..., None]
    left = left.astype(jnp.int32)
    top = top.astype(jnp.int32)

    def row(at):
        first = _take(pixels, left, at)
        return first + right_share * (_take(pixels, left + 1, at) - first)

    upper = row(top)
    mixed = upper + lower_share * (row(top + 1) - upper)
    return jnp.where(inside[..., None], jnp.trunc(mixed), 0)
