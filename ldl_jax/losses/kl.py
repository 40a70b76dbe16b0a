"""KL divergence to a distribution."""

from collections.abc import Callable

from ldl_jax.losses.base import kl_divergence


def make() -> Callable:
    """KL divergence sum_k q_k log(q_k / p_k): cross entropy less the target's entropy, so 0 is the
    best there is.
    """
    return kl_divergence
