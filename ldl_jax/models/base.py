"""What every network knows when it is made, and the layers and blocks they share.

Parts are named as in PyTorch code, an underscore for a dot (`layer1_0` is layer1.0):
`ldl_jax.convert` relies on it.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldl_jax.contract import Outputs

DEEPEST = 1202  # layers: the deepest of He et al. 2016; more of them are unrolled for ever
WIDEST = 8192  # channels of a first stage


class Network(NamedTuple):
    """The settings common to all networks."""

    num_classes: int
    mean: tuple[float, ...]  # of the pixels in [0, 1], per channel
    std: tuple[float, ...]
    # of activations; parameters, statistics and logits are never below float32
    dtype: Any = jnp.float32
    # consecutive images that share BatchNorm's statistics in training; 0 = all of the batch
    norm_group: int = 0


def param_dtype(dtype):
    """The type of parameters beside activations of `dtype`: float64 for float64, float32 otherwise."""
    return jnp.promote_types(dtype, jnp.float32)


def check_group(group: int, batch_size: int, views: int) -> None:
    """Raise ValueError where BatchNorm's groups do not share a training batch, of so many views,
    evenly.
    """
    if group and batch_size * views % group:
        shown = f"the {views} views of " if views > 1 else ""
        raise ValueError(
            f"config.model.norm_group is {group}, which does not divide {shown}config.data.batch_size {batch_size}; "
            f"allowed are 0 for the whole batch, and the divisors of {batch_size * views}"
        )


def normalise(image, network: Network):
    """Subtract the mean and divide by the standard deviation of the training images, [B, H, W, C]
    in [0, 1].
    """
    kind = jnp.promote_types(image.dtype, param_dtype(network.dtype))
    mean = jnp.asarray(network.mean, kind)
    std = jnp.asarray(network.std, kind)
    return ((image.astype(kind) - mean) / std).astype(network.dtype)


def conv(network: Network, features: int, kernel: int, strides: int = 1, *, name: str):
    """A convolution without bias, padded symmetrically as PyTorch does, He-normal by fan out."""
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(strides, strides),
        padding=[(kernel // 2, kernel // 2)] * 2,
        use_bias=False,
        dtype=network.dtype,
        param_dtype=param_dtype(network.dtype),
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        name=name,
    )


# Of BatchNorm, as PyTorch's, whose momentum is 1 - 0.9.
EPSILON = 1e-5
MOMENTUM = 0.9


class GroupedBatchNorm(nn.Module):
    """BatchNorm in training, each group of `group` consecutive images [B, ..., C] with statistics
    of its own.

    Running averages follow the mean over groups of their means and (biased) variances, so
    parameters and statistics are named and shaped as `nn.BatchNorm`'s. An image is summed up before
    groups are formed: between devices move the statistics of groups that several of them share,
    never maps. Raises ValueError where B is no multiple of group.
    """

    group: int
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x):
        size, features = x.shape[0], x.shape[-1:]
        if size % self.group:
            raise ValueError(
                f"config.model.norm_group is {self.group}, which does not divide the {size} images of a pass in "
                "training (config.data.batch_size, times the views where there are several); allowed are its divisors"
            )
        scale = self.param("scale", nn.initializers.ones, features, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, features, self.param_dtype)
        running = [
            self.variable("batch_stats", name, jnp.zeros, features) for name in ("mean", "var")
        ]
        wide = x.astype(self.param_dtype)
        inner = tuple(range(1, x.ndim - 1))

        def of_groups(images):  # [B, C] -> [B / group, C]
            return images.reshape(-1, self.group, *features).mean(1)

        mean, square = of_groups(wide.mean(inner)), of_groups(jnp.square(wide).mean(inner))
        variance = jnp.maximum(square - jnp.square(mean), 0)
        for average, seen in zip(running, (mean, variance), strict=True):
            average.value = MOMENTUM * average.value + (1 - MOMENTUM) * seen.mean(0)

        def of_images(groups):  # [B / group, C] -> [B, 1, ..., C]
            return jnp.repeat(groups, self.group, axis=0).reshape(
                size, *(1 for _ in inner), *features
            )

        shifted = wide - of_images(mean)
        return (shifted * of_images(jax.lax.rsqrt(variance + EPSILON) * scale) + bias).astype(
            self.dtype
        )


def norm(network: Network, train: bool, *, zero: bool = False, name: str):
    """BatchNorm over the global batch, or in groups of `norm_group` images, momentum 0.9, epsilon
    1e-5.

    Its scale starts at 1, or at 0 with `zero`. The running variance is the biased one (PyTorch
    keeps the unbiased one: a factor n / (n - 1), seen in evaluation alone).
    """
    kind = param_dtype(network.dtype)
    if train and network.norm_group:
        return GroupedBatchNorm(network.norm_group, network.dtype, kind, name=name)
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=MOMENTUM,
        epsilon=EPSILON,
        dtype=network.dtype,
        param_dtype=kind,
        scale_init=nn.initializers.zeros if zero else nn.initializers.ones,
        name=name,
    )


def head(network: Network, embedding):
    """The last linear layer, in float32 or better; initialised uniformly in ±1/sqrt(D), as PyTorch
    does.
    """
    kind = param_dtype(network.dtype)
    uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    bound = embedding.shape[-1] ** -0.5

    def bias_init(key, shape, dtype):
        return nn.initializers.uniform(2 * bound)(key, shape, dtype) - jnp.asarray(bound, dtype)

    layer = nn.Dense(
        network.num_classes,
        dtype=kind,
        param_dtype=kind,
        kernel_init=uniform,
        bias_init=bias_init,
        name="fc",
    )
    return layer(embedding.astype(kind))


def pool(maps, network: Network):
    """Global average of maps [B, h, w, c], summed in float32 or better: [B, c]."""
    return jnp.mean(maps, axis=(1, 2), dtype=param_dtype(network.dtype))


def outputs(network: Network, maps, stages) -> Outputs:
    """The last maps [B, h, w, c] averaged and classified, beside the maps of every stage."""
    embedding = pool(maps, network)
    return Outputs(head(network, embedding), tuple(stages), embedding)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (1x1 convolution where the shape changes); returns the
    sum before ReLU.

    He et al. 2016, figure 5 left, with projections (option B).
    """

    network: Network
    features: int
    strides: int
    zero_init: bool = False  # the last BatchNorm's scale starts at 0

    @nn.compact
    def __call__(self, x, train: bool):
        y = conv(self.network, self.features, 3, self.strides, name="conv1")(x)
        y = nn.relu(norm(self.network, train, name="bn1")(y))
        y = conv(self.network, self.features, 3, name="conv2")(y)
        y = norm(self.network, train, zero=self.zero_init, name="bn2")(y)
        return projection(self.network, x, self.features, self.strides, train) + y


def projection(network: Network, x, features: int, strides: int, train: bool):
    """The shortcut of a post-activation block: the input, or its 1x1 convolution with BatchNorm
    where shapes change.
    """
    if strides == 1 and x.shape[-1] == features:
        return x
    x = conv(network, features, 1, strides, name="downsample_0")(x)
    return norm(network, train, name="downsample_1")(x)


class PreActBlock(nn.Module):
    """BatchNorm, ReLU and 3x3 convolution, twice, and a shortcut; returns the sum, and the maps
    before the first ReLU.

    He et al. 2016b, figure 4e. Where the shape changes, the shortcut is a 1x1 convolution of the
    activated input, as in the CIFAR code of kuangliu (PreActBlock) and of Zagoruyko and Komodakis
    2016 (wide ResNets).
    """

    network: Network
    features: int
    strides: int
    shortcut: str = "downsample_0"  # name of the 1x1 convolution
    dropout: float = 0.0  # between the convolutions, after ReLU

    @nn.compact
    def __call__(self, x, train: bool):
        before = norm(self.network, train, name="bn1")(x)
        y = nn.relu(before)
        if self.strides != 1 or x.shape[-1] != self.features:
            x = conv(self.network, self.features, 1, self.strides, name=self.shortcut)(y)
        y = conv(self.network, self.features, 3, self.strides, name="conv1")(y)
        y = nn.relu(norm(self.network, train, name="bn2")(y))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return x + conv(self.network, self.features, 3, name="conv2")(y), before
