"""The plan of a run: its durations in steps, and the state that it starts from."""

from functools import partial
from typing import NamedTuple

import jax

from ldl_jax import escape, mesh, optimizer
from ldl_jax.checkpoint import Checkpoints
from ldl_jax.config.optimizers import AVERAGING
from ldl_jax.errors import warn
from ldl_jax.training import steps
from ldl_jax.training.experiment import Experiment
from ldl_jax.training.log import Log

UNMEASURED = ("opt_state", "labels", "auxiliary")  # fields of a state that evaluations do not use
CHUNK = 16  # default number of steps per dispatch on an accelerator


class Plan(NamedTuple):
    """The durations of a run, in steps."""

    per_epoch: int
    total: int
    save_every: int  # between checkpoints
    eval_every: int  # between evaluations
    chunk: int  # per dispatch

    def edge(self, step: int) -> int:
        """The first step after `step` at which a dispatch has to end."""
        every = (self.per_epoch, self.save_every, self.eval_every)
        return min(self.total, *((step // n + 1) * n for n in every))

    def evaluates(self, step: int) -> bool:
        """Whether the network is evaluated after `step` steps."""
        return step % self.eval_every == 0 or step == self.total


def make_plan(experiment: Experiment) -> Plan:
    """The durations of a run in steps. An interval of 0 in the config means once, at the end."""
    settings = experiment.config.train
    per_epoch = experiment.recipe.build.steps_per_epoch
    total = experiment.recipe.build.total_steps

    def every(epochs):
        return max(1, round(epochs * per_epoch)) if epochs else total

    # Chunks hide the time of a dispatch, which matters on accelerators only; a streamed set would
    # need all images of a chunk at once.
    one_by_one = jax.default_backend() == "cpu" or experiment.dataset.train.stream is not None
    return Plan(
        per_epoch=per_epoch,
        total=total,
        save_every=every(settings.save_every_epochs),
        eval_every=every(settings.eval_every_epochs),
        chunk=settings.chunk_steps or (1 if one_by_one else CHUNK),
    )


def abstract_state(experiment: Experiment) -> steps.TrainState:
    """The train state as abstract arrays: shapes, types and shardings."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    abstract = jax.eval_shape(partial(steps.init_state, experiment.recipe), key)

    def placed(leaf, sharding):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(placed, abstract, mesh.state_shardings(abstract, experiment.mesh))


def fresh_state(experiment: Experiment) -> steps.TrainState:
    """The state at step 0, a function of the seed and of the initial weights, if any, sharded over
    the devices.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(experiment))
    # The program runs once, so on the CPU most of the time is compilation; without optimisation it
    # takes a third of it.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    init = jax.jit(
        partial(steps.init_state, experiment.recipe),
        out_shardings=shardings,
        compiler_options=options,
    )
    return init(jax.random.key(experiment.config.seed), experiment.start)


def restore(
    experiment: Experiment, checkpoints: Checkpoints, warn=warn, *, end: int | None = None
) -> tuple[steps.TrainState, dict]:
    """(state, notes) of the latest intact checkpoint, or those of step 0 if there is none.

    end: step from which on the state is only evaluated (None: never); then only the network is read,
    and the other leaves are `...`. notes: 'step', 'window' (rows since the last line of the log)
    and 'best' (lowest NLL on the holdout, or None).
    """

    fields = UNMEASURED
    # Averages of parameters are computed from the state of the optimizer.
    if experiment.config.optimizer.name in AVERAGING:
        fields = tuple(field for field in UNMEASURED if field != "opt_state")

    def unused(notes):
        return fields if end is not None and notes["step"] >= end else ()

    restored = checkpoints.restore(abstract_state(experiment), warn, unused=unused)
    if restored is not None:
        return restored
    return fresh_state(experiment), {"step": 0, "window": [], "best": None}


def first_line(experiment: Experiment, plan: Plan, start: int) -> str:
    """The first line that a run prints: devices, model, data and durations."""
    c = experiment.config
    device = experiment.mesh.devices.flat[0]
    devices = f"{experiment.mesh.size} x {device.device_kind}"
    epochs = plan.total / plan.per_epoch
    parts = [
        f"{jax.default_backend()}, {devices}, {c.model.dtype}",
        f"{c.model.name} on {c.data.name}, labels {c.labels.name}",
        f"{plan.total} steps, {epochs:g} epochs of {plan.per_epoch}",
    ]
    line = " | ".join(parts)
    return f"{line}, resuming at step {start}" if start else line


def say_notes(experiment: Experiment, log: Log, start: int) -> None:
    """Say what the first line does not: initial weights, reordered teachers, a rate that stays."""
    if start == 0:
        for note in (*experiment.dataset.notes, *experiment.notes):
            log.message(escape.line(note))
    if mesh.is_main():
        warn_of(experiment)


def warn_of(experiment: Experiment) -> None:
    """Warn of reordered teachers, and of a learning rate that is never lowered or not at the end."""
    build = experiment.recipe.build
    settings = experiment.config.optimizer
    stays = optimizer.never_lowered(
        settings.schedule,
        tuple(settings.boundaries),
        settings.factor,
        build.total_steps / build.steps_per_epoch,
    )
    per_update = settings.accumulate
    cut = optimizer.cut_cycle(
        settings.schedule,
        settings.cycle_epochs * build.steps_per_epoch / per_update,
        settings.cycle_factor,
        max(1, build.total_steps // per_update),
    )
    for text in (*experiment.warnings, stays, cut):
        if text:
            warn(text)
