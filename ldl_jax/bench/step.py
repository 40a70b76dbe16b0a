"""The toolkit's whole training step, compared with a hand-written cross-entropy step of the same
network and batch.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from ldl_jax import config, mesh
from ldl_jax.bench import base
from ldl_jax.data import order
from ldl_jax.data.base import Dataset, Split
from ldl_jax.evaluation.load import Teacher
from ldl_jax.models.spec import make_network
from ldl_jax.training import schedule, steps
from ldl_jax.training.experiment import Experiment, make_experiment
from ldl_jax.training.programs import make_programs

SHAPES = {  # H, W, C, K, examples
    "cifar10": (32, 32, 3, 10, 50_000),
    "cifar100": (32, 32, 3, 100, 50_000),
    "stl10": (96, 96, 3, 10, 5_000),
    "imagenet": (224, 224, 3, 1000, 1_281_167),
}
# bytes: a larger synthetic set is one batch of images, shown again and again under other indices
RESIDENT = 2**31


def toolkit_step(experiment: Experiment) -> Callable:
    """The run's own training step on its own data, one step per call."""
    programs = make_programs(experiment)
    state = schedule.fresh_state(experiment)
    batches = _batches(experiment, 1)

    def call():
        nonlocal state
        state, scalars = programs.step(state, programs.frozen, programs.train, next(batches))
        return scalars["loss"]

    return call


def toolkit_chunk(experiment: Experiment, count: int) -> Callable:
    """The run's own training step, `count` steps per call in one dispatch, as on accelerators."""
    programs = make_programs(experiment)
    state = schedule.fresh_state(experiment)
    batches = _batches(experiment, count)

    def call():
        nonlocal state
        state, scalars = programs.chunk(state, programs.frozen, programs.train, next(batches))
        return scalars["loss"]

    return call


def plain_step(experiment: Experiment) -> Callable:
    """A hand-written cross-entropy step: gather, network, gradient, optimizer.

    It has no plugs, no memory and no augmentation.
    """
    data = make_programs(experiment).train
    batches = _batches(experiment, 1)
    apply = experiment.recipe.build.apply
    optimizer = experiment.recipe.build.optimizer
    variables = jax.jit(experiment.recipe.build.init)(jax.random.key(experiment.config.seed))
    state = (variables["params"], variables["batch_stats"], optimizer.init(variables["params"]))

    # Donated as in the toolkit's step, so that neither copies the state.
    @partial(jax.jit, donate_argnums=0)
    def step(state, data, batch):
        params, stats, opt_state = state
        # A streamed set has its images in the batch, a resident one has indices there.
        image = batch["image"] if "image" in batch else data["images"][batch["index"]]
        label = batch["label"] if "label" in batch else data["labels"][batch["index"]]
        image = image.astype(experiment.recipe.dtype) / 255

        def loss(params):
            outputs, new_stats = apply({"params": params, "batch_stats": stats}, image, train=True)
            losses = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, label)
            return losses.mean(), new_stats

        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), stats, opt_state), value

    def call():
        nonlocal state
        state, value = step(state, data, next(batches))
        return value

    return call


def _batches(experiment: Experiment, count: int):
    """Batches on the device without end; `count` of them stacked for a chunk."""
    c = experiment.config
    sequence = order.batches(
        experiment.train,
        seed=c.seed,
        batch_size=c.data.batch_size,
        steps_per_epoch=experiment.recipe.build.steps_per_epoch,
        first_step=0,
    )
    stream = experiment.dataset.train.stream
    fixed = {}
    # Streamed images are put on the device once: the step is measured, not the input.
    if stream is not None:
        batch = next(stream([next(sequence)], 0))
        fixed = {name: batch[name] for name in ("image", "label", "mask")}
        fixed = mesh.to_global(fixed, experiment.mesh)
    while True:
        index = np.stack([next(sequence)[1] for _ in range(count)])
        if count > 1:
            moved = mesh.to_global({"index": index}, experiment.mesh, stacked=True)
        else:
            moved = mesh.to_global({"index": index[0]}, experiment.mesh, stacked=False)
        yield fixed | moved


def synthetic(name: str, batch: int) -> Dataset:
    """Random images with a published set's shape, classes and number.

    The time of a step does not depend on what the images show.
    """
    *shape, classes, count = SHAPES[name]
    draw = np.random.default_rng(0)

    def split(count):
        # ImageNet's images would not fit into memory, so one batch stands for all of them.
        large = count * math.prod(shape) > RESIDENT
        stored = min(count, batch) if large else count
        images = draw.integers(0, 256, (stored, *shape), np.uint8)
        labels = draw.integers(0, classes, stored).astype(np.int32)
        resident = Split(count, tuple(shape), images, labels)
        if stored == count:
            return resident
        return resident._replace(images=None, labels=None, stream=partial(_repeated, resident))

    names = tuple(map(str, range(classes)))
    return Dataset(split(count), split(1000), names, (0.5,) * shape[-1], (0.25,) * shape[-1])


def _repeated(stored: Split, batches, seed):
    """A stream with the same images in every batch."""
    del seed
    for _, index in batches:
        slots = np.arange(len(index)) % len(stored.images)
        yield {
            "image": stored.images[slots],
            "label": stored.labels[slots],
            "index": index,
            "mask": np.ones(len(index), np.float32),
        }


def flops(experiment: Experiment) -> float | None:
    """Floating-point operations of the run's training step; None if JAX has no CPU to count with.

    The step is lowered for the CPU on any device: for GPUs there is no count before compiling, and
    afterwards it does not include calls of cuDNN.
    """
    programs = make_programs(experiment)
    arguments = (
        schedule.abstract_state(experiment),
        programs.frozen,
        programs.train,
        next(_batches(experiment, 1)),
    )
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
    # A process may be restricted to its accelerator.
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        return None
    with jax.default_device(cpu):
        step = jax.jit(steps.make_train_step(experiment.recipe))
        cost = step.lower(*shapes).cost_analysis()
    return (cost or {}).get("flops")


def measure(path, *, rounds: int, seconds: float) -> str:
    """Goal: the whole online step takes at most 1.02 times as long as a hand-written one."""
    experiment = make_experiment(config.read(path), jax.devices()[:1])
    programs = {"plain step": plain_step(experiment), "toolkit step": toolkit_step(experiment)}
    times = base.alternate(programs, rounds=rounds, seconds=seconds)
    table = base.summary(times, "plain step", "images/s", experiment.config.data.batch_size)
    return f"{Path(path).name}: {base.machine(rounds)}\n\n{table}"


def settings(model: str, *, batch: int, dtype: str, name: str) -> ConfigDict:
    """A config for a network with its depth: 'resnet18' is model.name='resnet' of depth 18."""
    c = config.default()
    family = model.rstrip("0123456789")
    if family not in config.plugs("models"):
        raise ValueError(
            f"--model must be one of {', '.join(config.plugs('models'))}, followed by its depth; "
            f"got {model!r}"
        )
    c.data.name = "digits"
    c.data.batch_size = batch
    c.model.name = family
    c.model.dtype = dtype
    if model != family:
        c.model[family].depth = int(model[len(family) :])
    # In other families, `stem` is a number of channels.
    if "stem" in c.model[family] and isinstance(c.model[family].stem, str):
        c.model[family].stem = "imagenet" if name == "imagenet" else "cifar"
    return c


def kinds(c: ConfigDict) -> dict[str, ConfigDict]:
    """What is measured: the bare step, one with a memory, and one with augmentation, to which a
    memory or a frozen teacher is added.
    """
    bare = deepcopy(c)
    memory = deepcopy(c)
    memory.labels.name = "online"
    # Augmentation costs the same with any labels, so measure it once and add to it.
    augmented = deepcopy(c)
    augmented.labels.name = "hard"
    augmented.augment.pad = 4
    augmented.augment.flip = True
    augmented.mixing.name = "cutmix"
    augmented.mixing.cutmix.probability = 0.5
    augmented_memory = deepcopy(augmented)
    augmented_memory.labels.name = "online"
    teacher = deepcopy(augmented)
    teacher.labels.name = "teacher"
    return {
        "bare": bare,
        "online memory": memory,
        "crop, flip, CutMix": augmented,
        "and online memory": augmented_memory,
        "and frozen teacher": teacher,
    }


def augmented(c: ConfigDict) -> dict[str, ConfigDict]:
    """The bare step with each operation of augment/; measured where they are asked for by name."""
    made = {}
    for name in config.plugs("augment"):
        made[name] = deepcopy(c)
        made[name].augment.names = (name,)
    return made


def frozen_copy(spec: dict) -> Teacher:
    """A fresh network like the student, as a frozen teacher."""
    init, apply = make_network(spec)
    return Teacher(lambda v, x: apply(v, x, train=False)[0], jax.jit(init)(jax.random.key(1)), "")


def _trace(program: Callable, folder: str) -> None:
    # The first call compiles, which does not belong into the trace.
    jax.block_until_ready(program())
    with jax.profiler.trace(folder):
        for _ in range(3):
            jax.block_until_ready(program())


def reached(times: dict, work: dict, each: float, peak: float | None) -> list[str]:
    """Lines with the TFLOP/s of the bare step, one step per dispatch and in chunks.

    each: floating-point operations per image.
    """
    lines = [""]
    for kind in ("bare", "bare, chunks"):
        if kind in times:
            rate = each * work[kind] / np.median(times[kind]) / 1e12
            share = f", {100 * rate / peak:.1f} % of {peak:g}" if peak else ""
            lines.append(f"{kind}: {each / 1e9:.2f} GFLOP per image, {rate:.2f} TFLOP/s{share}")
    return lines


def measure_kinds(
    c: ConfigDict,
    name: str,
    *,
    rounds: int,
    seconds: float,
    peak: float | None,
    peers: bool,
    trace: str | None = None,
    only: tuple[str, ...] = (),
) -> str:
    """Images per second of a network's step, bare and with what the toolkit adds.

    peak: the device's peak in TFLOP/s for the activations' type, to show the share that a step
    reaches. peers: also PyTorch's step. trace: a folder for the profiler's trace of three steps
    with the memory. only: these kinds beside the bare one; (): all. Raises ValueError for an
    unknown kind.
    """
    configs = kinds(c) | (augmented(c) if only else {})
    for kind in only:
        if kind not in configs:
            raise ValueError(f"--kinds must be among {', '.join(configs)}; got {kind!r}")
    batch = c.data.batch_size
    dataset = synthetic(name, batch)
    programs = {}
    work = {}
    for kind, kind_config in configs.items():
        # The bare step is the reference of all ratios.
        if only and kind not in ("bare", *only):
            continue
        teachers = (frozen_copy,) if kind_config.labels.name == "teacher" else ()
        experiment = make_experiment(
            kind_config, jax.devices()[:1], dataset=dataset, teachers=teachers
        )
        if kind == "bare":
            programs["plain JAX step"] = plain_step(experiment)
            operations = flops(experiment)
        programs[kind] = toolkit_step(experiment)
        # XLA:CPU runs convolutions inside a scan many times slower, so runs there have no chunks.
        if jax.default_backend() != "cpu" and experiment.dataset.train.stream is None:
            programs[f"{kind}, chunks"] = toolkit_chunk(experiment, schedule.CHUNK)
            work[f"{kind}, chunks"] = batch * schedule.CHUNK
    waits = {}
    if peers:
        from ldl_jax.bench import torch_step

        peer_programs = torch_step.programs(c, dataset)
        programs |= peer_programs
        waits = dict.fromkeys(peer_programs, torch_step.wait)
    work = dict.fromkeys(programs, batch) | work
    if trace:
        _trace(programs["online memory"], trace)
    times = base.alternate(programs, rounds=rounds, seconds=seconds, wait=waits)
    title = f"{c.model.name} {c.model.dtype}, batch {batch}, images of {name}'s shape"
    lines = [
        f"{title}: {base.machine(rounds)}",
        "",
        base.summary(times, "bare", "images/s", work),
    ]
    if operations:
        lines += reached(times, work, operations / batch, peak)
    return "\n".join(lines)
