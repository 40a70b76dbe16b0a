"""The training loop: build, restore, step, log, evaluate, save."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from ml_collections import ConfigDict

from ldl_jax import files, mesh, workdir
from ldl_jax.checkpoint import Checkpoints, saved_steps
from ldl_jax.data.base import Dataset
from ldl_jax.training import results, steps
from ldl_jax.training.batches import Feed
from ldl_jax.training.evaluations import Evaluations
from ldl_jax.training.experiment import Experiment, digest, make_experiment
from ldl_jax.training.log import Log
from ldl_jax.training.measure import measure_splits
from ldl_jax.training.profile import Trace
from ldl_jax.training.programs import make_programs
from ldl_jax.training.schedule import Plan, first_line, make_plan, restore, say_notes
from ldl_jax.training.step_log import NonFinite, StepLog  # noqa: F401 (NonFinite is what `train` raises)


def train(
    c: ConfigDict,
    directory,
    *,
    extend: bool = False,
    profile=None,
    devices=None,
    compiled: dict | None = None,
    dataset: Dataset | None = None,
) -> dict | None:
    """Train a config, or resume the run in `directory`; returns the summary, or None after SIGTERM.

    Writes checkpoints and logs to `directory` and, at the end, weights, predictions, plots and
    summary.json. extend: allow an existing run to become longer. profile: (first, last) step of a
    profiler trace, or None. compiled: a dict kept between calls, so that runs that differ only in
    seed and teachers are compiled once. dataset: used instead of the config's. Raises ValueError if
    the config or directory does not fit; NonFinite if the loss or a gradient is not finite (with
    `train.on_nonfinite` 'skip_step': in too many steps in a row); OSError if results cannot be
    written or an intact checkpoint read.
    """
    experiment = mesh.together(lambda: make_experiment(c, devices, dataset=dataset))
    directory = Path(directory)
    with (
        terminated() as stop_requested,
        _opened(experiment, directory, extend) as (plan, state, notes, checkpoints, log),
    ):
        programs = make_programs(experiment, compiled)
        step = notes["step"]
        batches = Feed(experiment, plan, step)
        step_log = StepLog(experiment, plan, log, batches, rows=notes["window"])
        evaluations = Evaluations(experiment, plan, programs, log, directory, best=notes["best"])

        # In the loop, a numpy array that slips into a step would be sent to the devices each time.
        with (
            Trace(directory / workdir.PROFILE, profile, log) as trace,
            jax.transfer_guard("disallow"),
        ):
            for count, batch in batches:
                # A trace holds whole dispatches, so it starts and ends before one.
                trace.before(step, count, step_log.pending)

                # Dispatch a step or a chunk; the host continues while the devices compute.
                program = programs.chunk if batch["index"].ndim == 2 else programs.step
                state, scalars = program(state, programs.frozen, programs.train, batch)

                # This logs the dispatch before, so that the devices have work while the host waits.
                step_log.dispatched(step, count, scalars)
                step += count
                stop = stop_requested(range(step - count + 1, step + 1))

                # Evaluate and save only after flushing: that raises if this step was not finite.
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
            log.message(f"terminated: saved at step {step}; run the same command again to resume")
            return None
        variables = results.measured_weights(state, c.eval.weights)
        measured = evaluations.last or measure_splits(experiment, programs, variables, keep=True)
        summary = results.write(experiment, directory, state, measured, log)
        mesh.tell("")  # a barrier: the other processes wait until process 0 has written
        return summary


@contextlib.contextmanager
def _opened(
    experiment: Experiment, directory: Path, extend: bool
) -> Iterator[tuple[Plan, steps.TrainState, dict, Checkpoints, Log]]:
    """Lock and open a run directory: (plan, state, notes of the checkpoint, checkpoints, log)."""
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
        state, notes = restore(experiment, checkpoints, end=plan.total)
        step = notes["step"]
        if step > plan.total:
            raise ValueError(
                f"--workdir {directory} is already at step {step}, but this config has only {plan.total} steps"
            )
        # Write to the directory only now: if something above fails, an existing run is unchanged.
        mesh.on_main(lambda: workdir.claim(directory, c, *identity, total=plan.total))
        mesh.on_main(lambda: workdir.cut_log_back(directory, step))
        record = experiment.dataset.record
        if record is not None:
            mesh.on_main(lambda: files.write_json(directory / workdir.SPLIT, record))
        log = Log(directory, total_steps=plan.total, start_step=step, main=mesh.is_main())
        try:
            log.message(first_line(experiment, plan, step))
            say_notes(experiment, log, step)
            yield plan, state, notes, checkpoints, log
        finally:
            log.close()
            checkpoints.close()


@contextlib.contextmanager
def terminated() -> Iterator[Callable[[range], bool]]:
    """A function (steps) -> whether to stop after these steps, because SIGTERM has arrived.

    At the end, the previous signal handler is restored and called if the signal arrived.
    """
    # Several processes must stop at the same step. JAX's own handler takes the signal then.
    if mesh.processes() > 1:
        yield mesh.agreed_to_stop
        return
    arrived = False

    def note(*_):
        nonlocal arrived
        arrived = True

    try:
        before = signal.signal(signal.SIGTERM, note)
    except ValueError:
        # Only the main thread can set handlers; in others the caller handles signals.
        before = None
    try:
        yield lambda steps: arrived
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
            # The caller's handler has missed the signal, and may have to stop as well.
            if arrived and callable(before):
                before(signal.SIGTERM, None)
