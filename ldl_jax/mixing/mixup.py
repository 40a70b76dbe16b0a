"""mixup: weighted sums of two images."""

import jax
import jax.numpy as jnp

from ldl_jax.mixing.base import Mixer, blend_images, check_shares, draw_shape, partners, precision


def make(
    *,
    alpha: float = 1.0,  # parameter of Beta(alpha, alpha), from which the share is drawn, > 0
    probability: float = 1.0,  # probability that a batch (or example) is mixed, [0, 1]
    per_example: bool = False,  # draw a share for each example (False: one for the batch)
) -> Mixer:
    """mixup: weighted sums of two images, with shares from Beta(alpha, alpha) (Zhang et al. 2018,
    equation 1).

    Raises ValueError if an option is out of range.
    """
    check_shares("mixup", alpha, probability)

    def mix(key, image):
        size = image.shape[1]
        shape = draw_shape(size, per_example)
        share_key, use_key = jax.random.split(key)
        share = jax.random.beta(share_key, alpha, alpha, shape, jnp.float32)
        # An image that is not mixed has share 1 of itself, so that the program is the same.
        share = jnp.where(jax.random.uniform(use_key, shape) < probability, share, 1)
        share = jnp.broadcast_to(share, (size,)).astype(precision(image))
        return blend_images(image, share), partners(size, 2), jnp.stack([share, 1 - share], axis=1)

    return Mixer(mix, probability, 2)
