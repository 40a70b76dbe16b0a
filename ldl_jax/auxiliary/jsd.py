"""Agreement between several views of one image."""

from ldl_jax.auxiliary.base import jensen_shannon, masked_mean
from ldl_jax.contract import Auxiliary, Build

MOST = 64  # views; each is a pass through the network


def make(
    build: Build,
    *,
    weight: float = 12.0,  # weight of the divergence
    views: int = 3,  # draws of the augmentation to compare, 2 to 64; the criterion sees the first
) -> Auxiliary:
    """Jensen-Shannon divergence between the predictions of several draws of the augmentation.

    Hendrycks et al. 2020 (AugMix), equation 3; the mixture is clamped to [1e-7, 1] as in its code.
    Raises ValueError if views is out of range.
    """
    del build
    if not 2 <= views <= MOST:
        raise ValueError(f"config.auxiliary.jsd.views must be between 2 and {MOST}, got {views}")

    def loss(params, state, batch, outputs, targets):
        del params, targets
        return masked_mean(jensen_shannon(outputs.logits), batch), state

    return Auxiliary(loss, draws=views, weight=weight)
