"""A study's runs, one after another in this process or several side by side, each kept as soon as it is finished."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from tqdm import tqdm

from ldl_jax import cards, files, run
from ldl_jax.cells import Planned

RUNS, CARDS, LOGS = "runs", "cards", "logs"
ATTEMPTS = 2
SLOT = "LDL_STUDY_SLOT"  # of the environment of a process that is one of several


class Stopped(Exception):
    """SIGTERM came: what is finished is kept, what was under way goes on from its checkpoint."""


def directory(workdir, of: tuple[str, int]) -> Path:
    """Where a run of a study lies."""
    return Path(workdir) / RUNS / f"{of[0]}-{of[1]}"


class Progress:
    """A bar over all runs, with the time left from what was measured; plain lines when not in a terminal."""

    def __init__(self, planned: list[Planned], done: dict[tuple[str, int], float], jobs: int):
        self.planned, self.seconds, self.jobs = planned, dict(done), jobs
        shape = "{bar} {n}/{total} {desc}"
        self.bar = tqdm(total=len(planned), initial=len(done), unit="run", disable=None, bar_format=shape)

    def finished(self, planned: Planned, seconds: float, card) -> None:
        """Count a run and say what it scored."""
        self.seconds[planned.key] = seconds
        figures = card.facts["raw"]["figures"]
        said = f"accuracy {100 * figures['accuracy']:.2f} %, ECE {100 * figures['ece']:.2f} %"
        self.bar.set_description_str(f"about {clock(self.left())} left", refresh=False)
        self.bar.update()
        count = f"{len(self.seconds)}/{len(self.planned)}"
        self.say(f"{count} {name(planned)}: {said}, {clock(seconds)}; about {clock(self.left())} left")

    def say(self, text: str) -> None:
        """A line above the bar."""
        self.bar.write(text, file=sys.stderr)

    def left(self) -> float:
        """Seconds for the runs that remain: each as long as its cell's took, else as its steps' share of all did."""
        cell: dict[str, list[float]] = {}
        for (of, _), seconds in self.seconds.items():
            cell.setdefault(of, []).append(seconds)
        cost = {planned.key: images(planned) for planned in self.planned}
        known = sum(cost[key] for key in self.seconds) or 1
        each = sum(self.seconds.values()) / known
        rest = [planned for planned in self.planned if planned.key not in self.seconds]
        total = sum(
            sum(cell[p.cell.name]) / len(cell[p.cell.name]) if p.cell.name in cell else each * cost[p.key] for p in rest
        )
        return total / self.jobs

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()


def name(planned: Planned) -> str:
    """CELL/PLACE, as --only names it."""
    return f"{planned.cell.name}/{planned.place}"


def clock(seconds: float) -> str:
    """h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def images(planned: Planned) -> float:
    """What a run costs, roughly: the images that it trains on, over all epochs."""
    c = planned.config
    steps = c.train.max_steps
    return steps * c.data.batch_size if steps else c.train.epochs * (c.data.examples or 50_000)


def one(planned: Planned, workdir, compiled: dict) -> tuple[cards.Card, float]:
    """Train a run in this process, its output into a log file, and keep its card; teachers must be there."""
    from ldl_jax import train

    place, began = directory(workdir, planned.key), time.perf_counter()
    c = planned.config.copy_and_resolve_references()
    c.teachers = tuple(str(directory(workdir, key)) for key in planned.needs)
    log = Path(workdir) / LOGS / f"{planned.cell.name}-{planned.place}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as out, redirect_stdout(out), redirect_stderr(out):
        summary = train.train(c, place, compiled=compiled)
    if summary is None:
        raise Stopped
    seconds = _spent(place) + time.perf_counter() - began
    card = cards.make(planned, place, seconds)
    cards.write(Path(workdir) / CARDS, planned, card)
    shutil.rmtree(place / "checkpoints", ignore_errors=True)  # the weights are in model.npz
    return card, seconds


@contextmanager
def _timed(place: Path) -> Iterator[None]:
    """Add the seconds of an attempt that does not finish to those of the run, for its card."""
    began = time.perf_counter()
    try:
        yield
    except BaseException:
        if (place / run.CONFIG).is_file():
            files.write(place / "spent.txt", f"{_spent(place) + time.perf_counter() - began:.1f}\n")
        raise


def _spent(place: Path) -> float:
    file = place / "spent.txt"
    return float(file.read_text()) if file.is_file() else 0.0


def in_turn(todo: list[Planned], workdir, progress: Progress) -> dict[str, str]:
    """Do the runs one after another; returns what failed, with the reason. Raises Stopped."""
    compiled, failed = {}, {}

    def attempt(planned):
        with _timed(directory(workdir, planned.key)):
            return one(planned, workdir, compiled)

    for planned in todo:
        for ready in _with_teachers([planned], failed, progress):
            _tried(ready, attempt, progress, failed)
    return failed


def _tried(planned: Planned, attempt: Callable, progress: Progress, failed: dict[str, str]) -> None:
    """One run, once more where it fails."""
    attempts = 1 if is_worker() else ATTEMPTS  # who asked for it tries again
    for number in range(attempts):
        try:
            card, seconds = attempt(planned)
            progress.finished(planned, seconds, card)
            return
        except Stopped:
            raise
        except Exception as error:  # whatever ends a run: the others go on
            reason = " ".join(str(error).split()) or type(error).__name__
            progress.say(f"{name(planned)}: {'tried again' if number + 1 < attempts else 'given up'}: {reason[:300]}")
    failed[name(planned)] = reason


def side_by_side(todo: list[Planned], workdir, progress: Progress, jobs: int, command: Callable) -> dict[str, str]:
    """Do the runs in `jobs` processes at a time, each with its share of the cores; returns what failed. Raises Stopped.

    The seeds of a cell are done by one process, which compiles once. command(runs of a cell) -> its words.
    """
    failed: dict[str, str] = {}
    live: set[subprocess.Popen] = set()
    waiting: dict[str, list[Planned]] = {}
    for planned in todo:
        waiting.setdefault(planned.cell.name, []).append(planned)
    undone, free, running = set(waiting), list(range(jobs)), {}
    with ThreadPoolExecutor(jobs) as pool, _handed_on(live) as stopping:
        while (waiting and not stopping.is_set()) or running:
            for cell in [] if stopping.is_set() else list(waiting):
                if free and not undone & {of for planned in waiting[cell] for of, _ in planned.needs}:
                    share, control = environment(slot := free.pop(0), jobs), (live, stopping)
                    some = _with_teachers(waiting.pop(cell), failed, progress)
                    work = pool.submit(_process, some, workdir, command, share, control, progress, failed)
                    running[work] = cell, slot
            for future in wait(running, return_when=FIRST_COMPLETED)[0]:
                cell, slot = running.pop(future)
                free.append(slot)
                undone.discard(cell)
                future.result()
        if stopping.is_set():
            raise Stopped
    return failed


def _with_teachers(some: list[Planned], failed: dict[str, str], progress: Progress) -> list[Planned]:
    """Those whose teachers did not fail; the others are failed too."""
    kept = []
    for planned in some:
        lost = [f"{of}/{place}" for of, place in planned.needs if f"{of}/{place}" in failed]
        if lost:
            failed[name(planned)] = f"its teacher {lost[0]} failed"
            progress.say(f"{name(planned)}: {failed[name(planned)]}")
        else:
            kept.append(planned)
    return kept


@contextmanager
def _handed_on(live: set[subprocess.Popen]) -> Iterator[threading.Event]:
    """SIGTERM is handed on to the processes, which save and leave; the event says that it came."""
    stopping = threading.Event()

    def stop(*_):
        stopping.set()
        for process in tuple(live):
            process.terminate()

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield stopping
    finally:
        signal.signal(signal.SIGTERM, before)


def _process(some, workdir, command, share, control, progress, failed) -> None:
    """The runs of one cell in a process of their own; in another one, those that are missing after it."""
    live, stopping = control
    left, reason = list(some), ""
    for number in range(ATTEMPTS):
        if not left or stopping.is_set():
            return
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(command(left), env=share, stdout=subprocess.DEVNULL, stderr=said)
            live.add(process)
            while process.poll() is None:
                left = _arrived(left, workdir, progress)
                time.sleep(0.5)
            live.discard(process)
            left = _arrived(left, workdir, progress)
            said.seek(0)
            last = (said.read().strip().splitlines() or ["no word"])[-1]
        reason = f"its process ended with status {process.returncode} ({last[:300]})"
        if left and not stopping.is_set():
            again = "tried again" if number + 1 < ATTEMPTS else "given up"
            progress.say(f"{', '.join(map(name, left))}: {again}: {reason}")
    if not stopping.is_set():
        failed.update({name(planned): reason for planned in left})


def _arrived(left: list[Planned], workdir, progress: Progress) -> list[Planned]:
    """The runs that have no card yet; the others are counted."""
    still = []
    for planned in left:
        card = cards.read(Path(workdir) / CARDS, planned)
        if card is None:
            still.append(planned)
        else:
            progress.finished(planned, card.facts["seconds"], card)
    return still


def environment(slot: int, jobs: int) -> dict[str, str]:
    """The environment of one of several processes: on a CPU, no more threads than its share of the cores."""
    threads = max(1, len(os.sched_getaffinity(0)) // jobs) if hasattr(os, "sched_getaffinity") else 1
    more = {"OMP_NUM_THREADS": str(threads), SLOT: f"{slot}/{jobs}"}
    return {**os.environ, **more}


def is_worker() -> bool:
    """Whether this process does one run for another one."""
    return SLOT in os.environ


def bind() -> None:
    """Keep this process to its share of the cores, where it is one of several: XLA's threads follow the cores."""
    slot, _, jobs = os.environ.get(SLOT, "").partition("/")
    if not jobs or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // int(jobs))
    first = int(slot) * share % len(cores)
    os.sched_setaffinity(0, cores[first : first + share])
