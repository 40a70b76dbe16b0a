"""From a config to everything that a run works with: data, network, plugs, devices, sizes."""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from ldl_jax import config, files, mesh, optimizer
from ldl_jax import workdir as run
from ldl_jax.augment import base as augment
from ldl_jax.config import checks
from ldl_jax.config.options import plug
from ldl_jax.contract import Auxiliary, Build, PyTree
from ldl_jax.data.base import Dataset
from ldl_jax.data.loading import make_dataset, positions, statistics
from ldl_jax.metrics.base import Metric
from ldl_jax.models.base import Network, check_group, param_dtype
from ldl_jax.training import steps

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float64": jnp.float64}


class Experiment(NamedTuple):
    """All of a run but its state."""

    config: ConfigDict
    dataset: Dataset
    train: np.ndarray  # i64[n]: positions, in the published order, of the examples that are trained on
    holdout: np.ndarray  # i64[h]: positions of those set aside
    test: np.ndarray  # i64[t]: positions, in the test split's order, of the examples that are evaluated as test
    sources: dict[str, Any]  # what the network is made from: see `run.network_sources`
    mesh: Mesh
    recipe: steps.Recipe
    metrics: dict[str, Metric]
    frozen: tuple[PyTree, ...]  # the teachers' variables, on the host
    teachers: dict[str, str]  # run directory -> SHA-256 of the weights used
    inputs: dict[str, str]  # SHA-256 of images, teachers, labels and tables, by '<field> = <path>': see `_inputs`
    taught_by: tuple[dict | None, ...] = ()  # what the teachers' networks are made from


class Teacher(NamedTuple):
    """A frozen network."""

    look: Callable  # (variables, image[B, H, W, C]) -> Outputs, in evaluation mode
    variables: PyTree
    digest: str  # SHA-256 of the weights' file
    sources: dict[str, Any] | None = None  # what its network is made from; None where that is not known


def experiment(c: ConfigDict, devices=None, *, dataset: Dataset | None = None, teachers=()) -> Experiment:
    """Everything that a config stands for, checked. Raises ValueError in one sentence where something does not fit.

    `devices`: a list, None for all, or an abstract mesh to plan with. A `dataset` given here takes the place of the one
    that the config names; `teachers` (functions of the network's sources that make a `Teacher`) join those it names.
    """
    config.check(c)
    dataset = make_dataset(c.data) if dataset is None else dataset
    train, holdout, test = positions(c.data, dataset)
    there = devices if isinstance(devices, AbstractMesh) else mesh.make_mesh(devices)
    mesh.local_slice(c.data.batch_size, there)
    sources = run.network_sources(c, dataset, *statistics(c.model, dataset))
    made_from = f"{c.teachers_from} --config.data.root={c.data.root}" if c.teachers_from else ""
    named = [make_teacher(path, sources, made_from) for path in c.teachers]
    teachers = named + [make(sources) for make in teachers]
    return Experiment(
        c, dataset, train, holdout, test, sources, there, make_recipe(c, sources, teachers, dataset, len(train)),
        {name: plug("metrics", name).make(sources["num_classes"]) for name in config.plugs("metrics")},
        tuple(teacher.variables for teacher in teachers),
        {str(path): teacher.digest for path, teacher in zip(c.teachers, named, strict=True)},
        _inputs(c, named, dataset.digest), tuple(teacher.sources for teacher in teachers),
    )  # fmt: skip


def digest(made: Experiment, but: tuple[str, ...] = ()) -> str:
    """SHA-256 of all that a run's numbers depend on: settings, data, network. The same on all processes.

    but: fields that are left out; without 'teachers', what their files and the tables' hold is left out too.
    """
    left = (*config.MAY_DIFFER, *but)
    settings = {name: value for name, value in config.in_use(made.config).items() if name not in left}
    inputs = [] if "teachers" in but else sorted(made.inputs.values())
    parts = settings, made.sources, made.dataset.digest, inputs
    return files.digest(parts)


def _inputs(c: ConfigDict, teachers, files_read: str) -> dict[str, str]:
    """SHA-256 of all that a run reads, by '<field> = <path>': of folders the images' names, of files what they hold."""
    images = {f"{run.IMAGES} = {c.data.root}": files_read} if files_read else {}
    found = images | {
        f"teachers[{n}] = {path}": t.digest for n, (path, t) in enumerate(zip(c.teachers, teachers, strict=True))
    }
    tables = {field: c.data[field] for field in ("labels_file", "train_table", "test_table") if c.data[field]}
    return found | {f"data.{field} = {path}": files.sha256(path) for field, path in tables.items()}


def make_module(settings: dict, network: Network):
    """The linen module that `config.model` names: a file of ldl_jax/models, or a dotted name of the user's own.

    Raises ValueError where a dotted name cannot be imported or has no `make`.
    """
    name = settings["name"]
    options = {key: tuple(v) if isinstance(v, list) else v for key, v in settings["options"].items()}
    if "." not in name:
        return plug("models", name).make(network, **options)
    try:
        module = importlib.import_module(name)
    except (ImportError, TypeError, ValueError) as error:  # '..x' and the like are no names
        raise ValueError(f"config.model.name is {name!r}, which cannot be imported ({error})") from None
    if not hasattr(module, "make"):
        raise ValueError(f"config.model.name is {name!r}; that module has no function make(network, **options)")
    return module.make(network, **options)


def make_network(sources: dict) -> tuple[Callable, Callable]:
    """(init, apply) of a network from its sources (see `run.network_sources`).

    init(key) -> {'params', 'batch_stats'}, float32 or better whatever the activations are.
    apply(variables, image[B, H, W, C] in [0, 1], *, train, key=None) -> (Outputs, batch_stats).
    """
    dtype = DTYPES[sources["model"]["dtype"]]
    if dtype == jnp.float64 and not jax.config.jax_enable_x64:
        raise ValueError("config.model.dtype is 'float64', which needs the environment variable JAX_ENABLE_X64=1")
    group = sources["model"].get("norm_group", 0)  # runs from before there was the field have none
    network = Network(sources["num_classes"], tuple(sources["mean"]), tuple(sources["std"]), dtype, group)
    module = make_module(sources["model"], network)
    kind = param_dtype(dtype)

    def init(key):
        made = module.init(key, jnp.zeros((1, *sources["shape"]), kind), False)
        return jax.tree.map(lambda leaf: leaf.astype(kind), {n: made.get(n, {}) for n in ("params", "batch_stats")})

    def apply(variables, image, *, train, key=None):
        if not train:
            return module.apply(variables, image, False), variables["batch_stats"]
        keys = {} if key is None else {"dropout": key}
        outputs, changed = module.apply(variables, image, True, mutable=["batch_stats"], rngs=keys)
        return outputs, changed.get("batch_stats", {})

    return init, apply


def load(path, *, best: bool = False) -> tuple[Callable, PyTree]:
    """A finished run as (apply, variables): apply(variables, image) -> Outputs, in evaluation mode.

    image: u8[B, H, W, C], or float in [0, 1]; `Outputs.logits` is f32[B, K]. The weights are those the run was
    measured with (`eval.weights`), after the last step; with `best`, those of the lowest NLL on the held-out images.
    Raises ValueError where the run is missing or unfinished, or has no best weights, since it held nothing out.
    """
    sources, variables, _ = run.load_weights(path)
    if best:
        variables = run.read_best(path)
    network, kind = make_network(sources)[1], param_dtype(DTYPES[sources["model"]["dtype"]])

    def apply(variables, image):
        image = jnp.asarray(image, kind) / 255 if image.dtype == np.uint8 else image
        return network(variables, image, train=False)[0]

    return apply, variables


def make_teacher(path, sources: dict, made_from: str = "") -> Teacher:
    """A finished run as a frozen network. Raises ValueError where it does not fit the student's sources."""
    theirs, variables, digest = run.load_weights(path, made_from)
    for field, what in (("num_classes", "classes"), ("shape", "image shape")):
        if theirs[field] != sources[field]:
            raise ValueError(
                f"config.teachers: {path} has {what} {theirs[field]}; allowed is the student's, {sources[field]}"
            )
    apply = make_network(theirs)[1]
    return Teacher(lambda variables, image: apply(variables, image, train=False)[0], variables, digest, theirs)


def sizes(c: ConfigDict, count: int) -> tuple[int, int]:
    """Steps of an epoch of `count` examples, and of the run. Raises ValueError where a batch does not fit."""
    if c.data.batch_size > count:
        raise ValueError(
            f"config.data.batch_size is {c.data.batch_size}; allowed are at most {count}, the examples of an epoch"
        )
    accumulate = c.optimizer.accumulate
    per_epoch = count // c.data.batch_size // accumulate * accumulate
    if not per_epoch:
        raise ValueError(
            f"config.optimizer.accumulate is {accumulate}; allowed are at most {count // c.data.batch_size}, the steps "
            "of an epoch"
        )
    total = round(c.train.epochs * per_epoch) if c.train.max_steps is None else c.train.max_steps
    if not 1 <= total <= checks.COUNTER:
        raise ValueError(f"config.train.epochs is {c.train.epochs}; allowed are 1 to {checks.COUNTER} steps")
    return per_epoch, total


def make_recipe(c: ConfigDict, sources: dict, teachers, dataset: Dataset, count: int) -> steps.Recipe:
    """All that is static in a step: network, plugs, augmentation, mixing, optimizer."""
    per_epoch, total = sizes(c, count)
    init, apply = make_network(sources)
    dtype = param_dtype(DTYPES[sources["model"]["dtype"]])
    schedule, transformation = _optimizer(c.optimizer, per_epoch, total)
    mixer = plug("mixing", c.mixing.name).make(**c.mixing[c.mixing.name])
    build = Build(
        num_classes=sources["num_classes"], num_examples=dataset.train.num_examples,
        rows=mesh.padded_rows(dataset.train.num_examples), steps_per_epoch=per_epoch, total_steps=total,
        mix_prob=mixer.probability, criterion=plug("losses", c.losses.name).make(**c.losses[c.losses.name]),
        init=init, apply=apply, optimizer=transformation, outputs=None, teachers=(), part=None,
        tables=tuple(dataset.train.given),
    )  # fmt: skip
    checks.pixels(c.augment, dataset.train.shape)
    image = jax.ShapeDtypeStruct((c.data.batch_size, *dataset.train.shape), dtype)
    build, auxiliaries = _with_views(c, build, teachers, image)
    source = build.part(c.labels.name)
    _check_rows(source, auxiliaries, build)
    return steps.Recipe(
        build, source, auxiliaries, tuple(teacher.look for teacher in teachers),
        _augment(c.augment, sources), mixer, schedule, c.optimizer.accumulate, c.optimizer.ema,
        dtype, c.train.on_nonfinite == "skip_step",
    )  # fmt: skip


def _augment(settings: ConfigDict, sources: dict) -> Callable:
    """(keys[B], image[B, H, W, C]) -> image, of `config.augment`."""
    pixels = augment.Pixels(tuple(sources["shape"]), tuple(sources["mean"]))
    members = [plug("augment", name).make(pixels, **settings[name]) for name in settings.names]
    return augment.make(pixels.mean, members, pad=settings.pad, flip=settings.flip, cutout=settings.cutout)


def _optimizer(o: ConfigDict, per_epoch: int, total: int):
    """(schedule over updates, optax transformation) of `config.optimizer`."""
    schedule = optimizer.make_schedule(
        o.learning_rate, schedule=o.schedule, boundaries=o.boundaries, factor=o.factor,
        warmup_epochs=o.warmup_epochs, updates_per_epoch=per_epoch / o.accumulate,
        total_updates=max(1, total // o.accumulate),
    )  # fmt: skip
    made = optimizer.make(
        schedule, momentum=o.momentum, nesterov=o.nesterov, weight_decay=o.weight_decay, decay=o.decay,
        clip_norm=o.clip_norm, accumulate=o.accumulate,
    )  # fmt: skip
    return schedule, made


def _with_views(c: ConfigDict, build: Build, teachers, image) -> tuple[Build, dict[str, Auxiliary]]:
    """The build with abstract outputs, and the auxiliaries, which decide how many views there are."""
    variables = jax.eval_shape(build.init, jax.eval_shape(lambda: jax.random.key(0)))

    def finish(views):
        shown = jax.ShapeDtypeStruct((views, *image.shape), image.dtype)

        def look(network, variables):
            return jax.eval_shape(lambda v, x: steps.forward(lambda y: network(v, y), x)[0], variables, shown)

        done = build._replace(
            outputs=look(lambda v, x: build.apply(v, x, train=False), variables),
            teachers=tuple(look(lambda v, x, t=t: (t.look(v, x), ()), t.variables) for t in teachers),
            part=lambda name: plug("labels", name).make(done, **c.labels[name]),
        )
        return done, {name: plug("auxiliary", name).make(done, **c.auxiliary[name]) for name in c.auxiliary.names}

    done, auxiliaries = finish(1)
    views = steps.num_views(auxiliaries, image)
    check_group(c.model.norm_group, c.data.batch_size, views)
    return (done, auxiliaries) if views == 1 else finish(views)


def _check_rows(source, auxiliaries, build: Build) -> None:
    """Every entry called `rows` in a plug's state has the padded number of examples as its first axis."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = {
        "labels": jax.eval_shape(lambda key: source.init(key, build.init(key)), key),
        "auxiliary": {name: jax.eval_shape(one.init, key)[1] for name, one in auxiliaries.items()},
    }
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        if mesh.is_rows(path) and leaf.shape[:1] != (build.rows,):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(f"{name} is {list(leaf.shape)}; allowed is build.rows = {build.rows} as its first axis")
