"""Entropy of the predictions."""

import jax
import jax.numpy as jnp

from ldl_jax.metrics.base import Metric, Shown, count, masked_sum

SHOWN = {
    "entropy": Shown("mean entropy", "nat", 4, "calibration", 1, ""),
}


def make(num_classes: int) -> Metric:
    """Mean entropy of the probabilities, in nat, from 0 (certain) to ln K (uniform)."""
    del num_classes

    def sums(logits, seen):
        log_p = jax.nn.log_softmax(logits)
        # A probability of 0 must add 0, not 0 x -inf = NaN.
        entropy = -jnp.sum(jnp.exp(log_p) * jnp.maximum(log_p, jnp.finfo(log_p.dtype).min), -1)
        return {"n": count(seen), "entropy": masked_sum(entropy, seen)}

    return Metric(sums, lambda sums: {"entropy": sums["entropy"] / sums["n"]})
