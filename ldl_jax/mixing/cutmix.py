"""CutMix: paste a box of another image."""

from functools import partial

from ldl_jax.mixing.base import Mixer, check_shares, cutmix


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

    options = {"alpha": alpha, "probability": probability, "per_example": per_example}
    return Mixer(partial(cutmix, **options), probability, 2)
