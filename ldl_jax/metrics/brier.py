"""Brier score."""

import jax
import jax.numpy as jnp

from ldl_jax.metrics.base import Metric, Shown, count, masked_sum, probs_of

SHOWN = {
    "brier": Shown("Brier", "", 4, "proper scores", 1, "lower"),
}


def make(num_classes: int) -> Metric:
    """Brier score: squared distance of the probabilities from the label, summed over classes, in
    [0, 2].
    """

    def sums(logits, seen):
        off = probs_of(logits, seen) - jax.nn.one_hot(seen.label, num_classes, dtype=logits.dtype)
        return {"n": count(seen), "brier": masked_sum(jnp.sum(off**2, -1), seen)}

    return Metric(sums, lambda sums: {"brier": sums["brier"] / sums["n"]})
