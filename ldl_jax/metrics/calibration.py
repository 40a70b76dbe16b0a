"""Calibration of the confidence in equal-width bins."""

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
    """One-hot bin membership bool[N, bins] of confidences f32[N]: bins (lo, hi] of equal width over
    (0, 1].
    """
    edges = jnp.asarray(np.linspace(0, 1, bins + 1)[1:-1], confidence.dtype)
    number = jnp.sum(confidence[:, None] > edges, axis=-1)
    return number[:, None] == jnp.arange(bins)


def make(num_classes: int) -> Metric:
    """Calibration errors of the top label's confidence: 15 equal-width bins (lo, hi], as Guo et al.
    2017, section 2.

    `ece`: the mean over examples of |accuracy - mean confidence| of their bin. It is
    `overconfidence`, that mean where the confidence is higher, plus `underconfidence`, where it is
    lower; `signed_ece`, mean confidence less accuracy, is their difference. `mce`: the largest of
    those gaps over the bins that hold an example; `rmsce`: the root of the mean over examples of
    their squares. Sums: count, confidence and correct, f32[15] each.
    """
    del num_classes

    def sums(logits, seen):
        confidence = jnp.max(probs_of(logits, seen), -1)
        correct = jnp.argmax(logits if seen.probs is None else seen.probs, -1) == seen.label
        member = bin_of(confidence)
        columns = {"count": jnp.ones_like(confidence), "confidence": confidence, "correct": correct}
        return {
            name: masked_sum(jnp.where(member, x[:, None], 0), seen) for name, x in columns.items()
        }

    def value(sums):
        gap, count = sums["confidence"] - sums["correct"], sums["count"]
        total, each = count.sum(), gap / jnp.maximum(count, 1)
        return {
            "ece": jnp.abs(gap).sum() / total,
            "overconfidence": jnp.maximum(gap, 0).sum() / total,
            "underconfidence": jnp.maximum(-gap, 0).sum() / total,
            "signed_ece": gap.sum() / total,
            "mce": jnp.abs(each).max(),
            "rmsce": jnp.sqrt((count * each**2).sum() / total),
            "confidence": sums["confidence"].sum() / total,
        }

    return Metric(sums, value)
