"""A profiler trace of some steps of a run."""

from pathlib import Path

import jax

from ldl_jax.contract import PyTree
from ldl_jax.training.log import Log


class Trace:
    """A context in which the profiler runs from the first to the last of the steps asked for.

    Left early, it writes what there is; where the steps did not come, it says so.
    """

    def __init__(self, folder: Path, steps: tuple[int, int] | None, log: Log):
        self._folder = folder
        self._steps = steps  # first and last; None for no trace, and once it is written
        self._log = log
        self._running = False

    def __enter__(self):
        return self

    def before(self, step: int, count: int, pending: PyTree) -> None:
        """To be called before steps `step` to `step + count` - 1 are dispatched.

        pending: what the dispatch before computes; it is waited for where the trace ends with it.
        """
        if self._steps is None:
            return
        first, last = self._steps
        if not self._running and step <= first < step + count:
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        elif self._running and step > last:
            jax.block_until_ready(pending)
            self._end()

    def __exit__(self, *_):
        if self._steps is not None:
            self._end()

    def _end(self):
        if self._running:
            jax.profiler.stop_trace()
            self._log.message(f"trace of steps: {self._folder}")
        else:
            self._log.message(f"no trace was written: step {self._steps[0]} did not come")
        self._running = False
        self._steps = None
