"""Negative log-likelihood of the labels."""

import jax
import jax.numpy as jnp

from ldl_jax.metrics.base import Metric, Shown, count, masked_sum

SHOWN = {
    "nll": Shown("NLL", "nat", 4, "proper scores", 0, "lower"),
}


def make(num_classes: int) -> Metric:
    """Mean negative log-likelihood of the label, in nat: a proper score."""
    del num_classes

    def sums(logits, seen):
        own = jnp.take_along_axis(logits, seen.label[:, None], axis=-1)[:, 0]
        return {"n": count(seen), "nll": masked_sum(jax.nn.logsumexp(logits, -1) - own, seen)}

    return Metric(sums, lambda sums: {"nll": sums["nll"] / sums["n"]})
