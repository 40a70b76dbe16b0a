"""mixup: weighted sums of two images."""

from functools import partial

from ldl_jax.mixing.base import Mixer, check_shares, mixup


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

    options = {"alpha": alpha, "probability": probability, "per_example": per_example}
    return Mixer(partial(mixup, **options), probability, 2)
