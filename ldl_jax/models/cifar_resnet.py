"""The CIFAR ResNet of depth 6n + 2: three stages of basic blocks after a 3x3 stem."""

import flax.linen as nn

from ldl_jax.models.base import DEEPEST, WIDEST, BasicBlock, Network, conv, norm, normalise, outputs


class CifarResNet(nn.Module):
    """He et al. 2016, section 4.2, with projection shortcuts; layer names as in PyTorch ports."""

    network: Network
    depth: int
    stem: int
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, image, train: bool):
        x = normalise(image, self.network)
        x = conv(self.network, self.stem, 3, name="conv1")(x)
        x = nn.relu(norm(self.network, train, name="bn1")(x))
        stages = []
        for stage, width in enumerate(self.widths):
            for block in range((self.depth - 2) // 6):
                # A stage halves the maps of the one before, in its first block.
                strides = 2 if stage > 0 and block == 0 else 1
                name = f"layer{stage + 1}_{block}"
                before = BasicBlock(self.network, width, strides, name=name)(x, train)
                x = nn.relu(before)
            stages.append(before)
        return outputs(self.network, x, stages)


def make(
    network: Network,
    *,
    depth: int = 20,  # 6n + 2: 8, 14, 20, 32, 44, 56, 110
    width: int = 16,  # channels of the first stage; the next two have 2 and 4 times as many
    stem: int = 0,  # channels of the stem (0: width)
) -> nn.Module:
    """CIFAR ResNet-(6n+2) of He et al. 2016, for images of at least 8x8 pixels.

    Raises ValueError if an option is out of range.
    """
    # Three stages of n blocks of two layers, the stem and the head.
    if not 8 <= depth <= DEEPEST or (depth - 2) % 6:
        raise ValueError(
            f"model.cifar_resnet.depth must be 6n + 2 (8, 14, 20, 32, 44, 56, 110, ..., {DEEPEST}), "
            f"got {depth}"
        )
    if not 1 <= width <= WIDEST:
        raise ValueError(f"model.cifar_resnet.width must be between 1 and {WIDEST}, got {width}")
    if not 0 <= stem <= WIDEST:
        raise ValueError(f"model.cifar_resnet.stem must be between 0 and {WIDEST}, got {stem}")
    return CifarResNet(network, depth, stem or width, (width, 2 * width, 4 * width))
