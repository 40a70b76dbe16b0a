"""The network's own average over time as the teacher."""

import jax
import jax.numpy as jnp

from ldl_jax.contract import Build, LabelSource, Target
from ldl_jax.labels import base

KEY = 8  # folded into the key of a step, so that the teacher's dropout is not the student's


def make(
    build: Build,
    *,
    decay: float = 0.999,  # of the average of parameters, [0, 1)
    warm_up: bool = True,  # True: decay min(1 - 1 / (updates + 1), decay), so that the average forgets the start
    statistics: str = "averaged",  # BatchNorm of the teacher: 'averaged' running ones, or those of the 'batch'
    hard_weight: float = 1.0,  # weight of the term with the hard label
    weight: float = 1.0,  # weight of the term with the teacher's prediction
    temperature: float = 1.0,  # of teacher and student in that term, > 0
) -> LabelSource:
    """Mean teacher: the averaged network's prediction of the very image the student sees, beside
    the hard label.

    Tarvainen and Valpola 2017, equation 1, with a distribution compared by the criterion instead of
    squared error. State: params, batch_stats (like the student's) and updates i32[]. Raises
    ValueError for options out of range.
    """
    base.check_choice("mean_teacher", "statistics", statistics, ("averaged", "batch"))
    if not (0 <= decay < 1 and temperature > 0):
        raise ValueError(
            f"labels.mean_teacher: decay {decay}, temperature {temperature}; allowed are [0, 1) and > 0"
        )

    def init(key, variables):
        del key
        return {**jax.tree.map(jnp.copy, dict(variables)), "updates": jnp.zeros((), jnp.int32)}

    def targets(state, batch, outputs):
        variables = {"params": state["params"], "batch_stats": state["batch_stats"]}
        key = jax.random.fold_in(batch.key, KEY)
        seen, _ = build.apply(variables, batch.image[0], train=statistics == "batch", key=key)
        probs = jax.nn.softmax(seen.logits / temperature)
        hard = Target(base.one_hot(batch, outputs.logits), hard_weight)
        return hard, Target(jax.lax.stop_gradient(probs), weight, temperature, mixed=True)

    def update(state, batch, forward):
        del batch
        updates = state["updates"] + forward.updated

        def average(old, new):
            kept = jnp.minimum(1 - 1 / (updates + 1).astype(old.dtype), decay) if warm_up else decay
            m = jnp.where(forward.updated, kept, 1).astype(old.dtype)
            return m * old + (1 - m) * new

        now = {"params": forward.params, "batch_stats": forward.batch_stats}
        return {
            **{name: jax.tree.map(average, state[name], now[name]) for name in now},
            "updates": updates,
        }

    return LabelSource(targets, init, update)
