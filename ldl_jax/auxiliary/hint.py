"""FitNet hints: feature maps of the student, passed through an adaptor, imitate the teacher's."""

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
        features = self.features
        kind = x.dtype
        # Padding only where the size is halved: otherwise the kernel itself shrinks the maps.
        pad = [(1, 1)] * 2 if self.strides == 2 else "VALID"
        he = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        conv = nn.Conv(
            features, self.kernel, self.strides, pad, kernel_init=he, param_dtype=kind, name="conv"
        )
        x = conv(x)
        # BatchNorm without running statistics, since the adaptor is used only in training.
        x = (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 1e-5)
        scale = self.param("scale", nn.initializers.ones, (features,), kind)
        bias = self.param("bias", nn.initializers.zeros, (features,), kind)
        return nn.relu(x * scale + bias)


def make(
    build: Build,
    *,
    weight: float = 100.0,  # weight of the mean squared error
    stage: int = 2,  # stage whose maps are compared, counted from 1
) -> Auxiliary:
    """FitNet (Romero et al. 2015, equation 3): squared error between the maps of one stage and the
    first teacher's.

    A trained adaptor (convolution, BatchNorm, ReLU) follows the student's maps. Raises ValueError
    without a teacher, or if the student's maps are smaller than the teacher's.
    """
    if not build.teachers:
        raise ValueError(
            "auxiliary 'hint' needs a teacher, but config.teachers is empty; name a run directory"
        )
    stages = min(len(build.outputs.stages), len(build.teachers[0].stages))
    if not 1 <= stage <= stages:
        raise ValueError(f"config.auxiliary.hint.stage must be between 1 and {stages}, got {stage}")
    student_maps = build.outputs.stages[stage - 1]
    teacher_maps = build.teachers[0].stages[stage - 1]
    size = student_maps.shape[2:4]
    goal = teacher_maps.shape[2:4]
    excess = (size[0] - goal[0], size[1] - goal[1])
    if min(excess) < 0:
        raise ValueError(
            f"config.auxiliary.hint.stage {stage}: the student's maps must be at least as large as the "
            f"teacher's {goal}, got {size}"
        )
    # Maps twice as large are halved by a stride; any others are trimmed by a larger kernel.
    halved = excess == goal
    kernel = (3, 3) if halved else (1 + excess[0], 1 + excess[1])
    adaptor = Adaptor(teacher_maps.shape[-1], kernel, 2 if halved else 1)
    kind = jnp.promote_types(student_maps.dtype, build.outputs.logits.dtype)

    def init(key):
        return adaptor.init(key, jnp.zeros(student_maps.shape[1:], kind))["params"], ()

    def loss(params, state, batch, outputs, targets):
        maps = nn.relu(outputs.stages[stage - 1][0]).astype(kind)
        student = adaptor.apply({"params": params}, maps)
        teacher = nn.relu(batch.teacher[0].stages[stage - 1][0]).astype(kind)
        error = jnp.mean((student - teacher) ** 2, axis=(1, 2, 3))
        return masked_mean(error, batch), state

    return Auxiliary(loss, init, weight=weight)
