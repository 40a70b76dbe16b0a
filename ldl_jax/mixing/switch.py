"""mixup or CutMix, drawn for each batch."""

import math
from functools import partial

import jax
import jax.numpy as jnp

from ldl_jax.mixing.base import Mixer, cutmix, draw_shape, mixup


def make(
    *,
    mixup_alpha: float = 0.8,  # parameter of mixup's Beta(alpha, alpha), > 0
    cutmix_alpha: float = 1.0,  # parameter of CutMix's Beta(alpha, alpha), > 0
    cutmix_share: float = 0.5,  # probability that a mixed batch (or example) gets CutMix, [0, 1]
    probability: float = 1.0,  # probability that a batch (or example) is mixed, [0, 1]
    per_example: bool = False,  # draw for each example (False: once for the batch)
) -> Mixer:
    """mixup or CutMix with a probability each, as in recent recipes for ImageNet (timm's `Mixup` with
    its defaults; Touvron et al. 2021, DeiT).

    Raises ValueError if an option is out of range.
    """
    if not 0 <= cutmix_share <= 1:
        raise ValueError(f"config.mixing.switch.cutmix_share must be in [0, 1], got {cutmix_share}")
    for name, alpha in (("mixup", mixup_alpha), ("cutmix", cutmix_alpha)):
        if not 0 < alpha < math.inf:
            raise ValueError(
                f"config.mixing.switch.{name}_alpha must be above 0 and finite, got {alpha}"
            )
    if not 0 <= probability <= 1:
        raise ValueError(f"config.mixing.switch.probability must be in [0, 1], got {probability}")
    options = {"probability": probability, "per_example": per_example}
    blend = partial(mixup, alpha=mixup_alpha, **options)
    paste = partial(cutmix, alpha=cutmix_alpha, **options)

    def mix(key, image):
        switch_key, blend_key, paste_key = jax.random.split(key, 3)
        size = image.shape[1]
        draw = jax.random.uniform(switch_key, draw_shape(size, per_example)) < cutmix_share
        boxed = jnp.broadcast_to(draw, (size,))
        blended, partner, blended_share = blend(blend_key, image)
        pasted, _, pasted_share = paste(paste_key, image)
        mixed = jnp.where(boxed[:, None, None, None], pasted, blended)
        return mixed, partner, jnp.where(boxed[:, None], pasted_share, blended_share)

    return Mixer(mix, probability, 2)
