"""One row for every training example: the network's own earlier predictions of it."""

import jax.numpy as jnp

from ldl_jax.contract import Build, LabelSource, Target
from ldl_jax.labels import base

DTYPES = ("logits", "float16")
SCHEDULES = ("linear", "constant")


def make(
    build: Build,
    *,
    alpha: float = 0.8,  # share of the own prediction in the target, at the end of training, [0, 1]
    schedule: str = "linear",  # 'linear': alpha (e + 1) / E in epoch e of E; 'constant': alpha from the start
    momentum: float = 0.0,  # 0: the prediction one epoch ago (PS-KD); above: average m old + (1 - m) new, [0, 1)
    write: str = "unmixed",  # 'unmixed': rows of examples that were not mixed; 'clean': all, by a pass on clean images
    dtype: str = "logits",  # of the rows: 'logits' (that of the logits), or 'float16' for half the memory
) -> LabelSource:
    """Online label per example: (1 - a) hard label + a own earlier prediction, from a memory of N x
    K rows.

    momentum = 0 with the linear schedule is PS-KD (Kim et al. 2021, equations 3 and 7); momentum =
    0.6 with a constant alpha is temporal ensembling's recursion (Laine and Aila 2017, algorithm 2)
    inside a cross entropy. State: rows [build.rows, K]. Raises ValueError where an option is out of
    its range.
    """
    base.check_choice("online", "schedule", schedule, SCHEDULES)
    base.check_choice("online", "dtype", dtype, DTYPES)
    if not (0 <= alpha <= 1 and 0 <= momentum < 1):
        raise ValueError(
            f"labels.online: alpha {alpha}, momentum {momentum}; allowed are [0, 1] and [0, 1)"
        )
    base.check_write("online", write, build.mix_prob)
    epochs = max(1, build.total_steps // build.steps_per_epoch)
    kind = build.outputs.logits.dtype if dtype == "logits" else jnp.float16

    def init(key, variables):
        del key, variables
        return {"rows": jnp.zeros((build.rows, build.num_classes), kind)}

    def targets(state, batch, outputs):
        hard = base.one_hot(batch, outputs.logits)
        epoch = batch.step // build.steps_per_epoch
        part = (
            jnp.minimum((epoch + 1).astype(hard.dtype) / epochs, 1) if schedule == "linear" else 1.0
        )
        share = jnp.asarray(alpha * part, hard.dtype)
        return (
            Target((1 - share) * hard + share * base.read_rows(state["rows"], batch.index, hard)),
        )

    def update(state, batch, forward):
        new, good = base.own_prediction(batch, forward, write)
        return {
            "rows": base.write_rows(state["rows"], batch.index, new, momentum=momentum, write=good)
        }

    return LabelSource(
        targets, init, update, write == "clean", lambda state: base.row_report(state["rows"])
    )
