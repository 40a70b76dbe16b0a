"""The training loop: build, restore, step, log, evaluate, save."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import jax
from ml_collections import ConfigDict

from ldl_jax import files, mesh, signals, workdir
from ldl_jax.checkpoint import Checkpoints, saved_steps
from ldl_jax.config import trust
from ldl_jax.errors import warn
from ldl_jax.signals import Interrupted
from ldl_jax.training import results, start, steps
from ldl_jax.training.batches import Feed
from ldl_jax.training.evaluations import Evaluations
from ldl_jax.training.experiment import Experiment, digest, make_experiment
from ldl_jax.training.log import Log
from ldl_jax.training.profile import Trace
from ldl_jax.training.programs import make_programs
from ldl_jax.training.schedule import Plan, first_line, make_plan, restore, say_notes
from ldl_jax.training.step_log import NonFinite, StepLog  # noqa: F401 (NonFinite is what `train` raises)
from ldl_jax.workdir import finished


def train(
    c: ConfigDict,
    directory,
    *,
    extend: bool = False,
    profile=None,
    compiled: dict | None = None,
    **build: Any,
) -> dict:
    """Train a config, or resume the run in `directory`; returns the summary.

    Writes checkpoints and logs to `directory` and, at the end, weights, predictions, plots and
    summary.json. extend: allow an existing run to become longer. profile: (first, last) step of a
    profiler trace, or None. compiled: a dict kept between calls, so that runs that differ only in
    seed and teachers are compiled once. build: devices, dataset and consent, as `make_experiment`
    takes them. Raises ValueError if the config or directory does not fit; NonFinite if the loss or a
    gradient is not finite (with `train.on_nonfinite` 'skip_step': in too many steps in a row);
    `start.Deleted` if the directory was deleted meanwhile; OSError if results cannot be written or
    an intact checkpoint read; Interrupted, `saved` unless the first step has not begun, after
    Ctrl-C, SIGTERM or SIGHUP.
    """
    directory = Path(directory)
    with signals.raised(_own_signals()):
        experiment = mesh.together(lambda: make_experiment(c, **build))
        with _opened(experiment, directory, extend) as opened:
            return _train(experiment, directory, *opened, profile, compiled)


def _train(
    experiment: Experiment,
    directory: Path,
    plan: Plan,
    state: steps.TrainState,
    notes: dict,
    checkpoints: Checkpoints,
    log: Log,
    lock: IO | None,
    profile,
    compiled: dict | None,
) -> dict:
    """Train from a state to the last step, and write the results. Raises Interrupted."""
    programs = make_programs(experiment, compiled)
    step = notes["step"]
    batches = Feed(experiment, plan, step)
    step_log = StepLog(experiment, plan, log, batches, rows=notes["window"])
    evaluations = Evaluations(experiment, plan, programs, log, directory, best=notes["best"])
    try:
        # In the loop, a numpy array that slips into a step would be sent to the devices each time.
        with (
            _stopping(plan.total) as stop_requested,
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
                        start.check_present(directory, lock)
                        if plan.evaluates(step):
                            evaluations.run(state, step)
                            step_log.restart_clock()
                        notes = {"step": step, "window": step_log.rows(), "best": evaluations.best}
                        checkpoints.save(step, state, notes, force=stop or step == plan.total)
                checkpoints.poll()
                if stop:
                    break

        summary = results.write(experiment, directory, state, evaluations.final(state), log)
        # A barrier, too: the other processes wait until process 0 has written.
        start.check_present(directory, lock)
        return summary
    except Interrupted as stop:
        raise _saved(stop, step, plan, checkpoints, log) from None


def _saved(
    stop: Interrupted, step: int, plan: Plan, checkpoints: Checkpoints, log: Log
) -> Interrupted:
    """Say that a signal has ended the training after `step`, and where to go on; returns what to
    raise.

    Raises OSError if the checkpoint of this step was not written.
    """
    # Several processes agree on a step to stop after, but on nothing later.
    if step == 0 or (step == plan.total and mesh.processes() > 1):
        return stop
    checkpoints.confirm(step)
    rest = "resume" if step < plan.total else "measure and write the results"
    advice = f"saved at step {step}; run the same command again to {rest}"
    saved = Interrupted(stop.number, advice, saved=True, told=True)
    # A terminal that has been closed sends SIGHUP and takes no messages.
    with contextlib.suppress(OSError):
        log.message(str(saved))
    return saved


@contextlib.contextmanager
def _opened(
    experiment: Experiment, directory: Path, extend: bool
) -> Iterator[tuple[Plan, steps.TrainState, dict, Checkpoints, Log, IO | None]]:
    """Lock and open a run directory: (plan, state, notes of the checkpoint, checkpoints, log,
    lock file).
    """
    c = experiment.config
    identity = experiment.spec, experiment.inputs
    with contextlib.ExitStack() as stack:
        lock = mesh.together(
            lambda: stack.enter_context(workdir.locked(directory)) if mesh.is_main() else None
        )
        mesh.check_same("data and settings with the SHA-256", digest(experiment))
        folder = directory / workdir.CHECKPOINTS
        mesh.on_main(
            lambda: start.check(
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
        mesh.on_main(lambda: finished.complete(directory))
        mesh.on_main(lambda: workdir.claim(directory, c, *identity, total=plan.total))
        named = directory / workdir.CONFIG, directory / workdir.NETWORK
        mesh.on_main(lambda: trust.remember_run(c, named))
        mesh.on_main(lambda: workdir.cut_log_back(directory, step))
        record = experiment.dataset.record
        if record is not None:
            mesh.on_main(lambda: files.write_json(directory / workdir.SPLIT, record))
        log = Log(directory, total_steps=plan.total, start_step=step, main=mesh.is_main())
        try:
            log.message(first_line(experiment, plan, step))
            say_notes(experiment, log, step)
            if mesh.is_main() and (note := start.thread_note(workdir.read_starts(directory), step)):
                warn(note)
            yield plan, state, notes, checkpoints, log, lock
        finally:
            log.close()
            checkpoints.close()


def _own_signals() -> tuple[int, ...]:
    """The signals that this process handles: all, or all but SIGTERM in a job of several processes."""
    # JAX's own handler of SIGTERM tells the other processes.
    if mesh.processes() == 1:
        return signals.SIGNALS
    return tuple(number for number in signals.SIGNALS if number != signal.SIGTERM)


@contextlib.contextmanager
def _stopping(total: int) -> Iterator[Callable[[range], bool]]:
    """A function (steps) -> whether to stop after these steps, because a signal has arrived.

    If so, the end of the block raises Interrupted. total: number of steps of the run.
    """
    if mesh.processes() == 1:
        with signals.deferred() as held:
            yield lambda steps: held.number is not None
        return
    agreed = False

    def agree(steps: range) -> bool:
        nonlocal agreed
        # Every process must ask about every step; after the last one there is nothing to stop.
        agreed = mesh.agreed_to_stop(steps) and steps[-1] < total
        return agreed

    # The processes must stop at the same step, so other signals are handed to JAX's handler.
    def hand_on(_):
        os.kill(os.getpid(), signal.SIGTERM)

    with signals.deferred(hand_on, _own_signals()) as held:
        yield agree
        held.clear()
    if agreed:
        raise Interrupted(signal.SIGTERM)
