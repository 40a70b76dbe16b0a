"""MixupMP: a network is trained on the data and on pseudo data drawn by mixup."""

from ldl_jax.auxiliary.base import mixup_term
from ldl_jax.contract import Auxiliary, Build


def make(
    build: Build,
    *,
    weight: float = 1.0,  # weight r of the pseudo data, relative to that of the data
    alpha: float = 1.0,  # parameter of Beta(alpha, alpha), from which each share is drawn, > 0
) -> Auxiliary:
    """MixupMP, a sample from a martingale posterior: the loss of a mixup of the batch, with a share
    for each pair, is added to that of the batch (Wu and Williamson 2024).

    loss = mean_i l(z(x_i), q_i) + weight mean_i l(z(s_i x_i + (1 - s_i) x_j), s_i q_i + (1 - s_i) q_j),
    as in `regmixup`, but with a share s_i for each pair. The posterior is an ensemble of runs with
    different seeds. Logits f32[2, B, K]: view 0 is the batch, view 1 its mixup. Distributions,
    weights and temperatures are those of the label source, mixed; a pair with a masked image does
    not count.

    The paper's ratio r is `weight`, 1 by default in its code, which takes one mean over the 2B
    images: each half weighs 1/2. For that loss set labels.name='blend', labels.blend.parts=('hard',)
    and labels.blend.weights=(0.5,), a weight that the mixed half inherits. One forward passes both
    halves, so the statistics of BatchNorm are those of 2B images, as published.

    Raises ValueError if alpha is not above 0 or the run mixes images itself.
    """
    return mixup_term(build, "mixupmp", weight=weight, alpha=alpha, per_example=True)
