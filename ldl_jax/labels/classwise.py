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
    """Online label per class (OLS): the mean prediction of the class's correctly classified
    examples last epoch.

    Zhang et al. 2021, equations 3-5. The CIFAR form is weights 0.5 + 0.5 from 'zeros'; the
    fine-grained form 1 + 1 from 'uniform' with freeze 0.88. A class without a correct example gets
    the uniform row, even a frozen one, as in the published code. State: table [K, K] in use, sums
    [K, K] and count [K] of the running epoch, which ends even where its last step is skipped.
    Raises ValueError where an option is not allowed.
    """
    base.check_choice("classwise", "first", first, ("uniform", "zeros"))
    if not 0 < freeze <= 1:
        raise ValueError(f"labels.classwise.freeze is {freeze}; allowed are numbers above 0, to 1")
    base.check_write("classwise", write, build.mix_prob)
    size, kind = build.num_classes, build.outputs.logits.dtype

    def init(key, variables):
        del key, variables
        zeros = jnp.zeros((size, size), kind)
        return {
            "table": zeros + 1 / size,
            "sums": zeros,
            "count": zeros[0],
            "epoch": jnp.zeros((), jnp.int32),
        }

    def turned(state, now):
        """The state at a step of epoch `now`: where the sums are of an earlier one, they become the
        table.
        """
        late, sums, count = now > state["epoch"], state["sums"], state["count"]
        sure = (freeze < 1) & (jnp.max(state["table"], -1) >= freeze) & (count > 0)
        table = jnp.where(late & ~sure[:, None], base.mean_rows(sums, count), state["table"])
        return {
            "table": table,
            "sums": sums * ~late,
            "count": count * ~late,
            "epoch": jnp.maximum(now, state["epoch"]),
        }

    def targets(state, batch, outputs):
        started = 1.0 if first == "uniform" else (batch.step >= build.steps_per_epoch).astype(kind)
        rows = turned(state, batch.step // build.steps_per_epoch)["table"][batch.label]
        return Target(base.one_hot(batch, outputs.logits), hard_weight), Target(
            rows, weight * started
        )

    def update(state, batch, forward):
        probs, good = base.own_prediction(batch, forward, write)
        good = (good & (jnp.argmax(probs, -1) == batch.label)).astype(kind)
        state = turned(state, batch.step // build.steps_per_epoch)
        sums = state["sums"].at[batch.label].add(good[:, None] * probs)
        count = state["count"].at[batch.label].add(good)
        return turned(
            {**state, "sums": sums, "count": count}, (batch.step + 1) // build.steps_per_epoch
        )

    def report(state):
        return {
            "row_entropy": jnp.mean(
                -jnp.sum(jax.scipy.special.xlogy(state["table"], state["table"]), -1)
            )
        }

    return LabelSource(targets, init, update, write == "clean", report)
