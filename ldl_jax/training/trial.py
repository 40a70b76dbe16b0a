"""A few train steps that are timed and thrown away: the measured part of `--dry-run`."""

import time
from typing import NamedTuple

import jax

from ldl_jax.training.batches import Feed
from ldl_jax.training.experiment import Experiment
from ldl_jax.training.programs import make_programs
from ldl_jax.training.schedule import fresh_state, make_plan

STEPS = 20  # number of steps that are timed on an accelerator, if not said otherwise
MOST_SECONDS = 60.0  # of timing, after compilation


class Trial(NamedTuple):
    """What a few train steps took."""

    steps: int  # number of timed steps
    seconds: float  # per step, with the wait for its batch
    compiling: float  # seconds until the first steps were done
    peak: int | None  # largest number of bytes in use on a device; None if it does not say


def run(experiment: Experiment, steps: int) -> Trial | None:
    """Time about `steps` train steps of a run, from its start; nothing is written.

    Each dispatch is waited for, so a run is rather faster. The first dispatch of each program
    compiles it, and is not timed. None if the run has no other.
    """
    began = time.perf_counter()
    programs = make_programs(experiment)
    state = fresh_state(experiment)
    compiled: set[int] = set()
    compiling = seconds = 0.0
    timed = 0
    last = began
    for count, batch in Feed(experiment, make_plan(experiment), 0):
        program = programs.chunk if batch["index"].ndim == 2 else programs.step
        state, scalars = program(state, programs.frozen, programs.train, batch)
        jax.block_until_ready((state, scalars))
        now = time.perf_counter()
        if count in compiled:
            seconds += now - last
            timed += count
        else:
            compiling += now - last
            compiled.add(count)
        last = now
        if timed >= steps or seconds > MOST_SECONDS:
            break
    if not timed:
        return None
    memory = experiment.mesh.devices.flat[0].memory_stats() or {}
    return Trial(timed, seconds / timed, compiling, memory.get("peak_bytes_in_use"))
