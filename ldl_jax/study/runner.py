"""The executor of a study: a board hands out the runs to workers, and each run gets at most two
attempts.

The executor knows only the protocol `Worker`. Its implementations, which train in this process or
in one started for it, are in `workers`.
"""

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Protocol

from ldl_jax import signals
from ldl_jax.config.study import Planned
from ldl_jax.errors import one_line, out_of_memory
from ldl_jax.study.cards import Card
from ldl_jax.study.progress import Progress

ATTEMPTS = 2


class Stopped(Exception):
    """The study is ending. Finished runs are kept; the others resume from their checkpoints."""


class Permanent(Exception):
    """A run failed in a way that another attempt cannot fix."""


class Worker(Protocol):
    """Does runs, one at a time."""

    def run(self, planned: Planned) -> Card:
        """Do a run whose teachers are finished.

        Raises Stopped, Permanent, signals.Interrupted, or the run's error.
        """

    def ended(self) -> bool:
        """Whether the worker can do no more runs."""

    def stop(self) -> None:
        """Make the worker save its current run and exit; called by a signal handler."""

    def close(self) -> None:
        """End the worker after its current run."""


class Board:
    """The runs that are still to do, handed out one by one, and those that failed."""

    def __init__(self, todo: list[Planned], progress: Progress, stopping: threading.Event):
        self.waiting = list(todo)
        self.undone = {planned.key for planned in todo}  # neither finished nor given up
        self.progress = progress
        self.stopping = stopping
        self.failed: dict[str, str] = {}  # run -> reason
        self.at: dict[int, str] = {}  # slot -> cell of its current run
        self.changed = threading.Condition()

    def take(self, slot: int) -> Planned | None:
        """The next run for a slot; None if no run is left or the study is stopping.

        Waits until there is a run whose teachers are finished. Prefers the slot's last cell, whose
        programs are compiled there, and then the cell that the fewest other slots work on.
        """
        with self.changed:
            while self.waiting and not self.stopping.is_set():
                ready = [run for run in self.waiting if not self.undone & set(run.needs)]
                if ready:
                    return self._hand_out(ready, slot)
                # The timeout is for a signal, whose handler does not notify this condition.
                self.changed.wait(1.0)
            self.at.pop(slot, None)
            return None

    def _hand_out(self, ready: list[Planned], slot: int) -> Planned:
        last_cell = self.at.pop(slot, None)
        slots_of_cell = Counter(self.at.values())

        def preference(run: Planned) -> tuple[bool, int]:
            return run.cell.name != last_cell, slots_of_cell[run.cell.name]

        chosen = min(ready, key=preference)
        self.waiting.remove(chosen)
        self.at[slot] = chosen.cell.name
        return chosen

    def done(self, planned: Planned) -> None:
        """Record that a run has finished, so that its students may start."""
        with self.changed:
            self.undone.discard(planned.key)
            self.changed.notify_all()

    def lost(self, planned: Planned, reason: str) -> None:
        """Record that a run failed for good, and give up its students as well."""
        with self.changed:
            self._give_up(planned, reason)
            # Teachers come first in `waiting`, so one pass also reaches students of students.
            for student in tuple(self.waiting):
                for cell, index in student.needs:
                    teacher = f"{cell}/{index}"
                    if teacher in self.failed:
                        self.waiting.remove(student)
                        self._give_up(student, f"its teacher {teacher} failed")
                        self.progress.say(f"{student.name} skipped: its teacher {teacher} failed")
                        break
            self.changed.notify_all()

    def _give_up(self, planned: Planned, reason: str) -> None:
        self.failed[planned.name] = reason
        self.progress.lost.add(planned.key)
        self.undone.discard(planned.key)


class Slot:
    """Does runs until the board has none left. It has one worker at a time, and keeps it as long as
    the runs are of one cell.
    """

    def __init__(self, number: int, board: Board, start: Callable[[int, str], Worker], live: set):
        self.number = number
        self.board = board
        self.start = start
        self.live = live  # the running workers of all slots, for the signal handler
        self.worker: Worker | None = None
        self.cell: str | None = None  # the worker's cell

    def work(self) -> None:
        """Do runs until none is left or the study is stopping. Raises Stopped."""
        try:
            while (planned := self.board.take(self.number)) is not None:
                self._do(planned)
        finally:
            self._close()

    def _do(self, planned: Planned) -> None:
        """Do one run, again with a new worker if it fails; after ATTEMPTS it is given up."""
        for attempt in range(1, ATTEMPTS + 1):
            worker = self._worker(planned.cell.name, new=attempt > 1)
            try:
                card = worker.run(planned)
            except Stopped:
                raise
            # Any error ends this run alone; the other runs of the study continue.
            except Exception as error:
                # A worker that was stopped by the signal has not failed.
                if self.board.stopping.is_set():
                    return
                reason = out_of_memory(error) or one_line(error)
                retry = attempt < ATTEMPTS and not isinstance(error, Permanent)
                outcome = "trying again" if retry else "giving up"
                self.board.progress.say(f"{planned.name} failed, {outcome}: {reason[:300]}")
                if not retry:
                    self.board.lost(planned, reason)
                    return
            else:
                self.board.done(planned)
                self.board.progress.finished(planned, card)
                return

    def _worker(self, cell: str, *, new: bool) -> Worker:
        """The slot's worker for runs of a cell.

        It replaces a worker of another cell or one that has ended; new: any worker.
        """
        if self.worker is None or new or self.cell != cell or self.worker.ended():
            self._close()
            self.worker = self.start(self.number, cell)
            self.cell = cell
            self.live.add(self.worker)
            # A signal that arrived before the worker was in `live` has not reached it.
            if self.board.stopping.is_set():
                self.worker.stop()
        return self.worker

    def _close(self) -> None:
        if self.worker is not None:
            self.worker.close()
            self.live.discard(self.worker)
            self.worker = None


def execute(
    todo: list[Planned], progress: Progress, jobs: int, start: Callable[[int, str], Worker]
) -> dict[str, str]:
    """Do the runs with `jobs` workers in parallel; returns failed run -> reason.

    start(slot, cell) -> a worker for runs of that cell. If there are fewer cells than workers, they
    share the seeds of a cell. A single worker runs in the caller's thread. Raises
    signals.Interrupted if a signal arrives while runs are left; after Ctrl-C, also later.
    """
    live: set[Worker] = set()
    with ThreadPoolExecutor(jobs) as pool, stoppable(live) as (stopping, held):
        board = Board(todo, progress, stopping)
        slots = [Slot(number, board, start, live) for number in range(min(jobs, len(todo)))]
        if jobs == 1:
            # Training handles signals itself, to save; Python allows that only in the main thread.
            for slot in slots:
                slot.work()
        else:
            futures = [pool.submit(slot.work) for slot in slots]
            # An error in a slot itself is a fault of the study: stop the other slots at once.
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
        # Nothing is left to stop, and the report of the study takes a moment only.
        if not board.undone and held.number != signal.SIGINT:
            held.clear()
    return board.failed


@contextmanager
def stoppable(live: set[Worker]) -> Iterator[tuple[threading.Event, signals.Held]]:
    """On a signal, or on any error in the block, stop the workers, which save and exit.

    Yields the event that is set then, and the signal. At the end of the block, raises
    signals.Interrupted if a signal has arrived.
    """
    stopping = threading.Event()

    def stop(*_):
        stopping.set()
        for worker in tuple(live):
            worker.stop()

    with signals.deferred(stop) as held:
        try:
            yield stopping, held
        except BaseException as error:
            stop()
            # A worker that the signal has stopped says so; the signal is raised below.
            if not (isinstance(error, Stopped) and held.number is not None):
                raise
