"""The wide ResNet WRN-d-k: three stages of pre-activation blocks, k times as wide as a CIFAR
ResNet's.
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

STEM = 16  # channels; the three stages have 16k, 32k and 64k


class WideResNet(nn.Module):
    """Zagoruyko and Komodakis 2016, table 1, blocks B(3, 3).

    `stages`: the ReLU that ends a stage is the first of the next stage (of the head, for the last),
    so a stage's map is its sum after that BatchNorm, as RepDistiller's is_feat with preact=True
    hands them out.
    """

    network: Network
    blocks: int  # of each stage
    widen: int
    dropout: float

    @nn.compact
    def __call__(self, image, train: bool):
        x, stages = conv(self.network, STEM, 3, name="conv1")(normalise(image, self.network)), []
        for stage in range(3):
            for block in range(self.blocks):
                strides = 2 if stage > 0 and block == 0 else 1
                x, before = PreActBlock(
                    self.network, STEM * self.widen * 2**stage, strides, "convShortcut", self.dropout,
                    name=f"block{stage + 1}_layer_{block}",
                )(x, train)  # fmt: skip
                if stage > 0 and block == 0:
                    stages.append(before)
        last = norm(self.network, train, name="bn1")(x)
        return outputs(self.network, nn.relu(last), [*stages, last])


def make(
    network: Network,
    *,
    depth: int = 28,  # 6n + 4: 10, 16, 22, 28, 40
    widen: int = 10,  # k: the stages have 16k, 32k and 64k channels
    dropout: float = 0.0,  # share of activations dropped between a block's two convolutions, [0, 1)
) -> nn.Module:
    """Wide ResNet WRN-d-k of Zagoruyko and Komodakis 2016; any image side from 8.

    Names and layers are those of RepDistiller's wrn.py. Convolutions start He-normal by fan out.
    Raises ValueError where depth is not 6n + 4 or another option is out of range.
    """
    if not 10 <= depth <= DEEPEST or (depth - 4) % 6:
        raise ValueError(
            f"model.wide_resnet.depth is {depth}; allowed are 6n + 4: 10, 16, 22, 28, 34, 40, ..., {DEEPEST - 4}"
        )
    if not 1 <= widen <= WIDEST // STEM:
        raise ValueError(
            f"model.wide_resnet.widen is {widen}; allowed are numbers from 1 to {WIDEST // STEM}"
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"model.wide_resnet.dropout is {dropout}; allowed are numbers in [0, 1)")
    return WideResNet(network, (depth - 4) // 6, widen, dropout)
