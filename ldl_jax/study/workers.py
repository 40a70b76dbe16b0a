"""A study's runs side by side, those of a cell in a process of their own, each with its share of the cores."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

from ldl_jax.cells import Planned
from ldl_jax.study import cards, runner

MEMORY = "XLA_PYTHON_CLIENT_MEM_FRACTION"  # of a GPU's, which JAX takes at its start


def side_by_side(
    todo: list[Planned], workdir, progress: runner.Progress, jobs: int, command: Callable
) -> dict[str, str]:
    """Do the runs in `jobs` processes at a time; returns what failed, with the reason. Raises runner.Stopped.

    The seeds of a cell are done by one process, which compiles once. command(runs of a cell) -> its words.
    """
    failed: dict[str, str] = {}
    live: set[subprocess.Popen] = set()
    waiting: dict[str, list[Planned]] = {}
    for planned in todo:
        waiting.setdefault(planned.cell.name, []).append(planned)
    undone, free, running, gpus = set(waiting), list(range(jobs)), {}, visible_gpus()
    with ThreadPoolExecutor(jobs) as pool, runner.handed_on(live) as stopping:
        while (waiting and not stopping.is_set()) or running:
            for cell in [] if stopping.is_set() else list(waiting):
                if free and not undone & {of for planned in waiting[cell] for of, _ in planned.needs}:
                    share, control = environment(slot := free.pop(0), jobs, gpus), (live, stopping)
                    some = runner.with_teachers(waiting.pop(cell), failed, progress)
                    work = pool.submit(_process, some, workdir, command, share, control, progress, failed)
                    running[work] = cell, slot
            for future in wait(running, return_when=FIRST_COMPLETED)[0]:
                cell, slot = running.pop(future)
                free.append(slot)
                undone.discard(cell)
                future.result()
        if stopping.is_set():
            raise runner.Stopped
    return failed


def _process(some, workdir, command, share, control, progress, failed) -> None:
    """The runs of one cell in a process of their own; what is missing after it in another one, each run twice."""
    stopping, left, tries = control[1], list(some), Counter()
    while left and not stopping.is_set():
        try:
            code, said, left = _one_process(left, workdir, command, share, control, progress)
        except ValueError as error:  # a card that cannot be read, or is of another config
            code, said = 2, str(error)
            left = [planned for planned in left if planned.key not in progress.seconds]
        if not left or stopping.is_set():
            return
        words = dict(re.findall(r"^error: (\S+) failed: (.*)$", said, re.MULTILINE))
        last = (said.strip().splitlines() or ["no word"])[-1]
        dead = [planned for planned in left if runner.name(planned) in words] or left[: None if code == 2 else 1]
        tries.update(runner.name(planned) for planned in dead)
        for planned in dead:
            reason = words.get(runner.name(planned), f"its process ended with status {code} ({last[:300]})")
            again = code != 2 and tries[runner.name(planned)] < runner.ATTEMPTS
            progress.say(f"{runner.name(planned)}: {'tried again' if again else 'given up'}: {reason}")
            if not again:
                failed[runner.name(planned)] = reason
                progress.lost.add(planned.key)
                left.remove(planned)


def _one_process(left, workdir, command, share, control, progress) -> tuple[int, str, list[Planned]]:
    """(exit status, standard error, runs without a card) of one process for these runs."""
    live, stopping = control
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command(left), env=share, stdout=subprocess.DEVNULL, stderr=said)
        live.add(process)
        if stopping.is_set():
            process.terminate()
        try:
            while process.poll() is None:
                left = _arrived(left, workdir, progress)
                time.sleep(0.5)
        finally:
            process.terminate()
            process.wait()
            live.discard(process)
        said.seek(0)
        return process.returncode, said.read(), _arrived(left, workdir, progress)


def _arrived(left: list[Planned], workdir, progress: runner.Progress) -> list[Planned]:
    """The runs that have no card yet; the others are counted."""
    still = []
    for planned in left:
        card = cards.read(Path(workdir) / runner.CARDS, planned)
        if card is None:
            still.append(planned)
        else:
            progress.finished(planned, card)
    return still


def environment(slot: int, jobs: int, gpus: tuple[str, ...] = ()) -> dict[str, str]:
    """The environment of one of several processes: its share of the threads, and of the GPUs or of the memory of one.

    gpus: their names, as CUDA_VISIBLE_DEVICES has them. With as many as jobs or more, each process has its own, a power
    of two of them; with fewer, several share one and its memory.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // jobs) if hasattr(os, "sched_getaffinity") else 1
    more = {"OMP_NUM_THREADS": str(threads), runner.SLOT: f"{slot}/{jobs}"}
    if gpus:
        each = 1 << (max(1, len(gpus) // jobs).bit_length() - 1)
        first = slot * each % len(gpus)
        more["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[first : first + each])
    if 0 < len(gpus) < jobs:
        sharing = -(-jobs // len(gpus))
        more[MEMORY] = os.environ.get(MEMORY, f"{0.8 / sharing:.3f}")
    return {**os.environ, **more}


def visible_gpus() -> tuple[str, ...]:
    """NVIDIA's GPUs that a process started here may use, as CUDA_VISIBLE_DEVICES names them; none without a driver.

    They are counted without JAX, which would take their memory from the runs.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return tuple(filter(None, (name.strip() for name in chosen.split(","))))
    if shutil.which("nvidia-smi") is None:
        return ()
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    count = len(re.findall(r"^GPU \d+:", listed.stdout, re.MULTILINE)) if listed.returncode == 0 else 0
    return tuple(str(number) for number in range(count))


def bind() -> None:
    """Keep this process to its share of the cores, where it is one of several: XLA's threads follow the cores."""
    slot, _, jobs = os.environ.get(runner.SLOT, "").partition("/")
    if not jobs or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // int(jobs))
    first = int(slot) * share % len(cores)
    os.sched_setaffinity(0, cores[first : first + share])
