"""The evaluations of a run on its way: measured, logged, and the best weights kept."""

import math
from pathlib import Path

import jax

from ldl_jax import mesh, workdir
from ldl_jax.errors import warn
from ldl_jax.training.experiment import Experiment
from ldl_jax.training.log import Log
from ldl_jax.training.measure import Measured, measure_splits
from ldl_jax.training.programs import Programs
from ldl_jax.training.results import measured_weights
from ldl_jax.training.schedule import Plan
from ldl_jax.training.steps import TrainState


class Evaluations:
    """The evaluations of one run; `best` is the lowest NLL on its holdout so far, None before the
    first one.
    """

    def __init__(
        self,
        experiment: Experiment,
        plan: Plan,
        programs: Programs,
        log: Log,
        directory: Path,
        *,
        best: float | None,
    ):
        self._experiment = experiment
        self._plan = plan
        self._programs = programs
        self._log = log
        self._directory = directory
        self.best = best
        self.last: dict[str, Measured] | None = None  # with predictions, after the last step

    def run(self, state: TrainState, step: int) -> None:
        """Measure the network after so many steps, log it, and keep its weights where the holdout's
        NLL is lowest.
        """
        last = step == self._plan.total
        variables = measured_weights(state, self._experiment.config.eval.weights)
        measured = measure_splits(self._experiment, self._programs, variables, keep=last)
        if last:
            self.last = measured

        row = {"epoch": step / self._plan.per_epoch}
        for split, part in measured.items():
            row |= {f"{split}/{name}": value for name, value in part.scores.items()}
        memory = jax.device_get(self._programs.report(state.labels))
        row |= {f"labels/{name}": float(value) for name, value in memory.items()}
        self._log.scalars(step, row)

        if "holdout" in measured:
            self._keep_best(variables, step, measured["holdout"].scores["nll"])

    def _keep_best(self, variables, step: int, nll: float) -> None:
        """Write the weights where they are the best so far; what the disk does not take is no
        reason to end the run.
        """
        if not nll < (math.inf if self.best is None else self.best):
            return
        try:
            if mesh.is_main():
                path = self._directory / workdir.BEST
                workdir.save_weights(path, jax.device_get(variables), step=step, nll=nll)
            self.best = nll
        except OSError as error:
            warn(
                f"{error.filename} cannot be written ({error.strerror}); the next that is better will be"
            )
