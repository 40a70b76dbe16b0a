"""RICAP: crops of four images joined in one."""

import jax
import jax.numpy as jnp

from ldl_jax.mixing.base import Mixer, check_shares, draw_shape, partners, patch_four


def make(
    *,
    alpha: float = 0.3,  # of Beta(alpha, alpha), from which the dividing lines are drawn, > 0
    probability: float = 1.0,  # share of the batches (or examples) that are mixed, [0, 1]
    per_example: bool = False,  # False: one pair of lines for the batch; True: one for each example
) -> Mixer:
    """RICAP: crops of four images joined in one (Takahashi et al. 2018, section 3)."""
    check_shares("ricap", alpha, probability)

    def mix(key, image):
        _, size, height, width, _ = image.shape
        shape = draw_shape(size, per_example)
        draw, touch, where = jax.random.split(key, 3)
        extent = jnp.asarray([height, width])
        split = jnp.round(
            extent * jax.random.beta(draw, alpha, alpha, (*shape, 2), jnp.float32)
        ).astype(jnp.int32)
        split = jnp.where(jax.random.uniform(touch, shape)[:, None] < probability, split, extent)
        first, second = split[:, None, :], (extent - split)[:, None, :]
        corner = jnp.asarray([[0, 0], [0, 1], [1, 0], [1, 1]])
        # [., 4, 2]: how far a crop may be shifted
        room = extent - jnp.where(corner == 0, first, second)
        offset = jax.random.randint(where, room.shape, 0, room + 1)
        split, offset = (jnp.broadcast_to(x, (size, *x.shape[1:])) for x in (split, offset))
        mixed, share = patch_four(image, split, offset)
        return mixed, partners(size, 4), share

    return Mixer(mix, probability, 4)
