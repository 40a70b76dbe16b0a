"""What every network knows when it is made, and the layers they share."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp


class Network(NamedTuple):
    """The settings common to all networks."""

    num_classes: int
    mean: tuple[float, ...]  # of the pixels in [0, 1], per channel
    std: tuple[float, ...]
    dtype: Any = jnp.float32  # of activations; parameters, statistics and logits are never below float32


def param_dtype(dtype):
    """The type of parameters beside activations of `dtype`: float64 for float64, float32 otherwise."""
    return jnp.promote_types(dtype, jnp.float32)


def normalise(image, network: Network):
    """Subtract the mean and divide by the standard deviation of the training images, [B, H, W, C] in [0, 1]."""
    kind = jnp.promote_types(image.dtype, param_dtype(network.dtype))
    mean, std = jnp.asarray(network.mean, kind), jnp.asarray(network.std, kind)
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


def norm(network: Network, train: bool, *, name: str):
    """BatchNorm over the global batch, momentum 0.9, epsilon 1e-5.

    The running variance is the biased one (PyTorch keeps the unbiased one: a factor n / (n - 1), seen in
    evaluation alone).
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=network.dtype,
        param_dtype=param_dtype(network.dtype),
        name=name,
    )


def head(network: Network, embedding, *, name: str = "fc"):
    """The last linear layer, in float32 or better; initialised uniformly in ±1/sqrt(D), as PyTorch does."""
    kind = param_dtype(network.dtype)
    uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    bound = embedding.shape[-1] ** -0.5

    def bias_init(key, shape, dtype):
        return nn.initializers.uniform(2 * bound)(key, shape, dtype) - jnp.asarray(bound, dtype)

    layer = nn.Dense(
        network.num_classes, dtype=kind, param_dtype=kind, kernel_init=uniform, bias_init=bias_init, name=name
    )
    return layer(embedding.astype(kind))


def pool(maps, network: Network):
    """Global average of maps [B, h, w, c], summed in float32 or better: [B, c]."""
    return jnp.mean(maps, axis=(1, 2), dtype=param_dtype(network.dtype))
