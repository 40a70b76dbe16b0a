"""Distance of the prediction from a distribution that was given for each example."""

import jax
import jax.numpy as jnp

from ldl_jax.metrics.base import Metric, count, masked_sum


def make(num_classes: int) -> Metric:
    """Cross entropy and KL divergence of the prediction to the example's row of a table, in nat.

    Peterson et al. 2019 measure the cross entropy to human votes. Where no table was given there is nothing to sum.
    """
    del num_classes

    def sums(logits, seen):
        if "table" not in seen.given:
            return {}
        row = seen.given["table"].astype(logits.dtype)
        cross = -jnp.sum(row * jax.nn.log_softmax(logits), -1)
        entropy = -jnp.sum(row * jnp.log(jnp.where(row > 0, row, 1)), -1)
        return {"n": count(seen), "cross": masked_sum(cross, seen), "kl": masked_sum(cross - entropy, seen)}

    def value(sums):
        return {"table_cross_entropy": sums["cross"] / sums["n"], "table_kl": sums["kl"] / sums["n"]} if sums else {}

    return Metric(sums, value)
