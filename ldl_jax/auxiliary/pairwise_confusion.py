"""Pairwise confusion: the predictions of different images are pulled together."""

import jax
import jax.numpy as jnp

from ldl_jax.auxiliary.base import check, counted_logits, label_distribution, root
from ldl_jax.contract import Auxiliary, Build

DISTANCES = ("logits", "probabilities")


def make(
    build: Build,
    *,
    weight: float = 10.0,  # weight of the distance
    distance: str = "logits",  # 'logits' (program): Euclidean; 'probabilities' (paper): squared
) -> Auxiliary:
    """Half the mean distance of pairs of examples, the i-th of the first half of the batch with the
    i-th of the second half (Dubey et al. 2018).

    'logits' is the published program, with its weight: the Euclidean distance of the logits [B, K]
    of all pairs. 'probabilities' is the paper: the squared Euclidean distance of the predictions,
    only of pairs of two classes, over all pairs. A pair with a masked example does not count; of an
    odd batch, neither does the last example. An impossible class (logit -inf) is left out.

    Labels only say which pairs count with 'probabilities', whatever distribution the label source
    teaches. Under mixing, such a pair counts by the share of its labels that differ,
    1 - sum_k t_ik t_jk for mixed labels t; 'logits' looks at no label. Raises ValueError if distance
    is neither.
    """
    del build
    allowed = " or ".join(map(repr, DISTANCES))
    check(distance in DISTANCES, "pairwise_confusion.distance", allowed, distance)

    def loss(params, state, batch, outputs, targets):
        del params, targets
        logits = counted_logits(outputs, batch)
        half = len(logits) // 2
        first = slice(0, half)
        second = slice(half, 2 * half)
        counts = batch.mask[first] * batch.mask[second]
        if distance == "logits":
            finite = logits > -jnp.inf
            apart = jnp.where(finite[first] & finite[second], logits[first] - logits[second], 0)
            costs = root(jnp.sum(apart**2, axis=-1))
        else:
            probs = jax.nn.softmax(logits)
            label = label_distribution(batch, logits)
            differs = 1 - jnp.sum(label[first] * label[second], axis=-1)
            costs = differs * jnp.sum((probs[first] - probs[second]) ** 2, axis=-1)
        return jnp.sum(counts * costs) / jnp.maximum(2 * counts.sum(), 1), state

    return Auxiliary(loss, weight=weight)
