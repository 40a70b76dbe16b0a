"""Calibration errors of the confidence in bins of equal width: ECE, MCE, RMSCE."""

import jax.numpy as jnp
import numpy as np

from ldl_jax.contract import Array
from ldl_jax.metrics.base import BINS, Metric, Shown, masked_sum, probs_of

SHOWN = {
    "confidence": Shown("mean confidence", "%", 2, "calibration", 0, ""),
    "ece": Shown("ECE", "%", 2, "calibration", 2, "lower"),
    "ece_floor": Shown("ECE noise floor", "%", 2, "calibration", 2.5, ""),
    "overconfidence": Shown("overconfidence", "%", 2, "calibration", 3, "lower"),
    "underconfidence": Shown("underconfidence", "%", 2, "calibration", 4, "lower"),
    "signed_ece": Shown("signed ECE", "%", 2, "calibration", 5, ""),
    "mce": Shown("MCE", "%", 2, "calibration", 6, "lower"),
    "rmsce": Shown("RMSCE", "%", 2, "calibration", 7, "lower"),
}


def bin_of(confidence: Array, bins: int = BINS) -> Array:
    """One-hot bin membership bool[N, bins] of confidences f32[N], for bins (lo, hi] of equal width."""
    edges = jnp.asarray(np.linspace(0, 1, bins + 1)[1:-1], confidence.dtype)
    number = jnp.sum(confidence[:, None] > edges, axis=-1)
    return number[:, None] == jnp.arange(bins)


def make(num_classes: int) -> Metric:
    """Calibration errors of the largest probability, in 15 equal-width bins (lo, hi].

    Guo et al. 2017, section 2. `ece`: the mean over examples of |accuracy - mean confidence| of
    their bin. It is the sum of `overconfidence`, from bins whose confidence exceeds the accuracy,
    and `underconfidence`, from the other bins; `signed_ece`, mean confidence minus accuracy, is the
    difference of the two. `mce`: the largest gap of any non-empty bin; `rmsce`: the root of the
    mean over examples of the squared gap. Sums: count, confidence and correct, f32[15] each.
    """
    del num_classes

    def sums(logits, seen):
        confidence = jnp.max(probs_of(logits, seen), -1)
        correct = jnp.argmax(logits if seen.probs is None else seen.probs, -1) == seen.label
        member = bin_of(confidence)

        def by_bin(column):
            return masked_sum(jnp.where(member, column[:, None], 0), seen)

        return {
            "count": by_bin(jnp.ones_like(confidence)),
            "confidence": by_bin(confidence),
            "correct": by_bin(correct),
        }

    def value(sums):
        count = sums["count"]
        total = count.sum()
        gap = sums["confidence"] - sums["correct"]
        mean_gap = gap / jnp.maximum(count, 1)  # 0 in an empty bin
        return {
            "ece": jnp.abs(gap).sum() / total,
            "overconfidence": jnp.maximum(gap, 0).sum() / total,
            "underconfidence": jnp.maximum(-gap, 0).sum() / total,
            "signed_ece": gap.sum() / total,
            "mce": jnp.abs(mean_gap).max(),
            "rmsce": jnp.sqrt((count * mean_gap**2).sum() / total),
            "confidence": sums["confidence"].sum() / total,
        }

    return Metric(sums, value)
