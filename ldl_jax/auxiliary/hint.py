"""FitNet's hint: the student's maps of a stage, through an adaptor, resemble the teacher's."""

import flax.linen as nn
import jax.numpy as jnp

from ldl_jax.auxiliary.base import masked_mean
from ldl_jax.contract import Auxiliary, Build


class Adaptor(nn.Module):
    """Convolution, BatchNorm and ReLU from student maps [B, h, w, c] to the teacher's shape."""

    features: int
    kernel: tuple[int, int]
    strides: int

    @nn.compact
    def __call__(self, x):
        pad = [(1, 1)] * 2 if self.strides == 2 else "VALID"
        he = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        x = nn.Conv(
            self.features,
            self.kernel,
            self.strides,
            pad,
            kernel_init=he,
            param_dtype=x.dtype,
            name="conv",
        )(x)
        x = (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 1e-5)
        scale = self.param("scale", nn.initializers.ones, (self.features,), x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), x.dtype)
        return nn.relu(x * scale + bias)


def make(
    build: Build,
    *,
    stage: int = 2,  # stage whose maps are compared, counted from 1
    weight: float = 100.0,  # of the mean squared error
) -> Auxiliary:
    """FitNet: squared error between a stage's maps and the first teacher's.

    Romero et al. 2015, equation 3.
    The student's maps pass a trained adaptor (convolution, BatchNorm, ReLU). Raises ValueError
    without a teacher, or where the student's maps of that stage are smaller than the teacher's.
    """
    if not build.teachers:
        raise ValueError(
            "auxiliary 'hint' needs a teacher, but config.teachers is empty; name a run directory there"
        )
    stages = min(len(build.outputs.stages), len(build.teachers[0].stages))
    if not 1 <= stage <= stages:
        raise ValueError(f"auxiliary.hint.stage is {stage}; allowed are 1 to {stages}")
    mine, theirs = (o.stages[stage - 1] for o in (build.outputs, build.teachers[0]))
    size, goal = mine.shape[2:4], theirs.shape[2:4]
    beyond = size[0] - goal[0], size[1] - goal[1]
    if min(beyond) < 0:
        raise ValueError(
            f"auxiliary.hint.stage {stage}: maps of {size}; allowed are at least the teacher's {goal}"
        )
    halved = beyond == goal
    adaptor = Adaptor(
        theirs.shape[-1], (3, 3) if halved else (1 + beyond[0], 1 + beyond[1]), 2 if halved else 1
    )
    kind = jnp.promote_types(mine.dtype, build.outputs.logits.dtype)

    def init(key):
        return adaptor.init(key, jnp.zeros(mine.shape[1:], kind))["params"], ()

    def loss(params, state, batch, outputs, targets):
        maps = nn.relu(outputs.stages[stage - 1][0]).astype(kind)
        student = adaptor.apply({"params": params}, maps)
        teacher = nn.relu(batch.teacher[0].stages[stage - 1][0]).astype(kind)
        error = jnp.mean((student - teacher) ** 2, axis=(1, 2, 3))
        return weight * masked_mean(error, batch), state

    return Auxiliary(loss, init)
