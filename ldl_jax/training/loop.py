"""The one loop: build, restore, step, log, evaluate, save."""

import math
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from ldl_jax import config, mesh
from ldl_jax import workdir as run
from ldl_jax.checkpoint import Checkpoints, saved_steps
from ldl_jax.errors import warn
from ldl_jax.evaluation.load import weights_alone
from ldl_jax.training import experiment as build
from ldl_jax.training import log as logs
from ldl_jax.training import measure
from ldl_jax.training import results as finish
from ldl_jax.training import schedule as plans
from ldl_jax.training.batches import Feed
from ldl_jax.training.experiment import Experiment
from ldl_jax.training.programs import make_programs
from ldl_jax.training.step_log import NonFinite, Window  # noqa: F401 (NonFinite is what `train` raises)


def train(
    c: ConfigDict, workdir, *, extend: bool = False, profile: tuple[int, int] | None = None, devices=None,
    compiled: dict | None = None,
):  # fmt: skip
    """Train by a config, or go on with the run in `workdir`; returns the summary, or None where SIGTERM ended it.

    Writes checkpoints, logs, and at the end predictions, pictures, weights and summary.json below `workdir`. With
    `extend` the run may be longer than the one that is there. profile: first and last step of a profiler trace.
    compiled: kept between calls, so that runs which differ in seed and teachers alone are compiled once.
    Raises ValueError for a config or directory that does not fit, NonFinite where the loss or gradient is no number
    (with `train.on_nonfinite` 'skip_step': in too many steps in a row), OSError where results cannot be written, or
    a checkpoint that is whole cannot be read.
    """
    made = mesh.together(lambda: build.make_experiment(c, devices))
    with ExitStack() as held, _Terminated() as terminated:
        mesh.on_main(lambda: held.enter_context(run.locked(workdir)))
        mesh.check_same("data and settings with the SHA-256", build.digest(made))
        folder = Path(workdir) / run.CHECKPOINTS
        mesh.on_main(
            lambda: run.check(workdir, c, made.spec, made.inputs, extend=extend, saved=bool(saved_steps(folder)))
        )
        plan = plans.make_plan(made)
        checkpoints = Checkpoints(folder, every_steps=plan.save_every, keep=c.train.keep)
        state, notes = restore(made, checkpoints)
        if notes["step"] > plan.total:
            raise ValueError(f"--workdir {workdir} is at step {notes['step']}; allowed are runs of more than that")
        mesh.on_main(lambda: run.claim(workdir, c, made.spec, made.inputs, total=plan.total))
        mesh.on_main(lambda: run.cut_log_back(workdir, notes["step"]))
        log = logs.Log(workdir, total_steps=plan.total, start_step=notes["step"], main=mesh.is_main())
        try:
            log.message(plans.first_line(made, plan, notes["step"]))
            device = make_programs(made, compiled)
            loop = Loop(made, plan, device, checkpoints, log, Path(workdir), notes, profile)
            try:
                state = loop.run(state, terminated)
            finally:
                loop.end_trace()
            if state is None:
                checkpoints.confirm(loop.step)
                log.message(f"terminated: saved at step {loop.step}; the same command goes on from there")
                return None
            return loop.finish(state)
        finally:
            log.close()
            checkpoints.close()


def restore(made: Experiment, checkpoints: Checkpoints, warn=warn):
    """(state, notes) of the newest whole checkpoint, or fresh ones."""
    found = checkpoints.restore(plans.abstract_state(made), warn)
    if found is not None:
        return found
    return plans.fresh_state(made), {"step": 0, "window": [], "best": None}


class Loop:
    """One pass from the restored step to the last."""

    def __init__(self, made, plan, device, checkpoints, log, workdir, notes, profile):
        self.made, self.plan, self.device, self.checkpoints = made, plan, device, checkpoints
        self.log, self.workdir, self.profile = log, workdir, profile
        self.step, self.best = notes["step"], notes["best"]
        self.feed = Feed(made, plan, self.step)
        self.window = Window(notes["window"], skip=made.recipe.skip)
        self.final = None  # the last evaluation, with predictions
        self.clock = None  # (step, seconds) at the last line of timing.jsonl
        self.waits = 0.0  # share of the time in which the devices waited for input, of that line
        self.tracing = False  # whether the profiler runs

    def run(self, state, terminated):
        """Step to the end and return the state; None where SIGTERM came in between and the state was saved."""
        device, waiting = self.device, None
        for count, batch in self.feed:
            self.trace(count, waiting)
            program = device.chunk if batch["index"].ndim == 2 else device.step
            state, scalars = program(state, device.frozen, device.train, batch)
            if waiting:
                self.record(*waiting)  # waits for the dispatch before: two are in flight at most
            waiting = (self.step, count, scalars)
            self.step += count
            stop = terminated(range(self.step - count + 1, self.step + 1))
            if stop or self.plan.evaluates(self.step) or self.checkpoints.due(self.step):
                self.record(*waiting)  # raises where this step was not finite, before anything of it is saved
                waiting = None
                if self.plan.evaluates(self.step):
                    self.evaluate(state)
                self.save(state, force=stop or self.step == self.plan.total)
            self.checkpoints.poll()
            if stop and self.step < self.plan.total:
                return None
        return state

    def trace(self, count, waiting):
        """Begin the profiler's trace before the first step asked for, and end it after the last."""
        first, last = self.profile or (math.inf, -1)
        if not self.tracing and self.step <= first < self.step + count:
            jax.profiler.start_trace(str(self.workdir / run.PROFILE))
            self.tracing = True
        elif self.tracing and self.step > last:
            jax.block_until_ready(waiting)
            self.end_trace()

    def end_trace(self):
        """Write the trace that is under way, if any; where none was written, say so."""
        if self.tracing:
            jax.profiler.stop_trace()
            self.log.message(f"trace of steps: {self.workdir / 'profile'}")
        elif self.profile:
            self.log.message(f"no trace was written: step {self.profile[0]} did not come")
        self.tracing, self.profile = False, None

    def save(self, state, *, force):
        """Save where it is due; the mean of the log's open window and the best score go with the state."""
        # A copy: the notes are written in the background, while the window grows.
        notes = {"step": self.step, "window": list(self.window.rows), "best": self.best}
        self.checkpoints.save(self.step, state, notes, force=force)

    def record(self, first, count, scalars):
        """Log the steps of a dispatch, means over `train.log_every_steps`; raises NonFinite."""
        values = jax.device_get(scalars)
        for number in range(count):
            step = first + number + 1
            row = {name: float(value[number] if value.ndim else value) for name, value in values.items()}
            told = self.window.add(step, row)
            if told:
                self.log.message(told)
            if step % self.made.config.train.log_every_steps == 0 or step == self.plan.total:
                self.log.scalars(step, {"epoch": step / self.plan.per_epoch, **self.window.close()})
                self._time(step)
        waits = {} if self.made.dataset.train.stream is None else {"input_wait": f"{self.waits:.0%}"}
        self.log.progress(first + count, {"loss": row["loss"], "lr": row["learning_rate"], **waits})

    def _time(self, step):
        now = time.perf_counter()
        if self.clock is not None:
            seconds = now - self.clock[1]
            rate = (step - self.clock[0]) * self.made.config.data.batch_size / seconds
            self.waits = self.feed.take_wait() / seconds
            self.log.timing(step, {"images_per_second": rate, "input_wait": self.waits})
        self.feed.take_wait()
        self.clock = (step, now)

    def measured(self, state, *, keep):
        """The scores of every evaluation split, by its name."""
        made, c = self.made, self.made.config
        variables = finish.measured_weights(state, c.eval.weights)
        common = {"metrics": made.metrics, "mesh": made.mesh, "batch_size": c.data.eval_batch_size, "keep": keep}
        splits = {"test": (self.device.test, made.dataset.test, made.test)}
        if len(made.holdout):
            splits["holdout"] = (self.device.train, made.dataset.train, made.holdout)
        return {
            name: measure.measure(self.device.evaluate, variables, *split, **common) for name, split in splits.items()
        }

    def evaluate(self, state):
        """Measure, log, and keep the weights where the holdout's NLL is the lowest so far."""
        last = self.step == self.plan.total
        found = self.measured(state, keep=last)
        self.final = found if last else None
        row = {f"{split}/{name}": value for split, part in found.items() for name, value in part.scores.items()}
        report = {f"labels/{name}": float(value) for name, value in self.device.report(state.labels).items()}
        self.log.scalars(self.step, {"epoch": self.step / self.plan.per_epoch, **row, **report})
        nll = found["holdout"].scores["nll"] if "holdout" in found else math.inf
        if nll < (math.inf if self.best is None else self.best):
            weights = finish.measured_weights(state, self.made.config.eval.weights)
            try:
                if mesh.is_main():
                    run.save_weights(self.workdir / run.BEST, jax.device_get(weights), step=self.step, nll=nll)
                self.best = nll
            except OSError as error:
                warn(f"{error.filename} cannot be written ({error.strerror}); the next that is better will be")
        self.clock = None

    def finish(self, state) -> dict:
        """Write what remains of a finished run and return its summary."""
        found = self.final or self.measured(state, keep=True)
        summary = finish.write(self.made, self.workdir, state, found, self.log)
        mesh.tell("")  # the others wait for what process 0 writes
        return summary


class _Terminated:
    """Whether to stop after these steps, since SIGTERM came; as a context, so that the process's handler comes back.

    Several processes agree on one step: there JAX's own handler takes the signal.
    """

    def __enter__(self):
        self._flag = False
        self._before = None
        if mesh.processes() > 1:
            return mesh.agreed_to_stop
        try:
            self._before = signal.signal(signal.SIGTERM, self._set)
        except ValueError:  # not in the main thread: the caller handles signals
            self._before = None
        return lambda steps: self._flag

    def _set(self, *_):
        self._flag = True

    def __exit__(self, *_):
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            if self._flag and callable(self._before):
                self._before(signal.SIGTERM, None)  # whoever called has to know


def evaluate(c: ConfigDict, workdir, devices=None) -> dict:
    """Measure the latest checkpoint of a run again, or its weights where there is none; returns the summary.

    Weights alone are there where they were imported, or where a finished run's checkpoints were removed. The results
    are written anew, and the weights where the run is finished. Raises ValueError where there is no such run, it has
    another config (`eval.weights` may differ) or other data, or another process works on it.
    """
    workdir = Path(workdir)
    before = run.read_config(workdir)
    if before is None:
        raise ValueError(f"--workdir {workdir} holds no run; train one there first")
    changed = {name: both for name, both in config.differences(before, c).items() if name != "eval.weights"}
    if changed:
        raise ValueError(f"--workdir {workdir} holds another run: {run.sentence(changed)}; allowed is the same config")
    made = mesh.together(lambda: build.make_experiment(c, devices))
    with ExitStack() as held:
        mesh.on_main(lambda: held.enter_context(run.locked(workdir)))
        mesh.check_same("data and settings with the SHA-256", build.digest(made))
        mesh.on_main(lambda: run.check_data(workdir, made.spec, made.inputs))
        return _measure_again(made, workdir)


def _measure_again(made: Experiment, workdir: Path) -> dict:
    checkpoints = Checkpoints(workdir / run.CHECKPOINTS, every_steps=1, keep=made.config.train.keep)
    if mesh.from_main(len(checkpoints.steps())):
        state, notes = restore(made, checkpoints)
    else:
        state, notes = _from_weights(made, *mesh.together(lambda: weights_alone(workdir, made.config.eval.weights)))
    log = logs.Log(workdir, total_steps=notes["step"], start_step=notes["step"], main=mesh.is_main())
    try:
        plan = plans.make_plan(made)
        log.message(plans.first_line(made, plan, notes["step"]))
        loop = Loop(made, plan, make_programs(made), checkpoints, log, workdir, notes, None)
        return loop.finish(state)
    finally:
        log.close()
        checkpoints.close()


def _from_weights(made: Experiment, variables, step: int):
    """(state, notes) with these variables of the network, averaged ones included, as after so many steps."""
    state, model = plans.fresh_state(made), mesh.put_replicated(variables, made.mesh)
    state = state.replace(
        step=mesh.put_replicated(np.asarray(step, state.step.dtype), made.mesh),
        params={**state.params, "model": model["params"]}, batch_stats=model["batch_stats"],
        ema=model if made.recipe.ema else {},
    )  # fmt: skip
    return state, {"step": step, "window": [], "best": None}
