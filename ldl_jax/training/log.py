"""The output of a run: progress in the terminal, JSON lines and TensorBoard events in its folder."""

import contextlib
import json
import math
import numbers
import sys
import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tqdm import tqdm

from ldl_jax import cli, escape, files
from ldl_jax.errors import say, warn
from ldl_jax.workdir import EVENTS, METRICS, TIMING

LINE_SECONDS = 10.0  # shortest time between two progress lines, without a terminal

_clock = time.monotonic  # replaced in tests


class Log:
    """All output of a run: messages and progress for people, numbers for programs.

    main: False for processes that write nothing. Appends to the files of earlier starts: to resume,
    call `workdir.cut_log_back(workdir, start_step)` first. TensorBoard hides what earlier starts
    wrote after `start_step`.
    """

    def __init__(self, workdir, *, total_steps: int, start_step: int = 0, main: bool = True):
        self._main = main
        if not main:
            return
        workdir = Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        self._metrics = _File(workdir / METRICS)
        self._timing = _File(workdir / TIMING)
        self._events = _Events(workdir / EVENTS, start_step)
        # A bar redraws its line, which fills a log file with control characters.
        self._progress = (_Bar if sys.stderr.isatty() else _Lines)(total_steps)

    def message(self, text: str) -> None:
        """Print a line, above the progress bar if there is one."""
        if self._main:
            self._progress.say(text)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Record values that are the same for every run with this seed; NaN and infinity as null."""
        if self._main:
            self._record(self._metrics, step, values)

    def timing(self, step: int, values: dict[str, float]) -> None:
        """Record values that differ between runs with the same seed: speed, seconds, bytes."""
        if self._main:
            self._record(self._timing, step, values)

    def progress(self, step: int, values: dict[str, float]) -> None:
        """Show the progress after `step` steps: speed (steps/s), remaining time and `values`."""
        if self._main:
            texts = [f"{name} {_short(value)}" for name, value in values.items()]
            self._progress.show(step, "  ".join(texts))

    def close(self) -> None:
        """Write pending lines and close the files; a second call does nothing."""
        if self._main:
            self._main = False
            for part in (self._progress, self._events, self._metrics, self._timing):
                part.close()

    def _record(self, file, step, values):
        values = {name: _number(value) for name, value in values.items()}
        # JSON has no NaN or infinity; TensorBoard has, and gets the values as they are.
        row = {"step": int(step)}
        for name, value in values.items():
            row[name] = value if math.isfinite(value) else None
        file.write(json.dumps(row, allow_nan=False) + "\n")
        self._events.add(int(step), values)


def _print(text, stream):
    """Print, without an error if the stream is a file on a full disk."""
    with contextlib.suppress(OSError):
        say(text, stream, flush=True)


class _File:
    """A file of lines. Lines that cannot be written, as on a full disk, wait in memory."""

    def __init__(self, path):
        self._path = path
        self._waiting = b""
        self._outage = False
        self._write()

    def write(self, line):
        self._waiting += line.encode()
        self._write()

    def close(self):
        if self._waiting:
            self._write()
        if self._waiting:
            count = self._waiting.count(b"\n")
            warn(f"{self._path}: the last lines ({count}) could not be written and are lost")

    def _write(self):
        try:
            # Opened each time and without a buffer: if a full disk takes only part of a line, that
            # part is known, and the rest follows later.
            with open(self._path, "ab", buffering=0, opener=files.no_link) as file:
                while self._waiting:
                    self._waiting = self._waiting[file.write(self._waiting) :]
            self._outage = False
        except OSError as error:
            # Warn once per outage, not for every line.
            if not self._outage:
                warn(
                    f"{self._path} cannot be written ({error.strerror}); its lines are kept in memory until it can"
                )
            self._outage = True


class _Events:
    """TensorBoard events, in a file for each start. Events that cannot be written are lost.

    Not tensorboardX's SummaryWriter: an OSError ends its thread, and then its queue blocks.
    """

    def __init__(self, folder, start_step):
        self._folder = folder
        self._start = start_step
        self._writer = None
        # The start of a session makes TensorBoard hide earlier events from this step on.
        session = SessionLog(status=SessionLog.START)
        self._put([Event(wall_time=time.time(), step=start_step + 1, session_log=session)])

    def add(self, step, values):
        now = time.time()
        events = []
        for name, value in values.items():
            summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
            events.append(Event(wall_time=now, step=step, summary=summary))
        self._put(events)

    def close(self):
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()

    def _put(self, events):
        try:
            if self._writer is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                # tensorboardX names files by the second, so two quick starts would share one.
                name = f".{self._start}.{time.time_ns()}"
                self._writer = EventsWriter(str(self._folder / "events"), name)
            for event in events:
                self._writer.write_event(event)
            self._writer.flush()
        except OSError:
            # The last record may be incomplete, so the next ones go to another file.
            self._abandon()

    def _abandon(self):
        """Leave the file as it is. What it could not take would be written again by the garbage
        collector, and newer Pythons print the error.
        """
        file = self._writer and self._writer._py_recordio_writer._writer
        self.close()
        if hasattr(file, "raw"):
            file.raw.close()
        self._writer = None


def _number(value):
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _short(value):
    return f"{value:.4g}" if isinstance(value, numbers.Real) else str(value)


class _Bar:
    """Progress in a terminal: a bar on stderr."""

    def __init__(self, total_steps):
        self._total = total_steps
        self._bar = None

    def say(self, text):
        if self._bar is None:
            say(text, flush=True)
        else:
            self._bar.write(escape.terminal(text))

    def show(self, step, values):
        # Created at the first call, so that compilation does not count as slow steps.
        if self._bar is None:
            self._bar = tqdm(total=self._total, initial=step, unit="step", dynamic_ncols=True)
        self._bar.set_postfix_str(values, refresh=False)
        self._bar.update(step - self._bar.n)
        # Close after the last step, so that later messages appear below the bar.
        if step >= self._total:
            self.close()

    def close(self):
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Lines:
    """Progress without a terminal: lines at the first and last step, and every LINE_SECONDS."""

    def __init__(self, total_steps):
        self._total = total_steps
        self._first = None  # (step, seconds) of the first line
        self._last = None  # (step, seconds) of the latest line

    def say(self, text):
        _print(text, sys.stdout)

    def show(self, step, values):
        now = _clock()
        if self._last is not None and step < self._total and now - self._last[1] < LINE_SECONDS:
            return
        speed = "-"
        remaining = "-:--:--"
        if self._last is not None and now > self._last[1] and step > self._first[0]:
            speed = f"{(step - self._last[0]) / (now - self._last[1]):.4g}"
            # From the whole run, not the last line: evaluations and saves will come again.
            seconds_per_step = (now - self._first[1]) / (step - self._first[0])
            remaining = cli.clock((self._total - step) * seconds_per_step)
        self._first = self._first or (step, now)
        self._last = (step, now)
        width = len(str(self._total))
        percent = 100 * step / max(self._total, 1)
        line = f"step {step:{width}d}/{self._total}  {percent:5.1f} %  {speed} steps/s  {remaining} left  {values}"
        self.say(line.rstrip())

    def close(self):
        pass
