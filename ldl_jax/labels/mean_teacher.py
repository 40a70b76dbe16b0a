"""Mean teacher: a moving average of the network teaches the network."""

import jax
import jax.numpy as jnp

from ldl_jax.contract import Build, LabelSource, Target
from ldl_jax.labels import base

KEY = 8  # folded into the key of a step, so that the teacher's dropout is not the student's


def make(
    build: Build,
    *,
    decay: float = 0.999,  # decay of the average of parameters, [0, 1)
    warm_up: bool = True,  # use decay min(1 - 1 / (updates + 1), decay), which forgets the start
    statistics: str = "averaged",  # of the teacher's BatchNorm: 'averaged', 'batch' or 'own'
    hard_weight: float = 1.0,  # weight of the term with the hard label
    weight: float = 1.0,  # weight of the term with the teacher's prediction
    temperature: float = 1.0,  # temperature of teacher and student in that term, > 0
) -> LabelSource:
    """Mean teacher: the hard label, and the averaged network's prediction of the same image.

    Tarvainen and Valpola 2017, equation 1, with the criterion between distributions instead of a
    squared error. BatchNorm's statistics in the teacher: 'averaged' are the student's running ones,
    averaged like its parameters; 'batch' are the batch's in training, and the averaged ones when the
    teacher is taken out of the run; 'own' are the batch's too, and the running ones that the
    teacher's own passes leave, as in the published code. State: params, batch_stats (like the
    student's) and updates i32[]. Raises ValueError if an option is out of range.
    """
    base.check_choice("mean_teacher", "statistics", statistics, ("averaged", "batch", "own"))
    if not 0 <= decay < 1:
        raise ValueError(f"config.labels.mean_teacher.decay must be in [0, 1), got {decay}")
    if not temperature > 0:
        raise ValueError(
            f"config.labels.mean_teacher.temperature must be above 0, got {temperature}"
        )

    def init(key, variables):
        del key
        # Copied, so that the state, which is donated, does not hold a buffer twice.
        return {**jax.tree.map(jnp.copy, dict(variables)), "updates": jnp.zeros((), jnp.int32)}

    def passed(state, batch):
        """The outputs of the teacher, and its running statistics after this pass."""
        variables = {"params": state["params"], "batch_stats": state["batch_stats"]}
        key = jax.random.fold_in(batch.key, KEY)
        train = statistics != "averaged"
        return build.apply(variables, batch.image[0], train=train, key=key)

    def targets(state, batch, outputs):
        teacher, _ = passed(state, batch)
        probs = jax.nn.softmax(teacher.logits / temperature)
        hard = Target(base.one_hot(batch, outputs.logits), hard_weight)
        # The teacher has seen the mixed image, so its term must not be mixed again.
        return hard, Target(jax.lax.stop_gradient(probs), weight, temperature, mixed=True)

    def update(state, batch, forward):
        updates = state["updates"] + forward.updated

        def average(old, new):
            rate = jnp.minimum(1 - 1 / (updates + 1).astype(old.dtype), decay) if warm_up else decay
            # Between accumulated updates the student stands still, and so does its average.
            m = jnp.where(forward.updated, rate, 1).astype(old.dtype)
            return m * old + (1 - m) * new

        params = jax.tree.map(average, state["params"], forward.params)
        if statistics == "own":
            # The pass of `targets` again, which the compiler does once.
            batch_stats = jax.lax.stop_gradient(passed(state, batch)[1])
        else:
            batch_stats = jax.tree.map(average, state["batch_stats"], forward.batch_stats)
        return {"params": params, "batch_stats": batch_stats, "updates": updates}

    return LabelSource(targets, init, update)
