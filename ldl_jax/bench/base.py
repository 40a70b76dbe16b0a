"""Programs that take turns in one process, and the ratios of their times: what all benchmarks
share.
"""

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
    """Seconds a call of each program, `rounds` times each, in turns of about `seconds`: {name:
    [seconds, ...]}.

    A program is called without arguments, dispatches its work and returns what to wait for; `wait`
    names a function for programs whose results `jax.block_until_ready` does not know.
    settle(program) comes untimed before each turn: for programs that work ahead, whose turn would
    begin with what lies ready, and with the one before still at work.
    """
    waits = {name: (wait or {}).get(name, jax.block_until_ready) for name in programs}
    times, calls = {name: [] for name in programs}, {}
    for name, program in programs.items():
        waits[name](program())
        begin = time.perf_counter()
        waits[name](program())
        calls[name] = max(1, round(seconds / (time.perf_counter() - begin)))
    for number in range(rounds):
        for name in list(programs) if number % 2 else list(programs)[::-1]:
            if settle is not None:
                settle(programs[name])
            begin, before = time.perf_counter(), None
            for _ in range(calls[name]):
                out = programs[name]()
                waits[name](before)
                before = out
            waits[name](before)
            times[name].append((time.perf_counter() - begin) / calls[name])
    return times


def summary(
    times: dict[str, list[float]], reference: str, unit: str, per_call: dict | float
) -> str:
    """A table: median rate of each program, and the median, lowest and highest ratio of its time to
    the reference's.

    per_call: units of work in a call, of all programs or of each by its name; ratios are of the
    time for a unit.
    """
    work = per_call if isinstance(per_call, dict) else dict.fromkeys(times, per_call)
    each = {name: np.array(values) / work[name] for name, values in times.items()}
    width = max(map(len, times))
    lines = [f"{'':{width}}  {unit:>12}   time / {reference}: median (lowest - highest)"]
    for name, values in each.items():
        ratios = values / each[reference]
        spread = f"{np.median(ratios):.3f} ({ratios.min():.3f} - {ratios.max():.3f})"
        lines.append(f"{name:{width}}  {1 / np.median(values):12,.1f}   {spread}")
    return "\n".join(lines)


def machine(rounds: int) -> str:
    """Where it was measured: backend, device, version, number of alternations."""
    device = jax.devices()[0].device_kind
    return f"{jax.default_backend()}, {device}, jax {jax.__version__}, {rounds} alternations"
