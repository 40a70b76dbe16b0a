"""Soft-binned expected calibration error of the batch."""

import math

import jax
import jax.numpy as jnp

from ldl_jax.auxiliary.base import check, confidence_and_accuracy, counted_logits, root
from ldl_jax.contract import Auxiliary, Build

MOST = 1000  # bins


def make(
    build: Build,
    *,
    weight: float = 1.0,  # weight of the error; tuned for each data set in the paper
    bins: int = 15,  # number of bins of equal width, 1 to 1000
    temperature: float = 0.01,  # of an example's shares in the bins, above 0; 0 would be hard bins
    order: float = 2.0,  # of the norm, at least 1
) -> Auxiliary:
    """Soft-binned ECE (sum_b S_b / N |A_b - C_b|^order)^(1 / order) (Karandikar et al. 2021, equation
    11).

    An example with confidence r belongs to bin b, with centre x_b, by the share
    softmax_b(-(r - x_b)^2 / temperature). S_b is the sum of these shares over the batch, N that of
    all bins, and A_b and C_b are the accuracy and the mean confidence weighted by them. Denominators
    are at least 1e-5. The gradient goes through the confidence and the shares.

    The accuracy is that on the labels, whatever distribution the label source teaches. Under mixing,
    a prediction is right by the share of the images whose label it is. Raises ValueError if an
    option is out of range.
    """
    del build
    check(1 <= bins <= MOST, "soft_ece.bins", f"between 1 and {MOST}", bins)
    in_range = 0 < temperature < math.inf
    check(in_range, "soft_ece.temperature", "finite and above 0", temperature)
    check(1 <= order < math.inf, "soft_ece.order", "finite and at least 1", order)

    def loss(params, state, batch, outputs, targets):
        del params, targets
        confidence, accuracy = confidence_and_accuracy(counted_logits(outputs, batch), batch)
        centres = (jnp.arange(bins, dtype=confidence.dtype) + 0.5) / bins
        distance = (confidence[:, None] - centres) ** 2
        share = batch.mask[:, None] * jax.nn.softmax(-distance / temperature)
        size = share.sum(0)
        # An empty bin would divide by 0; its weight is 0.
        error = jnp.abs((accuracy - confidence) @ share / jnp.maximum(size, 1e-5))
        total = jnp.sum(size * error**order) / jnp.maximum(batch.mask.sum(), 1)
        return root(total, order), state

    return Auxiliary(loss, weight=weight)
