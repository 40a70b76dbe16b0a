"""An experiment: the data, network, plugs and devices that a config stands for."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from ldl_jax import config, files, mesh, optimizer, workdir
from ldl_jax.augment import base as augment
from ldl_jax.auxiliary.base import check_views, timed
from ldl_jax.config import checks, optimizers
from ldl_jax.config.options import make_plug, options_of, plug
from ldl_jax.config.trust import ASK
from ldl_jax.contract import Auxiliary, Build, LabelSource, PyTree, Stored
from ldl_jax.data import stored_rows
from ldl_jax.data.base import Dataset
from ldl_jax.data.loading import make_dataset, positions
from ldl_jax.evaluation.evaluation import OwnMetric, streamed_metrics
from ldl_jax.evaluation.load import Teacher, load_teacher
from ldl_jax.metrics.base import Metric
from ldl_jax.mixing.base import Mixer
from ldl_jax.models.base import check_group
from ldl_jax.models.spec import head_axes, make_network, network_spec, spec_dtype
from ldl_jax.report import recorded
from ldl_jax.training import contracts, initial, steps, updates

# Fields of config.data that name files with labels.
TABLES = ("labels_file", "train_table", "test_table", "train_store")


class Experiment(NamedTuple):
    """Everything that a run consists of, except its state."""

    config: ConfigDict
    dataset: Dataset
    # positions in published order: i64[n] of the training examples, i64[h] of the holdout
    train: np.ndarray
    holdout: np.ndarray
    test: np.ndarray  # i64[t]: positions in the test split of the examples evaluated as test
    spec: dict[str, Any]  # network spec: see `models.spec`
    mesh: Mesh
    recipe: steps.Recipe
    metrics: dict[str, Metric]
    frozen: tuple[PyTree, ...]  # the teachers' variables, on the host
    teachers: dict[str, str]  # {run directory: SHA-256 of the weights used}
    # {'<field> = <path>': SHA-256} of images, teachers, labels and tables: see `_inputs`
    inputs: dict[str, str]
    teacher_specs: tuple[dict | None, ...] = ()  # network specs of the teachers
    start: PyTree = None  # variables to start from, on the host; without a head that is drawn anew
    notes: tuple[str, ...] = ()  # what a run says at its start
    warnings: tuple[str, ...] = ()


def make_experiment(
    c: ConfigDict, devices=None, *, dataset: Dataset | None = None, teachers=(), consent=ASK
) -> Experiment:
    """Build the experiment of a config. Raises ValueError if something does not fit.

    devices: a list; None for all; or an abstract mesh to plan with. dataset: used instead of the
    config's. teachers: functions of the network spec that make a `Teacher`, in addition to the
    config's. consent: the user's `Consent` to modules that the run directories name.
    """
    config.check(config.add_options(c))
    recorded.read(c.eval.baseline)  # better a fault now than at the end
    consent = consent.to(c)
    dataset = make_dataset(c.data) if dataset is None else dataset
    train, holdout, test = positions(c.data, dataset)
    device_mesh = devices if isinstance(devices, AbstractMesh) else mesh.make_mesh(devices)
    # Raises if the devices cannot share a batch; better here than after the teachers are loaded.
    mesh.local_slice(c.data.batch_size, device_mesh)
    source = initial.load(c.model, consent)
    spec = network_spec(c, dataset, *initial.normalisation(c.model, dataset, source))
    start, notes = (None, ()) if source is None else initial.fit(source, spec)
    notes = (*notes, *filter(None, [optimizers.note(c.optimizer)]))

    # If a teacher is missing, the error shows the command that trains it.
    made_from = f"{c.teachers_from} --config.data.root={c.data.root}" if c.teachers_from else ""
    loaded = [load_teacher(path, spec, made_from, consent) for path in c.teachers]
    digests = dict(zip(map(str, c.teachers), (teacher.digest for teacher in loaded), strict=True))
    all_teachers = loaded + [make(spec) for make in teachers]

    dataset, stored = stored_rows.attached(dataset, c, spec)
    recipe = make_recipe(c, spec, all_teachers, dataset, len(train), stored)
    metrics = streamed_metrics(spec["num_classes"], own_metrics(c))
    contracts.check(c, recipe, dataset.train, metrics)
    return Experiment(
        config=c,
        dataset=dataset,
        train=train,
        holdout=holdout,
        test=test,
        spec=spec,
        mesh=device_mesh,
        recipe=recipe,
        metrics=metrics,
        frozen=tuple(teacher.variables for teacher in all_teachers),
        teachers=digests,
        inputs=_inputs(c, source, loaded, dataset.digest),
        teacher_specs=tuple(teacher.spec for teacher in all_teachers),
        start=start,
        notes=notes,
        warnings=tuple(teacher.note for teacher in all_teachers if teacher.note),
    )


def own_metrics(c: ConfigDict) -> tuple[OwnMetric, ...]:
    """The metrics of the user's own that a config names, with their options."""
    return tuple(
        OwnMetric(name, tuple(options_of(c.eval, name).items())) for name in c.eval.metrics
    )


def digest(experiment: Experiment, but: tuple[str, ...] = ()) -> str:
    """SHA-256 of everything that a run's numbers depend on: settings, data and network.

    but: fields to leave out; with 'teachers', also the contents of teachers and tables. Equal on
    all processes.
    """
    left_out = (*config.MAY_DIFFER, *but)
    settings = {}
    for name, value in config.in_use(experiment.config).items():
        if name not in left_out:
            settings[name] = value
    # Contents only, without paths: a file may lie elsewhere on another machine.
    inputs = [] if "teachers" in but else sorted(experiment.inputs.values())
    return files.digest((settings, experiment.spec, experiment.dataset.digest, inputs))


def _inputs(
    c: ConfigDict, source: initial.Source | None, teachers: list[Teacher], images: str
) -> dict[str, str]:
    """{'<field> = <path>': SHA-256} of everything that a run reads.

    Of a folder, the digest covers the names of its images; of a file, its contents.
    """
    inputs = {}
    if images:
        root = "arrays in memory" if c.data.name == "in_memory" else c.data.root
        inputs[f"{workdir.IMAGES} = {root}"] = images
    if source is not None:
        inputs[f"{initial.FIELD} = {source.path}"] = source.digest
    for number, (path, teacher) in enumerate(zip(c.teachers, teachers, strict=True)):
        inputs[f"teachers[{number}] = {path}"] = teacher.digest
    for field in TABLES:
        if c.data[field]:
            inputs[f"data.{field} = {c.data[field]}"] = files.sha256(c.data[field])
    return inputs


def durations(c: ConfigDict, count: int) -> tuple[int, int]:
    """(steps per epoch, total steps) of a run on `count` training examples.

    Raises ValueError if an epoch has less than one batch or update.
    """
    batch_size = c.data.batch_size
    if batch_size > count:
        raise ValueError(
            f"config.data.batch_size must be at most {count}, the number of training examples; got {batch_size}"
        )
    # Whole updates only, so that an epoch never ends amid accumulated gradients.
    accumulate = c.optimizer.accumulate
    batches = count // batch_size
    per_epoch = batches // accumulate * accumulate
    if not per_epoch:
        raise ValueError(
            f"config.optimizer.accumulate must be at most {batches}, the number of steps per epoch; got {accumulate}"
        )
    total = round(c.train.epochs * per_epoch) if c.train.max_steps is None else c.train.max_steps
    if not 1 <= total <= checks.COUNTER:
        raise ValueError(
            f"config.train.epochs must give between 1 and {checks.COUNTER} steps; {c.train.epochs} gives {total}"
        )
    return per_epoch, total


def make_recipe(
    c: ConfigDict,
    spec: dict,
    teachers: list[Teacher],
    dataset: Dataset,
    count: int,
    stored: Stored | None = None,
) -> steps.Recipe:
    """The static parts of a step: network, plugs, augmentation, mixing and optimizer.

    count: number of training examples.
    """
    per_epoch, total = durations(c, count)
    init, apply = make_network(spec)
    dtype = spec_dtype(spec)
    schedule, transformation = optimizer.from_settings(c.optimizer, per_epoch, total)
    mixer = make_plug("mixing", c.mixing.name, Mixer, **options_of(c.mixing, c.mixing.name))
    criterion = make_plug("losses", c.losses.name, None, **options_of(c.losses, c.losses.name))
    # Outputs, teachers and parts are filled in by `_with_views`, which needs the rest of the build.
    build = Build(
        num_classes=spec["num_classes"],
        num_examples=dataset.train.num_examples,
        rows=mesh.padded_rows(dataset.train.num_examples),
        steps_per_epoch=per_epoch,
        total_steps=total,
        mix_prob=mixer.probability,
        criterion=criterion,
        init=init,
        apply=apply,
        optimizer=transformation,
        outputs=None,
        teachers=(),
        part=None,
        tables=tuple(dataset.train.given),
        stored=stored,
    )
    checks.pixels(c.augment, dataset.train.shape)
    image = jax.ShapeDtypeStruct((c.data.batch_size, *dataset.train.shape), dtype)
    build, auxiliaries = _with_views(c, build, teachers, image)
    source = build.part(c.labels.name)
    contracts.check_rows(source, auxiliaries, build)
    return steps.Recipe(
        build=build,
        source=source,
        auxiliaries=auxiliaries,
        teachers=tuple(teacher.apply for teacher in teachers),
        augment=augmentation(c.augment, spec),
        mixer=mixer,
        schedule=schedule,
        accumulate=c.optimizer.accumulate,
        ema=c.optimizer.ema,
        dtype=dtype,
        skip=c.train.on_nonfinite == "skip_step",
        body=_body(c, spec, per_epoch),
    )


def _body(c: ConfigDict, spec: dict, per_epoch: int) -> updates.Body | None:
    """How the model without its head learns; None if it learns like the rest."""
    factor = c.optimizer.body_factor
    if not c.train.freeze_epochs and factor == 1:
        return None
    head = frozenset(head_axes(spec))
    if not head:
        raise ValueError(
            "config.train.freeze_epochs and config.optimizer.body_factor need a head, but no "
            "parameter of the network depends on the number of classes"
        )
    # Whole updates, so that none averages steps of a frozen and of a learning body. A run is shorter
    # than COUNTER, and the step is counted in int32.
    updates_frozen = round(c.train.freeze_epochs * per_epoch / c.optimizer.accumulate)
    freeze_steps = min(updates_frozen * c.optimizer.accumulate, checks.COUNTER)
    return updates.Body(head, freeze_steps, factor)


def augmentation(settings: ConfigDict, spec: dict) -> Callable:
    """The augmentation of `config.augment`: (keys[B], image[B, H, W, C]) -> image."""
    pixels = augment.Pixels(tuple(spec["shape"]), tuple(spec["mean"]))
    members = []
    for name in settings.names:
        member = make_plug("augment", name, None, pixels, **options_of(settings, name))
        if "." in name:
            contracts.check_operation(name, member, pixels.shape)
        members.append(member)
    return augment.make(
        pixels.mean, members, pad=settings.pad, flip=settings.flip, cutout=settings.cutout
    )


def _with_views(c: ConfigDict, build: Build, teachers, image) -> tuple[Build, dict[str, Auxiliary]]:
    """The build with abstract outputs, and the auxiliaries, which determine the number of views."""
    variables = jax.eval_shape(build.init, jax.eval_shape(lambda: jax.random.key(0)))

    def student(variables, image):
        return build.apply(variables, image, train=False)

    def complete(views):
        """The build and the auxiliaries for batches with this number of views."""
        shape = jax.ShapeDtypeStruct((views, *image.shape), image.dtype)
        outputs = _abstract_outputs(student, variables, shape)
        teacher_outputs = []
        for teacher in teachers:

            def apply(variables, image, teacher=teacher):
                return teacher.apply(variables, image), ()

            teacher_outputs.append(_abstract_outputs(apply, teacher.variables, shape))

        # Blended label sources make their parts by name, from the very build that they are given.
        def part(name):
            options = options_of(c.labels, name)
            return make_plug("labels", name, LabelSource, completed, **options)

        completed = build._replace(outputs=outputs, teachers=tuple(teacher_outputs), part=part)
        auxiliaries = {}
        for name in c.auxiliary.names:
            auxiliaries[name] = _auxiliary(name, completed, options_of(c.auxiliary, name))
        return completed, auxiliaries

    # The auxiliaries say how many views there are, but making them needs a build: start with one
    # view.
    completed, auxiliaries = complete(views=1)
    check_views(auxiliaries)
    views = steps.num_views(auxiliaries, image)
    check_group(c.model.norm_group, c.data.batch_size, views)
    return (completed, auxiliaries) if views == 1 else complete(views)


def _auxiliary(name: str, build: Build, options: dict[str, object]) -> Auxiliary:
    """An auxiliary loss, with its own options and those that all auxiliaries have."""
    factory = getattr(plug("auxiliary", name), "make", None)
    declared = inspect.signature(factory).parameters if callable(factory) else ()
    shared = inspect.signature(timed).parameters
    own = dict(options)
    timing = {}
    for option, value in options.items():
        if option in shared:
            timing[option] = value
            if option not in declared:
                del own[option]
    auxiliary = make_plug("auxiliary", name, Auxiliary, build, **own)
    try:
        return timed(auxiliary, **timing)
    except ValueError as error:
        raise ValueError(f"config.auxiliary.{name}.{error}") from None


def _abstract_outputs(apply: Callable, variables: PyTree, image):
    """Abstract Outputs [V, B, ...] of a network on abstract views.

    apply: (variables, image) -> (Outputs, anything).
    """

    def passed(variables, image):
        return steps.forward(lambda merged: apply(variables, merged), image)[0]

    return jax.eval_shape(passed, variables, image)
