"""Cross entropy and KL divergence to a given distribution (such as votes) of each example."""

import jax.numpy as jnp

from ldl_jax.losses import base
from ldl_jax.metrics.base import Metric, Shown, count, masked_sum

SHOWN = {
    "table_cross_entropy": Shown("CE to the table", "nat", 4, "human votes", 0, "lower"),
    "table_kl": Shown("KL to the table", "nat", 4, "human votes", 1, "lower"),
}


def make(num_classes: int) -> Metric:
    """Mean cross entropy and KL divergence to the examples' rows of the table, in nat.

    Peterson et al. 2019 measure the cross entropy to human votes. There are no figures without a
    table.
    """
    del num_classes

    def sums(logits, seen):
        # Metrics are made before it is known whether a split has a table.
        if "table" not in seen.given:
            return {}
        row = seen.given["table"].astype(jnp.promote_types(logits.dtype, jnp.float32))
        cross = base.cross_entropy(logits, row)
        kl = base.kl_divergence(logits, row)
        return {"n": count(seen), "cross": masked_sum(cross, seen), "kl": masked_sum(kl, seen)}

    def value(sums):
        if not sums:
            return {}
        return {
            "table_cross_entropy": sums["cross"] / sums["n"],
            "table_kl": sums["kl"] / sums["n"],
        }

    return Metric(sums, value)
