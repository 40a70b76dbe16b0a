"""Margin-based label smoothing: logits that are far below the largest one cost something."""

import math

import jax
import jax.numpy as jnp

from ldl_jax.auxiliary.base import check, confidence, counted_logits, gaps, masked_mean
from ldl_jax.contract import Auxiliary, Build


def make(
    build: Build,
    *,
    weight: float = 0.1,  # weight of the penalty
    margin: float = 10.0,  # gap to the largest logit that costs nothing, at least 0
) -> Auxiliary:
    """MbLS: the mean over examples and classes of relu(max_k z_k - z_j - margin), for logits z
    [B, K] (Liu et al. 2022).

    Of tied logits, the first gets the gradient of the largest. An impossible class (logit -inf)
    costs nothing.

    It looks at the logits alone, so it needs no label: label distributions of any source and mixed
    images change nothing. Raises ValueError if margin is negative or not finite.
    """
    del build
    check(0 <= margin < math.inf, "mbls.margin", "finite and at least 0", margin)

    def loss(params, state, batch, outputs, targets):
        del params, targets
        logits = counted_logits(outputs, batch)
        excess = jax.nn.relu(gaps(confidence(logits), logits) - margin)
        return masked_mean(jnp.mean(excess, axis=-1), batch), state

    return Auxiliary(loss, weight=weight)
