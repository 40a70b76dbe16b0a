"""The executor of a study: a board hands its runs out to workers, and each run is tried twice at
most.

What a worker is (this process, or one that is started for it) is in `workers`; the executor sees
`Worker` alone.
"""

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Protocol

from ldl_jax.config.study import Planned
from ldl_jax.errors import one_line
from ldl_jax.study.cards import Card
from ldl_jax.study.progress import Progress

ATTEMPTS = 2


class Stopped(Exception):
    """SIGTERM came: what is finished is kept, what was under way goes on from its checkpoint."""


class Permanent(Exception):
    """A run failed, and trying it again cannot help."""


class Worker(Protocol):
    """What does runs, one at a time."""

    def run(self, planned: Planned) -> Card:
        """Do a run whose teachers are there. Raises Stopped, Permanent, or whatever ended the run."""

    def ended(self) -> bool:
        """Whether it can do no more runs."""

    def stop(self) -> None:
        """Have it save what it is at, and leave; called by a signal's handler."""

    def close(self) -> None:
        """End it after the run that it is at."""


class Board:
    """What is left to do, handed out run by run to those who ask, and what was lost."""

    def __init__(self, todo: list[Planned], progress: Progress, stopping: threading.Event):
        self.waiting = list(todo)
        self.undone = {planned.key for planned in todo}  # neither done nor lost
        self.progress = progress
        self.stopping = stopping
        self.failed: dict[str, str] = {}  # run -> reason
        self.at: dict[int, str] = {}  # slot -> the cell it works on
        self.changed = threading.Condition()

    def take(self, slot: int) -> Planned | None:
        """A run whose teachers are done, waited for; None where nothing is left or the study stops.

        It is of the cell that the slot was at, which it has compiled, else of the one that the
        fewest others are at.
        """
        with self.changed:
            while self.waiting and not self.stopping.is_set():
                ready = [
                    planned for planned in self.waiting if not self.undone & set(planned.needs)
                ]
                if ready:
                    return self._hand_out(ready, slot)
                self.changed.wait(1.0)
            self.at.pop(slot, None)
            return None

    def _hand_out(self, ready: list[Planned], slot: int) -> Planned:
        own_cell = self.at.pop(slot, None)
        crowd = Counter(self.at.values())
        chosen = min(
            ready, key=lambda planned: (planned.cell.name != own_cell, crowd[planned.cell.name])
        )
        self.waiting.remove(chosen)
        self.at[slot] = chosen.cell.name
        return chosen

    def done(self, planned: Planned) -> None:
        """A run has its card: those it teaches may begin."""
        with self.changed:
            self.undone.discard(planned.key)
            self.changed.notify_all()

    def lost(self, planned: Planned, reason: str) -> None:
        """A run was given up, and so are those that it was to teach."""
        with self.changed:
            self._give_up(planned, reason)
            # Teachers come first in `waiting`, so one pass reaches the students of students.
            for student in tuple(self.waiting):
                teachers = [f"{cell}/{number}" for cell, number in student.needs]
                lost = [teacher for teacher in teachers if teacher in self.failed]
                if lost:
                    self.waiting.remove(student)
                    self._give_up(student, f"its teacher {lost[0]} failed")
                    self.progress.say(f"{student.name}: its teacher {lost[0]} failed")
            self.changed.notify_all()

    def _give_up(self, planned: Planned, reason: str) -> None:
        self.failed[planned.name] = reason
        self.progress.lost.add(planned.key)
        self.undone.discard(planned.key)


class Slot:
    """Does runs until the board has none left, with one worker at a time, which is kept for the
    runs of a cell.
    """

    def __init__(self, number: int, board: Board, start: Callable[[int, str], Worker], live: set):
        self.number = number
        self.board = board
        self.start = start
        self.live = live  # the workers of all slots, to be told of a signal
        self.worker: Worker | None = None
        self.cell: str | None = None  # that the worker is for

    def work(self) -> None:
        """Do runs until none is left or the study stops. Raises Stopped."""
        try:
            while (planned := self.board.take(self.number)) is not None:
                self._do(planned)
        finally:
            self._close()

    def _do(self, planned: Planned) -> None:
        """One run, once more with a new worker where it fails; else it is lost."""
        for attempt in range(1, ATTEMPTS + 1):
            worker = self._worker(planned.cell.name, new=attempt > 1)
            try:
                card = worker.run(planned)
            except Stopped:
                raise
            except Exception as error:  # whatever ends a run: the others go on
                if self.board.stopping.is_set():
                    return  # it was told to leave
                reason = one_line(error)
                again = attempt < ATTEMPTS and not isinstance(error, Permanent)
                outcome = "tried again" if again else "given up"
                self.board.progress.say(f"{planned.name}: {outcome}: {reason[:300]}")
                if not again:
                    self.board.lost(planned, reason)
                    return
            else:
                self.board.done(planned)
                self.board.progress.finished(planned, card)
                return

    def _worker(self, cell: str, *, new: bool) -> Worker:
        """The slot's worker for runs of a cell, which replaces one of another cell, or one that has
        ended.
        """
        if self.worker is None or new or self.cell != cell or self.worker.ended():
            self._close()
            self.worker = self.start(self.number, cell)
            self.cell = cell
            self.live.add(self.worker)
            # A signal that came before it was live did not reach it.
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
    """Do the runs with `jobs` workers side by side; returns what failed, with the reason. Raises
    Stopped.

    start(slot, cell) -> a worker for runs of that cell. Workers that would be idle share a cell's
    seeds. A single one works in the caller's thread.
    """
    live: set[Worker] = set()
    with ThreadPoolExecutor(jobs) as pool, told_of_sigterm(live) as stopping:
        board = Board(todo, progress, stopping)
        slots = [Slot(number, board, start, live) for number in range(min(jobs, len(todo)))]
        if jobs == 1:
            # Training takes SIGTERM itself, to save; Python allows that in the main thread alone.
            for slot in slots:
                slot.work()
        else:
            futures = [pool.submit(slot.work) for slot in slots]
            # A slot that fails ends the waiting for the others, which are then stopped.
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
        if stopping.is_set():
            raise Stopped
    return board.failed


@contextmanager
def told_of_sigterm(live: set[Worker]) -> Iterator[threading.Event]:
    """SIGTERM, and whatever ends the work early, is handed on to the workers, which save and leave.

    The event says that it came.
    """
    stopping = threading.Event()

    def stop(*_):
        stopping.set()
        for worker in tuple(live):
            worker.stop()

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield stopping
    except BaseException:
        stop()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
