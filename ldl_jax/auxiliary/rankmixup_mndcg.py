"""RankMixup with M-NDCG: confidences of an image and its mixups are to be ranked by their shares."""

import jax
import jax.numpy as jnp

from ldl_jax.auxiliary.base import (
    check_mixup,
    confidence,
    counted_pairs,
    largest_share,
    masked_mean,
    mixup_numbers,
    mixup_views,
)
from ldl_jax.contract import Auxiliary, Build

MOST = 63  # mixups; each is a pass through the network


def make(
    build: Build,
    *,
    weight: float = 0.1,  # weight of the ranking loss
    mixes: int = 3,  # mixups of each image, 1 to 63
    alpha: float = 2.0,  # parameter of Beta(alpha, alpha), from which shares are drawn, > 0
) -> Auxiliary:
    """M-NDCG: 1 - min(DCG / IDCG, IDCG / DCG) of each image and its mixups (Noh et al. 2023).

    DCG = sum_r c_r / log2(r + 1) over r = 1, ..., 1 + mixes. c_1 is the largest probability of the
    clean image; the others are those of its mixups, in the order of the largest entry of the mixed
    one-hot label: max(s, 1 - s), or 1 for two images of one class (so the order is not that of s;
    ties keep the order in which they were drawn). IDCG has 1 and these entries in place of c. The
    gradient flows through DCG alone.

    Logits f32[1 + mixes, B, K]: view 0 is the batch, view m its mixup with the batch rolled by m,
    each with one share for the batch. The criterion sees the clean images alone. Only hard labels
    are used, not the label source's distributions. An image with a masked partner does not count.

    Published: alpha 2 on CIFAR-10, 1 on Tiny ImageNet. The published code passes the clean batch and
    the mixups in two forwards and mixes with random permutations; here it is one forward, with the
    statistics of BatchNorm of all views.

    Raises ValueError if an option is out of range or the run mixes images itself.
    """
    check_mixup("rankmixup_mndcg", build, alpha)
    if not 1 <= mixes <= MOST:
        raise ValueError(
            f"config.auxiliary.rankmixup_mndcg.mixes must be between 1 and {MOST}, got {mixes}"
        )

    def views(key, image):
        return mixup_views(key, image, mixes, alpha=alpha)

    def loss(params, state, batch, outputs, targets):
        del params, targets
        partner, share = mixup_numbers(batch.key, outputs.logits[0], mixes, alpha=alpha)
        found = confidence(jax.nn.softmax(outputs.logits)).T
        largest = largest_share(batch, partner, share)
        order = jnp.argsort(-largest, axis=1)
        ranked = jnp.take_along_axis(found[:, 1:], order, axis=1)
        ideal = jnp.take_along_axis(largest, order, axis=1)
        discount = jnp.log2(jnp.arange(2, mixes + 3, dtype=found.dtype))
        gain = found[:, 0] / discount[0] + jnp.sum(ranked / discount[1:], axis=1)
        ideal_gain = 1 / discount[0] + jnp.sum(ideal / discount[1:], axis=1)
        # Both are positive, since a largest probability is at least 1 / K.
        ratio = jnp.where(ideal_gain > gain, gain / ideal_gain, ideal_gain / gain)
        return masked_mean(1 - ratio, counted_pairs(batch, partner)), state

    return Auxiliary(loss, views=views, weight=weight)
