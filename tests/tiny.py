"""The smallest network that has everything: named by its dotted path, as a user's own would be."""

import flax.linen as nn

from ldl_jax.contract import Outputs
from ldl_jax.models.base import Network, conv, head, norm, normalise, pool


class Tiny(nn.Module):
    """A convolution, BatchNorm, ReLU, the average, a linear layer; its one map stands for three
    stages.
    """

    network: Network
    channels: int

    @nn.compact
    def __call__(self, image, train: bool):
        before = norm(self.network, train, name="bn")(
            conv(self.network, self.channels, 3, 2, name="conv")(normalise(image, self.network))
        )
        embedding = pool(nn.relu(before), self.network)
        return Outputs(head(self.network, embedding), (before,) * 3, embedding)


def make(network: Network, *, channels: int = 8) -> nn.Module:
    """The factory that `model.name='tests.tiny'` finds."""
    return Tiny(network, channels)
