"""MaxSup: the largest logit is pulled towards the mean of the logits."""

import math

import jax.numpy as jnp

from ldl_jax.auxiliary.base import check, confidence, counted_logits, gaps, masked_mean
from ldl_jax.contract import Auxiliary, Build


def make(
    build: Build,
    *,
    weight: float = 0.1,  # weight of the term in the first epoch
    end_factor: float = 2.0,  # factor of the weight in the last epoch, at least 0; linear between
) -> Auxiliary:
    """Max suppression: the mean over the batch of max_k z_k - mean_k z_k, for logits z [B, K] (Zhou
    et al. 2025).

    The weight rises by epoch from `weight` to `end_factor` times that, as e / (E - 1) in the
    published programs for long-tailed and corrupted images; the one for ImageNet has e / E. Of tied
    logits, the first gets the gradient. An impossible class (logit -inf) is left out of the mean.

    It looks at the logits alone, so it needs no label: label distributions of any source and mixed
    images change nothing. Raises ValueError if end_factor is negative or not finite.
    """
    finite = 0 <= end_factor < math.inf
    check(finite, "maxsup.end_factor", "finite and at least 0", end_factor)
    last_epoch = max(math.ceil(build.total_steps / build.steps_per_epoch) - 1, 1)

    def loss(params, state, batch, outputs, targets):
        del params, targets
        logits = counted_logits(outputs, batch)
        possible = jnp.sum(logits > -jnp.inf, axis=-1)
        excess = jnp.sum(gaps(confidence(logits), logits), axis=-1) / possible
        epoch = batch.step // build.steps_per_epoch
        progress = jnp.minimum(epoch.astype(logits.dtype) / last_epoch, 1)
        return (1 + (end_factor - 1) * progress) * masked_mean(excess, batch), state

    return Auxiliary(loss, weight=weight)
