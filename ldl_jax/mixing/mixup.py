"""mixup: the weighted sum of two images."""

import jax
import jax.numpy as jnp

from ldl_jax.mixing.base import Mixer, blend_images, check_shares, draw_shape, partners, precision


def make(
    *,
    alpha: float = 1.0,  # of Beta(alpha, alpha), from which the share is drawn, > 0
    probability: float = 1.0,  # share of the batches (or examples) that are mixed, [0, 1]
    per_example: bool = False,  # False: one share for the batch; True: one for each example
) -> Mixer:
    """mixup: the sum of two images by shares from Beta(alpha, alpha) (Zhang et al. 2018, equation
    1).
    """
    check_shares("mixup", alpha, probability)

    def mix(key, image):
        size = image.shape[1]
        shape = draw_shape(size, per_example)
        draw, touch = jax.random.split(key)
        share = jax.random.beta(draw, alpha, alpha, shape, jnp.float32)
        share = jnp.where(jax.random.uniform(touch, shape) < probability, share, 1)
        share = jnp.broadcast_to(share, (size,)).astype(precision(image))
        return blend_images(image, share), partners(size, 2), jnp.stack([share, 1 - share], axis=1)

    return Mixer(mix, probability, 2)
