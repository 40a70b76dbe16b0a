"""Evaluations during training: measure, log, and save the best weights."""

import math
from pathlib import Path

import jax

from ldl_jax import mesh, workdir
from ldl_jax.errors import warn
from ldl_jax.training import recording
from ldl_jax.training.experiment import Experiment
from ldl_jax.training.log import Log
from ldl_jax.training.measure import Measured, measure_splits
from ldl_jax.training.programs import Programs
from ldl_jax.training.results import measured_weights
from ldl_jax.training.schedule import Plan
from ldl_jax.training.steps import TrainState


class Evaluations:
    """The evaluations of one run.

    best: lowest NLL on the holdout so far; None before the first evaluation. last: each split's
    `Measured` after the last step, with predictions; None before.
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
        self.last: dict[str, Measured] | None = None

    def run(self, state: TrainState, step: int) -> None:
        """Measure and log the network after `step` steps; save its weights if they are the best."""
        # Only the last evaluation keeps its predictions, which the results of the run are made of.
        is_last = step == self._plan.total
        variables = measured_weights(state, self._experiment.config.eval.weights)
        records = recording.records(self._experiment)
        keep = is_last or records
        measured = measure_splits(self._experiment, self._programs, variables, keep=keep)
        if is_last:
            self.last = measured

        row = {"epoch": step / self._plan.per_epoch}
        logged = dict(measured)
        if records:
            logged["train"] = recording.measure_train(self._experiment, self._programs, variables)
        for split, part in logged.items():
            further = recording.further_scores(part) if records else {}
            for name, value in (part.scores | further).items():
                row[f"{split}/{name}"] = value
        reported = jax.device_get(self._programs.report(state.labels, state.auxiliary))
        for name, value in reported.items():
            row[name] = float(value)
        self._log.scalars(step, row)
        recording.save_memory(self._experiment, self._directory, state, step)

        # Select on the holdout only: choosing by the test split would bias its result.
        if "holdout" in measured:
            self._keep_best(variables, step, measured["holdout"].scores["nll"])

    def final(self, state: TrainState) -> dict[str, Measured]:
        """Each split's `Measured` after the last step, with predictions; measured if necessary."""
        if self.last is None:
            variables = measured_weights(state, self._experiment.config.eval.weights)
            self.last = measure_splits(self._experiment, self._programs, variables, keep=True)
        return self.last

    def _keep_best(self, variables, step: int, nll: float) -> None:
        """Write the weights if they are the best so far. A full disk does not end the run."""
        # Not `nll >= best`, so that a NaN is never the best.
        if not nll < (math.inf if self.best is None else self.best):
            return
        try:
            if mesh.is_main():
                path = self._directory / workdir.BEST
                workdir.save_weights(path, jax.device_get(variables), step=step, nll=nll)
            self.best = nll
        except OSError as error:
            warn(
                f"{error.filename} cannot be written ({error.strerror}); the next better weights will be tried"
            )
