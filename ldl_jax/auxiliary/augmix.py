"""AugMix with its loss: agreement between an image and two mixtures of operations on it."""

from functools import partial

import jax
import jax.numpy as jnp

from ldl_jax.augment.operations import chains
from ldl_jax.auxiliary.base import jensen_shannon, masked_mean
from ldl_jax.contract import Auxiliary, Build


def make(
    build: Build,
    *,
    weight: float = 12.0,  # weight of the divergence
    severity: float = 3.0,  # largest strength of an operation, above 0.1, at most 10
    width: int = 3,  # number of chains in a mixture, 1 to 10
    depth: int = 0,  # operations in each chain, 0 to 10; 0 for 1 to 3, at random
    alpha: float = 1.0,  # parameter of the Dirichlet and Beta distributions of the shares, above 0
    all_operations: bool = False,  # also four blends, which are among the corruptions of ImageNet-C
) -> Auxiliary:
    """Jensen-Shannon divergence between the predictions of an image, after crop and flip, and of two
    AugMix images of it (Hendrycks et al. 2020, section 3); the criterion sees the image itself.

    Images that were mixed (CutMix and the like) are mixed before. Raises ValueError if an option is
    out of range.
    """
    del build
    mixed = chains.make(
        "config.auxiliary.augmix",
        severity=severity,
        width=width,
        depth=depth,
        alpha=alpha,
        all_operations=all_operations,
    )

    def views(key, image):
        batch = len(image)
        seen = [image]
        for view in (1, 2):
            # Keys by position: the batch of a step is the same for any number of devices.
            keys = jax.vmap(partial(jax.random.fold_in, jax.random.fold_in(key, view)))(
                jnp.arange(batch)
            )
            seen.append(jax.vmap(mixed)(keys, image))
        return jnp.stack(seen)

    def loss(params, state, batch, outputs, targets):
        del params, targets
        return masked_mean(jensen_shannon(outputs.logits), batch), state

    return Auxiliary(loss, views=views, weight=weight)
