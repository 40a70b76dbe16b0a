"""RegMixup: cross entropy on a mixup of the batch, beside that on the batch itself."""

from ldl_jax.auxiliary.base import mixup_term
from ldl_jax.contract import Auxiliary, Build


def make(
    build: Build,
    *,
    weight: float = 1.0,  # weight of the mixed half, relative to that of the clean half
    alpha: float = 20.0,  # parameter of Beta(alpha, alpha), from which the share is drawn, > 0
) -> Auxiliary:
    """RegMixup: the loss of a mixup of the batch, with one share for the batch, is added to that of
    the batch (Pinto et al. 2022).

    loss = mean_i l(z(x_i), q_i) + weight mean_i l(z(s x_i + (1 - s) x_j), s q_i + (1 - s) q_j),
    where l is the configured criterion, q the label source's distributions and j the neighbour in
    the shuffled batch. Every term of the label source is mixed, with its weight and temperature; a
    teacher's predictions of the clean images are mixed too. Logits f32[2, B, K]: view 0 is the
    batch, view 1 its mixup. A pair with a masked image does not count.

    The paper's loss has weight 1. Its code takes one mean over the 2B images, so each half weighs
    1/2: set labels.name='blend', labels.blend.parts=('hard',) and labels.blend.weights=(0.5,), a
    weight that the mixed half inherits. Published: alpha 20 on CIFAR-10, 10 on CIFAR-100. One
    forward passes both halves, so the statistics of BatchNorm are those of 2B images, as published.

    Raises ValueError if alpha is not above 0 or the run mixes images itself.
    """
    return mixup_term(build, "regmixup", weight=weight, alpha=alpha, per_example=False)
