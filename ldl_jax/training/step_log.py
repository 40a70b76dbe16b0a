"""The log of the steps: means over some of them as a line, and what is done about those that are
not finite.
"""

import time

import jax

from ldl_jax.contract import PyTree
from ldl_jax.training.batches import Feed
from ldl_jax.training.experiment import Experiment
from ldl_jax.training.log import Log
from ldl_jax.training.schedule import Plan

TOLD = 5  # steps that are skipped are told one by one up to so many, and counted from then on
IN_A_ROW = 100  # skipped steps after which a run ends: it learns nothing any more


class NonFinite(Exception):
    """The loss, the gradient or the state stopped being a finite number."""


class Window:
    """The scalars of the steps since the last line; `rows` go into checkpoints, None for a step
    that was skipped.
    """

    def __init__(self, rows, *, skip: bool):
        self.rows = list(rows)
        self._skip = skip
        self._told = 0
        self._in_a_row = 0
        self._rate = None  # learning rate of the last step

    def add(self, step: int, row: dict[str, float]) -> str | None:
        """Take in the scalars of a step; returns what there is to say of it, if anything.

        Raises NonFinite where the step is not finite and not skipped, or the last of too many that
        were.
        """
        finite = row.pop("finite")
        self._rate = row["learning_rate"]
        if finite:
            self.rows.append(row)
            self._in_a_row = 0
            return None
        text = (
            f"step {step}: loss {row['loss']:g}, gradient norm {row['grad_norm']:g} at learning rate "
            f"{row['learning_rate']:g}"
        )
        if not self._skip:
            raise NonFinite(f"{text}; no checkpoint holds it")
        self.rows.append(None)
        self._told += 1
        self._in_a_row += 1
        if self._in_a_row == IN_A_ROW:
            raise NonFinite(f"{text}; it is the last of {IN_A_ROW} in a row that were skipped")
        if self._told < TOLD:
            return f"{text}; skipped"
        return (
            f"{text}; skipped, and from here on only counted (train/skipped)"
            if self._told == TOLD
            else None
        )

    def close(self) -> dict[str, float]:
        """The values of the line by their names, and an empty window: means over the steps that
        were not skipped.
        """
        rows = [row for row in self.rows if row is not None]
        means = {}
        for name in rows[0] if rows else ():
            means[f"train/{name}"] = sum(row[name] for row in rows) / len(rows)
        if self._skip:
            means["train/skipped"] = len(self.rows) - len(rows)
        self.rows = []
        return means | {"train/learning_rate": self._rate}


class StepLog:
    """Logs a run's steps one dispatch late, so that the devices have work while the host waits for
    scalars.

    rows: of the open line, as a checkpoint keeps them.
    """

    def __init__(self, experiment: Experiment, plan: Plan, log: Log, batches: Feed, *, rows: list):
        self._every = experiment.config.train.log_every_steps
        self._plan = plan
        self._log = log
        self._window = Window(rows, skip=experiment.recipe.skip)
        self._timing = _Timing(batches, experiment.config.data.batch_size)
        self._streamed = experiment.dataset.train.stream is not None
        self.pending = None  # (steps before, number of steps, scalars) of the latest dispatch

    def dispatched(self, first: int, count: int, scalars: PyTree) -> None:
        """Take in the dispatch of `count` steps after step `first`, and log the one before. Raises
        NonFinite.

        Logging waits for that one, so two are in flight at most.
        """
        before = self.pending
        self.pending = (first, count, scalars)
        if before is not None:
            self._record(*before)

    def flush(self) -> None:
        """Log the latest dispatch too, which waits for it. Raises NonFinite."""
        if self.pending is not None:
            self._record(*self.pending)
        self.pending = None

    def rows(self) -> list[dict | None]:
        """A copy of the rows of the open line: a checkpoint is written while that goes on to grow."""
        return list(self._window.rows)

    def restart_clock(self) -> None:
        """Leave the time since the last line out of the speed: it was an evaluation's."""
        self._timing.restart()

    def _record(self, first: int, count: int, scalars: PyTree) -> None:
        values = jax.device_get(scalars)
        for number in range(count):
            step = first + number + 1
            row = {
                name: float(value[number] if value.ndim else value)
                for name, value in values.items()
            }
            message = self._window.add(step, row)
            if message:
                self._log.message(message)
            if step % self._every == 0 or step == self._plan.total:
                self._log.scalars(
                    step, {"epoch": step / self._plan.per_epoch, **self._window.close()}
                )
                timing = self._timing.line(step)
                if timing is not None:
                    self._log.timing(step, timing)
        shown = {"loss": row["loss"], "lr": row["learning_rate"]}
        if self._streamed:
            shown["input_wait"] = f"{self._timing.waits:.0%}"
        self._log.progress(first + count, shown)


class _Timing:
    """The speed between two lines of the log."""

    def __init__(self, batches: Feed, batch_size: int):
        self._batches = batches
        self._batch_size = batch_size
        # (step, seconds) of the last line; None where none is to be compared with
        self._last = None
        # share of the time in which the devices waited for input, between the last two lines
        self.waits = 0.0

    def line(self, step: int) -> dict[str, float] | None:
        """Images per second and share of waits since the last line; None where that was before an
        evaluation.
        """
        now = time.perf_counter()
        waited = self._batches.take_wait()
        before, self._last = self._last, (step, now)
        if before is None:
            return None
        seconds = now - before[1]
        self.waits = waited / seconds
        rate = (step - before[0]) * self._batch_size / seconds
        return {"images_per_second": rate, "input_wait": self.waits}

    def restart(self) -> None:
        """Begin anew: the next line has none before it."""
        self._last = None
