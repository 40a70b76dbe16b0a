"""Class-wise ECE, and the decomposition of the Brier score, in bins of equal width."""

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
    """Class-wise ECE, and reliability, resolution and uncertainty of the Brier score, from 15 bins.

    `classwise_ece`: the mean over classes of the ECE of p(class) against whether the class is the
    label, over all examples, in bins (lo, hi] (static calibration error, Nixon et al. 2019, section
    4; Kull et al. 2019, section 2). The parts of the Brier score are summed over classes, with p
    and h the mean probability and the share of hits of a bin (Murphy 1973): `brier_reliability`,
    the mean of (p - h)^2, lower is better; `brier_resolution`, the mean of (h - h of the class)^2,
    higher is better; `brier_uncertainty`, h (1 - h) of the class, a property of the data;
    `brier_within`, the variation within bins (Stephenson et al. 2008). Brier = reliability -
    resolution + uncertainty + within. Sums: f32[15, K] three times.
    """
    ids = num_classes * BINS

    def sums(logits, seen):
        probs = probs_of(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), seen)
        used = (seen.mask > 0).astype(probs.dtype)
        own = jnp.take_along_axis(probs, seen.label[:, None], axis=-1)[:, 0]
        number = bin_number(probs)
        segment = number * num_classes + jnp.arange(num_classes)
        middle = (jnp.arange(BINS, dtype=probs.dtype)[:, None] + 0.5) / BINS

        def total(values, segments):
            """Sums f[BINS, K] by bin and class."""
            sums = jax.ops.segment_sum(values.ravel(), segments.ravel(), ids)
            return sums.reshape(BINS, num_classes)

        # Sum distances from the middle of the bin: they stay small, so float32 keeps its digits.
        offset = jnp.where(used[:, None] > 0, probs - middle[number, 0], 0)
        size = total(jnp.broadcast_to(used[:, None], probs.shape), segment)
        return {
            "n": count(seen),
            "count": size,
            "prob": total(offset, segment) + size * middle,
            "hits": total(used, bin_number(own) * num_classes + seen.label),
            "squares": masked_sum(jnp.sum(probs**2, -1), seen),
            "own": masked_sum(own, seen),
        }

    def value(sums):
        n = sums["n"]
        size = jnp.maximum(sums["count"], 1)
        prob = sums["prob"] / size
        share = sums["hits"] / size
        base = sums["hits"].sum(0) / n
        weight = sums["count"] / n
        # Within bins: the variance of the probabilities, and their covariance with the hits.
        variance = sums["squares"] / n - (weight * prob**2).sum()
        covariance = sums["own"] / n - (weight * prob * share).sum()
        return {
            "classwise_ece": (weight * jnp.abs(prob - share)).sum() / num_classes,
            "brier_reliability": (weight * (prob - share) ** 2).sum(),
            "brier_resolution": (weight * (share - base) ** 2).sum(),
            "brier_uncertainty": (base * (1 - base)).sum(),
            "brier_within": variance - 2 * covariance,
        }

    return Metric(sums, value)
