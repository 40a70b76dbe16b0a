"""RICAP: crops of four images joined into one."""

import jax
import jax.numpy as jnp

from ldl_jax.mixing.base import Mixer, check_shares, draw_shape, partners, patch_four


def make(
    *,
    alpha: float = 0.3,  # parameter of Beta(alpha, alpha), from which lines are drawn, > 0
    probability: float = 1.0,  # probability that a batch (or example) is mixed, [0, 1]
    per_example: bool = False,  # draw lines for each example (False: one pair for the batch)
) -> Mixer:
    """RICAP: crops of four images joined into one (Takahashi et al. 2018, section 3).

    Raises ValueError if an option is out of range.
    """
    check_shares("ricap", alpha, probability)

    def mix(key, image):
        _, size, height, width, _ = image.shape
        shape = draw_shape(size, per_example)
        line_key, use_key, offset_key = jax.random.split(key, 3)
        extent = jnp.asarray([height, width])
        ratio = jax.random.beta(line_key, alpha, alpha, (*shape, 2), jnp.float32)
        split = jnp.round(extent * ratio).astype(jnp.int32)
        # An image that is not mixed fills the upper left patch, so that the program is the same.
        split = jnp.where(jax.random.uniform(use_key, shape)[:, None] < probability, split, extent)
        first = split[:, None, :]
        second = (extent - split)[:, None, :]
        corner = jnp.asarray([[0, 0], [0, 1], [1, 0], [1, 1]])
        slack = extent - jnp.where(corner == 0, first, second)  # [., 4, 2]: largest shift of a crop
        offset = jax.random.randint(offset_key, slack.shape, 0, slack + 1)
        split = jnp.broadcast_to(split, (size, 2))
        offset = jnp.broadcast_to(offset, (size, 4, 2))
        mixed, share = patch_four(image, split, offset)
        return mixed, partners(size, 4), share

    return Mixer(mix, probability, 4)
