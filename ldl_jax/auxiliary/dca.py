"""DCA: in a batch, the mean confidence is to be the accuracy."""

import jax.numpy as jnp

from ldl_jax.auxiliary.base import confidence_and_accuracy, counted_logits, masked_mean
from ldl_jax.contract import Auxiliary, Build


def make(
    build: Build,
    *,
    weight: float = 1.0,  # weight of the difference
) -> Auxiliary:
    """Difference between confidence and accuracy: |mean_i max_k p_ik - accuracy| over the batch, for
    probabilities p [B, K] (Liang et al. 2020). The accuracy has no gradient.

    The accuracy is that on the labels, whatever distribution the label source teaches. Under mixing,
    a prediction is right by the share of the images whose label it is. The weight is that of the
    program of MDCA, where this is a baseline.
    """
    del build

    def loss(params, state, batch, outputs, targets):
        del params, targets
        confidence, accuracy = confidence_and_accuracy(counted_logits(outputs, batch), batch)
        return jnp.abs(masked_mean(confidence - accuracy, batch)), state

    return Auxiliary(loss, weight=weight)
