"""The text of `--dry-run`: durations, memory and communication of a run, before it starts."""

import math
from datetime import timedelta
from pathlib import Path

import jax
from ml_collections import ConfigDict

from ldl_jax import config, mesh
from ldl_jax.config.options import plug
from ldl_jax.config.trust import ASK, Consent
from ldl_jax.data.base import Dataset
from ldl_jax.data.loading import make_dataset
from ldl_jax.training import traffic, trial
from ldl_jax.training.experiment import Experiment, make_experiment
from ldl_jax.training.schedule import abstract_state, make_plan, warn_of
from ldl_jax.training.steps import TrainState

COUNTS = (1, 8, 32, 256)  # numbers of devices compared in the table of communication


def sizes(
    c: ConfigDict,
    devices: int | None = None,
    *,
    timed_steps: int | None = None,
    consent: Consent = ASK,
) -> str:
    """Steps of a run, bytes on each device and in a checkpoint, and bytes sent in each step, as text.

    devices: number of devices to plan for, which need not exist; None for those available.
    timed_steps: number of train steps to time on the available devices, for an estimate of the
    duration and the peak memory; None: `trial.STEPS` on an accelerator, none on a CPU. consent: to
    modules that the runs of teachers name. What a run would warn of is printed on stderr. Raises
    ValueError if the config is invalid.
    """
    config.check(c)
    dataset, note = data_set(c.data)
    planned = None if devices is None else mesh.planned_mesh(devices)
    experiment = make_experiment(c, planned, dataset=dataset, consent=consent)
    warn_of(experiment)
    # All arrays are abstract, so neither the devices nor their memory are needed.
    state = abstract_state(experiment)
    count = experiment.mesh.size
    sent = 0.0
    for move in _moves(experiment, state, count):
        sent += move.sent()
    rows = [
        *_durations(experiment, state, count),
        *_memory(experiment, state, count),
        ("communication per step, bytes per device", _bytes_text(sent)),
    ]
    if timed_steps is None:
        timed_steps = 0 if jax.default_backend() == "cpu" else trial.STEPS
    # Planned devices cannot run a step, nor can those that are here stand for them.
    if timed_steps and devices is None:
        rows += _measured(experiment, timed_steps)
    width = max(len(name) for name, _ in rows)
    lines = [note] if note else []
    lines += dataset.notes
    for name, value in rows:
        lines.append(f"{name:<{width}}  {value}")
    lines.append("")
    lines += _communication_table(experiment, state, sorted({*COUNTS, count}))
    return "\n".join(lines)


def data_set(settings: ConfigDict) -> tuple[Dataset, str]:
    """The data set to plan with, and a note if no data was read.

    If `config.data.root` is empty and the data set's module has `published`, its published sizes
    are used instead.
    """
    root = Path(settings.root)
    # A bucket cannot be listed here; the data set's own module reads it.
    is_remote = "://" in settings.root
    has_files = bool(settings.root) and root.exists() and (not root.is_dir() or any(root.iterdir()))
    knows_sizes = hasattr(plug("data", settings.name), "published")
    if not (has_files or is_remote) and knows_sizes:
        note = f"published sizes, no data found at {settings.root!r}"
        return make_dataset(settings, published=True), note
    return make_dataset(settings), ""


def human(size: float) -> str:
    """A number of bytes as text, in B, KiB, MiB or GiB."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size >= 1024**power:
            return f"{size / 1024**power:.1f} {unit}"
    return f"{size:.0f} B"


def _bytes_text(size: float) -> str:
    return f"{size:,.0f}" + (f" ({human(size)})" if size >= 1024 else "")


def _durations(experiment: Experiment, state: TrainState, count: int) -> list[tuple[str, str]]:
    """Rows of (name, value): parameters, durations, and how the devices share the batch."""
    plan = make_plan(experiment)
    batch = experiment.config.data.batch_size
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    examples = f"{len(experiment.train):,} ({len(experiment.holdout):,} more in the holdout)"
    epochs = plan.total / plan.per_epoch
    available = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return [
        ("parameters", f"{parameters:,}"),
        ("training examples", examples),
        ("steps", f"{plan.total:,} = {epochs:g} epochs of {plan.per_epoch:,}"),
        ("devices", f"{count} (available: {available})"),
        ("batch size", f"{batch:,} ({batch // count:,} per device)"),
    ]


def _memory(experiment: Experiment, state: TrainState, count: int) -> list[tuple[str, str]]:
    """Rows of (name, bytes): arrays that stay on each device, without activations; a checkpoint."""

    def bytes_per_device(tree):
        total = 0
        for leaf in jax.tree.leaves(tree):
            shard = leaf.sharding.shard_shape(leaf.shape)
            total += math.prod(shard) * leaf.dtype.itemsize
        return total

    # The folds of a cross-validation share one array, which must not be counted twice.
    train = experiment.dataset.train
    arrays = {}
    for split in (train, experiment.dataset.test):
        if split.images is not None:
            arrays[id(split.images)] = split.images
    resident = sum(images.nbytes for images in arrays.values())
    streamed = 0
    if train.images is None:
        streamed = experiment.config.data.batch_size // count * math.prod(train.shape)

    network = (state.params, state.batch_stats, state.ema)
    rows = [
        ("parameters and statistics, bytes per device", bytes_per_device(network)),
        ("optimizer, bytes per device", bytes_per_device(state.opt_state)),
        ("label memory, bytes per device", bytes_per_device((state.labels, state.auxiliary))),
        ("frozen networks, bytes per device", traffic.bytes_of(experiment.frozen)),
        ("resident images, bytes per device", resident),
        ("streamed images per step, bytes per device", streamed),
        ("checkpoint, total bytes", traffic.bytes_of(state)),
    ]
    activations = "not included: they depend on the compiler"
    return [
        *((name, _bytes_text(size)) for name, size in rows),
        ("activations, bytes per device", activations),
    ]


def _measured(experiment: Experiment, steps: int) -> list[tuple[str, str]]:
    """Rows of (name, value) of a few train steps on the devices that are here."""
    name = "time per step, measured"
    train = experiment.dataset.train
    if train.images is None and train.stream is None:
        return [(name, "not measured, because no data was found")]
    try:
        measured = trial.run(experiment, steps)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return [(name, "not measured: a step does not fit in the memory of the devices")]
    if measured is None:
        return [(name, "not measured, because the run has too few steps")]
    total = make_plan(experiment).total
    duration = timedelta(seconds=round(total * measured.seconds))
    per_step = f"{1000 * measured.seconds:.3g} ms (mean of {measured.steps} steps"
    rows = [
        (name, f"{per_step}, after {measured.compiling:.1f} s of compilation)"),
        ("all steps, estimated", f"{duration} (evaluations and checkpoints not included)"),
    ]
    if measured.peak is not None:
        peak = f"{_bytes_text(measured.peak)}, with activations"
        rows.append(("peak memory, measured, bytes per device", peak))
    return rows


def _moves(experiment: Experiment, state: TrainState, count: int) -> list[traffic.Move]:
    settings = experiment.config.optimizer
    return traffic.moves(
        experiment.recipe,
        state,
        experiment.dataset.train,
        norm_group=experiment.config.model.norm_group,
        devices=count,
        gradients=settings.sam.sync_period if settings.name == "sam" else 1,
    )


def _communication_table(experiment: Experiment, state: TrainState, counts: list[int]) -> list[str]:
    """Lines of a table: bytes that a device sends per step, for several numbers of devices."""
    # Only numbers of devices that can share the batch evenly.
    counts = [count for count in counts if experiment.config.data.batch_size % count == 0]
    bytes_by_name: dict[str, list[float]] = {}
    for column, count in enumerate(counts):
        for move in _moves(experiment, state, count):
            row = bytes_by_name.setdefault(move.name, [0.0] * len(counts))
            row[column] += move.sent()
    bytes_by_name["total"] = [sum(column) for column in zip(*bytes_by_name.values(), strict=True)]

    title = "sent per device and step, for N ="
    width = max(len(title), *map(len, bytes_by_name))
    lines = [f"{title:<{width}}" + "".join(f"{count:>12}" for count in counts)]
    for name, row in bytes_by_name.items():
        lines.append(f"{name:<{width}}" + "".join(f"{human(size):>12}" for size in row))
    return lines
