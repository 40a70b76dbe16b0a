"""A study's runs side by side: processes that are handed one run at a time, each with its share of the cores."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

from ldl_jax.config.study import Planned
from ldl_jax.study import cards, runner

MEMORY = "XLA_PYTHON_CLIENT_MEM_FRACTION"  # of a GPU's, which JAX takes at its start


class Board:
    """What is left to do, handed out run by run to those who ask."""

    def __init__(self, todo: list[Planned], progress: runner.Progress, stopping: threading.Event):
        self.waiting, self.undone = list(todo), {planned.key for planned in todo}
        self.progress, self.stopping = progress, stopping
        self.failed: dict[str, str] = {}  # run -> reason
        self.at: dict[int, str] = {}  # slot -> the cell it works on
        self.changed = threading.Condition()

    def take(self, slot: int) -> Planned | None:
        """A run whose teachers are done, waited for; None where nothing is left or the study stops.

        It is of the cell that the slot was at, which it has compiled, else of the one that the fewest others are at.
        """
        with self.changed:
            while self.waiting and not self.stopping.is_set():
                ready = [one for one in self.waiting if not self.undone & set(one.needs)]
                if ready:
                    own, crowd = self.at.pop(slot, None), Counter(self.at.values())
                    chosen = min(ready, key=lambda one: (one.cell.name != own, crowd[one.cell.name]))
                    self.waiting.remove(chosen)
                    self.at[slot] = chosen.cell.name
                    return chosen
                self.changed.wait(1.0)
            self.at.pop(slot, None)
            return None

    def done(self, planned: Planned) -> None:
        """A run has its card: those it teaches may begin."""
        with self.changed:
            self.undone.discard(planned.key)
            self.changed.notify_all()

    def lost(self, planned: Planned, reason: str) -> None:
        """A run was given up, and so are those that it was to teach."""
        with self.changed:
            self.failed[runner.name(planned)] = reason
            self.progress.lost.add(planned.key)
            self.undone.discard(planned.key)
            self.waiting = runner.with_teachers(self.waiting, self.failed, self.progress)
            self.undone -= self.progress.lost
            self.changed.notify_all()


def side_by_side(
    todo: list[Planned], workdir, progress: runner.Progress, jobs: int, command: Callable
) -> dict[str, str]:
    """Do the runs in `jobs` processes at a time; returns what failed, with the reason. Raises runner.Stopped.

    A process does runs of one cell, which it compiles once; processes that would be idle share a cell's seeds.
    command(runs of a cell) -> its words.
    """
    live: set[subprocess.Popen] = set()
    gpus, words = visible_gpus(), {}
    for planned in todo:
        words.setdefault(planned.cell.name, []).append(planned)
    with ThreadPoolExecutor(jobs) as pool, runner.handed_on(live) as stopping:
        board = Board(todo, progress, stopping)

        def work(slot):
            share = environment(slot, jobs, gpus)
            _work(slot, board, workdir, lambda cell: Process(cell, command(words[cell]), share, live, stopping))

        working = [pool.submit(work, slot) for slot in range(min(jobs, len(todo)))]
        for ended in wait(working, return_when=FIRST_EXCEPTION)[0]:  # one that fails ends the others' waiting
            ended.result()
        if stopping.is_set():
            raise runner.Stopped
    return board.failed


class Process:
    """A process that does runs of a cell, one after another, as it is asked for them."""

    def __init__(self, cell: str, words: list[str], share: dict[str, str], live: set, stopping: threading.Event):
        self.cell, self.live = cell, live
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the process)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, env=share, stdin=pipe, stdout=pipe, stderr=self.said, text=True)
        live.add(self.process)
        if stopping.is_set():
            self.process.terminate()

    def ask(self, planned: Planned) -> tuple[bool, str]:
        """Have a run done: (whether it is, else why not). A ValueError says that trying again cannot help."""
        with suppress(OSError):  # it has ended already, and its status is told below
            print(runner.name(planned), file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            answer, _, reason = line.strip().partition(f" {runner.name(planned)}")
            if answer in (runner.DONE, runner.FAILED):
                return answer == runner.DONE, reason.strip()
        code = self.process.wait()
        self.said.seek(0)
        last = (self.said.read().strip().splitlines() or ["no word"])[-1]
        reason = f"its process ended with status {code} ({last[:300]})"
        if code == 2:
            raise ValueError(reason)
        return False, reason

    def ended(self) -> bool:
        """Whether it is there no more."""
        return self.process.poll() is not None

    def close(self) -> None:
        """End it after the run that it is at."""
        with suppress(OSError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.said.close()
        self.live.discard(self.process)


def _work(slot: int, board: Board, workdir, start: Callable[[str], Process]) -> None:
    """Have runs done until none is left, those of a cell by one process, each tried twice at most."""
    process = None
    try:
        while (planned := board.take(slot)) is not None:
            for number in range(1, runner.ATTEMPTS + 1):
                if process is None or process.cell != planned.cell.name or process.ended() or number > 1:
                    if process is not None:
                        process.close()
                    process = start(planned.cell.name)
                card, reason, again = _tried(process, planned, workdir)
                if card is not None:
                    board.done(planned)
                    board.progress.finished(planned, card)
                if card is not None or board.stopping.is_set():
                    break
                again = again and number < runner.ATTEMPTS
                board.progress.say(f"{runner.name(planned)}: {'tried again' if again else 'given up'}: {reason[:300]}")
                if not again:
                    board.lost(planned, reason)
                    break
    finally:
        if process is not None:
            process.close()


def _tried(process: Process, planned: Planned, workdir) -> tuple[cards.Card | None, str, bool]:
    """(a run's card, or why there is none, whether to try again)."""
    try:
        done, reason = process.ask(planned)
        card = cards.read(Path(workdir) / runner.CARDS, planned) if done else None
    except ValueError as error:  # also a card that cannot be read, or is of another config
        return None, str(error), False
    return card, reason or "it left no card", True


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
    """Keep this process to its share of the cores, where it is one of several: XLA's threads follow the cores.

    Ctrl-C reaches it too, and is left to the process that started it, which has it saved.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    slot, _, jobs = os.environ.get(runner.SLOT, "").partition("/")
    if not jobs or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // int(jobs))
    first = int(slot) * share % len(cores)
    os.sched_setaffinity(0, cores[first : first + share])
