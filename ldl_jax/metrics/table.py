"""Distance of the prediction from a distribution that was given for each example."""

import jax.numpy as jnp

from ldl_jax.losses import base
from ldl_jax.metrics.base import Metric, Shown, count, masked_sum

SHOWN = {
    "table_cross_entropy": Shown("CE to the table", "nat", 4, "human votes", 0, "lower"),
    "table_kl": Shown("KL to the table", "nat", 4, "human votes", 1, "lower"),
}


def make(num_classes: int) -> Metric:
    """Cross entropy and KL divergence of the prediction to the example's row of a table, in nat.

    Peterson et al. 2019 measure the cross entropy to human votes. Where no table was given there is
    nothing to sum.
    """
    del num_classes

    def sums(logits, seen):
        if "table" not in seen.given:
            return {}
        row = seen.given["table"].astype(jnp.promote_types(logits.dtype, jnp.float32))
        cross, kl = base.cross_entropy(logits, row), base.kl_divergence(logits, row)
        return {"n": count(seen), "cross": masked_sum(cross, seen), "kl": masked_sum(kl, seen)}

    def value(sums):
        return (
            {"table_cross_entropy": sums["cross"] / sums["n"], "table_kl": sums["kl"] / sums["n"]}
            if sums
            else {}
        )

    return Metric(sums, value)
