"""CutMix: a box of another image."""

import jax
import jax.numpy as jnp

from ldl_jax.mixing.base import Mixer, check_shares, draw_shape, partners, paste_box


def make(
    *,
    alpha: float = 1.0,  # of Beta(alpha, alpha), from which the box's size is drawn, > 0
    probability: float = 1.0,  # share of the batches (or examples) that are mixed, [0, 1]
    per_example: bool = False,  # False: one box for the batch; True: one for each example
) -> Mixer:
    """CutMix: a box of another image; its share is corrected for clipping (Yun et al. 2019,
    algorithm 1).
    """
    check_shares("cutmix", alpha, probability)

    def mix(key, image):
        _, size, height, width, _ = image.shape
        shape = draw_shape(size, per_example)
        draw, touch, where = jax.random.split(key, 3)
        side = jnp.sqrt(1 - jax.random.beta(draw, alpha, alpha, shape, jnp.float32))
        side = jnp.where(jax.random.uniform(touch, shape) < probability, side, 0)
        extent = jnp.asarray([height, width])
        half = (side[:, None] * extent).astype(jnp.int32) // 2
        centre = jax.random.randint(where, (*shape, 2), 0, extent)
        start, stop = jnp.clip(centre - half, 0, extent), jnp.clip(centre + half, 0, extent)
        box = jnp.broadcast_to(jnp.stack([start, stop], axis=2).reshape(-1, 4), (size, 4))
        mixed, share = paste_box(image, box)
        return mixed, partners(size, 2), jnp.stack([share, 1 - share], axis=1)

    return Mixer(mix, probability, 2)
