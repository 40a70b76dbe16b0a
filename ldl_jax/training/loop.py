"""The one loop: build, restore, step, log, evaluate, save."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from ml_collections import ConfigDict

from ldl_jax import mesh, workdir
from ldl_jax.checkpoint import Checkpoints, saved_steps
from ldl_jax.training import results, steps
from ldl_jax.training.batches import Feed
from ldl_jax.training.evaluations import Evaluations
from ldl_jax.training.experiment import Experiment, digest, make_experiment
from ldl_jax.training.log import Log
from ldl_jax.training.measure import measure_splits
from ldl_jax.training.profile import Trace
from ldl_jax.training.programs import make_programs
from ldl_jax.training.schedule import Plan, first_line, make_plan, restore
from ldl_jax.training.step_log import NonFinite, StepLog  # noqa: F401 (NonFinite is what `train` raises)


def train(
    c: ConfigDict,
    directory,
    *,
    extend: bool = False,
    profile=None,
    devices=None,
    compiled: dict | None = None,
) -> dict | None:
    """Train by a config, or go on with the run in `directory`; returns the summary, or None where
    SIGTERM ended it.

    Writes checkpoints, logs, and at the end predictions, pictures, weights and summary.json below
    `directory`. With `extend` the run may be longer than the one that is there. profile: (first,
    last) step of a profiler trace, or None. compiled: kept between calls, so that runs which differ
    in seed and teachers alone are compiled once. Raises ValueError for a config or directory that
    does not fit, NonFinite where the loss or gradient is no number (with `train.on_nonfinite`
    'skip_step': in too many steps in a row), OSError where results cannot be written, or a
    checkpoint that is whole cannot be read.
    """
    experiment = mesh.together(lambda: make_experiment(c, devices))
    directory = Path(directory)
    with (
        terminated() as stop_asked,
        _opened(experiment, directory, extend) as (plan, state, notes, checkpoints, log),
    ):
        programs = make_programs(experiment, compiled)
        step = notes["step"]
        batches = Feed(experiment, plan, step)
        step_log = StepLog(experiment, plan, log, batches, rows=notes["window"])
        evaluations = Evaluations(experiment, plan, programs, log, directory, best=notes["best"])

        # Nothing moves between host and devices in the loop but where it says so: an array of
        # numpy's that slipped into a step would be sent again with each.
        with (
            Trace(directory / workdir.PROFILE, profile, log) as trace,
            jax.transfer_guard("disallow"),
        ):
            for count, batch in batches:
                # The trace holds whole dispatches, so it begins and ends before one.
                trace.before(step, count, step_log.pending)

                # Dispatch a step, or a chunk of them; the host goes on while the devices compute.
                program = programs.chunk if batch["index"].ndim == 2 else programs.step
                state, scalars = program(state, programs.frozen, programs.train, batch)

                # Log the dispatch before, not this one: the devices have work while the host waits
                # for its scalars.
                step_log.dispatched(step, count, scalars)
                step += count
                stop = stop_asked(range(step - count + 1, step + 1))

                # Evaluate and save last, once this step's own scalars are known to be finite.
                if stop or plan.evaluates(step) or checkpoints.due(step):
                    step_log.flush()
                    with jax.transfer_guard("allow"):
                        if plan.evaluates(step):
                            evaluations.run(state, step)
                            step_log.restart_clock()
                        notes = {"step": step, "window": step_log.rows(), "best": evaluations.best}
                        checkpoints.save(step, state, notes, force=stop or step == plan.total)
                checkpoints.poll()
                if stop:
                    break

        if step < plan.total:
            checkpoints.confirm(step)
            log.message(f"terminated: saved at step {step}; the same command goes on from there")
            return None
        variables = results.measured_weights(state, c.eval.weights)
        measured = evaluations.last or measure_splits(experiment, programs, variables, keep=True)
        summary = results.write(experiment, directory, state, measured, log)
        mesh.tell("")  # the others wait for what process 0 writes
        return summary


@contextlib.contextmanager
def _opened(
    experiment: Experiment, directory: Path, extend: bool
) -> Iterator[tuple[Plan, steps.TrainState, dict, Checkpoints, Log]]:
    """The directory of a run, held for this process: (plan, state, notes of the checkpoint,
    checkpoints, log).

    It is claimed once a checkpoint was restored: until then, a run that is there stays as it is.
    """
    c = experiment.config
    identity = experiment.spec, experiment.inputs
    with contextlib.ExitStack() as lock:
        mesh.on_main(lambda: lock.enter_context(workdir.locked(directory)))
        mesh.check_same("data and settings with the SHA-256", digest(experiment))
        folder = directory / workdir.CHECKPOINTS
        mesh.on_main(
            lambda: workdir.check(
                directory, c, *identity, extend=extend, saved=bool(saved_steps(folder))
            )
        )
        plan = make_plan(experiment)
        checkpoints = Checkpoints(folder, every_steps=plan.save_every, keep=c.train.keep)
        state, notes = restore(experiment, checkpoints)
        step = notes["step"]
        if step > plan.total:
            raise ValueError(
                f"--workdir {directory} is at step {step}; allowed are runs of more than that"
            )
        mesh.on_main(lambda: workdir.claim(directory, c, *identity, total=plan.total))
        mesh.on_main(lambda: workdir.cut_log_back(directory, step))
        log = Log(directory, total_steps=plan.total, start_step=step, main=mesh.is_main())
        try:
            log.message(first_line(experiment, plan, step))
            yield plan, state, notes, checkpoints, log
        finally:
            log.close()
            checkpoints.close()


@contextlib.contextmanager
def terminated() -> Iterator[Callable[[range], bool]]:
    """Whether to stop after these steps, since SIGTERM came; the process's own handler comes back
    at the end.

    Several processes agree on one step: there JAX's own handler takes the signal.
    """
    if mesh.processes() > 1:
        yield mesh.agreed_to_stop
        return
    came = False

    def note(*_):
        nonlocal came
        came = True

    try:
        before = signal.signal(signal.SIGTERM, note)
    except ValueError:  # not in the main thread: the caller handles signals
        before = None
    try:
        yield lambda steps: came
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
            if came and callable(before):
                before(signal.SIGTERM, None)  # whoever called has to know
