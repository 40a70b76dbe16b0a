"""Profiler traces of some steps of a run."""

from pathlib import Path

import jax

from ldl_jax.contract import PyTree
from ldl_jax.training.log import Log


class Trace:
    """A context in which the profiler runs from the first to the last of the requested steps.

    If the context ends earlier, the trace up to there is written; if the first step was never
    reached, a message says so.
    """

    def __init__(self, folder: Path, steps: tuple[int, int] | None, log: Log):
        self._folder = folder
        self._steps = steps  # first and last; None for no trace, and once it is written
        self._log = log
        self._running = False

    def __enter__(self):
        return self

    def before(self, step: int, count: int, pending: PyTree) -> None:
        """Start or stop the profiler before steps `step` to `step + count` - 1 are dispatched.

        pending: outputs of the previous dispatch, waited for if the trace ends with it.
        """
        if self._steps is None:
            return
        first, last = self._steps
        if not self._running and step <= first < step + count:
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        elif self._running and step > last:
            # Dispatches are asynchronous: the last traced step may still be computing.
            jax.block_until_ready(pending)
            self._end()

    def __exit__(self, *_):
        if self._steps is not None:
            self._end()

    def _end(self):
        if self._running:
            jax.profiler.stop_trace()
            self._log.message(f"wrote the profiler trace {self._folder}")
        else:
            self._log.message(f"no trace was written: step {self._steps[0]} was not run")
        self._running = False
        self._steps = None
