"""MMCE with right and wrong predictions weighted apart."""

import math

import jax.numpy as jnp

from ldl_jax.auxiliary.base import (
    check,
    confidence_and_accuracy,
    counted_logits,
    laplacian_kernel,
    root,
)
from ldl_jax.contract import Auxiliary, Build


def make(
    build: Build,
    *,
    weight: float = 2.0,  # weight of the error
    width: float = 0.4,  # of the kernel, above 0
    as_published: bool = True,  # True: divided twice by the counts (program), False: once (paper)
) -> Auxiliary:
    """Weighted maximum mean calibration error sqrt(R + W - 2 X) of confidences r (Kumar et al. 2018).

    R is the mean of (1 - r_i) (1 - r_j) k_ij over pairs of right predictions, W that of r_i r_j k_ij
    over pairs of wrong ones, X that of (1 - r_i) r_j k_ij over pairs of both, with the kernel
    k_ij = exp(-|r_i - r_j| / width), [B, B] over the whole batch. The program of focal calibration,
    whose values and weight these are, divides the means once more by m^2 + 1e-5, n^2 + 1e-5 and
    m n + 1e-5 for m right and n wrong predictions. The error is 0 if m or n is 0.

    Predictions are right or wrong by the labels, whatever distribution the label source teaches.
    Under mixing, one belongs to the right ones by the share of the images whose label it is, and to
    the wrong ones by the rest. Raises ValueError if width is not positive and finite.
    """
    del build
    check(0 < width < math.inf, "mmce_weighted.width", "finite and above 0", width)

    def loss(params, state, batch, outputs, targets):
        del params, targets
        confidence, accuracy = confidence_and_accuracy(counted_logits(outputs, batch), batch)
        right = batch.mask * accuracy
        wrong = batch.mask * (1 - accuracy)
        kernel = laplacian_kernel(confidence, width)
        both = (right.sum() > 0) & (wrong.sum() > 0)

        def part(first, second, counts):
            counts = jnp.where(both, counts, 1)
            mean = first @ kernel @ second / counts
            return mean / (counts + 1e-5) if as_published else mean

        m, n = right.sum(), wrong.sum()
        low, high = right * (1 - confidence), wrong * confidence
        square = part(low, low, m**2) + part(high, high, n**2) - 2 * part(low, high, m * n)
        return jnp.where(both, root(square + 1e-10), 0), state

    return Auxiliary(loss, weight=weight)
