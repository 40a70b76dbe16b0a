"""What a run would hold and move, known before it is paid for: the text of `--dry-run`."""

import math
from pathlib import Path

import jax
from ml_collections import ConfigDict

from ldl_jax import config, mesh
from ldl_jax.config.options import plug
from ldl_jax.data.base import Dataset
from ldl_jax.data.loading import make_dataset
from ldl_jax.training import traffic
from ldl_jax.training.experiment import Experiment, make_experiment
from ldl_jax.training.schedule import abstract_state, make_plan
from ldl_jax.training.steps import TrainState

COUNTS = (1, 8, 32, 256)  # numbers of devices that are set side by side


def sizes(c: ConfigDict, devices: int | None = None) -> str:
    """What a run would hold and move: steps, bytes on each device and in a checkpoint, bytes sent
    in each step.

    devices: so many, which need not be here; None = those at hand. Raises ValueError where the
    config does not fit.
    """
    config.check(c)
    dataset, note = data_set(c.data)
    planned = None if devices is None else mesh.planned_mesh(devices)
    experiment = make_experiment(c, planned, dataset=dataset)
    state = abstract_state(experiment)
    count = experiment.mesh.size
    sent = sum(move.sent() for move in _moves(experiment, state, count))
    rows = [
        *_durations(experiment, state, count),
        *_held(experiment, state, count),
        ("sent in each step, bytes a device", _bytes(sent)),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [note] if note else []
    lines += [f"{name:<{width}}  {value}" for name, value in rows]
    lines += ["", *_moved(experiment, state, sorted({*COUNTS, count}))]
    return "\n".join(lines)


def data_set(settings: ConfigDict) -> tuple[Dataset, str]:
    """The data set to plan with, and a note where nothing was read.

    Where `config.data.root` holds nothing, the sizes that the data set's module gives with
    `published`, if it does.
    """
    root = Path(settings.root)
    remote = "://" in settings.root  # a bucket is for the data set's own module to read
    filled = bool(settings.root) and root.exists() and (not root.is_dir() or any(root.iterdir()))
    if not (filled or remote) and hasattr(plug("data", settings.name), "published"):
        return make_dataset(
            settings, published=True
        ), f"published sizes; no data read at {settings.root!r}"
    return make_dataset(settings), ""


def human(size: float) -> str:
    """Bytes in KiB, MiB or GiB."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size >= 1024**power:
            return f"{size / 1024**power:.1f} {unit}"
    return f"{size:.0f} B"


def _bytes(size: float) -> str:
    return f"{size:,.0f}" + (f" ({human(size)})" if size >= 1024 else "")


def _durations(experiment: Experiment, state: TrainState, count: int) -> list[tuple[str, str]]:
    """Parameters, durations, and how the batch is shared out."""
    plan, batch = make_plan(experiment), experiment.config.data.batch_size
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    at_hand = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return [
        ("parameters", f"{parameters:,}"),
        (
            "training examples",
            f"{len(experiment.train):,} (and {len(experiment.holdout):,} held out)",
        ),
        ("steps", f"{plan.total:,} = {plan.total / plan.per_epoch:g} epochs of {plan.per_epoch:,}"),
        ("devices", f"{count} (at hand: {at_hand})"),
        ("batch, examples", f"{batch:,}, of which {batch // count:,} a device"),
    ]


def _held(experiment: Experiment, state: TrainState, count: int) -> list[tuple[str, str]]:
    """Bytes on each device that stay there, activations not counted, and in a checkpoint."""

    def on_a_device(tree):
        leaves = jax.tree.leaves(tree)
        return sum(
            math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
            for leaf in leaves
        )

    train = experiment.dataset.train
    # folds share one
    splits = {id(split.images): split.images for split in (train, experiment.dataset.test)}
    images = sum(held.nbytes for held in splits.values() if held is not None)
    fed = (
        0
        if train.images is not None
        else experiment.config.data.batch_size // count * math.prod(train.shape)
    )
    rows = [
        (
            "parameters and statistics, bytes a device",
            on_a_device((state.params, state.batch_stats, state.ema)),
        ),
        ("optimizer, bytes a device", on_a_device(state.opt_state)),
        ("label memory, bytes a device", on_a_device((state.labels, state.auxiliary))),
        ("frozen networks, bytes a device", traffic.bytes_of(experiment.frozen)),
        ("resident images, bytes a device", images),
        ("images fed in each step, bytes a device", fed),
        ("checkpoint, bytes in all", traffic.bytes_of(state)),
    ]
    return [(name, _bytes(size)) for name, size in rows]


def _moves(experiment: Experiment, state: TrainState, count: int) -> list[traffic.Move]:
    return traffic.moves(
        experiment.recipe,
        state,
        experiment.dataset.train,
        norm_group=experiment.config.model.norm_group,
        devices=count,
    )


def _moved(experiment: Experiment, state: TrainState, counts: list[int]) -> list[str]:
    """A table of what each device sends to others in a step, for the numbers of devices that can
    share the batch.
    """
    counts = [count for count in counts if experiment.config.data.batch_size % count == 0]
    table: dict[str, list[float]] = {}
    for column, count in enumerate(counts):
        for move in _moves(experiment, state, count):
            table.setdefault(move.name, [0.0] * len(counts))[column] += move.sent()
    table["in all"] = [sum(column) for column in zip(*table.values(), strict=True)]
    title = "sent by a device in a step, on so many"
    width = max(len(title), *map(len, table))
    lines = [f"{title:<{width}}" + "".join(f"{count:>12}" for count in counts)]
    for name, sent in table.items():
        lines.append(f"{name:<{width}}" + "".join(f"{human(size):>12}" for size in sent))
    return lines
