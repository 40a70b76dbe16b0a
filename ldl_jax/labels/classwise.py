"""Online label smoothing: one soft label for every class."""

import jax.numpy as jnp

from ldl_jax.contract import Build, LabelSource, Target
from ldl_jax.labels import base


def make(
    build: Build,
    *,
    hard_weight: float = 0.5,  # weight of the term with the hard label
    weight: float = 0.5,  # weight of the term with the class's row
    first: str = "uniform",  # rows of the first epoch: 'uniform', or 'zeros' (no such term in it)
    freeze: float = 1.0,  # a class keeps its row once an entry reaches this, (0, 1]; 1: never
    write: str = "unmixed",  # predictions averaged: 'unmixed' examples, or all by a 'clean' pass
) -> LabelSource:
    """Online label per class (OLS): the mean prediction of the class's correctly classified
    examples last epoch.

    Zhang et al. 2021, equations 3-5. The CIFAR form is weights 0.5 + 0.5 from 'zeros'; the
    fine-grained form is 1 + 1 from 'uniform' with freeze 0.88. A class without a correct example
    gets the uniform row, even a frozen one, as in the published code. State: table [K, K] in use;
    sums [K, K] and count [K] of the current epoch, which ends even if its last step is skipped.
    Raises ValueError if an option is out of range.
    """
    base.check_choice("classwise", "first", first, ("uniform", "zeros"))
    if not 0 < freeze <= 1:
        raise ValueError(f"config.labels.classwise.freeze must be in (0, 1], got {freeze}")
    base.check_write("classwise", write, build.mix_prob)
    size = build.num_classes
    kind = build.outputs.logits.dtype

    def init(key, variables):
        del key, variables
        zeros = jnp.zeros((size, size), kind)
        epoch = jnp.zeros((), jnp.int32)
        return {"table": zeros + 1 / size, "sums": zeros, "count": zeros[0], "epoch": epoch}

    def at_epoch(state, epoch):
        """The state at a step of `epoch`: sums of an earlier epoch become the table."""
        sums, count = state["sums"], state["count"]
        over = epoch > state["epoch"]
        frozen = (freeze < 1) & (jnp.max(state["table"], -1) >= freeze) & (count > 0)
        table = jnp.where(over & ~frozen[:, None], base.mean_rows(sums, count), state["table"])
        epoch = jnp.maximum(epoch, state["epoch"])
        return {"table": table, "sums": sums * ~over, "count": count * ~over, "epoch": epoch}

    def targets(state, batch, outputs):
        # With 'zeros', the first epoch has the hard label alone.
        started = 1.0 if first == "uniform" else (batch.step >= build.steps_per_epoch).astype(kind)
        rows = at_epoch(state, batch.step // build.steps_per_epoch)["table"][batch.label]
        hard = Target(base.one_hot(batch, outputs.logits), hard_weight)
        return hard, Target(rows, weight * started)

    def update(state, batch, forward):
        probs, valid = base.own_prediction(batch, forward, write)
        correct = (valid & (jnp.argmax(probs, -1) == batch.label)).astype(kind)
        state = at_epoch(state, batch.step // build.steps_per_epoch)
        sums = state["sums"].at[batch.label].add(correct[:, None] * probs)
        count = state["count"].at[batch.label].add(correct)
        # The last step of an epoch closes it, so an evaluation after it sees the new table.
        state = {**state, "sums": sums, "count": count}
        return at_epoch(state, (batch.step + 1) // build.steps_per_epoch)

    def report(state):
        return {"row_entropy": base.mean_entropy(state["table"])}

    return LabelSource(targets, init, update, write == "clean", report)
