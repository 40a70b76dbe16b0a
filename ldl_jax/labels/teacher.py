"""Frozen networks on the very image that the student sees."""

import jax
import jax.numpy as jnp

from ldl_jax.contract import Build, LabelSource, Target
from ldl_jax.labels import base


def make(
    build: Build,
    *,
    average: str = "probs",  # of several teachers: their 'probs' at this temperature, or their 'logits'
    temperature: float = 1.0,  # of teacher and student, > 0; 1 is label-distribution learning
    weight: float = 1.0,  # of this term; k = as many terms as teachers (at temperature 1 the same gradient)
    soft: bool = False,  # True: compare by KL divergence, as knowledge distillation does; False: by the criterion
) -> LabelSource:
    """Frozen teachers (config.teachers) on the student's image; at temperature 1 the paper's LDL.

    The term has the factor temperature^2 (Hinton et al. 2015, section 2) and is a mean over
    examples, not over examples and classes. Raises ValueError without teachers, or where an option
    is out of its range.
    """
    base.check_choice("teacher", "average", average, ("probs", "logits"))
    if temperature <= 0:
        raise ValueError(
            f"labels.teacher.temperature is {temperature}; allowed are numbers above 0"
        )
    if not build.teachers:
        raise ValueError(
            "labels 'teacher' needs teachers, but config.teachers is empty; name run directories there"
        )

    def targets(state, batch, outputs):
        del state, outputs
        logits = jnp.stack([teacher.logits[0] for teacher in batch.teacher]) / temperature
        each = jax.nn.softmax(logits) if average == "probs" else logits
        probs = each.mean(0) if average == "probs" else jax.nn.softmax(each.mean(0))
        return (Target(jax.lax.stop_gradient(probs), weight, temperature, soft=soft, mixed=True),)

    return LabelSource(targets)
