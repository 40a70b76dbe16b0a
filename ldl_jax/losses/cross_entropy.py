"""Cross entropy with a distribution."""

from collections.abc import Callable

from ldl_jax.losses.base import cross_entropy


def make() -> Callable:
    """Cross entropy -sum_k q_k log p_k; its gradient is that of the KL divergence."""
    return cross_entropy
