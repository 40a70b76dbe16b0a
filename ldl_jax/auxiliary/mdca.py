"""MDCA: in a batch, the mean probability of each class is to be the class's frequency."""

import jax
import jax.numpy as jnp

from ldl_jax.auxiliary.base import counted_logits, label_distribution, masked_mean
from ldl_jax.contract import Auxiliary, Build


def make(
    build: Build,
    *,
    weight: float = 1.0,  # weight of the difference
) -> Auxiliary:
    """Multi-class difference of confidence and accuracy: 1/K sum_k |mean_i p_ik - mean_i [y_i = k]|,
    means over the batch of the probabilities p [B, K] and the labels y (Hebbalaguppe et al.
    2022).

    The frequencies are those of the labels, whatever distribution the label source teaches. Under
    mixing, they are those of the mixed labels: each image counts for its classes by share.
    """
    del build

    def loss(params, state, batch, outputs, targets):
        del params, targets
        logits = counted_logits(outputs, batch)
        excess = jax.nn.softmax(logits) - label_distribution(batch, logits)
        over_batch = jax.vmap(masked_mean, in_axes=(1, None))(excess, batch)
        return jnp.mean(jnp.abs(over_batch)), state

    return Auxiliary(loss, weight=weight)
