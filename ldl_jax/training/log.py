"""What a run says while it trains: lines or a bar in the terminal, JSON lines and TensorBoard
events in its folder.
"""

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

from ldl_jax import cli
from ldl_jax.errors import warn
from ldl_jax.workdir import EVENTS, METRICS, TIMING

LINE_SECONDS = 10.0  # without a terminal: at most one progress line in this time

_clock = time.monotonic


class Log:
    """The one writer of a run: messages and progress for people, numbers for programs; silent where
    `main` is False.

    Appends to the files of an earlier start: to resume, call `workdir.cut_log_back(workdir,
    start_step)` first. TensorBoard hides what earlier starts wrote after `start_step`.
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
        self._progress = (_Bar if sys.stderr.isatty() else _Lines)(total_steps)

    def message(self, text: str) -> None:
        """Print one line, above the progress bar where there is one."""
        if self._main:
            self._progress.say(text)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Record what a second run of the same seed would record again; a value that is not finite
        is a null.
        """
        if self._main:
            self._record(self._metrics, step, values)

    def timing(self, step: int, values: dict[str, float]) -> None:
        """Record what differs between two runs of the same seed: images per second, seconds, bytes."""
        if self._main:
            self._record(self._timing, step, values)

    def progress(self, step: int, values: dict[str, float]) -> None:
        """Show that `step` steps are done, with the speed (steps/s), the time left and `values`."""
        if self._main:
            self._progress.show(
                step, "  ".join(f"{name} {_short(value)}" for name, value in values.items())
            )

    def close(self) -> None:
        """Write out what is pending and close the files; a second call does nothing."""
        if self._main:
            self._main = False
            for part in (self._progress, self._events, self._metrics, self._timing):
                part.close()

    def _record(self, file, step, values):
        values = {name: _number(value) for name, value in values.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        file.write(json.dumps({"step": int(step), **finite}, allow_nan=False) + "\n")
        self._events.add(int(step), values)


def _print(text, stream):
    """Print, and go on where the file behind a stream lies on a disk that is full."""
    with contextlib.suppress(OSError):
        print(text, file=stream, flush=True)


class _File:
    """Lines of a file. What cannot be written, as on a full disk, waits in memory until it can be."""

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
            warn(f"{self._path} could not be written to the end; its last {count} lines are lost")

    def _write(self):
        try:
            # Opened anew each time, and no buffer: what a full disk took of a line is known, and
            # the rest follows.
            with open(self._path, "ab", buffering=0) as file:
                while self._waiting:
                    self._waiting = self._waiting[file.write(self._waiting) :]
            self._outage = False
        except OSError as error:
            if not self._outage:
                warn(
                    f"{self._path} cannot be written ({error.strerror}); its lines are kept until it can be"
                )
            self._outage = True


class _Events:
    """TensorBoard events, in a file of this start; where it cannot be written they are left out.

    Written here, not by tensorboardX's SummaryWriter: its thread dies of an OSError, and then its
    queue blocks.
    """

    def __init__(self, folder, start_step):
        self._folder, self._start, self._writer = folder, start_step, None
        session = SessionLog(status=SessionLog.START)
        self._put([Event(wall_time=time.time(), step=start_step + 1, session_log=session)])

    def add(self, step, values):
        now = time.time()
        rows = (
            Summary(value=[Summary.Value(tag=name, simple_value=value)])
            for name, value in values.items()
        )
        self._put([Event(wall_time=now, step=step, summary=row) for row in rows])

    def close(self):
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()

    def _put(self, events):
        try:
            if self._writer is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                # A name of its own: files of two starts within one second would be called the same.
                name = f".{self._start}.{time.time_ns()}"
                self._writer = EventsWriter(str(self._folder / "events"), name)
            for event in events:
                self._writer.write_event(event)
            self._writer.flush()
        except OSError:  # a record may be cut: the next ones begin another file
            self.close()
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
            print(text, flush=True)
        else:
            self._bar.write(text)

    def show(self, step, values):
        # made at the first call, so that compilation does not count as slow steps
        if self._bar is None:
            self._bar = tqdm(total=self._total, initial=step, unit="step", dynamic_ncols=True)
        self._bar.set_postfix_str(values, refresh=False)
        self._bar.update(step - self._bar.n)
        if step >= self._total:
            self.close()  # so that what is said after the last step comes below the bar

    def close(self):
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Lines:
    """Progress in a file: a line at the first call, then one in LINE_SECONDS, and one at the last
    step.
    """

    def __init__(self, total_steps):
        self._total = total_steps
        self._first = self._last = None  # (step, seconds) of the first and the latest line

    def say(self, text):
        _print(text, sys.stdout)

    def show(self, step, values):
        now = _clock()
        if self._last is not None and step < self._total and now - self._last[1] < LINE_SECONDS:
            return
        speed, left = "-", "-:--:--"
        if self._last is not None and now > self._last[1] and step > self._first[0]:
            speed = f"{(step - self._last[0]) / (now - self._last[1]):.4g}"
            # Over the whole run, not the last line: evaluations and saving will come again.
            left = cli.clock(
                (self._total - step) * (now - self._first[1]) / (step - self._first[0])
            )
        self._first = self._first or (step, now)
        self._last = (step, now)
        width = len(str(self._total))
        share = 100 * step / max(self._total, 1)
        self.say(
            f"step {step:{width}d}/{self._total}  {share:5.1f} %  {speed} steps/s  {left} left  {values}".rstrip()
        )

    def close(self):
        pass
