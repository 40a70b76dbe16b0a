"""Evaluation of an existing run: its latest checkpoint or, if there is none, its weights."""

import contextlib
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from ldl_jax import config, mesh, workdir
from ldl_jax.checkpoint import Checkpoints
from ldl_jax.config.trust import ASK, Consent
from ldl_jax.contract import PyTree
from ldl_jax.evaluation.load import weights_alone
from ldl_jax.training import recording, results
from ldl_jax.training.experiment import Experiment, digest, make_experiment
from ldl_jax.training.log import Log
from ldl_jax.training.measure import measure_splits
from ldl_jax.training.programs import make_programs
from ldl_jax.training.schedule import first_line, fresh_state, make_plan, restore
from ldl_jax.training.steps import TrainState
from ldl_jax.workdir import finished


def measure_again(c: ConfigDict, directory, devices=None, *, consent: Consent = ASK) -> dict:
    """Evaluate the latest checkpoint of a run again, or its weights without one; returns the summary.

    A run has weights only if it was imported, or if its checkpoints were deleted after its end. The
    results are written again, and for a finished run the weights too. consent: to modules that the
    runs of teachers name. Raises ValueError if there is no such run, if its config (except
    `eval.weights`) or data differ, or if it is in use.
    """
    directory = Path(directory)
    before = workdir.read_config(directory)
    if before is None:
        raise ValueError(f"--workdir {directory} holds no run to evaluate; train one there first")
    # Raw or averaged weights may be evaluated; everything else must be as in training.
    changed = config.differences(before, c)
    changed.pop("eval.weights", None)
    if changed:
        raise ValueError(
            f"--workdir {directory} holds a run with a different config: {workdir.sentence(changed)}; leave out "
            "--config to use the config of the run"
        )
    experiment = mesh.together(lambda: make_experiment(c, devices, consent=consent))
    with contextlib.ExitStack() as lock:
        mesh.on_main(lambda: lock.enter_context(workdir.locked(directory)))
        mesh.check_same("data and settings with the SHA-256", digest(experiment))
        mesh.on_main(lambda: workdir.check_data(directory, experiment.spec, experiment.inputs))
        # Weights without a checkpoint may be among the results that a process left behind.
        mesh.on_main(lambda: finished.complete(directory))
        folder = directory / workdir.CHECKPOINTS
        checkpoints = Checkpoints(folder, every_steps=1, keep=c.train.keep)
        with contextlib.closing(checkpoints):
            state, step = _latest(experiment, directory, checkpoints)
            # Without a checkpoint there is no memory.
            if mesh.from_main(len(checkpoints.steps())):
                recording.save_memory(experiment, directory, state, step)
            log = Log(directory, total_steps=step, start_step=step, main=mesh.is_main())
            with contextlib.closing(log):
                log.message(first_line(experiment, make_plan(experiment), step))
                return _write(experiment, directory, state, log)


def _write(experiment: Experiment, directory: Path, state: TrainState, log: Log) -> dict:
    """Evaluate a state on every split, and write the results again."""
    variables = results.measured_weights(state, experiment.config.eval.weights)
    measured = measure_splits(experiment, make_programs(experiment), variables, keep=True)
    summary = results.write(experiment, directory, state, measured, log)
    mesh.tell("")  # a barrier: the other processes wait until process 0 has written
    return summary


def _latest(
    experiment: Experiment, directory: Path, checkpoints: Checkpoints
) -> tuple[TrainState, int]:
    """The state to evaluate, and the number of steps it was trained for."""
    if mesh.from_main(len(checkpoints.steps())):
        # Only the network is measured; the label memory is read where it is to be saved.
        keeps_memory = bool(experiment.config.eval.memory_examples)
        state, notes = restore(experiment, checkpoints, end=None if keeps_memory else 0)
        return state, notes["step"]
    weights = experiment.config.eval.weights
    variables, step = mesh.together(lambda: weights_alone(directory, weights))
    return _with_weights(experiment, variables, step), step


def _with_weights(experiment: Experiment, variables: PyTree, step: int) -> TrainState:
    """A state after `step` steps with these variables, which also stand for their average."""
    # The rest of a fresh state, such as the optimizer, plays no role in an evaluation.
    state = fresh_state(experiment)
    model = mesh.put_replicated(variables, experiment.mesh)
    # Without its state, the parameters of an optimizer are those to measure.
    return state.replace(
        opt_state=(),
        step=mesh.put_replicated(np.asarray(step, state.step.dtype), experiment.mesh),
        params={**state.params, "model": model["params"]},
        batch_stats=model["batch_stats"],
        ema=model if experiment.recipe.ema else {},
    )
