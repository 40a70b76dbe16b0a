"""CutMix: paste a box of another image."""

import jax
import jax.numpy as jnp

from ldl_jax.mixing.base import Mixer, check_shares, draw_shape, partners, paste_box


def make(
    *,
    alpha: float = 1.0,  # parameter of Beta(alpha, alpha), from which the kept area is drawn, > 0
    probability: float = 1.0,  # probability that a batch (or example) is mixed, [0, 1]
    per_example: bool = False,  # draw a box for each example (False: one for the batch)
) -> Mixer:
    """CutMix: paste a box of another image; shares are corrected for clipping (Yun et al. 2019,
    algorithm 1).

    Raises ValueError if an option is out of range.
    """
    check_shares("cutmix", alpha, probability)

    def mix(key, image):
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

    return Mixer(mix, probability, 2)
