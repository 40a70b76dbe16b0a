"""What the ways to mix share: the images of a batch mixed by given shares, boxes and patches, on
all views alike.

A mixer's partners are rolls of the batch: batches are shuffled already, and a roll by one moves one
image a device. The functions that mix take any others as well, by `partner` i32[B, M]: positions in
the batch, column 0 the own one. Letters: V views, B batch, M images mixed into one.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ldl_jax.contract import Array


class Mixer(NamedTuple):
    """How images are mixed, and how many of them."""

    mix: Callable  # (key, image[V, B, H, W, C]) -> (image, partner i32[B, M], share f32[B, M])
    probability: float  # share of the batches (or examples) that are mixed
    ways: int  # M


def precision(image: Array):
    """The type of shares: the image's, float32 at least, so that the shares of a row sum to 1 in
    the step's type.
    """
    return jnp.promote_types(image.dtype, jnp.float32)


def partners(size: int, ways: int) -> Array:
    """Positions of the images mixed together, i32[size, ways]: column m is the batch rolled by m."""
    return (jnp.arange(size)[:, None] - jnp.arange(ways)[None, :]) % size


def _other(image: Array, partner: Array | None, column: int) -> Array:
    """The images [V, B, H, W, C] of one column of partners; None: the batch rolled by its number."""
    return jnp.roll(image, column, axis=1) if partner is None else image[:, partner[:, column]]


def blend_images(image: Array, share: Array, partner: Array | None = None) -> Array:
    """share image + (1 - share) its partner: [V, B, H, W, C], share f32[B]; partner i32[B, 2],
    None: rolled by one.
    """
    share = share.astype(image.dtype)[:, None, None, None]
    return share * image + (1 - share) * _other(image, partner, 1)


def paste_box(image: Array, box: Array, partner: Array | None = None) -> tuple[Array, Array]:
    """Paste a box of another image: image [V, B, H, W, C], and the share [B] of the own image,
    float32 or better.

    box: i32[B, 4], (top, bottom, left, right): rows top <= y < bottom and columns left <= x < right
    of the image. partner: i32[B, 2], whose column 1 says which other image; None: the batch rolled
    by one.
    """
    height, width = image.shape[2:4]
    top, bottom, left, right = (box[:, i, None] for i in range(4))
    y, x = jnp.arange(height), jnp.arange(width)
    inside = ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None, :]
    area = ((bottom - top) * (right - left))[:, 0]
    mixed = jnp.where(inside[..., None], _other(image, partner, 1), image)
    return mixed, 1 - area.astype(precision(image)) / (height * width)


def patch_four(
    image: Array, split: Array, offset: Array, partner: Array | None = None
) -> tuple[Array, Array]:
    """Join patches of four images: image [V, B, H, W, C] and shares [B, 4], float32 or better.

    split: i32[B, 2], height and width of the upper left patch. The patches come in the order upper
    left, upper right, lower left, lower right, from the columns of partner i32[B, 4]; None: the
    batch rolled by 0, 1, 2, 3. offset: i32[B, 4, 2], row and column of each crop in its image.
    """
    size = jnp.asarray(image.shape[2:4])
    low = (jnp.arange(image.shape[2]) >= split[:, :1])[:, :, None]
    right = (jnp.arange(image.shape[3]) >= split[:, 1:])[:, None, :]
    take = jax.vmap(
        lambda one, rows, columns: one[:, rows][:, :, columns], in_axes=(1, 0, 0), out_axes=1
    )
    mixed, shares = jnp.zeros_like(image), []
    for number in range(4):
        corner = jnp.asarray([number // 2, number % 2])
        start, extent = corner * split, jnp.where(corner == 0, split, size - split)
        rows, columns = (
            jnp.clip(jnp.arange(image.shape[2 + axis]) - start[:, axis, None] + offset[:, number, axis, None], 0,
                     image.shape[2 + axis] - 1)
            for axis in range(2)
        )  # fmt: skip
        patch = take(_other(image, partner, number), rows, columns)
        here = (low == (number // 2)) & (right == (number % 2))
        mixed = jnp.where(here[..., None], patch, mixed)
        shares.append(extent.prod(-1).astype(precision(image)) / (image.shape[2] * image.shape[3]))
    return mixed, jnp.stack(shares, axis=1)


def check_shares(name: str, alpha: float, probability: float) -> None:
    """Raise ValueError where the options that all ways to mix have are out of range."""
    if not 0 < alpha < math.inf or not 0 <= probability <= 1:
        raise ValueError(
            f"mixing.{name}: alpha {alpha}, probability {probability}; allowed are alpha > 0 and [0, 1]"
        )


def draw_shape(size: int, per_example: bool) -> tuple[int, ...]:
    """The shape of what is drawn for a batch of `size`: one for each example, or one for all."""
    return (size if per_example else 1,)
