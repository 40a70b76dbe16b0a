"""The wide ResNet WRN-d-k: three stages of pre-activation blocks, k times as wide as in a CIFAR
ResNet.
"""

import flax.linen as nn

from ldl_jax.models.base import (
    DEEPEST,
    WIDEST,
    Network,
    PreActBlock,
    conv,
    norm,
    normalise,
    outputs,
)

STEM = 16  # channels of the stem; the three stages have 16k, 32k and 64k


class WideResNet(nn.Module):
    """Zagoruyko and Komodakis 2016, table 1, blocks B(3, 3).

    The ReLU that ends a stage is the first of the next one (for the last stage, of the head), so
    the maps of a stage are its sum after that BatchNorm, as RepDistiller returns them with
    is_feat=True, preact=True.
    """

    network: Network
    blocks: int  # number of blocks in each stage
    widen: int
    dropout: float

    @nn.compact
    def __call__(self, image, train: bool):
        x = normalise(image, self.network)
        x = conv(self.network, STEM, 3, name="conv1")(x)
        stages = []
        for stage in range(3):
            features = STEM * self.widen * 2**stage
            for block in range(self.blocks):
                strides = 2 if stage > 0 and block == 0 else 1
                layer = PreActBlock(
                    self.network,
                    features,
                    strides,
                    "convShortcut",
                    self.dropout,
                    name=f"block{stage + 1}_layer_{block}",
                )
                x, first_norm = layer(x, train)
                # The first BatchNorm of a stage gives the maps of the stage before.
                if stage > 0 and block == 0:
                    stages.append(first_norm)
        last = norm(self.network, train, name="bn1")(x)
        return outputs(self.network, nn.relu(last), [*stages, last])


def make(
    network: Network,
    *,
    depth: int = 28,  # 6n + 4: 10, 16, 22, 28, 40
    widen: int = 10,  # widening factor k: the stages have 16k, 32k and 64k channels
    dropout: float = 0.0,  # dropout rate between the two convolutions of a block, [0, 1)
) -> nn.Module:
    """Wide ResNet WRN-d-k of Zagoruyko and Komodakis 2016, for images of at least 8x8 pixels.

    Names and layers are those of RepDistiller's wrn.py. Convolutions start He-normal by fan out.
    Raises ValueError if an option is out of range.
    """
    # Three stages of n blocks of two layers, the stem, and three shortcut convolutions.
    if not 10 <= depth <= DEEPEST or (depth - 4) % 6:
        raise ValueError(
            f"model.wide_resnet.depth must be 6n + 4 (10, 16, 22, 28, 34, 40, ..., {DEEPEST - 4}), "
            f"got {depth}"
        )
    if not 1 <= widen <= WIDEST // STEM:
        raise ValueError(
            f"model.wide_resnet.widen must be between 1 and {WIDEST // STEM}, got {widen}"
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"model.wide_resnet.dropout must be in [0, 1), got {dropout}")
    return WideResNet(network, (depth - 4) // 6, widen, dropout)
