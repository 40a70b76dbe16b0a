"""RankMixup with the ranking loss MRL: a mixed image is to be less confident than its own one."""

import math

import jax

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


def make(
    build: Build,
    *,
    weight: float = 0.1,  # weight of the ranking loss
    margin: float = 2.0,  # by which the clean image's largest logit is to be larger, finite
    alpha: float = 2.0,  # parameter of Beta(alpha, alpha), from which the share is drawn, > 0
    skip_equal: bool = False,  # True: pairs of one class count for nothing (paper); False: as in its code
) -> Auxiliary:
    """Mixup-based ranking loss: relu(max_k z~_k - max_k z_k + margin), where z are the logits of an
    image and z~ those of its mixup (Noh et al. 2023, MRL).

    Logits f32[2, B, K]: view 0 is the batch, view 1 its mixup, with one share for the batch. The
    criterion sees the clean images alone. Only the hard labels say which pairs are of one class;
    the label source's distributions are not used. A pair with a masked image does not count.

    The paper leaves out pairs of one class, with the batch as divisor. In the published code, the
    mask is broadcast, so that the loss is mean(mask) mean(relu): the mean over all pairs, times the
    share of pairs of two classes. That is the default; the two differ by 0.1 % in a recorded case.
    Published: margin 2 and alpha 2 on CIFAR-10, 1 and 1 on Tiny ImageNet. The published code passes
    the two halves in two forwards; here it is one, with the statistics of BatchNorm of 2B images.

    Raises ValueError if an option is out of range or the run mixes images itself.
    """
    check_mixup("rankmixup_mrl", build, alpha)
    if not math.isfinite(margin):
        raise ValueError(f"config.auxiliary.rankmixup_mrl.margin must be finite, got {margin}")

    def views(key, image):
        return mixup_views(key, image, 1, alpha=alpha)

    def loss(params, state, batch, outputs, targets):
        del params, targets
        partner, share = mixup_numbers(batch.key, outputs.logits[0], 1, alpha=alpha)
        counted = counted_pairs(batch, partner)
        clean, mixed = confidence(outputs.logits)
        excess = jax.nn.relu(mixed - clean + margin)
        differs = (largest_share(batch, partner, share)[:, 0] < 1).astype(excess.dtype)
        if skip_equal:
            return masked_mean(differs * excess, counted), state
        return masked_mean(differs, counted) * masked_mean(excess, counted), state

    return Auxiliary(loss, views=views, weight=weight)
