"""Pairwise constraints: the label's logit above each other one, and the others alike."""

import math

import jax
import jax.numpy as jnp

from ldl_jax.auxiliary.base import check, counted_logits, label_distribution, masked_mean
from ldl_jax.contract import Auxiliary, Build


def make(
    build: Build,
    *,
    weight: float = 1.0,  # weight of the discrimination constraints
    exclusion: float = 1.0,  # weight of the exclusion constraints, relative to `weight`; at least 0
) -> Auxiliary:
    """Calibration by pairwise constraints: binary discrimination sum_{k != y} s(z_k - z_y) / (K - 1)
    and binary exclusion 1/2 sum_{j, k != y} s(z_k - z_j) / ((K - 1) (K - 2)), with
    s(x) = log(1 + e^x), for logits z [B, K] and labels y, averaged over the batch (Cheng and
    Vasconcelos 2022).

    As in the published program, the second sum includes j = k, a constant. Two classes have no
    second part. An impossible class (logit -inf) is left out.

    The label counts, whatever distribution the label source teaches. Both parts are linear in it, so
    a mixed image has the terms of its images' labels, by share. Raises ValueError if exclusion is
    negative or not finite.
    """
    finite = 0 <= exclusion < math.inf
    check(finite, "cpc.exclusion", "finite and at least 0", exclusion)
    classes = build.num_classes
    discriminate = 1 / max(classes - 1, 1)
    exclude = 0.5 * exclusion / ((classes - 1) * (classes - 2)) if classes > 2 else 0.0

    def loss(params, state, batch, outputs, targets):
        del params, targets
        logits = counted_logits(outputs, batch)
        possible = logits > -jnp.inf
        logits = jnp.where(possible, logits, 0)
        label = label_distribution(batch, logits)

        # One class at a time, recomputed in the backward pass: all pairs would need B K K numbers.
        @jax.checkpoint
        def against(total, one):
            number, logit, share, is_possible = one
            own = jnp.arange(classes) == number
            cost = jax.nn.softplus(logits - logit[:, None])
            cost = jnp.where(possible & is_possible[:, None], cost, 0)
            # The share of the labels that are neither of the two classes.
            neither = 1 - share[:, None] - jnp.where(own, 0, label)
            factor = discriminate * jnp.where(own, 0, share[:, None]) + exclude * neither
            return total + jnp.sum(factor * cost, axis=-1), None

        columns = (jnp.arange(classes), logits.T, label.T, possible.T)
        total, _ = jax.lax.scan(against, jnp.zeros_like(logits[:, 0]), columns)
        return masked_mean(total, batch), state

    return Auxiliary(loss, weight=weight)
