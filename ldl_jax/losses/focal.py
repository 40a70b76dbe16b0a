"""Focal loss, for distributions as well as labels."""

from collections.abc import Callable

import jax.numpy as jnp

from ldl_jax.losses.base import check, cross_entropy, log_softmax, power, weighted_log


def make(
    *,
    gamma: float = 2.0,  # exponent of (1 - p), >= 0; 0 is cross entropy
    schedule: str = "",  # '' for gamma, or 'flsd53' for 5 where p is below 0.2, else 3
) -> Callable:
    """Focal loss -sum_k q_k (1 - p_k)^gamma log p_k (Lin et al. 2017, equation 4, summed over the
    distribution).

    With 'flsd53' (FLSD-53 of Mukhoti et al. 2020) gamma is not used: each class of the distribution
    has the exponent of its own probability, as if it were the label. f32[B] from [B, K]; linear in
    the distribution, so under mixing the parts add up.

    Raises ValueError if gamma is negative or the schedule unknown.
    """
    check(gamma >= 0, "focal.gamma", "at least 0", gamma)
    check(schedule in ("", "flsd53"), "focal.schedule", "'' or 'flsd53'", schedule)
    if gamma == 0 and not schedule:
        return cross_entropy

    def factor(log_p):
        rest = -jnp.expm1(log_p)  # 1 - p without cancellation
        if schedule:
            return jnp.where(jnp.exp(log_p) < 0.2, rest**5, rest**3)
        return power(rest, gamma)

    def focal(logits, probs):
        log_p = log_softmax(logits)
        return weighted_log(probs, factor(log_p), log_p)

    return focal
