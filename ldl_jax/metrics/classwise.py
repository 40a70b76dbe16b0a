"""Calibration of every class's probability in equal-width bins, and the parts of the Brier score."""

import jax
import jax.numpy as jnp

from ldl_jax.metrics.base import BINS, Metric, Shown, bin_number, count, masked_sum, probs_of

SHOWN = {
    "brier_reliability": Shown("Brier: reliability", "", 4, "proper scores", 2, "lower"),
    "brier_resolution": Shown("Brier: resolution", "", 4, "proper scores", 3, "higher"),
    "brier_uncertainty": Shown("Brier: uncertainty", "", 4, "proper scores", 4, ""),
    "brier_within": Shown("Brier: within bins", "", 4, "proper scores", 5, ""),
    "classwise_ece": Shown("class-wise ECE", "%", 3, "calibration of every class", 0, "lower"),
}


def make(num_classes: int) -> Metric:
    """Class-wise ECE, and reliability, resolution and uncertainty of the Brier score, from 15 bins
    of each class.

    `classwise_ece`: the mean over classes of the ECE of p(class) against whether it is the label,
    over all examples, in bins (lo, hi] (static calibration error, Nixon et al. 2019, section 4;
    Kull et al. 2019, section 2). Summed over classes, with p and h the mean probability and the
    share of hits of a bin (Murphy 1973): `brier_reliability` the mean of (p - h)^2, less is better;
    `brier_resolution` that of (h - h of the class)^2, more is better; `brier_uncertainty` h (1 - h)
    of the class, which is the data's; `brier_within` what varies within bins (Stephenson et al.
    2008). Brier = reliability - resolution + uncertainty + within. Sums: f32[15, K] three times.
    """
    ids = num_classes * BINS

    def sums(logits, seen):
        probs = probs_of(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), seen)
        used = (seen.mask > 0).astype(probs.dtype)
        own = jnp.take_along_axis(probs, seen.label[:, None], axis=-1)[:, 0]
        number = bin_number(probs)
        place = number * num_classes + jnp.arange(num_classes)
        middle = (jnp.arange(BINS, dtype=probs.dtype)[:, None] + 0.5) / BINS

        def total(values, where):
            return jax.ops.segment_sum(values.ravel(), where.ravel(), ids).reshape(
                BINS, num_classes
            )

        # Summed from the middle of the bin, so that numbers stay small and float32 keeps its
        # digits.
        off = jnp.where(used[:, None] > 0, probs - middle[number, 0], 0)
        size = total(jnp.broadcast_to(used[:, None], probs.shape), place)
        return {
            "n": count(seen),
            "count": size,
            "prob": total(off, place) + size * middle,
            "hits": total(used, bin_number(own) * num_classes + seen.label),
            "squares": masked_sum(jnp.sum(probs**2, -1), seen),
            "own": masked_sum(own, seen),
        }

    def value(sums):
        n, size = sums["n"], jnp.maximum(sums["count"], 1)
        prob, share = sums["prob"] / size, sums["hits"] / size
        base, weight = sums["hits"].sum(0) / n, sums["count"] / n
        spread = sums["squares"] / n - (weight * prob**2).sum()
        together = sums["own"] / n - (weight * prob * share).sum()
        return {
            "classwise_ece": (weight * jnp.abs(prob - share)).sum() / num_classes,
            "brier_reliability": (weight * (prob - share) ** 2).sum(),
            "brier_resolution": (weight * (share - base) ** 2).sum(),
            "brier_uncertainty": (base * (1 - base)).sum(),
            "brier_within": spread - 2 * together,
        }

    return Metric(sums, value)
