"""A study's runs one after another, each kept as soon as it is finished."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from tqdm import tqdm

from ldl_jax import config, files
from ldl_jax import workdir as run
from ldl_jax.cli import clock
from ldl_jax.config.study import Planned
from ldl_jax.errors import Busy, one_line
from ldl_jax.study import cards

RUNS, CARDS, LOGS, LOCKS = "runs", "cards", "logs", ".locks"
ATTEMPTS = 2
DONE, FAILED = "done", "failed"  # a process's answers to the one that handed it a run
POLL = 2.0  # seconds between two looks at a run that another process works on
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
        self.lost: set[tuple[str, int]] = set()  # runs that were given up
        self.lock = threading.Lock()
        shape = "{bar} {n}/{total} {desc}"
        self.bar = tqdm(total=len(planned), initial=len(done), unit="run", disable=None, bar_format=shape)

    def finished(self, planned: Planned, card: cards.Card) -> None:
        """Count a run and say what it scored."""
        with self.lock:
            self._finished(planned, card)

    def _finished(self, planned: Planned, card: cards.Card) -> None:
        seconds = self.seconds[planned.key] = card.facts["seconds"]
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
        """Seconds for the runs that remain: as their cell took, else as the most similar cell for as many images."""
        rest = [one for one in self.planned if one.key not in self.seconds and one.key not in self.lost]
        took: dict[str, list[float]] = {}
        for (cell, _), seconds in self.seconds.items():
            took.setdefault(cell, []).append(seconds)
        measured = {one.cell.name: one for one in self.planned if one.cell.name in took}
        total = 0.0
        for one in rest if measured else []:
            like = min(measured.values(), key=lambda other: _unlike(one, other))
            total += statistics.mean(took[like.cell.name]) * images(one) / images(like)
        return total / max(1, min(self.jobs, len(rest)))

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()


def name(planned: Planned) -> str:
    """CELL/PLACE, as --only names it."""
    return f"{planned.cell.name}/{planned.place}"


def _unlike(one: Planned, other: Planned) -> int:
    """How many settings differ; -1 for a run of the same cell."""
    if one.cell.name == other.cell.name:
        return -1
    return sum(one.settings.get(field) != other.settings.get(field) for field in {**one.settings, **other.settings})


def images(planned: Planned) -> float:
    """What a run costs, roughly: the images that it trains on, over all epochs."""
    c = planned.config
    steps = c.train.max_steps
    return steps * c.data.batch_size if steps else c.train.epochs * (c.data.examples or 50_000)


def one(planned: Planned, workdir, compiled: dict) -> cards.Card:
    """Train a run in this process, its output into a log file, and keep its card; teachers must be there.

    Of a run that is finished already, its card alone is made. Raises Busy where another process is at it.
    """
    place = directory(workdir, planned.key)
    with run.locked(Path(workdir) / LOCKS / place.name):  # longer than the run's own lock, so that none begins it anew
        card = cards.read(Path(workdir) / CARDS, planned)
        if card is not None:  # another process made it in the meantime
            return card
        if not _is_finished(planned, workdir, place):
            _train(planned, workdir, place, compiled)
        card = cards.make(planned, place, _spent(place))
        cards.write(Path(workdir) / CARDS, planned, card)
        shutil.rmtree(place / run.CHECKPOINTS, ignore_errors=True)  # the weights are in model.npz
        return card


def _is_finished(planned: Planned, workdir, place: Path) -> bool:
    """Whether a directory holds this very run to its end, learned from the teachers that are there now."""
    if not (run.is_finished(place) and run.is_measured(place)):
        return False
    inputs = json.loads((place / run.VERSIONS).read_text())["starts"][-1]["inputs"]
    learned = [digest for name, digest in inputs.items() if name.startswith("teachers[")]
    weights = [directory(workdir, key) / run.WEIGHTS for key in planned.needs]
    there = [files.sha256(path) for path in weights if path.is_file()]
    return learned == there and not config.differences(run.read_config(place), planned.config)


def _train(planned: Planned, workdir, place: Path, compiled: dict) -> None:
    from ldl_jax import checkpoint
    from ldl_jax.training import loop, remeasure

    c = planned.config.copy_and_resolve_references()
    c.teachers = tuple(str(directory(workdir, key)) for key in planned.needs)
    log = Path(workdir) / LOGS / f"{planned.cell.name}-{planned.place}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as out, redirect_stdout(out), redirect_stderr(out), _timed(place):
        if run.is_finished(place) and not checkpoint.saved_steps(place / run.CHECKPOINTS):
            summary = remeasure.measure_again(c, place)  # only its predictions are gone
        else:
            summary = loop.train(c, place, compiled=compiled)
    if summary is None:
        raise Stopped


@contextmanager
def _timed(place: Path) -> Iterator[None]:
    """Add the seconds of an attempt to those of the run, for its card."""
    began = time.perf_counter()
    try:
        yield
    finally:
        if (place / run.CONFIG).is_file():
            files.write(place / run.SPENT, f"{_spent(place) + time.perf_counter() - began:.1f}\n")


def _spent(place: Path) -> float:
    file = place / run.SPENT
    return float(file.read_text()) if file.is_file() else 0.0


def in_turn(todo: list[Planned], workdir, progress: Progress) -> dict[str, str]:
    """Do the runs one after another; returns what failed, with the reason. Raises Stopped."""
    compiled, failed = {}, {}
    with handed_on(set()) as stopping:
        for planned in todo:
            for ready in with_teachers([planned], failed, progress):
                _tried(ready, lambda one: _attempt(one, workdir, compiled, stopping, progress), progress, failed)
    return failed


def asked(known: list[Planned], workdir, progress: Progress, lines: Iterable[str], answer: Callable) -> dict[str, str]:
    """Do the runs that another process names, one a line, and answer each with a line; who asked tries again.

    Raises Stopped.
    """
    compiled, by_name = {}, {name(planned): planned for planned in known}
    with handed_on(set()) as stopping:
        for line in lines:
            planned = by_name[line.strip()]
            try:
                _attempt(planned, workdir, compiled, stopping, progress)
                answer(f"{DONE} {name(planned)}")
            except Stopped:
                raise
            except Exception as error:  # whatever ends a run
                answer(f"{FAILED} {name(planned)} {one_line(error)}")
    return {}


def _attempt(planned: Planned, workdir, compiled: dict, stopping: threading.Event, progress: Progress) -> cards.Card:
    """One run. What another process works on is waited for: the lines of a job array begin at once, teachers too."""
    told = False
    while not stopping.is_set():
        card = cards.read(Path(workdir) / CARDS, planned)
        if card is not None:
            return card
        try:
            return one(planned, workdir, compiled)
        except Busy:
            if not told:
                progress.say(f"{name(planned)}: another process works on it; waiting")
            told = not stopping.wait(POLL)
    raise Stopped


def _tried(planned: Planned, attempt: Callable, progress: Progress, failed: dict[str, str]) -> None:
    """One run, once more where it fails."""
    for number in range(ATTEMPTS):
        try:
            progress.finished(planned, attempt(planned))
            return
        except Stopped:
            raise
        except Exception as error:  # whatever ends a run: the others go on
            reason = one_line(error)
            progress.say(f"{name(planned)}: {'tried again' if number + 1 < ATTEMPTS else 'given up'}: {reason[:300]}")
    progress.lost.add(planned.key)
    failed[name(planned)] = reason


def with_teachers(some: list[Planned], failed: dict[str, str], progress: Progress) -> list[Planned]:
    """Those whose teachers did not fail; the others are failed too."""
    kept = []
    for planned in some:
        lost = [f"{of}/{place}" for of, place in planned.needs if f"{of}/{place}" in failed]
        if lost:
            failed[name(planned)] = f"its teacher {lost[0]} failed"
            progress.lost.add(planned.key)
            progress.say(f"{name(planned)}: {failed[name(planned)]}")
        else:
            kept.append(planned)
    return kept


@contextmanager
def handed_on(live: set[subprocess.Popen]) -> Iterator[threading.Event]:
    """SIGTERM, and whatever ends the work early, is handed on to the processes, which save and leave.

    The event says that it came.
    """
    stopping = threading.Event()

    def stop(*_):
        stopping.set()
        for process in tuple(live):
            process.terminate()

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield stopping
    except BaseException:
        stop()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def is_worker() -> bool:
    """Whether this process does runs for another one, which names them."""
    return SLOT in os.environ
