"""AugMix: the image mixed with several chains of operations on it."""

from collections.abc import Callable

from ldl_jax.augment.base import Pixels
from ldl_jax.augment.operations import chains, spaces


def make(
    pixels: Pixels,
    *,
    severity: float = 3.0,  # largest strength of an operation, above 0.1, at most 10
    width: int = 3,  # number of chains, 1 to 10
    depth: int = 0,  # operations in each chain, 0 to 10; 0 for 1 to 3, at random
    alpha: float = 1.0,  # parameter of the Dirichlet and Beta distributions of the shares, above 0
    all_operations: bool = False,  # also four blends, which are among the corruptions of ImageNet-C
) -> Callable:
    """(1 - m) image + m sum_i w_i chain_i(image), with w from Dirichlet(alpha) and m from
    Beta(alpha, alpha) (Hendrycks et al. 2020, algorithm 1).

    With the loss that belongs to it, use the auxiliary loss 'augmix' instead, which compares three
    views. Raises ValueError if an option is out of range.
    """
    spaces.check("augmix", pixels.shape)
    return chains.make(
        "config.augment.augmix",
        severity=severity,
        width=width,
        depth=depth,
        alpha=alpha,
        all_operations=all_operations,
    )
