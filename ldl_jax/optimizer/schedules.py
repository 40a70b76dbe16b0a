"""Learning-rate schedules."""

from collections import Counter
from collections.abc import Callable

import jax.numpy as jnp
import optax

LONGEST = 2**31 - 1  # updates are counted in int32
MOST_CYCLES = 1000  # each is a part of the compiled schedule
SCHEDULES = ("piecewise", "cosine", "constant", "cosine_restarts", "onecycle")


def make_schedule(
    learning_rate: float,
    *,
    schedule: str,
    boundaries: tuple[float, ...],
    factor: float,
    warmup_epochs: float,
    updates_per_epoch: float,
    total_updates: int,
    cycle_epochs: float = 10.0,
    cycle_factor: float = 1.0,
    rise: float = 0.3,
    start_divisor: float = 25.0,
    end_divisor: float = 1e4,
) -> Callable:
    """The learning rate as a function of the number of updates, f32[].

    'piecewise' multiplies it by `factor` at each of `boundaries` (epochs); 'cosine' decays it to 0
    over the whole run; 'constant' keeps it. 'cosine_restarts' (Loshchilov and Hutter 2017) decays it
    to 0 in each cycle: the first takes `cycle_epochs`, each further one `cycle_factor` times as
    long. 'onecycle' (Smith and Topin 2018, with cosines) raises it from learning_rate /
    start_divisor in the share `rise` of the run, and lowers it to the start's / end_divisor. A
    linear warm-up multiplies it by (u + 1) / W at update u of the first W. Raises ValueError for any
    other schedule.
    """
    if schedule not in SCHEDULES:
        raise ValueError(
            f"optimizer.schedule must be one of {', '.join(map(repr, SCHEDULES))}; got {schedule!r}"
        )
    if schedule == "cosine":
        base = optax.cosine_decay_schedule(learning_rate, total_updates)
    elif schedule == "cosine_restarts":
        first = cycle_epochs * updates_per_epoch
        lengths = cycle_lengths(first, cycle_factor, total_updates)
        base = optax.sgdr_schedule([_cycle(learning_rate, length) for length in lengths])
    elif schedule == "onecycle":
        # At least one update rises, also in a run of very few.
        top = min(max(int(rise * total_updates), 1), max(total_updates - 1, 1))
        base = optax.cosine_onecycle_schedule(
            total_updates, learning_rate, (top + 0.5) / total_updates, start_divisor, end_divisor
        )
    elif schedule == "piecewise":
        # In short runs two boundaries may fall on one update. One that is never reached must still
        # fit into the device's int32.
        edges = Counter(min(round(epoch * updates_per_epoch), LONGEST) for epoch in boundaries)
        factors = {update: factor**repeats for update, repeats in edges.items()}
        base = optax.piecewise_constant_schedule(learning_rate, factors)
    else:
        base = optax.constant_schedule(learning_rate)
    warmup = warmup_epochs * updates_per_epoch

    def rate(count):
        # As a float, because the quotient of an int32 would be float32 even in a float64 step.
        count = jnp.asarray(count, float)
        return base(count) * (jnp.minimum((count + 1) / warmup, 1) if warmup > 0 else 1)

    return rate


def cycle_lengths(first: float, factor: float, total: int) -> list[int]:
    """The lengths of the cycles of 'cosine_restarts' in updates, at least 1, until they fill a run of
    `total` updates; the last may reach beyond it. Raises ValueError for more than MOST_CYCLES.
    """
    lengths: list[int] = []
    length = first
    while sum(lengths) < total:
        length = min(length, LONGEST)
        lengths.append(max(1, round(length)))
        length *= factor
        if len(lengths) > MOST_CYCLES:
            raise ValueError(
                f"optimizer.cycle_epochs must give at most {MOST_CYCLES} cycles in a run, but the "
                f"first has {first:g} updates of {total}"
            )
    return lengths


def cut_cycle(schedule: str, first: float, factor: float, total: int) -> str:
    """A warning if a run of `total` updates ends within a cycle of 'cosine_restarts'; '' otherwise."""
    if schedule != "cosine_restarts":
        return ""
    lengths = cycle_lengths(first, factor, total)
    beyond = sum(lengths) - total
    if not beyond:
        return ""
    return (
        f"the run ends {beyond} updates before the end of its last cycle of {lengths[-1]}, where the "
        "learning rate is not low; set config.train.epochs or config.optimizer.cycle_epochs so that "
        "cycles end with the run"
    )


def _cycle(learning_rate: float, length: int) -> dict[str, float]:
    """A cycle of `optax.sgdr_schedule` without a warm-up of its own."""
    peak = {"init_value": learning_rate, "peak_value": learning_rate, "end_value": 0.0}
    return {**peak, "warmup_steps": 0, "decay_steps": length}


def never_lowered(
    schedule: str, boundaries: tuple[float, ...], factor: float, epochs: float
) -> str:
    """A warning if a 'piecewise' schedule never lowers the rate in a run of `epochs`; '' otherwise."""
    if schedule != "piecewise":
        return ""
    advice = "set config.optimizer.boundaries, or config.optimizer.schedule='cosine' or 'constant'"
    if factor >= 1:
        reason = f"config.optimizer.factor is {factor:g}"
    elif not boundaries:
        reason = "config.optimizer.boundaries is empty"
    elif min(boundaries) >= epochs:
        reason = f"config.optimizer.boundaries {boundaries} are not reached in {epochs:g} epochs"
    else:
        return ""
    return f"the learning rate is never lowered, because {reason}; {advice}"
