"""The toolkit's whole train step beside a hand-written cross-entropy step of the same network and
batch.
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
from ldl_jax.training import experiment as build
from ldl_jax.training import schedule as plan
from ldl_jax.training import steps
from ldl_jax.training.programs import make_programs

SHAPES = {  # H, W, C, K, examples
    "cifar10": (32, 32, 3, 10, 50_000), "cifar100": (32, 32, 3, 100, 50_000), "stl10": (96, 96, 3, 10, 5_000),
    "imagenet": (224, 224, 3, 1000, 1_281_167),
}  # fmt: skip
# bytes: a larger synthetic set is one batch of images, shown again and again under other indices
RESIDENT = 2**31


def toolkit_step(made: build.Experiment) -> Callable:
    """The run's own train step on its own data, one step a call."""
    device, state, batches = make_programs(made), plan.fresh_state(made), _batches(made, 1)

    def call():
        nonlocal state
        state, scalars = device.step(state, device.frozen, device.train, next(batches))
        return scalars["loss"]

    return call


def toolkit_chunk(made: build.Experiment, count: int) -> Callable:
    """The run's own train step, `count` steps a call in one dispatch, as runs on accelerators do
    it.
    """
    device, state, batches = make_programs(made), plan.fresh_state(made), _batches(made, count)

    def call():
        nonlocal state
        state, scalars = device.chunk(state, device.frozen, device.train, next(batches))
        return scalars["loss"]

    return call


def plain_step(made: build.Experiment) -> Callable:
    """A hand-written cross-entropy step: fetch, network, gradient, optimizer; no plugs, no memory,
    no augmentation.
    """
    data, batches, apply = make_programs(made).train, _batches(made, 1), made.recipe.build.apply
    optimizer = made.recipe.build.optimizer
    variables = jax.jit(made.recipe.build.init)(jax.random.key(made.config.seed))
    state = (variables["params"], variables["batch_stats"], optimizer.init(variables["params"]))

    @partial(jax.jit, donate_argnums=0)
    def step(state, data, batch):
        params, stats, opt_state = state
        image = batch["image"] if "image" in batch else data["images"][batch["index"]]
        label = batch["label"] if "label" in batch else data["labels"][batch["index"]]
        image = image.astype(made.recipe.dtype) / 255

        def loss(params):
            outputs, new = apply({"params": params, "batch_stats": stats}, image, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(
                outputs.logits, label
            ).mean(), new

        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), stats, opt_state), value

    def call():
        nonlocal state
        state, value = step(state, data, next(batches))
        return value

    return call


def _batches(made, count):
    """Batches on the device without end; `count` of them stacked for a chunk."""
    c = made.config
    sequence = order.batches(
        made.train, seed=c.seed, batch_size=c.data.batch_size, steps_per_epoch=made.recipe.build.steps_per_epoch,
        first_step=0,
    )  # fmt: skip
    stream, shown = made.dataset.train.stream, {}
    # what is streamed lies on the device already: the step is measured, not the input
    if stream is not None:
        images = next(stream([next(sequence)], 0))
        shown = mesh.to_global(
            {name: images[name] for name in ("image", "label", "mask")}, made.mesh
        )
    while True:
        index = np.stack([next(sequence)[1] for _ in range(count)])
        index = mesh.to_global(
            {"index": index if count > 1 else index[0]}, made.mesh, stacked=count > 1
        )
        yield shown | index


def synthetic(name: str, batch: int) -> Dataset:
    """Random images of a published set's shape, classes and number: a step's time does not depend
    on what they show.
    """
    *shape, classes, count = SHAPES[name]
    draw = np.random.default_rng(0)

    def split(count):
        held = min(count, batch) if count * math.prod(shape) > RESIDENT else count
        images = draw.integers(0, 256, (held, *shape), np.uint8)
        made = Split(count, tuple(shape), images, draw.integers(0, classes, held).astype(np.int32))
        return (
            made
            if held == count
            else made._replace(images=None, labels=None, stream=partial(_again, made))
        )

    names = tuple(str(number) for number in range(classes))
    return Dataset(split(count), split(1000), names, (0.5,) * shape[-1], (0.25,) * shape[-1])


def _again(held: Split, batches, seed):
    """The same images for every batch."""
    del seed
    for _, index in batches:
        place = np.arange(len(index)) % len(held.images)
        mask = np.ones(len(index), np.float32)
        yield {
            "image": held.images[place],
            "label": held.labels[place],
            "index": index,
            "mask": mask,
        }


def flops(made: build.Experiment) -> float | None:
    """Floating-point operations of the run's train step before any compiling; None where JAX has no
    CPU to count with.

    The step is lowered for the CPU whatever the run computes on: the counter is not there for GPUs
    before compiling, and afterwards it does not look into calls of cuDNN.
    """
    device = make_programs(made)
    given = (plan.abstract_state(made), device.frozen, device.train, next(_batches(made, 1)))
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), given)
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names others alone
        return None
    with jax.default_device(cpu):
        cost = jax.jit(steps.make_train_step(made.recipe)).lower(*shapes).cost_analysis()
    return (cost or {}).get("flops")


def measure(path, *, rounds: int, seconds: float) -> str:
    """Goal: the whole online step takes at most 1.02 times a hand-written step's time."""
    made = build.make_experiment(config.read(path), jax.devices()[:1])
    programs = {"plain step": plain_step(made), "toolkit step": toolkit_step(made)}
    times = base.alternate(programs, rounds=rounds, seconds=seconds)
    head = f"{Path(path).name}: {base.machine(rounds)}"
    return "\n".join(
        [head, "", base.summary(times, "plain step", "images/s", made.config.data.batch_size)]
    )


def settings(model: str, *, batch: int, dtype: str, name: str) -> ConfigDict:
    """A config of a step: 'resnet18' is model.name='resnet' of depth 18, 'cifar_resnet20' and
    others alike.
    """
    c = config.default()
    family = model.rstrip("0123456789")
    if family not in config.plugs("models"):
        raise ValueError(
            f"--model is {model!r}; allowed are {', '.join(config.plugs('models'))}, each with its depth"
        )
    c.data.name, c.data.batch_size, c.model.name, c.model.dtype = "digits", batch, family, dtype
    if model != family:
        c.model[family].depth = int(model[len(family) :])
    if "stem" in c.model[family] and isinstance(c.model[family].stem, str):
        c.model[family].stem = "imagenet" if name == "imagenet" else "cifar"
    return c


def kinds(c: ConfigDict) -> dict[str, ConfigDict]:
    """What is measured: bare, with a memory, and one upon the other augmentation, a memory, a
    frozen teacher.
    """
    c = deepcopy(c)
    made = {"bare": deepcopy(c)}
    c.labels.name = "online"
    made["online memory"] = deepcopy(c)
    c.labels.name = "hard"
    c.augment.pad, c.augment.flip, c.mixing.name, c.mixing.cutmix.probability = (
        4,
        True,
        "cutmix",
        0.5,
    )
    made["crop, flip, CutMix"] = deepcopy(c)
    c.labels.name = "online"
    made["and online memory"] = deepcopy(c)
    c.labels.name = "teacher"
    made["and frozen teacher"] = c
    return made


def frozen_copy(spec: dict) -> Teacher:
    """A fresh network like the student, as a frozen teacher."""
    init, apply = make_network(spec)
    return Teacher(lambda v, x: apply(v, x, train=False)[0], jax.jit(init)(jax.random.key(1)), "")


def _trace(program: Callable, folder: str) -> None:
    jax.block_until_ready(program())
    with jax.profiler.trace(folder):
        for _ in range(3):
            jax.block_until_ready(program())


def reached(times: dict, work: dict, each: float, peak: float | None) -> list[str]:
    """Lines with the TFLOP/s of the bare step, a dispatch each and in chunks, at `each` operations
    an image.
    """
    lines = []
    for kind in ("bare", "bare, chunks"):
        if kind in times:
            rate = each * work[kind] / np.median(times[kind]) / 1e12
            share = f", {100 * rate / peak:.1f} % of {peak:g}" if peak else ""
            lines.append(f"{kind}: {each / 1e9:.2f} GFLOP an image, {rate:.2f} TFLOP/s{share}")
    return ["", *lines]


def measure_kinds(
    c: ConfigDict, name: str, *, rounds: int, seconds: float, peak: float | None, peers: bool, trace: str | None = None,
    only: tuple[str, ...] = (),
) -> str:  # fmt: skip
    """Images per second of a network's step, bare and with what the toolkit adds; beside PyTorch's
    with `peers`.

    peak: the device's peak in TFLOP/s for the activations' type, to show the share of it that a
    step reaches. trace: a folder for the profiler's trace of three steps with the memory. only:
    these kinds beside the bare one; () = all. Raises ValueError for a kind that is not there.
    """
    chosen = kinds(c)
    for kind in only:
        if kind not in chosen:
            raise ValueError(f"--kinds has {kind!r}; allowed are {', '.join(chosen)}")
    chosen = {kind: made for kind, made in chosen.items() if not only or kind in ("bare", *only)}
    batch = c.data.batch_size
    dataset = synthetic(name, batch)
    programs, work, waits = {}, {}, {}
    for kind, settings in chosen.items():
        teachers = (frozen_copy,) if settings.labels.name == "teacher" else ()
        made = build.make_experiment(
            settings, jax.devices()[:1], dataset=dataset, teachers=teachers
        )
        if kind == "bare":
            programs["plain JAX step"] = plain_step(made)
            count = flops(made)
        programs[kind] = toolkit_step(made)
        if (
            jax.default_backend() != "cpu" and made.dataset.train.stream is None
        ):  # XLA:CPU runs convolutions inside a scan many times slower
            programs[f"{kind}, chunks"] = toolkit_chunk(made, plan.CHUNK)
            work[f"{kind}, chunks"] = batch * plan.CHUNK
    if peers:
        from ldl_jax.bench import torch_step

        for kind, program in torch_step.programs(c, dataset).items():
            programs[kind], waits[kind] = program, torch_step.wait
    work = {kind: work.get(kind, batch) for kind in programs}
    if trace:
        _trace(programs["online memory"], trace)
    times = base.alternate(programs, rounds=rounds, seconds=seconds, wait=waits)
    notes = reached(times, work, count / batch, peak) if count else []
    what = f"{c.model.name} {c.model.dtype}, batch {batch}, images of {name}'s shape"
    return "\n".join(
        [
            f"{what}: {base.machine(rounds)}",
            "",
            base.summary(times, "bare", "images/s", work),
            *notes,
        ]
    )
