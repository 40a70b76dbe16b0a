"""Measuring a run again: its latest checkpoint, or its weights where there is none."""

import contextlib
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from ldl_jax import config, mesh, workdir
from ldl_jax.checkpoint import Checkpoints
from ldl_jax.contract import PyTree
from ldl_jax.evaluation.load import weights_alone
from ldl_jax.training import results
from ldl_jax.training.experiment import Experiment, digest, make_experiment
from ldl_jax.training.log import Log
from ldl_jax.training.measure import measure_splits
from ldl_jax.training.programs import make_programs
from ldl_jax.training.schedule import first_line, fresh_state, make_plan, restore
from ldl_jax.training.steps import TrainState


def measure_again(c: ConfigDict, directory, devices=None) -> dict:
    """Measure the latest checkpoint of a run again, or its weights where there is none; returns the
    summary.

    Weights alone are there where they were imported, or where a finished run's checkpoints were
    removed. The results are written anew, and the weights where the run is finished. Raises
    ValueError where there is no such run, it has another config (`eval.weights` may differ) or
    other data, or another process works on it.
    """
    directory = Path(directory)
    before = workdir.read_config(directory)
    if before is None:
        raise ValueError(f"--workdir {directory} holds no run; train one there first")
    changed = {
        name: both for name, both in config.differences(before, c).items() if name != "eval.weights"
    }
    if changed:
        sentence = workdir.sentence(changed)
        raise ValueError(
            f"--workdir {directory} holds another run: {sentence}; allowed is the same config"
        )
    experiment = mesh.together(lambda: make_experiment(c, devices))
    with contextlib.ExitStack() as lock:
        mesh.on_main(lambda: lock.enter_context(workdir.locked(directory)))
        mesh.check_same("data and settings with the SHA-256", digest(experiment))
        mesh.on_main(lambda: workdir.check_data(directory, experiment.spec, experiment.inputs))
        with contextlib.closing(
            Checkpoints(directory / workdir.CHECKPOINTS, every_steps=1, keep=c.train.keep)
        ) as checkpoints:
            state, step = _latest(experiment, directory, checkpoints)
            log = Log(directory, total_steps=step, start_step=step, main=mesh.is_main())
            with contextlib.closing(log):
                log.message(first_line(experiment, make_plan(experiment), step))
                return _write(experiment, directory, state, log)


def _write(experiment: Experiment, directory: Path, state: TrainState, log: Log) -> dict:
    """Measure a state on every evaluation split and write the results anew."""
    variables = results.measured_weights(state, experiment.config.eval.weights)
    measured = measure_splits(experiment, make_programs(experiment), variables, keep=True)
    summary = results.write(experiment, directory, state, measured, log)
    mesh.tell("")  # the others wait for what process 0 writes
    return summary


def _latest(
    experiment: Experiment, directory: Path, checkpoints: Checkpoints
) -> tuple[TrainState, int]:
    """The state to measure, and the steps it took."""
    if mesh.from_main(len(checkpoints.steps())):
        state, notes = restore(experiment, checkpoints)
        return state, notes["step"]
    weights = experiment.config.eval.weights
    variables, step = mesh.together(lambda: weights_alone(directory, weights))
    return _with_weights(experiment, variables, step), step


def _with_weights(experiment: Experiment, variables: PyTree, step: int) -> TrainState:
    """A state with these variables of the network, averaged ones included, as after so many steps."""
    state = fresh_state(experiment)
    model = mesh.put_replicated(variables, experiment.mesh)
    return state.replace(
        step=mesh.put_replicated(np.asarray(step, state.step.dtype), experiment.mesh),
        params={**state.params, "model": model["params"]},
        batch_stats=model["batch_stats"],
        ema=model if experiment.recipe.ema else {},
    )
