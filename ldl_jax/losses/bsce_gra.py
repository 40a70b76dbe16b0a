"""Cross entropy weighted by the distance between prediction and target."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ldl_jax.losses.base import check, cross_entropy, log_softmax, power


def make(
    *,
    gamma: float = 1.0,  # exponent of the distance, >= 0; 0 is cross entropy
    norm: float = 1.0,  # order of the norm of the distance, >= 1
    detach: bool = True,  # no gradient through the weight (BSCE-GRA); False is BSCE
) -> Callable:
    """BSCE-GRA: ||q - p||_norm^gamma times the cross entropy -sum_k q_k log p_k.

    f32[B] from [B, K]. For a label it is the published loss (Lin et al. 2025, "Uncertainty weighted
    gradients for model calibration"), whose weight is the distance to the one-hot vector. For a
    distribution the weight is the distance to it, so that with a detached weight the gradient is
    that of cross entropy times a number, 0 at p = q. It is not linear in the target: under mixing
    the weight is the distance to the mixed distribution.

    Raises ValueError if gamma is negative or norm below 1.
    """
    check(gamma >= 0, "bsce_gra.gamma", "at least 0", gamma)
    check(norm >= 1, "bsce_gra.norm", "at least 1", norm)
    if gamma == 0:
        return cross_entropy

    def bsce_gra(logits, probs):
        distance = jnp.abs(probs - jnp.exp(log_softmax(logits)))
        weight = power(jnp.sum(distance**norm, axis=-1), gamma / norm)
        if detach:
            weight = jax.lax.stop_gradient(weight)
        return weight * cross_entropy(logits, probs)

    return bsce_gra
