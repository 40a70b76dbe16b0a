"""The log of the train steps: means over several steps, and the handling of non-finite steps."""

import time

import jax

from ldl_jax.contract import PyTree
from ldl_jax.training.batches import Feed
from ldl_jax.training.experiment import Experiment
from ldl_jax.training.log import Log
from ldl_jax.training.schedule import Plan

TOLD = 5  # number of skipped steps that are reported one by one; further ones are only counted
IN_A_ROW = 100  # skipped steps in a row after which a run ends


class NonFinite(Exception):
    """The loss, the gradient or the state is not finite."""


class Window:
    """The scalars of the steps since the last line of the log.

    rows: one per step, None for a skipped step; stored in checkpoints. skip: whether steps that are
    not finite are skipped.
    """

    def __init__(self, rows, *, skip: bool):
        self.rows = list(rows)
        self._skip = skip
        self._skipped = 0
        self._skipped_in_a_row = 0
        self._rate = None  # learning rate of the last step

    def add(self, step: int, row: dict[str, float]) -> str | None:
        """Add the scalars of a step; returns a message about it, or None.

        Raises NonFinite if the step is not finite and not skipped, or if it is the last of too many
        skipped steps in a row.
        """
        finite = row.pop("finite")
        self._rate = row["learning_rate"]
        if finite:
            self.rows.append(row)
            self._skipped_in_a_row = 0
            return None

        text = (
            f"step {step}: loss {row['loss']:g}, gradient norm {row['grad_norm']:g} at learning rate "
            f"{row['learning_rate']:g}"
        )
        if not self._skip:
            raise NonFinite(f"{text} (not finite); checkpoints hold earlier steps only")
        self.rows.append(None)
        self._skipped += 1
        self._skipped_in_a_row += 1
        # Without an end, such a run would go through all its steps and learn nothing.
        if self._skipped_in_a_row == IN_A_ROW:
            raise NonFinite(f"{text}; the last {IN_A_ROW} steps were all skipped as not finite")
        if self._skipped < TOLD:
            return f"{text}; skipped"
        if self._skipped == TOLD:
            return f"{text}; skipped; further skipped steps are only counted (train/skipped)"
        return None

    def close(self) -> dict[str, float]:
        """The values of a line by name, as means over the steps that were not skipped.

        Empties the window.
        """
        rows = [row for row in self.rows if row is not None]
        means = {}
        for name in rows[0] if rows else ():
            means[f"train/{name}"] = sum(row[name] for row in rows) / len(rows)
        if self._skip:
            means["train/skipped"] = len(self.rows) - len(rows)
        self.rows = []
        # The learning rate is set by the schedule, so its last value says more than a mean.
        return means | {"train/learning_rate": self._rate}


class StepLog:
    """Logs the steps of a run one dispatch late: the devices compute while the host waits.

    rows: the window of a checkpoint, to continue from.
    """

    def __init__(self, experiment: Experiment, plan: Plan, log: Log, batches: Feed, *, rows: list):
        self._every = experiment.config.train.log_every_steps
        self._plan = plan
        self._log = log
        self._window = Window(rows, skip=experiment.recipe.skip)
        self._timing = _Timing(batches, experiment.config.data.batch_size)
        self._streamed = experiment.dataset.train.stream is not None
        self.pending = None  # (step before it, number of steps, scalars) of the latest dispatch

    def dispatched(self, first: int, count: int, scalars: PyTree) -> None:
        """Register the dispatch of `count` steps after step `first`, and log the previous one.

        Logging waits for that one, so at most two are in flight. Raises NonFinite.
        """
        previous = self.pending
        self.pending = (first, count, scalars)
        if previous is not None:
            self._record(*previous)

    def flush(self) -> None:
        """Wait for the latest dispatch and log it. Raises NonFinite."""
        if self.pending is not None:
            self._record(*self.pending)
        self.pending = None

    def rows(self) -> list[dict | None]:
        """A copy of the scalars since the last line, for a checkpoint."""
        # A copy, because the checkpoint is written in the background while the window grows.
        return list(self._window.rows)

    def restart_clock(self) -> None:
        """Exclude the time since the last line, such as that of an evaluation, from the speed."""
        self._timing.restart()

    def _record(self, first: int, count: int, scalars: PyTree) -> None:
        """Log `count` steps after step `first`; waits for their scalars."""
        values = jax.device_get(scalars)
        for number in range(count):
            step = first + number + 1
            # A chunk's scalars are stacked, those of a single step are not.
            row = {}
            for name, value in values.items():
                row[name] = float(value[number] if value.ndim else value)
            message = self._window.add(step, row)
            if message:
                self._log.message(message)
            if step % self._every == 0 or step == self._plan.total:
                self._write_line(step)
        shown = {"loss": row["loss"], "lr": row["learning_rate"]}
        if self._streamed:
            shown["input_wait"] = f"{self._timing.waits:.0%}"
        self._log.progress(first + count, shown)

    def _write_line(self, step: int) -> None:
        self._log.scalars(step, {"epoch": step / self._plan.per_epoch, **self._window.close()})
        timing = self._timing.line(step)
        if timing is not None:
            self._log.timing(step, timing)


class _Timing:
    """The training speed between two lines of the log."""

    def __init__(self, batches: Feed, batch_size: int):
        self._batches = batches
        self._batch_size = batch_size
        self._last = None  # (step, seconds) of the last line; None if there is none to compare with
        self.waits = 0.0  # share of the time between the last two lines spent waiting for input

    def line(self, step: int) -> dict[str, float] | None:
        """Images per second and share of waits since the last line; None at the first line.

        The line after `restart` counts as the first.
        """
        now = time.perf_counter()
        waited = self._batches.take_wait()
        previous = self._last
        self._last = (step, now)
        if previous is None:
            return None
        last_step, last_time = previous
        seconds = now - last_time
        self.waits = waited / seconds
        rate = (step - last_step) * self._batch_size / seconds
        return {"images_per_second": rate, "input_wait": self.waits}

    def restart(self) -> None:
        """Forget the last line."""
        self._last = None
