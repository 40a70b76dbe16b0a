"""KL divergence to a distribution."""

from collections.abc import Callable

from ldl_jax.losses.base import kl_divergence


def make() -> Callable:
    """KL divergence sum_k q_k log(q_k / p_k) >= 0: cross entropy minus the target's entropy."""
    return kl_divergence
