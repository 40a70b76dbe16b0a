"""Soft augmentation: the less a crop shows of an image, the softer its label."""

import jax
import jax.numpy as jnp

from ldl_jax.auxiliary.base import KEY, masked_mean
from ldl_jax.contract import Auxiliary, Build
from ldl_jax.losses.base import kl_divergence


def make(
    build: Build,
    *,
    weight: float = 1.0,  # weight of the loss of the cropped image
    spread: float = 0.375,  # standard deviation of a shift, as a share of the image's side, > 0
    power: float = 2.0,  # power of the hidden share by which the label is softened, > 0
) -> Auxiliary:
    """Soft augmentation (Liu et al. 2023): KL divergence from a softened label to the prediction of
    a shifted crop, which shows the share v of the image.

    loss = mean_i p_i KL(q'_i || softmax(z_i)), q' = s q + (1 - s) / K, s = 1 - (1 - v)^power and
    p = s + (1 - s) / K, which for a hard label q is its probability in q': 1 - (1 - 1/K)(1 - v)^power.
    q is the distribution of the label source's first term, after mixing, whatever its weight.

    Shifts are normal, cut off at the side of the image and rounded towards 0; what lies outside has
    the image's mean colour (in the published code, a colour close to the mean of the data). Logits
    f32[2, B, K]: view 0 is the image, view 1 its crop; masked examples do not count.

    The paper trains on crops alone, in place of the crop of `augment.pad`: set augment.pad=0 and
    labels.name='blend' with parts=('hard',), weights=(0.0,). The clean half then still takes part in
    the statistics of BatchNorm. Published: a spread of 12 of 32 pixels and power 2 on CIFAR.

    Raises ValueError if an option is out of range.
    """
    for option, value in (("spread", spread), ("power", power)):
        if not 0 < value < float("inf"):
            raise ValueError(
                f"config.auxiliary.soft_augmentation.{option} must be above 0 and finite, got {value}"
            )

    def shifts(key, size, extent):
        """Rows and columns by which each crop is moved, i32[B, 2]."""
        own_key = jax.random.fold_in(key, KEY)
        draw = jax.random.truncated_normal(own_key, -1 / spread, 1 / spread, (size, 2), jnp.float32)
        return jnp.trunc(spread * draw * jnp.asarray(extent)).astype(jnp.int32)

    def crop(image, shift):
        height, width, _ = image.shape
        rows = jnp.arange(height) + shift[0]
        columns = jnp.arange(width) + shift[1]
        inside = ((rows >= 0) & (rows < height))[:, None] & (columns >= 0) & (columns < width)
        shown = image[jnp.clip(rows, 0, height - 1)][:, jnp.clip(columns, 0, width - 1)]
        return jnp.where(inside[..., None], shown, image.mean((0, 1)))

    def views(key, image):
        return jnp.stack([image, jax.vmap(crop)(image, shifts(key, len(image), image.shape[1:3]))])

    def loss(params, state, batch, outputs, targets):
        logits = outputs.logits[1]
        extent = batch.image.shape[2:4]
        hidden = jnp.abs(shifts(batch.key, len(logits), extent)) / jnp.asarray(extent, logits.dtype)
        kept = 1 - (1 - jnp.prod(1 - hidden, axis=1)) ** power
        soft = kept[:, None] * targets[0].probs + (1 - kept[:, None]) / build.num_classes
        sure = kept + (1 - kept) / build.num_classes
        return masked_mean(sure * kl_divergence(logits, soft), batch), state

    return Auxiliary(loss, views=views, weight=weight)
