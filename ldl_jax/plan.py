"""What a run will do and hold, known before it starts: its durations in steps, its state's shapes, its sizes."""

import math
from functools import partial
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from ldl_jax import build, mesh, steps
from ldl_jax.build import Experiment

CHUNK = 16  # steps in one dispatch on an accelerator


class Plan(NamedTuple):
    """The durations of a run, in steps."""

    per_epoch: int
    total: int
    save_every: int
    eval_every: int
    chunk: int

    def edge(self, step: int) -> int:
        """The first step after `step` at which a dispatch has to end."""
        every = (self.per_epoch, self.save_every, self.eval_every)
        return min(self.total, *((step // n + 1) * n for n in every))

    def evaluates(self, step: int) -> bool:
        """Whether there is an evaluation after so many steps."""
        return step % self.eval_every == 0 or step == self.total


def make_plan(made: Experiment) -> Plan:
    """Durations in steps; what is 0 in the config happens at the end alone."""
    t, per_epoch, total = made.config.train, made.recipe.build.steps_per_epoch, made.recipe.build.total_steps

    def every(epochs):
        return max(1, round(epochs * per_epoch)) if epochs else total

    single = jax.default_backend() == "cpu" or made.dataset.train.stream is not None
    chunk = t.chunk_steps or (1 if single else CHUNK)
    return Plan(per_epoch, total, every(t.save_every_epochs), every(t.eval_every_epochs), chunk)


def abstract_state(made: Experiment):
    """The train state as shapes, types and shardings."""
    abstract = jax.eval_shape(partial(steps.init_state, made.recipe), jax.eval_shape(lambda: jax.random.key(0)))
    shardings = mesh.state_shardings(abstract, made.mesh)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), abstract, shardings
    )


def fresh_state(made: Experiment):
    """The state at step 0, a function of the seed alone, each leaf where it belongs."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(made))
    # Run once, so that on the CPU compiling is what takes the time: three times less without optimisation.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    init = jax.jit(partial(steps.init_state, made.recipe), out_shardings=shardings, compiler_options=options)
    return init(jax.random.key(made.config.seed))


def first_line(made: Experiment, plan: Plan, start: int) -> str:
    """Where and how the run computes."""
    device = made.mesh.devices.flat[0]
    where = f"{jax.default_backend()}, {made.mesh.size} x {device.device_kind}, {made.config.model.dtype}"
    what = f"{made.config.model.name} on {made.config.data.name}, labels {made.config.labels.name}"
    begin = f", going on at step {start}" if start else ""
    epochs = plan.total / plan.per_epoch
    return f"{where} | {what} | {plan.total} steps, {epochs:g} epochs of {plan.per_epoch}{begin}"


def sizes(c: ConfigDict, devices=None) -> str:
    """What a run would hold: parameters, steps, and bytes on each device and in a checkpoint."""
    made = build.experiment(c, devices)
    plan, state, count = make_plan(made), abstract_state(made), made.mesh.size

    def whole(tree):
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

    def here(tree):
        leaves = jax.tree.leaves(tree)
        return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)

    params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    splits = {id(split.images): split.images for split in (made.dataset.train, made.dataset.test)}  # folds share one
    images = sum(held.nbytes for held in splits.values() if held is not None)
    rows = [
        ("parameters", f"{params:,}"),
        ("training examples", f"{len(made.train):,} (and {len(made.holdout):,} held out)"),
        ("steps", f"{plan.total:,} = {plan.total / plan.per_epoch:g} epochs of {plan.per_epoch:,}"),
        ("devices", f"{count} x {made.mesh.devices.flat[0].device_kind}"),
        ("parameters and statistics, bytes a device", f"{here((state.params, state.batch_stats, state.ema)):,}"),
        ("optimizer, bytes a device", f"{here(state.opt_state):,}"),
        ("label memory, bytes a device", f"{here((state.labels, state.auxiliary)):,}"),
        ("resident images, bytes a device", f"{images:,}"),
        ("frozen networks, bytes a device", f"{whole(made.frozen):,}"),
        ("checkpoint, bytes in all", f"{whole(state):,}"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
