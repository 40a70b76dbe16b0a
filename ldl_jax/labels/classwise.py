"""One row for every class: online label smoothing."""

import jax
import jax.numpy as jnp

from ldl_jax.contract import Build, LabelSource, Target
from ldl_jax.labels import base


def make(
    build: Build,
    *,
    hard_weight: float = 0.5,  # weight of the term with the hard label
    weight: float = 0.5,  # weight of the term with the class's row
    first: str = "uniform",  # first epoch's rows: 'uniform', or 'zeros' (that term has weight 0 until its end)
    freeze: float = 1.0,  # a class's row stays as it is once its largest entry reaches this, (0, 1]; 1 = never
    write: str = "unmixed",  # predictions that count: 'unmixed' examples' or, by a 'clean' pass, all examples'
) -> LabelSource:
    """Online label per class (OLS): the mean prediction of the class's correctly classified examples last epoch.

    Zhang et al. 2021, equations 3-5. The CIFAR form is weights 0.5 + 0.5 from 'zeros'; the fine-grained form 1 + 1
    from 'uniform' with freeze 0.88. A class without a correct example gets the uniform row, even where its row was
    frozen, as in the published code. State: table [K, K] in use, sums [K, K] and count [K] of the running epoch.
    Raises ValueError where an option is not allowed.
    """
    if first not in ("uniform", "zeros"):
        raise ValueError(f"labels.classwise.first is {first!r}; allowed are 'uniform', 'zeros'")
    if not 0 < freeze <= 1:
        raise ValueError(f"labels.classwise.freeze is {freeze}; allowed are numbers above 0, to 1")
    base.check_write("classwise", write, build.mix_prob)
    size, kind = build.num_classes, build.outputs.logits.dtype

    def init(key, variables):
        del key, variables
        uniform = jnp.full((size, size), 1 / size, kind)
        return {"table": uniform, "sums": jnp.zeros((size, size), kind), "count": jnp.zeros((size,), kind)}

    def targets(state, batch, outputs):
        started = 1.0 if first == "uniform" else (batch.step >= build.steps_per_epoch).astype(kind)
        rows = state["table"][batch.label]
        return Target(base.one_hot(batch, outputs.logits), hard_weight), Target(rows, weight * started)

    def update(state, batch, forward):
        probs, good = base.own_prediction(batch, forward, write)
        good = (good & (jnp.argmax(probs, -1) == batch.label)).astype(kind)
        sums = state["sums"].at[batch.label].add(good[:, None] * probs)
        count = state["count"].at[batch.label].add(good)
        seen = count[:, None] > 0
        new = jnp.where(seen, sums / jnp.where(seen, count[:, None], 1), 1 / size)
        frozen = seen & (freeze < 1) & (jnp.max(state["table"], -1, keepdims=True) >= freeze)
        edge = (batch.step + 1) % build.steps_per_epoch == 0
        table = jnp.where(edge & ~frozen, new, state["table"])
        return {"table": table, "sums": jnp.where(edge, 0, sums), "count": jnp.where(edge, 0, count)}

    def report(state):
        return {"row_entropy": jnp.mean(-jnp.sum(jax.scipy.special.xlogy(state["table"], state["table"]), -1))}

    return LabelSource(targets, init, update, write == "clean", report)
