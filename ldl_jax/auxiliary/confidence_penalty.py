"""Confidence penalty: predictions of low entropy cost something."""

import jax
import jax.numpy as jnp

from ldl_jax.auxiliary.base import counted_logits, masked_mean
from ldl_jax.contract import Auxiliary, Build
from ldl_jax.losses.base import expectation


def make(
    build: Build,
    *,
    weight: float = 0.1,  # weight of the negative entropy
) -> Auxiliary:
    """Minus the entropy, sum_k p_k log p_k, of the predictions p [B, K], averaged over the batch
    (Pereyra et al. 2017). At most 0, so the total loss may be negative.

    The program of MbLS, where this is a baseline, also divides by the number of classes: a weight of
    w there is w / K here.

    It looks at the predictions alone, so it needs no label: label distributions of any source and
    mixed images change nothing.
    """
    del build

    def loss(params, state, batch, outputs, targets):
        del params, targets
        log_p = jax.nn.log_softmax(counted_logits(outputs, batch))
        return masked_mean(expectation(jnp.exp(log_p), log_p), batch), state

    return Auxiliary(loss, weight=weight)
