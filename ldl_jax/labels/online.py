"""Online label distributions: each example's label is softened by the network's own earlier
predictions of it.
"""

import jax.numpy as jnp

from ldl_jax.contract import Build, LabelSource, Target
from ldl_jax.labels import base

DTYPES = ("logits", "float16")
SCHEDULES = ("linear", "constant")


def make(
    build: Build,
    *,
    alpha: float = 0.8,  # share of the own prediction in the target at the end of training, [0, 1]
    schedule: str = "linear",  # of alpha: 'linear' (alpha (e + 1) / E in epoch e of E), 'constant'
    momentum: float = 0.0,  # m in m old + (1 - m) new, [0, 1); 0: prediction one epoch ago (PS-KD)
    write: str = "unmixed",  # rows written: 'unmixed' examples, or all by a 'clean' pass
    dtype: str = "logits",  # type of the rows: that of the 'logits', or 'float16' for half the memory
    temperature: float = 1.0,  # temperature of the predictions that are written, above 0
    correct_only: bool = False,  # write a prediction only if its most probable class is the label
    start_epoch: float = 0.0,  # epochs with the hard label alone, at least 0; rows are written in them
) -> LabelSource:
    """Online label per example: (1 - a) hard label + a own earlier prediction, from a memory of N x
    K rows.

    momentum = 0 with the linear schedule is PS-KD (Kim et al. 2021, equations 3 and 7); momentum =
    0.6 with a constant alpha is the recursion of temporal ensembling (Laine and Aila 2017,
    algorithm 2) inside a cross entropy. alpha = 1 with a constant schedule and a start epoch
    replaces noisy labels, as joint optimisation does (Tanaka et al. 2018). State: rows [build.rows,
    K]. Raises ValueError if an option is out of range.
    """
    base.check_choice("online", "schedule", schedule, SCHEDULES)
    base.check_choice("online", "dtype", dtype, DTYPES)
    if not 0 <= alpha <= 1:
        raise ValueError(f"config.labels.online.alpha must be in [0, 1], got {alpha}")
    if not 0 <= momentum < 1:
        raise ValueError(f"config.labels.online.momentum must be in [0, 1), got {momentum}")
    if not temperature > 0:
        raise ValueError(f"config.labels.online.temperature must be above 0, got {temperature}")
    base.check_epochs("online", "start_epoch", start_epoch)
    base.check_write("online", write, build.mix_prob)
    epochs = max(1, build.total_steps // build.steps_per_epoch)
    kind = build.outputs.logits.dtype if dtype == "logits" else jnp.float16

    def init(key, variables):
        del key, variables
        return {"rows": jnp.zeros((build.rows, build.num_classes), kind)}

    def targets(state, batch, outputs):
        hard = base.one_hot(batch, outputs.logits)
        epoch = batch.step // build.steps_per_epoch
        progress = 1.0
        if schedule == "linear":
            # A last, partial epoch is not counted in `epochs`; it keeps the full alpha.
            progress = jnp.minimum((epoch + 1).astype(hard.dtype) / epochs, 1)
        progress *= base.ramp(batch.step, build, start_epoch)
        share = jnp.asarray(alpha * progress, hard.dtype)
        own = base.read_rows(state["rows"], batch.index, hard)
        return (Target((1 - share) * hard + share * own),)

    def update(state, batch, forward):
        probs, valid = base.own_prediction(
            batch, forward, write, temperature=temperature, right=correct_only
        )
        rows = base.write_rows(state["rows"], batch.index, probs, momentum=momentum, write=valid)
        return {"rows": rows}

    def report(state):
        return base.row_report(state["rows"])

    return LabelSource(targets, init, update, write == "clean", report)
