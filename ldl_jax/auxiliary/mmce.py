"""MMCE: a calibration error without bins, by a kernel over the confidences of a batch."""

import math

import jax.numpy as jnp

from ldl_jax.auxiliary.base import (
    check,
    confidence_and_accuracy,
    counted_logits,
    laplacian_kernel,
)
from ldl_jax.contract import Auxiliary, Build


def make(
    build: Build,
    *,
    weight: float = 2.0,  # weight of the error
    width: float = 0.4,  # of the kernel, above 0
) -> Auxiliary:
    """Maximum mean calibration error, squared: the mean over all pairs of examples of
    (c_i - r_i) (c_j - r_j) exp(-|r_i - r_j| / width), for confidences r and c = 1 where the
    prediction is right, else 0 (Kumar et al. 2018).

    The paper takes the root of it, the published program of focal calibration does not. Only pairs
    of examples that are not masked count; kernel [B, B] over the whole batch. The weight is that
    published for `mmce_weighted`.

    Predictions are right or wrong by the labels, whatever distribution the label source teaches.
    Under mixing, c is the share of the images whose label is the prediction. Raises ValueError if
    width is not positive and finite.
    """
    del build
    check(0 < width < math.inf, "mmce.width", "finite and above 0", width)

    def loss(params, state, batch, outputs, targets):
        del params, targets
        confidence, accuracy = confidence_and_accuracy(counted_logits(outputs, batch), batch)
        error = batch.mask * (accuracy - confidence)
        pairs = error @ laplacian_kernel(confidence, width) @ error
        return pairs / jnp.maximum(batch.mask.sum(), 1) ** 2, state

    return Auxiliary(loss, weight=weight)
