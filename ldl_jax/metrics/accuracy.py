"""Accuracy: share of examples whose label ranks first (top-1) or among the first five (top-5)."""

import jax.numpy as jnp

from ldl_jax.metrics.base import Metric, Shown, count, masked_sum

SHOWN = {
    "accuracy": Shown("accuracy", "%", 2, "accuracy", 0, "higher"),
    "top5": Shown("top-5", "%", 2, "accuracy", 1, "higher"),
}


def make(num_classes: int) -> Metric:
    """Accuracy (top-1) and, for more than 5 classes, top-5.

    Among equal logits the lower class number ranks first. A label whose logit is NaN is never
    correct.
    """

    def sums(logits, seen):
        # Rank by the stored probabilities: logarithms of nearly equal ones may tie.
        scores = logits if seen.probs is None else seen.probs
        own = jnp.take_along_axis(scores, seen.label[:, None], axis=-1)
        not_lower = jnp.arange(num_classes) >= seen.label[:, None]
        # Comparisons with NaN are False, so such a label gets the last rank.
        behind = (scores < own) | ((scores == own) & not_lower)
        rank = num_classes - jnp.sum(behind, axis=-1)
        totals = {"n": count(seen)}
        for k in (1, 5):
            if k == 1 or num_classes > k:
                totals[f"top{k}"] = masked_sum((rank < k).astype(jnp.float32), seen)
        return totals

    def value(sums):
        shares = {"n": sums["n"], "accuracy": sums["top1"] / sums["n"]}
        if "top5" in sums:
            shares["top5"] = sums["top5"] / sums["n"]
        return shares

    return Metric(sums, value)
