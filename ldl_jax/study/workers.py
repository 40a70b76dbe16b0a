"""What does a study's runs: this process, or processes that are asked for one run at a time."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from ldl_jax.config.study import Planned
from ldl_jax.errors import Busy, one_line
from ldl_jax.study import cards, directory, run, runner

DONE, FAILED = "done", "failed"  # a process's answers to the one that handed it a run
POLL = 2.0  # seconds between two looks at a run that another process works on
SLOT = "LDL_STUDY_SLOT"  # of the environment of a process that is one of several
MEMORY = "XLA_PYTHON_CLIENT_MEM_FRACTION"  # of a GPU's, which JAX takes at its start


class ThisProcess:
    """Trains here; compiled programs are kept between runs that differ in seed and teachers alone."""

    def __init__(self, folder, say: Callable[[str], None]):
        self.folder = Path(folder)
        self.say = say
        self.compiled: dict = {}
        self.stopping = threading.Event()

    def run(self, planned: Planned) -> cards.Card:
        """Do a run. One that another process works on is waited for: a job array's lines begin at
        once, teachers too.

        Raises runner.Stopped, or whatever ended the run.
        """
        waiting = False
        while not self.stopping.is_set():
            card = cards.read(self.folder / directory.CARDS, planned)
            if card is not None:
                return card
            try:
                return run.train(planned, self.folder, self.compiled)
            except Busy:
                if not waiting:
                    self.say(f"{planned.name}: another process works on it; waiting")
                waiting = True
                self.stopping.wait(POLL)
        raise runner.Stopped

    def ended(self) -> bool:
        """Never, as long as it is asked."""
        return False

    def stop(self) -> None:
        """Begin no more runs; the one under way takes the signal itself."""
        self.stopping.set()

    def close(self) -> None:
        """Nothing is left open between runs."""


def answer_requests(
    planned: list[Planned],
    worker: ThisProcess,
    requests: Iterable[str],
    answer: Callable[[str], None],
) -> None:
    """Do the runs that another process names, one a line, and answer each with a line; who asked
    tries again.

    Raises runner.Stopped.
    """
    by_name = {one.name: one for one in planned}
    with runner.told_of_sigterm({worker}):
        for request in requests:
            name = request.strip()
            asked = by_name[name]
            try:
                worker.run(asked)
            except runner.Stopped:
                raise
            except Exception as error:  # whatever ends a run
                answer(f"{FAILED} {name} {one_line(error)}")
            else:
                answer(f"{DONE} {name}")


class Process:
    """A process that does runs of a cell, one after another, as it is asked for them with
    `answer_requests`.
    """

    def __init__(self, command: list[str], environment: dict[str, str], card_folder):
        self.card_folder = card_folder
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the process)
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def run(self, planned: Planned) -> cards.Card:
        """Have a run done, and read its card.

        Raises RuntimeError with the reason where there is none, and runner.Permanent where trying
        again cannot help: the process was given bad input, or the card cannot be read or is of
        another config.
        """
        try:
            done, reason = self.ask(planned)
            card = cards.read(self.card_folder, planned) if done else None
        except ValueError as error:
            raise runner.Permanent(str(error)) from error
        if card is None:
            raise RuntimeError(reason or "it left no card")
        return card

    def ask(self, planned: Planned) -> tuple[bool, str]:
        """Have a run done: (whether it is, else why not). A ValueError says that trying again
        cannot help.
        """
        with suppress(OSError):  # it has ended already, and its status is told below
            print(planned.name, file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            answer, _, reason = line.strip().partition(f" {planned.name}")
            if answer in (DONE, FAILED):
                return answer == DONE, reason.strip()

        # Its output ended without an answer, and so did the process.
        code = self.process.wait()
        self.errors.seek(0)
        last_line = (self.errors.read().strip().splitlines() or ["no word"])[-1]
        reason = f"its process ended with status {code} ({last_line[:300]})"
        if code == 2:
            raise ValueError(reason)
        return False, reason

    def ended(self) -> bool:
        """Whether it is there no more."""
        return self.process.poll() is not None

    def stop(self) -> None:
        """Have it save and leave."""
        self.process.terminate()

    def close(self) -> None:
        """End it after the run that it is at."""
        with suppress(OSError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


def processes(
    todo: list[Planned], folder, jobs: int, command: Callable
) -> Callable[[int, str], Process]:
    """What starts one of `jobs` processes for runs of a cell, with its share of the machine, as
    `runner.execute` asks.

    command(runs of a cell) -> its words.
    """
    gpus = visible_gpus()
    runs: dict[str, list[Planned]] = {}
    for planned in todo:
        runs.setdefault(planned.cell.name, []).append(planned)

    def start(slot: int, cell: str) -> Process:
        return Process(
            command(runs[cell]), environment(slot, jobs, gpus), Path(folder) / directory.CARDS
        )

    return start


def environment(slot: int, jobs: int, gpus: tuple[str, ...] = ()) -> dict[str, str]:
    """The environment of one of several processes: its share of the threads, and of the GPUs or of
    the memory of one.

    gpus: their names, as CUDA_VISIBLE_DEVICES has them. With as many as jobs or more, each process
    has its own, a power of two of them; with fewer, several share one and its memory.
    """
    threads = (
        max(1, len(os.sched_getaffinity(0)) // jobs) if hasattr(os, "sched_getaffinity") else 1
    )
    more = {"OMP_NUM_THREADS": str(threads), SLOT: f"{slot}/{jobs}"}
    if gpus:
        each = 1 << (max(1, len(gpus) // jobs).bit_length() - 1)
        first = slot * each % len(gpus)
        more["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[first : first + each])
    if 0 < len(gpus) < jobs:
        sharing = -(-jobs // len(gpus))
        more[MEMORY] = os.environ.get(MEMORY, f"{0.8 / sharing:.3f}")
    return {**os.environ, **more}


def visible_gpus() -> tuple[str, ...]:
    """NVIDIA's GPUs that a process started here may use, as CUDA_VISIBLE_DEVICES names them; none
    without a driver.

    They are counted without JAX, which would take their memory from the runs.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return tuple(filter(None, (name.strip() for name in chosen.split(","))))
    if shutil.which("nvidia-smi") is None:
        return ()
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    count = (
        len(re.findall(r"^GPU \d+:", listed.stdout, re.MULTILINE)) if listed.returncode == 0 else 0
    )
    return tuple(str(number) for number in range(count))


def bind() -> None:
    """Keep this process to its share of the cores, where it is one of several: XLA's threads follow
    the cores.

    Ctrl-C reaches it too, and is left to the process that started it, which has it saved.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    slot, _, jobs = os.environ.get(SLOT, "").partition("/")
    if not jobs or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // int(jobs))
    first = int(slot) * share % len(cores)
    os.sched_setaffinity(0, cores[first : first + share])


def is_worker() -> bool:
    """Whether this process does runs for another one, which names them."""
    return SLOT in os.environ
