"""The workers of a study: this process, or child processes that are sent one run at a time."""

import os
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ldl_jax import signals
from ldl_jax.config.study import Planned
from ldl_jax.errors import Busy, one_line, out_of_memory
from ldl_jax.study import cards, directory, run, runner

# The first word of a child process's answer.
DONE = "done"
FAILED = "failed"

GRACE = 5.0  # seconds that a child process has to save if its parent has died
POLL = 2.0  # seconds between two checks of a run that another process works on
TUNABLES = "GLIBC_TUNABLES"
SLOT = "LDL_STUDY_SLOT"  # environment variable of a child process: SLOT/JOBS
MEMORY = "XLA_PYTHON_CLIENT_MEM_FRACTION"  # JAX's: fraction of a GPU's memory to reserve


class ThisProcess:
    """Trains in this process. Runs that differ only in seed and teachers share compiled programs."""

    def __init__(self, folder, say: Callable[[str], None], *, trust: bool = False):
        self.folder = Path(folder)
        self.say = say
        self.trust = trust  # see `run.train`
        self.compiled: dict = {}
        self.stopping = threading.Event()

    def run(self, planned: Planned) -> cards.Card:
        """Do a run; if another process works on it, wait for its card.

        Raises runner.Stopped, signals.Interrupted, or the error that ended the run.
        """
        # The lines of a job array start at the same time, so several of them need the same teacher
        # at once: the first one trains it and the others wait.
        waiting = False
        while not self.stopping.is_set():
            card = cards.read(self.folder / directory.CARDS, planned)
            if card is not None:
                return card
            try:
                return run.train(planned, self.folder, self.compiled, trust=self.trust)
            except Busy:
                if not waiting:
                    self.say(f"{planned.name}: waiting for another process that works on it")
                waiting = True
                self.stopping.wait(POLL)
        raise runner.Stopped

    def ended(self) -> bool:
        """Always False: this process can always do another run."""
        return False

    def stop(self) -> None:
        """Start no more runs. Training handles signals itself, and saves the current run."""
        self.stopping.set()

    def close(self) -> None:
        """Do nothing: no resource is open between runs."""


def answer_requests(
    planned: list[Planned],
    worker: ThisProcess,
    requests: Iterable[str],
    answer: Callable[[str], None],
) -> None:
    """Serve a parent process: do the run named by each request, and answer with a line for each.

    The parent decides whether a failed run gets another attempt. Raises signals.Interrupted if a
    signal arrives, and runner.Stopped if the worker was stopped otherwise.
    """
    runs = {run.name: run for run in planned}
    with runner.stoppable({worker}):
        for request in requests:
            name = request.strip()
            requested = runs[name]
            try:
                worker.run(requested)
            except runner.Stopped:
                raise
            # Any error ends this run alone: the next request may succeed.
            except Exception as error:
                answer(f"{FAILED} {name} {out_of_memory(error) or one_line(error)}")
            else:
                answer(f"{DONE} {name}")


def requests(file: Iterable[bytes], orphaned: Callable[[], object]) -> Iterator[str]:
    """The lines that a parent process sends, until it closes the pipe.

    file: an unbuffered pipe, read by a thread. orphaned: called by the thread if the pipe is closed
    during a run, which only a parent that has died does.
    """
    lines = queue.SimpleQueue()
    busy = threading.Event()

    def read():
        for line in file:
            lines.put(line.decode())
        lines.put(None)
        if busy.is_set():
            orphaned()

    threading.Thread(target=read, daemon=True).start()
    while (line := lines.get()) is not None:
        busy.set()
        yield line
        busy.clear()


def end_orphan() -> None:
    """End this process because its parent has died: save if that takes seconds only."""
    os.kill(os.getpid(), signal.SIGTERM)
    # A step or a compilation may take longer, and the next start uses the same cores.
    time.sleep(GRACE)
    os._exit(1)


class Process:
    """A child process that does runs of one cell, one after another.

    command: its command line, which ends in `answer_requests`. environment: all of its environment
    variables. card_folder: folder of the result cards.
    """

    def __init__(self, command: list[str], environment: dict[str, str], card_folder):
        self.card_folder = card_folder
        text = {"encoding": "utf-8", "errors": "backslashreplace"}
        self.errors = tempfile.TemporaryFile("w+", **text)  # noqa: SIM115 (closed with the process)
        self.process = subprocess.Popen(
            command,
            # Both sides name runs in UTF-8, whatever the locale.
            env={**environment, "PYTHONIOENCODING": "utf-8:backslashreplace"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            **text,
        )

    def run(self, planned: Planned) -> cards.Card:
        """Let the child process do a run, and read its card.

        Raises RuntimeError with the reason if there is no card, and runner.Permanent if another
        attempt cannot help: the process got bad input, or the card is unreadable or has another
        config.
        """
        try:
            done, reason = self.ask(planned)
            card = cards.read(self.card_folder, planned) if done else None
        except ValueError as error:
            raise runner.Permanent(str(error)) from error
        if card is None:
            raise RuntimeError(reason or "it wrote no result card")
        return card

    def ask(self, planned: Planned) -> tuple[bool, str]:
        """Send a run to the child process; returns (True, '') or (False, reason).

        Raises ValueError if another attempt cannot help.
        """
        # If the process has ended already, the loop ends at once and its status is reported below.
        with suppress(OSError):
            print(planned.name, file=self.process.stdin, flush=True)
        # Other lines are output of the training.
        for line in self.process.stdout:
            answer, _, reason = line.strip().partition(f" {planned.name}")
            if answer in (DONE, FAILED):
                return answer == DONE, reason.strip()

        # The output ended without an answer, so the process has ended. The last line on stderr is
        # usually the error.
        code = self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().strip().splitlines()
        last_line = lines[-1] if lines else "no error message"
        reason = f"its process ended with status {code} ({last_line[:300]})"
        # Status 2 means bad input, which stays bad.
        if code == 2:
            raise ValueError(reason)
        return False, reason

    def ended(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def stop(self) -> None:
        """Make the process save its run and exit."""
        self.process.terminate()

    def close(self) -> None:
        """End the process after its current run."""
        # It reads requests until its stdin is closed.
        with suppress(OSError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


def processes(
    todo: list[Planned], folder, jobs: int, command: Callable
) -> Callable[[int, str], Process]:
    """A function (slot, cell) -> child process, for `runner.execute`.

    Each of `jobs` processes gets its share of the machine. folder: the study's directory.
    command(runs of a cell) -> command line of a process that does them.
    """
    gpus = visible_gpus()
    runs_of_cell: dict[str, list[Planned]] = {}
    for planned in todo:
        runs_of_cell.setdefault(planned.cell.name, []).append(planned)

    def start(slot: int, cell: str) -> Process:
        share = environment(slot, jobs, gpus)
        return Process(command(runs_of_cell[cell]), share, Path(folder) / directory.CARDS)

    return start


def environment(slot: int, jobs: int, gpus: tuple[str, ...] = ()) -> dict[str, str]:
    """The environment variables of one of `jobs` processes: its share of the CPU threads, and of
    the GPUs or of one GPU's memory.

    slot: number of the process, from 0. gpus: names as in CUDA_VISIBLE_DEVICES. With at least as
    many GPUs as processes, each process has GPUs of its own, a power of two of them; with fewer,
    several processes share one GPU and its memory.
    """
    # Systems other than Linux cannot tell how many cores this process may use.
    threads = 1
    if hasattr(os, "sched_getaffinity"):
        threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    share = {"OMP_NUM_THREADS": str(threads), SLOT: f"{slot}/{jobs}"}
    # Pages of 2 MB for glibc's large allocations: a step on a CPU is about a fifth faster.
    share[TUNABLES] = os.environ.get(TUNABLES, "glibc.malloc.hugetlb=1")
    if gpus:
        # A power of two divides the usual batch sizes.
        each = 1 << (max(1, len(gpus) // jobs).bit_length() - 1)
        first = slot * each % len(gpus)
        share["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[first : first + each])
    if 0 < len(gpus) < jobs:
        # JAX reserves 75 % of a GPU by default, which leaves nothing for a second process.
        processes_per_gpu = -(-jobs // len(gpus))
        share[MEMORY] = os.environ.get(MEMORY, f"{0.8 / processes_per_gpu:.3f}")
    return {**os.environ, **share}


def visible_gpus() -> tuple[str, ...]:
    """The NVIDIA GPUs that a child process may use, named as in CUDA_VISIBLE_DEVICES; none without
    a driver.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        return tuple(filter(None, names))
    # Ask the driver and not JAX, which would reserve GPU memory in this process.
    if shutil.which("nvidia-smi") is None:
        return ()
    options = {"encoding": "utf-8", "errors": "replace", "check": False}
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, **options)
    if listing.returncode != 0:
        return ()
    count = len(re.findall(r"^GPU \d+:", listing.stdout, re.MULTILINE))
    return tuple(map(str, range(count)))


def bind() -> None:
    """Restrict this process to its share of the cores if it is one of several."""
    # Ctrl-C reaches parent and children alike; the parent then stops the children, which save.
    signals.ignore_interrupts()
    slot, _, jobs = os.environ.get(SLOT, "").partition("/")
    if not jobs or not hasattr(os, "sched_setaffinity"):
        return
    # XLA starts as many threads as there are cores to run on.
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // int(jobs))
    first = int(slot) * share % len(cores)
    os.sched_setaffinity(0, cores[first : first + share])


def is_worker() -> bool:
    """Whether this process is a child that does the runs its parent names."""
    return SLOT in os.environ
