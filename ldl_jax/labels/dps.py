"""Online label distributions from counts: each example has a Dirichlet distribution over labels."""

import jax.numpy as jnp

from ldl_jax.contract import Build, LabelSource, Target
from ldl_jax.labels import base

DTYPES = ("logits", "float16")
SMALLEST, LARGEST = 1e-12, 1e4  # counts: beyond them, their sum may be 0 or infinite in float32
LONGEST = 0.99  # decay for counts in half precision: larger ones lose small probabilities


def make(
    build: Build,
    *,
    decay: float = 0.9,  # g in a <- g a + p, [0, 1]
    label_count: float = 10.0,  # count of the label before the first prediction, at least 1e-12
    other_count: float = 0.0,  # count of each other class, [0, 10000]
    start_epoch: float = 0.0,  # epochs with the hard label alone, at least 0; counts grow in them
    write: str = "unmixed",  # counts updated: 'unmixed' examples, or all by a 'clean' pass
    dtype: str = "logits",  # type of the counts: that of the 'logits', or 'float16'
) -> LabelSource:
    """Online label per example: a / sum a, the mean of a Dirichlet distribution whose counts are
    a <- g a + p after each prediction p of the example (DPS, arXiv 2512.24162).

    Counts begin with label_count on the label and other_count elsewhere; there is no further
    hard-label term. g and the two counts are not published. With the defaults the sum of the counts
    stays 10 = 1 / (1 - g), and the label's share of it decays like 0.9^n: choose them on a holdout.
    State: rows [build.rows, K], zero until an example's first prediction. Raises ValueError if an
    option is out of range.
    """
    base.check_choice("dps", "dtype", dtype, DTYPES)
    base.check_write("dps", write, build.mix_prob)
    base.check_epochs("dps", "start_epoch", start_epoch)
    if not 0 <= decay <= 1:
        raise ValueError(f"config.labels.dps.decay must be in [0, 1], got {decay}")
    if not SMALLEST <= label_count <= LARGEST:
        raise ValueError(
            f"config.labels.dps.label_count must be between 1e-12 and 10,000, got {label_count}"
        )
    if not 0 <= other_count <= LARGEST:
        raise ValueError(
            f"config.labels.dps.other_count must be between 0 and 10,000, got {other_count}"
        )
    if dtype == "float16" and not (decay <= LONGEST and label_count + other_count <= 1e3):
        raise ValueError(
            f"config.labels.dps.dtype 'float16' needs a decay of at most {LONGEST:g} and counts of at "
            f"most 1,000, got {decay} and {label_count}, {other_count}"
        )
    kind = build.outputs.logits.dtype if dtype == "logits" else jnp.float16

    def init(key, variables):
        del key, variables
        return {"rows": jnp.zeros((build.rows, build.num_classes), kind)}

    def counts(state, batch, hard):
        """The counts [B, K] of the examples of a batch."""
        rows = state["rows"][batch.index].astype(hard.dtype)
        written = rows.sum(-1, keepdims=True) > 0
        return jnp.where(written, rows, other_count + (label_count - other_count) * hard)

    def targets(state, batch, outputs):
        hard = base.one_hot(batch, outputs.logits)
        now = counts(state, batch, hard)
        share = base.ramp(batch.step, build, start_epoch)
        return (Target((1 - share) * hard + share * now / now.sum(-1, keepdims=True)),)

    def update(state, batch, forward):
        probs, valid = base.own_prediction(batch, forward, write)
        new = decay * counts(state, batch, base.one_hot(batch, probs)) + probs
        # The decay is in `new`: an example's first row starts from the prior, not from zeros.
        return {"rows": base.write_rows(state["rows"], batch.index, new, write=valid)}

    def report(state):
        return base.row_report(state["rows"])

    return LabelSource(targets, init, update, write == "clean", report)
