"""ResNet-18 to 152: four stages of basic or bottleneck blocks, after a stem for small images or for
ImageNet's.
"""

from typing import NamedTuple

import flax.linen as nn

from ldl_jax.models.base import (
    WIDEST,
    BasicBlock,
    Network,
    PreActBlock,
    conv,
    norm,
    normalise,
    outputs,
    projection,
)

BASIC = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # blocks of each stage
BOTTLENECK = {14: (1, 1, 1, 1), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
EXPANSION = 4  # output channels of a bottleneck block, in channels of its stage


class Plan(NamedTuple):
    """The shape of a ResNet."""

    blocks: tuple[int, ...]  # of each stage
    bottleneck: bool
    stem: str
    width: int  # channels of the first stage
    width_factor: int
    stride_in_3x3: bool
    zero_init: bool
    stem_norm: bool
    final_norm: bool


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; returns the sum before ReLU. He et al. 2016,
    figure 5 right.
    """

    network: Network
    features: int
    inner: int  # channels of the first two convolutions
    strides: int
    stride_in_3x3: bool
    zero_init: bool

    @nn.compact
    def __call__(self, x, train: bool):
        first, second = (1, self.strides) if self.stride_in_3x3 else (self.strides, 1)
        y = conv(self.network, self.inner, 1, first, name="conv1")(x)
        y = nn.relu(norm(self.network, train, name="bn1")(y))
        y = conv(self.network, self.inner, 3, second, name="conv2")(y)
        y = nn.relu(norm(self.network, train, name="bn2")(y))
        y = conv(self.network, self.features, 1, name="conv3")(y)
        y = norm(self.network, train, zero=self.zero_init, name="bn3")(y)
        return projection(self.network, x, self.features, self.strides, train) + y


class PreActBottleneck(nn.Module):
    """BatchNorm and ReLU before each of the three convolutions; returns the sum, and the maps
    before the first ReLU.
    """

    network: Network
    features: int
    inner: int
    strides: int
    stride_in_3x3: bool

    @nn.compact
    def __call__(self, x, train: bool):
        first, second = (1, self.strides) if self.stride_in_3x3 else (self.strides, 1)
        before = norm(self.network, train, name="bn1")(x)
        y = nn.relu(before)
        if self.strides != 1 or x.shape[-1] != self.features:
            x = conv(self.network, self.features, 1, self.strides, name="downsample_0")(y)
        y = conv(self.network, self.inner, 1, first, name="conv1")(y)
        y = nn.relu(norm(self.network, train, name="bn2")(y))
        y = conv(self.network, self.inner, 3, second, name="conv2")(y)
        y = nn.relu(norm(self.network, train, name="bn3")(y))
        return x + conv(self.network, self.features, 1, name="conv3")(y), before


def _stem(network: Network, plan: Plan, image, train: bool):
    """The maps that the first block gets: at the image's size, or at a quarter of its side."""
    kernel, strides = (7, 2) if plan.stem == "imagenet" else (3, 1)
    x = conv(network, plan.width, kernel, strides, name="conv1")(normalise(image, network))
    if plan.stem_norm:
        x = nn.relu(norm(network, train, name="bn1")(x))
    if plan.stem == "imagenet":
        x = nn.max_pool(x, (3, 3), (2, 2), padding=[(1, 1), (1, 1)])
    return x


def _blocks(plan: Plan):
    """(stage, name, options) of every block in turn."""
    for stage, count in enumerate(plan.blocks):
        width = plan.width * 2**stage
        for block in range(count):
            options = {
                "strides": 2 if stage > 0 and block == 0 else 1,
                "name": f"layer{stage + 1}_{block}",
            }
            if plan.bottleneck:
                options |= {"inner": width * plan.width_factor, "stride_in_3x3": plan.stride_in_3x3}
            yield stage, options | {"features": width * (EXPANSION if plan.bottleneck else 1)}


class ResNet(nn.Module):
    """He et al. 2016, table 1, post-activation; `stages` are the sums before the last ReLU of each
    of the four.
    """

    network: Network
    plan: Plan

    @nn.compact
    def __call__(self, image, train: bool):
        block = Bottleneck if self.plan.bottleneck else BasicBlock
        x, stages = _stem(self.network, self.plan, image, train), {}
        for stage, options in _blocks(self.plan):
            stages[stage] = block(self.network, zero_init=self.plan.zero_init, **options)(x, train)
            x = nn.relu(stages[stage])
        return outputs(self.network, x, stages.values())


class PreActResNet(nn.Module):
    """He et al. 2016b, pre-activation.

    `stages`: the ReLU that ends a stage is the first of the next stage, so a stage's map is its sum
    after that BatchNorm. Without final_norm nothing follows the last stage, whose map is the sum
    itself, the one that is pooled.
    """

    network: Network
    plan: Plan

    @nn.compact
    def __call__(self, image, train: bool):
        block = PreActBottleneck if self.plan.bottleneck else PreActBlock
        x, before = _stem(self.network, self.plan, image, train), {}
        for stage, options in _blocks(self.plan):
            x, seen = block(self.network, **options)(x, train)
            before.setdefault(stage, seen)
        if not self.plan.final_norm:
            return outputs(self.network, x, [before[1], before[2], before[3], x])
        last = norm(self.network, train, name="bn")(x)
        return outputs(self.network, nn.relu(last), [before[1], before[2], before[3], last])


def make(
    network: Network,
    *,
    depth: int = 18,  # 18, 34 (basic blocks), 50, 101, 152 (bottleneck blocks); smallest of each kind: 10 and 14
    stem: str = "cifar",  # 'cifar': 3x3 convolution, no pooling; 'imagenet': 7x7 with stride 2, then 3x3 max pool
    preact: bool = False,  # True: BatchNorm and ReLU come before each convolution
    width: int = 64,  # channels of the first stage, before the fourfold expansion of bottleneck blocks
    width_factor: int = 1,  # inner channels of bottleneck blocks are times this; depth 50 and 2: wide ResNet-50-2
    stride_in_3x3: bool = True,  # bottleneck blocks stride in their 3x3 convolution ('v1.5'); False: in the first 1x1
    zero_init: bool = False,  # last BatchNorm scale of each residual branch starts at 0; not with preact
    stem_norm: bool = True,  # BatchNorm and ReLU after the stem; preact alone can go without
    final_norm: bool = False,  # preact: BatchNorm and ReLU after the last stage
) -> nn.Module:
    """ResNet of He et al. 2016, post-activation or pre-activation (He et al. 2016b); any image side
    from 8.

    Post-activation with stem 'imagenet' is torchvision's resnet18 to 152 and wide_resnet50_2; with
    stem 'cifar' it is ResNet18 to 152 of kuangliu's pytorch-cifar. Convolutions start He-normal by
    fan out, as torchvision's do.

    Pre-activation is, as it stands, the PreActResNet-18 of PS-KD (Kim et al. 2021): BatchNorm and
    ReLU after the stem, and none after the last stage. stem_norm=False is kuangliu's
    preact_resnet.py. The paper (section 4.2 and appendix) has both norms: final_norm=True.
    weiaicunzai's preactresnet.py has PS-KD's norms, but biases in its convolutions, and shortcuts
    from the input before activation; that one is not served.

    Raises ValueError where an option is not allowed.
    """
    _check(
        depth, stem, preact, width, width_factor, stride_in_3x3, zero_init, stem_norm, final_norm
    )
    bottleneck = depth in BOTTLENECK
    blocks = (BOTTLENECK if bottleneck else BASIC)[depth]
    plan = Plan(
        blocks,
        bottleneck,
        stem,
        width,
        width_factor,
        stride_in_3x3,
        zero_init,
        stem_norm,
        final_norm,
    )
    return (PreActResNet if preact else ResNet)(network, plan)


def _check(
    depth, stem, preact, width, width_factor, stride_in_3x3, zero_init, stem_norm, final_norm
) -> None:
    if depth not in BASIC | BOTTLENECK:
        raise ValueError(
            f"model.resnet.depth is {depth}; allowed are {', '.join(map(str, sorted(BASIC | BOTTLENECK)))}"
        )
    if stem not in ("cifar", "imagenet"):
        raise ValueError(f"model.resnet.stem is {stem!r}; allowed are 'cifar', 'imagenet'")
    if width < 1 or width_factor < 1 or width * width_factor > WIDEST:
        raise ValueError(
            f"model.resnet.width is {width} and width_factor {width_factor}; allowed are numbers from 1 whose product "
            f"is at most {WIDEST}"
        )
    if depth in BASIC and (width_factor != 1 or not stride_in_3x3):
        raise ValueError(
            f"model.resnet: width_factor {width_factor} and stride_in_3x3 {stride_in_3x3} are of bottleneck blocks; "
            f"depth {depth} has none, and allowed are 1 and True"
        )
    if preact and zero_init:
        raise ValueError(
            "model.resnet.zero_init is True with preact, where a ReLU after the zeros would let no gradient through; "
            "allowed is False"
        )
    if not preact and (final_norm or not stem_norm):
        raise ValueError(
            f"model.resnet: stem_norm {stem_norm} and final_norm {final_norm} are of preact=True; without it allowed "
            "are True and False"
        )
