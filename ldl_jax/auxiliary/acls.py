"""Adaptive and conditional label smoothing: large logits and far smaller ones cost something."""

import math

import jax
import jax.numpy as jnp

from ldl_jax.auxiliary.base import check, confidence, counted_logits, gaps, masked_mean
from ldl_jax.contract import Auxiliary, Build


def make(
    build: Build,
    *,
    weight: float = 0.1,  # weight of the part for the largest logit
    others: float = 0.1,  # weight of the part for the other logits, relative to `weight`
    margin: float = 10.0,  # largest logit, and gap to it, that cost nothing; at least 0
) -> Auxiliary:
    """ACLS: relu(z_m - margin)^2 + others mean_{j != m} relu(sg(z_m) - z_j - margin)^2, averaged over
    the batch, where z_m is the largest of the logits [B, K] and sg stops the gradient (Park et al.
    2023, as in the published program).

    The logit itself is bounded, so a constant added to all logits changes the loss. Logits that
    equal the largest each count in the first part, whose gradient goes to the first of them. An
    impossible class (logit -inf) costs nothing.

    It looks at the logits alone, so it needs no label: label distributions of any source and mixed
    images change nothing. Raises ValueError if an option is negative or not finite.
    """
    given = {"others": others, "margin": margin}
    for option, value in given.items():
        check(0 <= value < math.inf, f"acls.{option}", "finite and at least 0", value)
    number = max(build.num_classes - 1, 1)

    def loss(params, state, batch, outputs, targets):
        del params, targets
        logits = counted_logits(outputs, batch)
        largest = confidence(logits)
        is_largest = logits == largest[:, None]
        high = is_largest.sum(-1) * jax.nn.relu(largest - margin) ** 2
        low = jax.nn.relu(gaps(jax.lax.stop_gradient(largest), logits) - margin) ** 2
        low = jnp.sum(jnp.where(is_largest, 0, low), axis=-1) / number
        return masked_mean(high + others * low, batch), state

    return Auxiliary(loss, weight=weight)
