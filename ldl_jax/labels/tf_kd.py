"""Distillation without a teacher: a virtual one that is right with a fixed probability."""

import jax
import jax.numpy as jnp

from ldl_jax.contract import Build, LabelSource, Target
from ldl_jax.labels import base


def make(
    build: Build,
    *,
    alpha: float = 0.1,  # share of the virtual teacher's term, [0, 1]
    temperature: float = 20.0,  # temperature of the virtual teacher, above 0
    correct: float = 0.99,  # its probability of the label, (0, 1]
    multiplier: float = 1.0,  # further factor of its term, at least 0; K counts it once per example
) -> LabelSource:
    """TF-KD with a manual teacher: (1 - alpha) CE(label) + alpha multiplier / K KL(q || p).

    Yuan et al. 2020 (equation 9), as in the published code: u has `correct` on the label and the
    rest on the other classes alike, and q = softmax(u / temperature) takes the softmax of these
    probabilities, not of their logarithms, so that q is almost uniform. The student is at
    temperature 1, and the KL divergence is averaged over examples and classes, hence 1 / K. The
    self-training form of the paper is a `blend` of `hard` and `teacher` whose teacher is an earlier
    run of the same network. Raises ValueError if an option is out of range.
    """
    name = "config.labels.tf_kd"
    if not 0 <= alpha <= 1:
        raise ValueError(f"{name}.alpha must be in [0, 1], got {alpha}")
    if not temperature > 0:
        raise ValueError(f"{name}.temperature must be above 0, got {temperature}")
    if not 0 < correct <= 1:
        raise ValueError(f"{name}.correct must be in (0, 1], got {correct}")
    if not 0 <= multiplier < float("inf"):
        raise ValueError(f"{name}.multiplier must be finite and at least 0, got {multiplier}")
    others = build.num_classes - 1

    def targets(state, batch, outputs):
        del state
        hard = base.one_hot(batch, outputs.logits)
        virtual = correct * hard + (1 - correct) / others * (1 - hard)
        probs = jax.nn.softmax(virtual / jnp.asarray(temperature, hard.dtype))
        weight = alpha * multiplier / build.num_classes
        return Target(hard, 1 - alpha), Target(probs, weight, soft=True)

    return LabelSource(targets)
