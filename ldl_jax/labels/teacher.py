"""Frozen teachers that see the student's own image."""

import jax
import jax.numpy as jnp

from ldl_jax.contract import Build, LabelSource, Target
from ldl_jax.labels import base


def make(
    build: Build,
    *,
    average: str = "probs",  # average of several teachers: of 'probs', at this temperature, or of 'logits'
    temperature: float = 1.0,  # temperature of teacher and student, > 0; 1 is LDL
    weight: float = 1.0,  # weight of the term; k counts each of k teachers (temperature 1) as a term
    soft: bool = False,  # use the KL divergence, as in knowledge distillation, not the criterion
) -> LabelSource:
    """Frozen teachers (config.teachers) on the student's image; at temperature 1 the paper's LDL.

    The term has the factor temperature^2 (Hinton et al. 2015, section 2) and is averaged over
    examples, not over examples and classes. Raises ValueError if there is no teacher, or if an
    option is out of range.
    """
    base.check_choice("teacher", "average", average, ("probs", "logits"))
    if not temperature > 0:
        raise ValueError(f"config.labels.teacher.temperature must be above 0, got {temperature}")
    if not build.teachers:
        raise ValueError(
            "labels 'teacher' needs teachers, but config.teachers is empty; name run directories"
        )

    def targets(state, batch, outputs):
        del state, outputs
        logits = jnp.stack([teacher.logits[0] for teacher in batch.teacher]) / temperature
        if average == "logits":
            logits = logits.mean(0)
        probs = jax.nn.softmax(logits)
        if average == "probs":
            probs = probs.mean(0)
        # The teachers have seen the mixed image, so the term must not be mixed again.
        return (Target(jax.lax.stop_gradient(probs), weight, temperature, soft=soft, mixed=True),)

    return LabelSource(targets)
