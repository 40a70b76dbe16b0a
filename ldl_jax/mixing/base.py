"""Shared parts of mixing methods: images mixed by given shares, boxes and patches, in all views
alike.

A mixer's partners are rolls of the batch: batches are shuffled already, and a roll by one moves one
image per device. The functions here also take other partners, as `partner` i32[B, M]: positions in
the batch, with the own one in column 0. Letters: V views, B batch, M images mixed into one.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ldl_jax.contract import Array


class Mixer(NamedTuple):
    """A mixing method."""

    mix: Callable  # (key, image[V, B, H, W, C]) -> (image, partner i32[B, M], share f32[B, M])
    probability: float  # share of the batches (or examples) that are mixed
    ways: int  # M, number of images mixed into one


def precision(image: Array):
    """The type of shares: the image's, but at least float32, so that the shares of a row sum to 1
    in the type of the step.
    """
    return jnp.promote_types(image.dtype, jnp.float32)


def partners(size: int, ways: int) -> Array:
    """Positions of the images to mix, i32[size, ways]: column m is the batch rolled by m."""
    return (jnp.arange(size)[:, None] - jnp.arange(ways)[None, :]) % size


def _partner_image(image: Array, partner: Array | None, column: int) -> Array:
    """The images [V, B, H, W, C] of a column of partners, or of the batch rolled by `column`."""
    return jnp.roll(image, column, axis=1) if partner is None else image[:, partner[:, column]]


def blend_images(
    image: Array, share: Array, partner: Array | None = None, column: int = 1
) -> Array:
    """Weighted sums of two images, share image + (1 - share) partner: [V, B, H, W, C].

    share: f32[B]. partner: i32[B, M], whose `column` is the other image; None for the batch rolled
    by `column`.
    """
    share = share.astype(image.dtype)[:, None, None, None]
    return share * image + (1 - share) * _partner_image(image, partner, column)


def paste_box(image: Array, box: Array, partner: Array | None = None) -> tuple[Array, Array]:
    """Paste a box of another image: mixed images [V, B, H, W, C], and the share [B] of the own
    image, float32 or better.

    box: i32[B, 4], (top, bottom, left, right): rows top <= y < bottom and columns left <= x < right
    of the image. partner: i32[B, 2], whose column 1 is the other image; None for the batch rolled
    by one.
    """
    height, width = image.shape[2:4]
    top, bottom, left, right = jnp.split(box, 4, axis=1)
    y = jnp.arange(height)
    x = jnp.arange(width)
    # A mask instead of slices, since the boxes differ in size from image to image.
    in_rows = (y >= top) & (y < bottom)
    in_columns = (x >= left) & (x < right)
    inside = in_rows[:, :, None] & in_columns[:, None, :]
    area = ((bottom - top) * (right - left))[:, 0]
    mixed = jnp.where(inside[..., None], _partner_image(image, partner, 1), image)
    return mixed, 1 - area.astype(precision(image)) / (height * width)


def patch_four(
    image: Array, split: Array, offset: Array, partner: Array | None = None
) -> tuple[Array, Array]:
    """Join patches of four images: image [V, B, H, W, C] and shares [B, 4], float32 or better.

    split: i32[B, 2], height and width of the upper left patch. The patches are in the order upper
    left, upper right, lower left, lower right, from the columns of partner i32[B, 4]; None for the
    batch rolled by 0, 1, 2, 3. offset: i32[B, 4, 2], row and column of each crop in its image.
    """
    height, width = image.shape[2:4]
    size = jnp.asarray([height, width])
    is_lower = (jnp.arange(height) >= split[:, :1])[:, :, None]
    is_right = (jnp.arange(width) >= split[:, 1:])[:, None, :]

    def pixels(length, start, shift):
        """The row or column of the crop's image behind each one of the mixed image."""
        return jnp.clip(jnp.arange(length) - start[:, None] + shift[:, None], 0, length - 1)

    take = jax.vmap(
        lambda views, rows, columns: views[:, rows][:, :, columns], in_axes=(1, 0, 0), out_axes=1
    )
    mixed = jnp.zeros_like(image)
    shares = []
    for patch in range(4):
        row, column = divmod(patch, 2)
        corner = jnp.asarray([row, column])
        start = corner * split
        extent = jnp.where(corner == 0, split, size - split)
        # Every crop is taken at full size, since shapes are fixed; the mask keeps its patch.
        rows = pixels(height, start[:, 0], offset[:, patch, 0])
        columns = pixels(width, start[:, 1], offset[:, patch, 1])
        crop = take(_partner_image(image, partner, patch), rows, columns)
        inside = (is_lower == row) & (is_right == column)
        mixed = jnp.where(inside[..., None], crop, mixed)
        shares.append(extent.prod(-1).astype(precision(image)) / (height * width))
    return mixed, jnp.stack(shares, axis=1)


def check_shares(name: str, alpha: float, probability: float) -> None:
    """Raise ValueError if an option that all mixing methods have is out of range."""
    if not 0 < alpha < math.inf:
        raise ValueError(f"config.mixing.{name}.alpha must be above 0 and finite, got {alpha}")
    if not 0 <= probability <= 1:
        raise ValueError(f"config.mixing.{name}.probability must be in [0, 1], got {probability}")


def draw_shape(size: int, per_example: bool) -> tuple[int, ...]:
    """The shape of the draws for a batch of `size`: one for each example, or one for all."""
    return (size if per_example else 1,)


def mixup_shares(key, size: int, *, alpha: float, probability: float, per_example: bool) -> Array:
    """Shares of the own image in mixup, f32[size], from Beta(alpha, alpha)."""
    shape = draw_shape(size, per_example)
    share_key, use_key = jax.random.split(key)
    share = jax.random.beta(share_key, alpha, alpha, shape, jnp.float32)
    # An image that is not mixed has share 1 of itself, so that the program is the same.
    share = jnp.where(jax.random.uniform(use_key, shape) < probability, share, 1)
    return jnp.broadcast_to(share, (size,))


def mixup(key, image: Array, *, alpha: float, probability: float, per_example: bool):
    """What a mixer returns, with shares from Beta(alpha, alpha): see `mixing.mixup`."""
    size = image.shape[1]
    options = {"alpha": alpha, "probability": probability, "per_example": per_example}
    share = mixup_shares(key, size, **options).astype(precision(image))
    return blend_images(image, share), partners(size, 2), jnp.stack([share, 1 - share], axis=1)


def cutmix(key, image: Array, *, alpha: float, probability: float, per_example: bool):
    """What a mixer returns, with kept areas from Beta(alpha, alpha): see `mixing.cutmix`."""
    _, size, height, width, _ = image.shape
    shape = draw_shape(size, per_example)
    share_key, use_key, centre_key = jax.random.split(key, 3)
    side = jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha, shape, jnp.float32))
    # An image that is not mixed gets an empty box, so that the program is the same.
    side = jnp.where(jax.random.uniform(use_key, shape) < probability, side, 0)
    extent = jnp.asarray([height, width])
    half = (side[:, None] * extent).astype(jnp.int32) // 2
    centre = jax.random.randint(centre_key, (*shape, 2), 0, extent)
    start = jnp.clip(centre - half, 0, extent)
    stop = jnp.clip(centre + half, 0, extent)
    box = jnp.broadcast_to(jnp.stack([start, stop], axis=2).reshape(-1, 4), (size, 4))
    mixed, share = paste_box(image, box)
    return mixed, partners(size, 2), jnp.stack([share, 1 - share], axis=1)
