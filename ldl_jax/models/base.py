"""Shared parts of the networks: their common settings, layers and blocks.

Layers are named as in PyTorch code, with an underscore for a dot (`layer1_0` is layer1.0);
`ldl_jax.convert` relies on it.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldl_jax.contract import Outputs

DEEPEST = 1202  # layers, as in the deepest network of He et al. 2016; more take too long to trace
WIDEST = 8192  # channels of the first stage


class Network(NamedTuple):
    """The settings common to all networks."""

    num_classes: int
    mean: tuple[float, ...]  # mean of the pixels in [0, 1], per channel
    std: tuple[float, ...]  # standard deviation of the pixels, per channel
    # type of activations; parameters, statistics and logits are never below float32
    dtype: Any = jnp.float32
    # consecutive images that share BatchNorm statistics in training (0: the whole batch)
    norm_group: int = 0


def param_dtype(dtype):
    """The type of parameters for activations of `dtype`: float64 for float64, otherwise float32."""
    return jnp.promote_types(dtype, jnp.float32)


def check_group(group: int, batch_size: int, views: int) -> None:
    """Raise ValueError if BatchNorm's groups do not divide a training batch of this many views."""
    images = batch_size * views
    if group and images % group:
        product = f" ({views} views of config.data.batch_size)" if views > 1 else ""
        raise ValueError(
            "config.model.norm_group must be 0 (the whole batch) or divide the training batch of "
            f"{images} images{product}, got {group}"
        )


def normalise(image, network: Network):
    """Images [B, H, W, C] in [0, 1], minus the mean and divided by the standard deviation of the
    training images.
    """
    kind = jnp.promote_types(image.dtype, param_dtype(network.dtype))
    mean = jnp.asarray(network.mean, kind)
    std = jnp.asarray(network.std, kind)
    return ((image.astype(kind) - mean) / std).astype(network.dtype)


# Positions of the maps (images x height x width) in one part of a weight gradient on a CPU.
PART = 16_384


def weight_gradient(convolution, maps, gradient, kernel):
    """The gradient of a convolution by its kernel, from that of its output; summed over parts of
    the batch on CPUs, where XLA's own is up to ten times slower on maps that do not fit the cache.

    Maps and gradient are [B, H, W, C]; every part takes images from all over the batch, so that
    the devices which share it stay busy.
    """

    def whole(maps, gradient):
        return jax.linear_transpose(lambda kernel: convolution(maps, kernel), kernel)(gradient)[0]

    def in_parts(maps, gradient):
        size, height, width, _ = maps.shape
        most = max(1, min(size, size * height * width // PART))
        parts = max(n for n in range(1, most + 1) if size % n == 0)
        maps, gradient = (x.reshape(-1, parts, *x.shape[1:]) for x in (maps, gradient))
        return sum(whole(maps[:, part], gradient[:, part]) for part in range(parts))

    return jax.lax.platform_dependent(maps, gradient, cpu=in_parts, default=whole)


def convolve(maps, kernel, *args, **options):
    """`lax.conv_general_dilated`, with `weight_gradient` as the gradient by the kernel."""

    def plain(maps, kernel):
        return jax.lax.conv_general_dilated(maps, kernel, *args, **options)

    def forward(maps, kernel):
        return plain(maps, kernel), (maps, kernel)

    def backward(saved, gradient):
        maps, kernel = saved
        by_maps = jax.linear_transpose(lambda maps: plain(maps, kernel), maps)(gradient)[0]
        return by_maps, weight_gradient(plain, maps, gradient, kernel)

    convolution = jax.custom_vjp(plain)
    convolution.defvjp(forward, backward)
    return convolution(maps, kernel)


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
        conv_general_dilated=convolve,
        name=name,
    )


# BatchNorm constants; PyTorch's momentum is 1 - MOMENTUM.
EPSILON = 1e-5
MOMENTUM = 0.9


class GroupedBatchNorm(nn.Module):
    """BatchNorm in training with separate statistics for each group of `group` consecutive images
    [B, ..., C].

    Running averages follow the mean over groups of their means and (biased) variances, so
    parameters and statistics have the names and shapes of `nn.BatchNorm`. Raises ValueError if B is
    not a multiple of group.
    """

    group: int
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x):
        size = x.shape[0]
        features = x.shape[-1:]
        if size % self.group:
            raise ValueError(
                f"config.model.norm_group must divide the {size} images of a training batch "
                f"(config.data.batch_size times the number of views), got {self.group}"
            )
        scale = self.param("scale", nn.initializers.ones, features, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, features, self.param_dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features)
        running_variance = self.variable("batch_stats", "var", jnp.zeros, features)
        wide = x.astype(self.param_dtype)
        inner = tuple(range(1, x.ndim - 1))

        def group_mean(values):  # [B, C] -> [B / group, C]
            return values.reshape(-1, self.group, *features).mean(1)

        # Average over each image first: then only statistics, never maps, move between devices
        # that share a group.
        mean = group_mean(wide.mean(inner))
        square = group_mean(jnp.square(wide).mean(inner))
        variance = jnp.maximum(square - jnp.square(mean), 0)
        for running, value in ((running_mean, mean), (running_variance, variance)):
            running.value = MOMENTUM * running.value + (1 - MOMENTUM) * value.mean(0)

        def per_image(values):  # [B / group, C] -> [B, 1, ..., C]
            return jnp.repeat(values, self.group, axis=0).reshape(
                size, *[1] * len(inner), *features
            )

        factor = jax.lax.rsqrt(variance + EPSILON) * scale
        normalised = (wide - per_image(mean)) * per_image(factor) + bias
        return normalised.astype(self.dtype)


def norm(network: Network, train: bool, *, zero: bool = False, name: str):
    """BatchNorm over the global batch, or over groups of `norm_group` images; momentum 0.9, epsilon
    1e-5.

    The scale starts at 1, or at 0 with `zero`. The running variance is the biased one; PyTorch
    keeps the unbiased one, larger by n / (n - 1), which affects only evaluation.
    """
    kind = param_dtype(network.dtype)
    # In evaluation both use the running averages, so groups matter only in training.
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
    """The last linear layer, in float32 or better, initialised uniformly in ±1/sqrt(D) as in
    PyTorch.
    """
    kind = param_dtype(network.dtype)
    # A variance of 1 / (3 D) is that of the uniform distribution in ±1/sqrt(D).
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
    """Global average of maps [B, h, w, c] in float32 or better: [B, c]."""
    return jnp.mean(maps, axis=(1, 2), dtype=param_dtype(network.dtype))


def outputs(network: Network, maps, stages) -> Outputs:
    """Outputs of a network: logits and embedding from its last maps [B, h, w, c], and the maps of
    every stage.
    """
    embedding = pool(maps, network)
    return Outputs(head(network, embedding), tuple(stages), embedding)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution if the shape changes.

    Returns the sum before ReLU. He et al. 2016, figure 5 left, with projections (option B).
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
    """The shortcut of a post-activation block: the input, or a 1x1 convolution with BatchNorm if
    the shape changes.
    """
    if strides == 1 and x.shape[-1] == features:
        return x
    x = conv(network, features, 1, strides, name="downsample_0")(x)
    return norm(network, train, name="downsample_1")(x)


class PreActBlock(nn.Module):
    """Twice BatchNorm, ReLU and 3x3 convolution, and a shortcut.

    Returns the sum, and the maps before the first ReLU. He et al. 2016b, figure 4e. If the shape
    changes, the shortcut is a 1x1 convolution of the activated input, as in the CIFAR code of
    kuangliu (PreActBlock) and of Zagoruyko and Komodakis 2016 (wide ResNets).
    """

    network: Network
    features: int
    strides: int
    shortcut: str = "downsample_0"  # name of the 1x1 convolution
    dropout: float = 0.0  # dropout rate between the convolutions, after ReLU

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
