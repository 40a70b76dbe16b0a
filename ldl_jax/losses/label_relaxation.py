"""Label relaxation: no loss for predictions that are close enough to the target."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ldl_jax.losses.base import at_least_float32, check, expectation, log_softmax


def make(
    *,
    alpha: float = 0.1,  # share of probability that may lie anywhere, [0, 1); 0 is KL divergence
) -> Callable:
    """Label relaxation: KL(r || p) between the prediction and the nearest of all distributions r
    with r_k >= (1 - alpha) q_k for each k.

    f32[B] from [B, K]. For a label it is the published loss (Lienen and Hüllermeier 2021): 0 where
    p_y >= 1 - alpha, else the divergence from 1 - alpha on the label and alpha shared among the
    others as p has it. The paper has labels alone; for a distribution q we take the set of all
    mixtures of 1 - alpha of q and alpha of anything, under mixing that of the mixed distribution.
    r has no gradient of its own, which changes nothing for the logits, but makes the target a
    constant. A share of an impossible class is infinitely wrong.

    Raises ValueError if alpha is not in [0, 1).
    """
    check(0 <= alpha < 1, "label_relaxation.alpha", "in [0, 1)", alpha)

    def label_relaxation(logits, probs):
        log_p = log_softmax(logits)
        least = (1 - alpha) * jax.lax.stop_gradient(at_least_float32(probs))
        p = jax.lax.stop_gradient(jnp.exp(log_p))
        scale = scale_of_the_rest(p, least, alpha)
        at_bound = least > scale * p
        r = jnp.where(at_bound, least, scale * p)
        # Where nothing is at its bound, log r is log p itself and the loss exactly 0.
        log_rest = jnp.log(scale) + jax.lax.stop_gradient(log_p)
        log_r = jnp.where(at_bound, jnp.log(jnp.where(at_bound, least, 1)), log_rest)
        return expectation(r, log_r - log_p)

    return label_relaxation


def scale_of_the_rest(p, least, alpha):
    """The c [B, 1] at which max(least, c p) sums to 1 over the classes.

    Classes with the largest least / p are at their bound, and the others share what is left. Each
    such division of the classes gives an upper limit of c, and the right one gives c itself.
    """
    order = jnp.argsort(jnp.where(least > 0, -least / p, 0), axis=-1)
    left = alpha + sum_from(jnp.take_along_axis(least, order, axis=-1))
    rest = sum_from(jnp.take_along_axis(p, order, axis=-1))
    limits = jnp.where(rest > 0, left / jnp.where(rest > 0, rest, 1), jnp.inf)
    # The first limit, with no class at its bound, is 1.
    return jnp.min(limits[..., 1:], axis=-1, keepdims=True, initial=1.0)


def sum_from(values):
    """Sums over each entry and all that follow it in its row."""
    return jnp.cumsum(values[..., ::-1], axis=-1)[..., ::-1]
