"""What a run will do and hold, known before it starts: its durations in steps, its state's shapes, its sizes."""

import math
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from ldl_jax import config, mesh
from ldl_jax.data.base import Dataset
from ldl_jax.training import dry_run as traffic
from ldl_jax.training import experiment as build
from ldl_jax.training import steps
from ldl_jax.training.experiment import Experiment

CHUNK = 16  # steps in one dispatch on an accelerator
COUNTS = (1, 8, 32, 256)  # numbers of devices that are set side by side before a run


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


def data_set(settings: ConfigDict) -> tuple[Dataset, str]:
    """The data set to plan with, and a note where nothing was read.

    Where `config.data.root` holds nothing, the sizes that the data set's module gives with `published`, if it does.
    """
    root, remote = Path(settings.root), "://" in settings.root  # a bucket is for the data set's own module to read
    there = remote or (bool(settings.root) and root.exists() and (not root.is_dir() or any(root.iterdir())))
    if not there and hasattr(build.plug("data", settings.name), "published"):
        return build.make_dataset(settings, published=True), f"published sizes; no data read at {settings.root!r}"
    return build.make_dataset(settings), ""


def human(size: float) -> str:
    """Bytes in KiB, MiB or GiB."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size >= 1024**power:
            return f"{size / 1024**power:.1f} {unit}"
    return f"{size:.0f} B"


def sizes(c: ConfigDict, devices: int | None = None) -> str:
    """What a run would hold and move: steps, bytes on each device and in a checkpoint, bytes sent in each step.

    devices: so many, which need not be here; None = those at hand. Raises ValueError where the config does not fit.
    """
    config.check(c)
    dataset, note = data_set(c.data)
    made = build.make_experiment(c, None if devices is None else mesh.planned_mesh(devices), dataset=dataset)
    state, count = abstract_state(made), made.mesh.size
    sent = sum(move.sent() for move in _moves(made, state, count))
    rows = [*_lengths(made, count), *_held(made, state, count), ("sent in each step, bytes a device", _bytes(sent))]
    width = max(len(name) for name, _ in rows)
    lines = ([note] if note else []) + [f"{name:<{width}}  {value}" for name, value in rows]
    return "\n".join([*lines, "", *_moved(made, state, sorted({*COUNTS, count}))])


def _lengths(made: Experiment, count: int) -> list[tuple[str, str]]:
    """Durations, and how the batch is shared out."""
    plan, batch = make_plan(made), made.config.data.batch_size
    params = jax.tree.leaves(abstract_state(made).params)
    there = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return [
        ("parameters", f"{sum(leaf.size for leaf in params):,}"),
        ("training examples", f"{len(made.train):,} (and {len(made.holdout):,} held out)"),
        ("steps", f"{plan.total:,} = {plan.total / plan.per_epoch:g} epochs of {plan.per_epoch:,}"),
        ("devices", f"{count} (at hand: {there})"),
        ("batch, examples", f"{batch:,}, of which {batch // count:,} a device"),
    ]


def _held(made: Experiment, state, count: int) -> list[tuple[str, str]]:
    """Bytes on each device that stay there, activations not counted, and in a checkpoint."""

    def whole(tree):
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

    def here(tree):
        leaves = jax.tree.leaves(tree)
        return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)

    train = made.dataset.train
    splits = {id(split.images): split.images for split in (train, made.dataset.test)}  # folds share one
    images = sum(held.nbytes for held in splits.values() if held is not None)
    fed = 0 if train.images is not None else made.config.data.batch_size // count * math.prod(train.shape)
    rows = [
        ("parameters and statistics, bytes a device", here((state.params, state.batch_stats, state.ema))),
        ("optimizer, bytes a device", here(state.opt_state)),
        ("label memory, bytes a device", here((state.labels, state.auxiliary))),
        ("frozen networks, bytes a device", whole(made.frozen)),
        ("resident images, bytes a device", images),
        ("images fed in each step, bytes a device", fed),
        ("checkpoint, bytes in all", whole(state)),
    ]
    return [(name, _bytes(size)) for name, size in rows]


def _bytes(size: float) -> str:
    return f"{size:,.0f}" + (f" ({human(size)})" if size >= 1024 else "")


def _moves(made: Experiment, state, count: int) -> list[traffic.Move]:
    c = made.config
    return traffic.moves(made.recipe, state, made.dataset.train, norm_group=c.model.norm_group, devices=count)


def _moved(made: Experiment, state, counts) -> list[str]:
    """A table of what each device sends to others in a step, for the numbers of devices that can share the batch."""
    counts = [n for n in counts if made.config.data.batch_size % n == 0]
    table: dict[str, list[float]] = {}
    for column, n in enumerate(counts):
        for move in _moves(made, state, n):
            table.setdefault(move.name, [0.0] * len(counts))[column] += move.sent()
    table["in all"] = [sum(column) for column in zip(*table.values(), strict=True)]
    title = "sent by a device in a step, on so many"
    width = max(len(title), *map(len, table))
    lines = [f"{title:<{width}}" + "".join(f"{n:>12}" for n in counts)]
    return lines + [f"{name:<{width}}" + "".join(f"{human(x):>12}" for x in sent) for name, sent in table.items()]
