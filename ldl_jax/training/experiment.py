"""From a config to everything that a run works with: data, network, plugs, devices, durations."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from ldl_jax import config, files, mesh, optimizer, workdir
from ldl_jax.augment import base as augment
from ldl_jax.config import checks
from ldl_jax.config.options import plug
from ldl_jax.contract import Auxiliary, Build, PyTree
from ldl_jax.data.base import Dataset
from ldl_jax.data.loading import make_dataset, positions, statistics
from ldl_jax.evaluation.load import Teacher, load_teacher
from ldl_jax.metrics.base import Metric
from ldl_jax.models.base import check_group
from ldl_jax.models.spec import make_network, network_spec, spec_dtype
from ldl_jax.training import steps

# fields of config.data that name files of labels
TABLES = ("labels_file", "train_table", "test_table")


class Experiment(NamedTuple):
    """All of a run but its state."""

    config: ConfigDict
    dataset: Dataset
    # i64[n]: positions, in the published order, of the examples that are trained on
    train: np.ndarray
    holdout: np.ndarray  # i64[h]: positions of those set aside
    # i64[t]: positions, in the test split's order, of the examples that are evaluated as test
    test: np.ndarray
    spec: dict[str, Any]  # what the network is made from: see `models.spec`
    mesh: Mesh
    recipe: steps.Recipe
    metrics: dict[str, Metric]
    frozen: tuple[PyTree, ...]  # the teachers' variables, on the host
    teachers: dict[str, str]  # run directory -> SHA-256 of the weights used
    # SHA-256 of images, teachers, labels and tables, by '<field> = <path>': see `_inputs`
    inputs: dict[str, str]
    teacher_specs: tuple[dict | None, ...] = ()  # what the teachers' networks are made from


def make_experiment(
    c: ConfigDict, devices=None, *, dataset: Dataset | None = None, teachers=()
) -> Experiment:
    """Everything that a config stands for, checked. Raises ValueError in one sentence where
    something does not fit.

    `devices`: a list, None for all, or an abstract mesh to plan with. A `dataset` given here takes
    the place of the one that the config names; `teachers` (functions of the network's spec that
    make a `Teacher`) join those it names.
    """
    config.check(c)
    dataset = make_dataset(c.data) if dataset is None else dataset
    train, holdout, test = positions(c.data, dataset)
    there = devices if isinstance(devices, AbstractMesh) else mesh.make_mesh(devices)
    mesh.local_slice(c.data.batch_size, there)  # raises where the devices cannot share a batch
    spec = network_spec(c, dataset, *statistics(c.model, dataset))
    made_from = f"{c.teachers_from} --config.data.root={c.data.root}" if c.teachers_from else ""
    named = [load_teacher(path, spec, made_from) for path in c.teachers]
    teachers = named + [make(spec) for make in teachers]
    return Experiment(
        config=c,
        dataset=dataset,
        train=train,
        holdout=holdout,
        test=test,
        spec=spec,
        mesh=there,
        recipe=make_recipe(c, spec, teachers, dataset, len(train)),
        metrics={
            name: plug("metrics", name).make(spec["num_classes"])
            for name in config.plugs("metrics")
        },
        frozen=tuple(teacher.variables for teacher in teachers),
        teachers={
            str(path): teacher.digest for path, teacher in zip(c.teachers, named, strict=True)
        },
        inputs=_inputs(c, named, dataset.digest),
        teacher_specs=tuple(teacher.spec for teacher in teachers),
    )


def digest(experiment: Experiment, but: tuple[str, ...] = ()) -> str:
    """SHA-256 of all that a run's numbers depend on: settings, data, network. The same on all
    processes.

    but: fields that are left out; without 'teachers', what their files and the tables' hold is left
    out too.
    """
    left_out = (*config.MAY_DIFFER, *but)
    settings = {
        name: value
        for name, value in config.in_use(experiment.config).items()
        if name not in left_out
    }
    inputs = [] if "teachers" in but else sorted(experiment.inputs.values())
    parts = settings, experiment.spec, experiment.dataset.digest, inputs
    return files.digest(parts)


def _inputs(c: ConfigDict, teachers: list[Teacher], images: str) -> dict[str, str]:
    """SHA-256 of all that a run reads, by '<field> = <path>': of folders the images' names, of
    files what they hold.
    """
    inputs = {}
    if images:
        inputs[f"{workdir.IMAGES} = {c.data.root}"] = images
    for number, (path, teacher) in enumerate(zip(c.teachers, teachers, strict=True)):
        inputs[f"teachers[{number}] = {path}"] = teacher.digest
    for field in TABLES:
        if c.data[field]:
            inputs[f"data.{field} = {c.data[field]}"] = files.sha256(c.data[field])
    return inputs


def durations(c: ConfigDict, count: int) -> tuple[int, int]:
    """Steps of an epoch of `count` examples, and of the run. Raises ValueError where a batch does
    not fit.
    """
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
        raise ValueError(
            f"config.train.epochs is {c.train.epochs}; allowed are 1 to {checks.COUNTER} steps"
        )
    return per_epoch, total


def make_recipe(
    c: ConfigDict, spec: dict, teachers: list[Teacher], dataset: Dataset, count: int
) -> steps.Recipe:
    """All that is static in a step on epochs of `count` examples: network, plugs, augmentation,
    mixing, optimizer.
    """
    per_epoch, total = durations(c, count)
    init, apply = make_network(spec)
    dtype = spec_dtype(spec)
    schedule, transformation = _optimizer(c.optimizer, per_epoch, total)
    mixer = plug("mixing", c.mixing.name).make(**c.mixing[c.mixing.name])
    build = Build(
        num_classes=spec["num_classes"],
        num_examples=dataset.train.num_examples,
        rows=mesh.padded_rows(dataset.train.num_examples),
        steps_per_epoch=per_epoch,
        total_steps=total,
        mix_prob=mixer.probability,
        criterion=plug("losses", c.losses.name).make(**c.losses[c.losses.name]),
        init=init,
        apply=apply,
        optimizer=transformation,
        outputs=None,
        teachers=(),
        part=None,
        tables=tuple(dataset.train.given),
    )
    checks.pixels(c.augment, dataset.train.shape)
    image = jax.ShapeDtypeStruct((c.data.batch_size, *dataset.train.shape), dtype)
    build, auxiliaries = _with_views(c, build, teachers, image)
    source = build.part(c.labels.name)
    _check_rows(source, auxiliaries, build)
    return steps.Recipe(
        build=build,
        source=source,
        auxiliaries=auxiliaries,
        teachers=tuple(teacher.apply for teacher in teachers),
        augment=_augment(c.augment, spec),
        mixer=mixer,
        schedule=schedule,
        accumulate=c.optimizer.accumulate,
        ema=c.optimizer.ema,
        dtype=dtype,
        skip=c.train.on_nonfinite == "skip_step",
    )


def _augment(settings: ConfigDict, spec: dict) -> Callable:
    """(keys[B], image[B, H, W, C]) -> image, of `config.augment`."""
    pixels = augment.Pixels(tuple(spec["shape"]), tuple(spec["mean"]))
    members = [plug("augment", name).make(pixels, **settings[name]) for name in settings.names]
    return augment.make(
        pixels.mean, members, pad=settings.pad, flip=settings.flip, cutout=settings.cutout
    )


def _optimizer(settings: ConfigDict, per_epoch: int, total: int):
    """(schedule over updates, optax transformation) of `config.optimizer`."""
    schedule = optimizer.make_schedule(
        settings.learning_rate,
        schedule=settings.schedule,
        boundaries=settings.boundaries,
        factor=settings.factor,
        warmup_epochs=settings.warmup_epochs,
        updates_per_epoch=per_epoch / settings.accumulate,
        total_updates=max(1, total // settings.accumulate),
    )
    transformation = optimizer.make(
        schedule,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        decay=settings.decay,
        clip_norm=settings.clip_norm,
        accumulate=settings.accumulate,
    )
    return schedule, transformation


def _with_views(c: ConfigDict, build: Build, teachers, image) -> tuple[Build, dict[str, Auxiliary]]:
    """The build with abstract outputs, and the auxiliaries, which decide how many views there are."""
    variables = jax.eval_shape(build.init, jax.eval_shape(lambda: jax.random.key(0)))

    def student(variables, image):
        return build.apply(variables, image, train=False)

    def seeing(views):
        """The build and the auxiliaries of batches of so many views."""
        shown = jax.ShapeDtypeStruct((views, *image.shape), image.dtype)
        outputs = _abstract_outputs(student, variables, shown)
        of_teachers = []
        for teacher in teachers:
            apply = lambda variables, image, teacher=teacher: (teacher.apply(variables, image), ())  # noqa: E731
            of_teachers.append(_abstract_outputs(apply, teacher.variables, shown))

        def part(name):
            return plug("labels", name).make(complete, **c.labels[name])

        complete = build._replace(outputs=outputs, teachers=tuple(of_teachers), part=part)
        auxiliaries = {
            name: plug("auxiliary", name).make(complete, **c.auxiliary[name])
            for name in c.auxiliary.names
        }
        return complete, auxiliaries

    # How many views there are is known from the auxiliaries, which are made from a build of one
    # view for that.
    complete, auxiliaries = seeing(1)
    views = steps.num_views(auxiliaries, image)
    check_group(c.model.norm_group, c.data.batch_size, views)
    return (complete, auxiliaries) if views == 1 else seeing(views)


def _abstract_outputs(apply: Callable, variables: PyTree, image):
    """Shapes of the Outputs [V, B, ...] of a network (variables, image) -> (Outputs, anything) on
    abstract views.
    """

    def passed(variables, image):
        return steps.forward(lambda merged: apply(variables, merged), image)[0]

    return jax.eval_shape(passed, variables, image)


def _check_rows(source, auxiliaries, build: Build) -> None:
    """Every entry called `rows` in a plug's state has the padded number of examples as its first
    axis.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = {
        "labels": jax.eval_shape(lambda key: source.init(key, build.init(key)), key),
        "auxiliary": {
            name: jax.eval_shape(auxiliary.init, key)[1] for name, auxiliary in auxiliaries.items()
        },
    }
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        if mesh.is_rows(path) and leaf.shape[:1] != (build.rows,):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(
                f"{name} is {list(leaf.shape)}; allowed is build.rows = {build.rows} as its first axis"
            )
