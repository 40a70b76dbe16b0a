"""Generalized cross entropy, between cross entropy and the absolute error."""

from collections.abc import Callable

import jax.numpy as jnp

from ldl_jax.losses.base import check, expectation, log_softmax


def make(
    *,
    q: float = 0.7,  # exponent of p, (0, 1]; towards 0 cross entropy, at 1 the absolute error
) -> Callable:
    """Generalized cross entropy sum_k t_k (1 - p_k^q) / q for a target distribution t.

    f32[B] from [B, K]. For a label it is (1 - p_y^q) / q (Zhang and Sabuncu 2018, without
    truncation); for a distribution it is the average over the labels, so under mixing the parts add
    up. Bounded: a share t_k of an impossible class costs t_k / q, without a gradient.

    Raises ValueError if q is not in (0, 1].
    """
    check(0 < q <= 1, "gce.q", "in (0, 1]", q)

    def gce(logits, probs):
        # expm1 keeps its digits where p^q is near 1.
        return -expectation(probs, jnp.expm1(q * log_softmax(logits))) / q

    return gce
