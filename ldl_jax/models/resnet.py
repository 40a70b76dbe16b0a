"""ResNet-18 to 152: four stages of basic or bottleneck blocks, after a stem for small images or for
ImageNet.
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
EXPANSION = 4  # output channels of a bottleneck block / channels of its stage


class Plan(NamedTuple):
    """The shape of a ResNet."""

    blocks: tuple[int, ...]  # number of blocks in each stage
    bottleneck: bool  # bottleneck blocks instead of basic ones
    stem: str  # 'cifar' or 'imagenet'
    width: int  # channels of the first stage
    width_factor: int
    stride_in_3x3: bool
    zero_init: bool
    stem_norm: bool
    final_norm: bool


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut.

    Returns the sum before ReLU. He et al. 2016, figure 5 right.
    """

    network: Network
    features: int
    inner: int  # channels of the first two convolutions
    strides: int
    stride_in_3x3: bool
    zero_init: bool

    @nn.compact
    def __call__(self, x, train: bool):
        # The published design strides in the first 1x1; most code now strides in the 3x3.
        first, second = (1, self.strides) if self.stride_in_3x3 else (self.strides, 1)
        y = conv(self.network, self.inner, 1, first, name="conv1")(x)
        y = nn.relu(norm(self.network, train, name="bn1")(y))
        y = conv(self.network, self.inner, 3, second, name="conv2")(y)
        y = nn.relu(norm(self.network, train, name="bn2")(y))
        y = conv(self.network, self.features, 1, name="conv3")(y)
        y = norm(self.network, train, zero=self.zero_init, name="bn3")(y)
        return projection(self.network, x, self.features, self.strides, train) + y


class PreActBottleneck(nn.Module):
    """A bottleneck block with BatchNorm and ReLU before each of the three convolutions.

    Returns the sum, and the maps before the first ReLU.
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
    """The input maps of the first block, at the side of the image or at a quarter of it."""
    kernel, strides = (7, 2) if plan.stem == "imagenet" else (3, 1)
    x = conv(network, plan.width, kernel, strides, name="conv1")(normalise(image, network))
    if plan.stem_norm:
        x = nn.relu(norm(network, train, name="bn1")(x))
    if plan.stem == "imagenet":
        x = nn.max_pool(x, (3, 3), (2, 2), padding=[(1, 1), (1, 1)])
    return x


def _blocks(plan: Plan):
    """(stage, options) of every block, in order."""
    for stage, count in enumerate(plan.blocks):
        # Each stage halves the maps and doubles the channels, so that stages cost about the same.
        width = plan.width * 2**stage
        for block in range(count):
            options = {
                "strides": 2 if stage > 0 and block == 0 else 1,
                "name": f"layer{stage + 1}_{block}",
            }
            if plan.bottleneck:
                options |= {"inner": width * plan.width_factor, "stride_in_3x3": plan.stride_in_3x3}
            options["features"] = width * (EXPANSION if plan.bottleneck else 1)
            yield stage, options


class ResNet(nn.Module):
    """He et al. 2016, table 1, post-activation; the maps of a stage are the sums before its last
    ReLU.
    """

    network: Network
    plan: Plan

    @nn.compact
    def __call__(self, image, train: bool):
        block = Bottleneck if self.plan.bottleneck else BasicBlock
        x = _stem(self.network, self.plan, image, train)
        stages = {}
        for stage, options in _blocks(self.plan):
            stages[stage] = block(self.network, zero_init=self.plan.zero_init, **options)(x, train)
            x = nn.relu(stages[stage])
        return outputs(self.network, x, stages.values())


class PreActResNet(nn.Module):
    """He et al. 2016b, pre-activation.

    The ReLU that ends a stage is the first of the next one, so the maps of a stage are its sum
    after that BatchNorm. Without final_norm nothing follows the last stage; its maps are the sum
    itself, which is pooled.
    """

    network: Network
    plan: Plan

    @nn.compact
    def __call__(self, image, train: bool):
        block = PreActBottleneck if self.plan.bottleneck else PreActBlock
        x = _stem(self.network, self.plan, image, train)
        first_norms = {}
        for stage, options in _blocks(self.plan):
            x, first_norm = block(self.network, **options)(x, train)
            # Of each stage, the first block's is the one that ends the stage before.
            first_norms.setdefault(stage, first_norm)
        maps = [first_norms[1], first_norms[2], first_norms[3]]
        if not self.plan.final_norm:
            return outputs(self.network, x, [*maps, x])
        last = norm(self.network, train, name="bn")(x)
        return outputs(self.network, nn.relu(last), [*maps, last])


def make(
    network: Network,
    *,
    depth: int = 18,  # 10, 18, 34 (basic blocks) or 14, 50, 101, 152 (bottleneck blocks)
    stem: str = "cifar",  # 'cifar': 3x3, no pooling; 'imagenet': 7x7 with stride 2, then 3x3 max pooling
    preact: bool = False,  # pre-activation: BatchNorm and ReLU before each convolution
    width: int = 64,  # channels of the first stage, before the expansion (x 4) of bottleneck blocks
    width_factor: int = 1,  # factor of inner channels of bottleneck blocks (wide ResNet-50-2: 2)
    stride_in_3x3: bool = True,  # bottleneck blocks stride in the 3x3, as 'v1.5' (False: in the first 1x1)
    zero_init: bool = False,  # start the last BatchNorm scale of each branch at 0; not with preact
    stem_norm: bool = True,  # BatchNorm and ReLU after the stem; False only with preact
    final_norm: bool = False,  # BatchNorm and ReLU after the last stage; True only with preact
) -> nn.Module:
    """ResNet of He et al. 2016, post-activation or pre-activation (He et al. 2016b), for images of
    at least 8x8 pixels.

    Post-activation with stem 'imagenet' is torchvision's resnet18 to 152 and wide_resnet50_2; with
    stem 'cifar' it is ResNet18 to 152 of kuangliu's pytorch-cifar. Convolutions start He-normal by
    fan out, as torchvision's do.

    Pre-activation is by default the PreActResNet-18 of PS-KD (Kim et al. 2021): BatchNorm and ReLU
    after the stem, and none after the last stage. stem_norm=False is kuangliu's preact_resnet.py.
    The paper (section 4.2 and appendix) has both norms: final_norm=True. weiaicunzai's
    preactresnet.py, which is not supported, has PS-KD's norms, but biases in its convolutions, and
    shortcuts from the input before activation.

    Raises ValueError if an option is out of range, or if options do not fit together.
    """
    _check_options(
        depth, stem, preact, width, width_factor, stride_in_3x3, zero_init, stem_norm, final_norm
    )
    # No depth is in both tables, so it decides the kind of block.
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


def _check_options(
    depth, stem, preact, width, width_factor, stride_in_3x3, zero_init, stem_norm, final_norm
) -> None:
    """Raise ValueError if an option is out of range, or if options do not fit together."""
    if depth not in BASIC | BOTTLENECK:
        depths = ", ".join(map(str, sorted(BASIC | BOTTLENECK)))
        raise ValueError(f"model.resnet.depth must be one of {depths}; got {depth}")
    if stem not in ("cifar", "imagenet"):
        raise ValueError(f"model.resnet.stem must be 'cifar' or 'imagenet', got {stem!r}")
    if width < 1 or width_factor < 1 or width * width_factor > WIDEST:
        raise ValueError(
            "model.resnet.width and model.resnet.width_factor must be at least 1, with a product "
            f"of at most {WIDEST}; got {width} and {width_factor}"
        )
    # An option without effect would make two configs of one network.
    if depth in BASIC and (width_factor != 1 or not stride_in_3x3):
        raise ValueError(
            "model.resnet.width_factor and model.resnet.stride_in_3x3 apply only to bottleneck "
            f"blocks and must be 1 and True at depth {depth}, got {width_factor} and "
            f"{stride_in_3x3}"
        )
    if preact and zero_init:
        raise ValueError(
            "model.resnet.zero_init must be False with preact=True, where the ReLU after a zero "
            "scale would block the gradient"
        )
    if not preact and (final_norm or not stem_norm):
        raise ValueError(
            "model.resnet.stem_norm and model.resnet.final_norm must be True and False unless "
            f"preact=True, got {stem_norm} and {final_norm}"
        )
