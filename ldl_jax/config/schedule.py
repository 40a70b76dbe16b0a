"""The shape of the learning-rate schedule when a run is made shorter or longer."""

import math
from collections.abc import Iterable

from ml_collections import ConfigDict

EPOCHS = "train.epochs"
BOUNDARIES = "optimizer.boundaries"


def eighths(epochs: float) -> dict[str, object]:
    """Fields of the schedule of `configs/cifar100_hard.py` in other than its 240 epochs: the rate is
    lowered after 5/8, 6/8 and 7/8 of them.
    """
    return {EPOCHS: epochs, BOUNDARIES: (epochs * 5 / 8, epochs * 6 / 8, epochs * 7 / 8)}


def scale_boundaries(
    c: ConfigDict,
    before: ConfigDict,
    overridden: Iterable[str],
    stored: ConfigDict | None = None,
    *,
    extend: bool = False,
) -> str:
    """Move the boundaries of `c` with its epochs if these were overridden alone; returns a note on
    it, or ''.

    before: the config without overrides. stored: the config of the run to resume, if any. Its
    boundaries are kept if they were not scaled, and with `extend` if they are a multiple of those of
    `c`: the rate was lowered there. Changes `c`, whose types must have been checked.
    """
    overridden = tuple(overridden)
    boundaries = tuple(c.optimizer.boundaries)
    by_hand = any(name.partition("[")[0] == BOUNDARIES for name in overridden)
    if c.optimizer.schedule != "piecewise" or by_hand or not boundaries:
        return ""
    if EPOCHS not in overridden and not extend:
        return ""
    if stored is not None:
        kept = tuple(stored.optimizer.boundaries)
        if kept == boundaries:
            return ""
        if extend and _is_multiple(kept, boundaries):
            c.optimizer.boundaries = kept
            return f"config.{BOUNDARIES} {kept} are those of the run to extend, not {boundaries}"
    if before.train.epochs == c.train.epochs or not before.train.epochs > 0:
        return ""
    factor = c.train.epochs / before.train.epochs
    # Rounded as a person would write them; an update is a far coarser step.
    c.optimizer.boundaries = tuple(round(epoch * factor, 6) for epoch in boundaries)
    return (
        f"config.{BOUNDARIES} {boundaries} scaled to {c.optimizer.boundaries}, since {EPOCHS} is "
        f"{c.train.epochs:g} instead of {before.train.epochs:g}; set config.{BOUNDARIES} to choose "
        "others"
    )


def _is_multiple(values: tuple[float, ...], others: tuple[float, ...]) -> bool:
    """Whether `values` are `others` times one number, up to rounding."""
    if len(values) != len(others):
        return False
    total = sum(others)
    factor = sum(values) / total if total > 0 else 1.0
    pairs = zip(values, others, strict=True)
    return all(math.isclose(one, factor * other, abs_tol=1e-5) for one, other in pairs)
