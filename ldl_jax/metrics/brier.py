"""Brier score."""

import jax
import jax.numpy as jnp

from ldl_jax.metrics.base import Metric, Shown, count, masked_sum, probs_of

SHOWN = {
    "brier": Shown("Brier", "", 4, "proper scores", 1, "lower"),
}


def make(num_classes: int) -> Metric:
    """Brier score: squared distance of the probabilities to the one-hot label, from 0 to 2.

    Summed over classes, averaged over examples.
    """

    def sums(logits, seen):
        one_hot = jax.nn.one_hot(seen.label, num_classes, dtype=logits.dtype)
        error = probs_of(logits, seen) - one_hot
        return {"n": count(seen), "brier": masked_sum(jnp.sum(error**2, -1), seen)}

    return Metric(sums, lambda sums: {"brier": sums["brier"] / sums["n"]})
