"""What all benchmarks share: programs that take turns in one process, and ratios of their times."""

import time
from collections.abc import Callable

import jax
import numpy as np


def alternate(
    programs: dict[str, Callable],
    *,
    rounds: int,
    seconds: float,
    wait: dict | None = None,
    settle: Callable | None = None,
):
    """Time the programs in turns of about `seconds`: {name: [seconds per call in each round]}.

    A program is called without arguments, dispatches its work and returns what to wait for. wait:
    name -> function that waits for results that `jax.block_until_ready` does not know.
    settle(program) is called before each turn, untimed: for programs that work ahead, which would
    otherwise begin with finished results while the previous program is still working.
    """
    waits = dict.fromkeys(programs, jax.block_until_ready) | (wait or {})
    times = {name: [] for name in programs}
    calls = {}
    # The first call compiles; the second gives the number of calls that fill a turn.
    for name, program in programs.items():
        waits[name](program())
        begin = time.perf_counter()
        waits[name](program())
        calls[name] = max(1, round(seconds / (time.perf_counter() - begin)))
    for number in range(rounds):
        # Change the direction each round, so that drifts of the clock rate cancel.
        names = list(programs) if number % 2 else list(programs)[::-1]
        for name in names:
            if settle is not None:
                settle(programs[name])
            begin = time.perf_counter()
            previous = None
            # After dispatching a call, wait for the previous one, as the training loop does.
            for _ in range(calls[name]):
                result = programs[name]()
                waits[name](previous)
                previous = result
            waits[name](previous)
            times[name].append((time.perf_counter() - begin) / calls[name])
    return times


def summary(
    times: dict[str, list[float]], reference: str, unit: str, per_call: dict | float
) -> str:
    """A table: the median rate of each program, and the ratio of its time to the reference's.

    The ratio is given as median, lowest and highest. per_call: units of work per call, for all
    programs or by name; ratios are of the time per unit.
    """
    work = per_call if isinstance(per_call, dict) else dict.fromkeys(times, per_call)
    time_per_unit = {}
    for name, values in times.items():
        time_per_unit[name] = np.array(values) / work[name]
    width = max(map(len, times))
    lines = [f"{'':{width}}  {unit:>12}   time / {reference}: median (lowest - highest)"]
    for name, values in time_per_unit.items():
        # Ratios within a round: what slows the machine slows both programs.
        ratios = values / time_per_unit[reference]
        spread = f"{np.median(ratios):.3f} ({ratios.min():.3f} - {ratios.max():.3f})"
        lines.append(f"{name:{width}}  {1 / np.median(values):12,.1f}   {spread}")
    return "\n".join(lines)


def machine(rounds: int) -> str:
    """What a table was measured on: backend, device, version of JAX, number of alternations."""
    device = jax.devices()[0].device_kind
    return f"{jax.default_backend()}, {device}, jax {jax.__version__}, {rounds} alternations"
