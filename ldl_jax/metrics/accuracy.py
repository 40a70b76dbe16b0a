"""Shares of examples whose label is the first, or among the first five, of the network's ranking."""

import jax.numpy as jnp

from ldl_jax.metrics.base import Metric, Shown, count, masked_sum

SHOWN = {
    "accuracy": Shown("accuracy", "%", 2, "accuracy", 0, "higher"),
    "top5": Shown("top-5", "%", 2, "accuracy", 1, "higher"),
}


def make(num_classes: int) -> Metric:
    """Accuracy (top-1) and, above 5 classes, top-5; among equal logits the lower class number ranks
    first.

    A label whose logit is NaN is never hit.
    """

    def sums(logits, seen):
        # logarithms of near probabilities may tie
        scores = logits if seen.probs is None else seen.probs
        own = jnp.take_along_axis(scores, seen.label[:, None], axis=-1)
        not_lower = jnp.arange(num_classes) >= seen.label[:, None]
        behind = (scores < own) | ((scores == own) & not_lower)  # nothing is behind a NaN
        rank = num_classes - jnp.sum(behind, axis=-1)
        hits = {
            f"top{k}": masked_sum((rank < k).astype(jnp.float32), seen)
            for k in (1, 5)
            if k == 1 or num_classes > k
        }
        return {"n": count(seen), **hits}

    def value(sums):
        shares = {name: total / sums["n"] for name, total in sums.items() if name != "n"}
        return {"n": sums["n"], "accuracy": shares.pop("top1"), **shares}

    return Metric(sums, value)
