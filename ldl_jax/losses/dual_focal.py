"""Dual focal loss: the exponent acts on the distance to the next smaller probability too."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ldl_jax.losses.base import check, cross_entropy, log_softmax, power, weighted_log


def make(
    *,
    gamma: float = 5.0,  # exponent of (1 - p + next smaller p), >= 0; published: 5 ResNet-50
    detach: bool = False,  # no gradient through the next smaller probability
) -> Callable:
    """Dual focal loss -sum_k q_k (1 - p_k + p_j)^gamma log p_k, where p_j is the largest of the
    probabilities strictly below p_k, 0 if there is none.

    f32[B] from [B, K]. For a label it is the published loss (Tao et al. 2023, whose code sums over
    the batch, where the train step averages); for a distribution it is the average over the labels,
    so under mixing the parts add up. With `detach` it is the DFL-GRA of Lin et al. 2025.

    Raises ValueError if gamma is negative.
    """
    check(gamma >= 0, "dual_focal.gamma", "at least 0", gamma)
    if gamma == 0:
        return cross_entropy

    def dual_focal(logits, probs):
        log_p = log_softmax(logits)
        below = next_smaller(jnp.exp(log_p))
        if detach:
            below = jax.lax.stop_gradient(below)
        # -expm1(log p) is 1 - p without cancellation.
        return weighted_log(probs, power(below - jnp.expm1(log_p), gamma), log_p)

    return dual_focal


def next_smaller(p):
    """For each entry of [B, K] the largest of its row that is strictly smaller, else 0."""
    ranked = jnp.sort(p, axis=-1)
    smaller = jax.vmap(jnp.searchsorted)(*jax.lax.stop_gradient((ranked, p)))
    below = jnp.take_along_axis(ranked, jnp.maximum(smaller - 1, 0), axis=-1)
    return jnp.where(smaller > 0, below, 0)
