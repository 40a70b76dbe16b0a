"""A network of two layers, forty images, and the step around them: what the tests of a step share."""

import importlib
from functools import lru_cache, partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldl_jax import config, mesh, optimizer
from ldl_jax.augment import base as augment
from ldl_jax.config import options
from ldl_jax.contract import Batch, Build, Forward, Outputs, Stored
from ldl_jax.mixing import base as mixing
from ldl_jax.models.base import Network, conv, head, norm, normalise, param_dtype, pool
from ldl_jax.training import steps

K, N, B, SHAPE = 5, 40, 16, (8, 8, 3)
PER_EPOCH, TOTAL = 2, 6  # 32 of the 40 examples come in an epoch: some rows are skipped
STORED = Stored(views=2, seed=5)  # distributions of augmented views
DTYPES = {"float32": jnp.float32, "float64": jnp.float64, "bfloat16": jnp.bfloat16}
MIXINGS = ("none", "mixup", "cutmix", "ricap")
# Auxiliaries that mix images themselves, so that the run may not.
MIXES = ("regmixup", "mixupmp", "rankmixup_mrl", "rankmixup_mndcg")


class Tiny(nn.Module):
    """One convolution with BatchNorm and a head; the convolution is handed out as two stages."""

    network: Network

    @nn.compact
    def __call__(self, image, train: bool):
        before = norm(self.network, train, name="bn")(
            conv(self.network, 4, 3, name="conv")(normalise(image, self.network))
        )
        embedding = pool(nn.relu(before), self.network)
        return Outputs(head(self.network, embedding), (before, before), embedding)


class Case(NamedTuple):
    """What a test's step is made of; hashable, so that a compiled step is shared by all tests that
    ask for it.
    """

    labels: str = "hard"
    mixing: str = "none"
    dtype: str = "float32"
    auxiliaries: tuple = ()
    options: tuple = ()  # (name, value) pairs for the label source
    mix_options: tuple = ()
    augment: tuple = ()
    criterion: str = "cross_entropy"
    accumulate: int = 1
    ema: float = 0.0
    num_classes: int = K
    examples: int = N
    batch: int = B
    norm_group: int = 0
    skip: bool = False
    network: str = "tiny"
    optimizer: str = "sgd"


def slow_but(quick, values, slow=None):
    """Parameters of a test, those outside `quick` marked as slow; in the default suite each kind is
    met once.

    With `slow`, only its members are marked so, and what is in neither is for the nightly run.
    """
    marked = []
    for value in values:
        value = value if isinstance(value, tuple) else (value,)
        marks = ()
        if value not in quick and value[0] not in quick:
            known = slow is None or value in slow or value[0] in slow
            marks = pytest.mark.slow if known else pytest.mark.nightly
        marked.append(pytest.param(*value, marks=marks))
    return marked


def plug(folder, name):
    return importlib.import_module(f"ldl_jax.{folder}.{name}")


def network(dtype, num_classes=K, norm_group=0, name="tiny"):
    """(init, apply) of the tiny or of the linear network, as `contract.Build` has them."""
    if name == "linear":
        return linear(param_dtype(DTYPES[dtype]), DTYPES[dtype], num_classes)
    module = Tiny(Network(num_classes, (0.5,) * 3, (0.25,) * 3, DTYPES[dtype], norm_group))
    kind = param_dtype(DTYPES[dtype])

    def init(key):
        made = module.init(key, jnp.zeros((1, *SHAPE), kind), False)
        return jax.tree.map(
            lambda leaf: leaf.astype(kind), {n: made[n] for n in ("params", "batch_stats")}
        )

    def apply(variables, image, *, train, key=None):
        del key
        if not train:
            return module.apply(variables, image, False), variables["batch_stats"]
        outputs, changed = module.apply(variables, image, True, mutable=["batch_stats"])
        return outputs, changed["batch_stats"]

    return init, apply


def linear(kind, inside, num_classes):
    """(init, apply) of a network whose step is compiled in no time: two products, and the mean of
    the batch taken off.

    The mean is also kept in `batch_stats`. `kind` is the type of the parameters, `inside` that of
    the maps.
    """

    def init(key):
        first, second = jax.random.split(key)
        params = {"maps": jax.random.normal(first, (SHAPE[2], 4), kind)}
        kernel = 0.1 * jax.random.normal(second, (4, num_classes), kind)
        params["fc"] = {"kernel": kernel, "bias": jnp.zeros(num_classes, kind)}
        return {"params": params, "batch_stats": {"mean": jnp.zeros(SHAPE[2], kind)}}

    def apply(variables, image, *, train, key=None):
        del key
        kept = variables["batch_stats"]["mean"]
        mean = image.mean((0, 1, 2)) if train else kept
        maps = ((image - mean) @ variables["params"]["maps"]).astype(inside)
        embedding = maps.astype(kind)[:, ::2, ::2].max((1, 2))
        last = variables["params"]["fc"]
        logits = embedding @ last["kernel"] + last["bias"]
        return Outputs(logits, (maps, maps), embedding), {"mean": 0.9 * kept + 0.1 * mean}

    return init, apply


def options_of(file):
    return {option.name: option.value for option in options.read_options(file)[1]}


def source_options(name, mix_prob):
    """Options where a source's defaults are refused: memories under mixing that leaves no example
    alone.
    """
    return (
        {"write": "clean"} if mix_prob >= 1 and "write" in options_of(f"labels/{name}.py") else {}
    )


def make_build(case, init, apply, mix_prob, made_optimizer, views=1):
    variables = jax.eval_shape(init, jax.random.key(0))
    shown = jax.ShapeDtypeStruct((views, case.batch, *SHAPE), param_dtype(DTYPES[case.dtype]))
    look = jax.eval_shape(
        lambda v, x: steps.forward(partial(apply, v, train=False), x)[0], variables, shown
    )
    build = Build(
        num_classes=case.num_classes, num_examples=case.examples, rows=mesh.padded_rows(case.examples),
        steps_per_epoch=PER_EPOCH, total_steps=TOTAL, mix_prob=mix_prob,
        criterion=plug("losses", case.criterion).make(), init=init, apply=apply, optimizer=made_optimizer,
        outputs=look, teachers=(look, look), part=None, tables=("table",), stored=STORED,
    )  # fmt: skip
    return build._replace(
        part=lambda name: plug("labels", name).make(build, **source_options(name, mix_prob))
    )  # parts of a blend have no blend of their own


def sgd(accumulate=1, learning_rate=0.1):
    schedule = optimizer.make_schedule(
        learning_rate, schedule="cosine", boundaries=(), factor=0.1, warmup_epochs=1.0,
        updates_per_epoch=PER_EPOCH / accumulate, total_updates=TOTAL // accumulate,
    )  # fmt: skip
    made = optimizer.make(
        schedule,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        decay="all",
        clip_norm=0.0,
        accumulate=accumulate,
    )
    return schedule, made


def named(name, accumulate=1, learning_rate=0.1):
    """(schedule, transformation) of an optimizer by its name in the config, with its defaults."""
    settings = config.default().optimizer
    settings.name, settings.accumulate = name, accumulate
    settings.learning_rate, settings.schedule, settings.nesterov = learning_rate, "cosine", True
    settings.warmup_epochs = 1.0
    return optimizer.from_settings(settings, PER_EPOCH, TOTAL)


@lru_cache(None)
def recipe(case):
    """The recipe of a case, made as `build` makes one, with two frozen networks."""
    init, apply = network(case.dtype, case.num_classes, case.norm_group, case.network)
    schedule, made_optimizer = sgd(case.accumulate)
    if case.optimizer != "sgd":
        schedule, made_optimizer = named(case.optimizer, case.accumulate)
    mixer = plug("mixing", case.mixing).make(**dict(case.mix_options))
    build = make_build(case, init, apply, mixer.probability, made_optimizer)
    auxiliaries = {name: plug("auxiliary", name).make(build) for name in case.auxiliaries}
    views = steps.num_views(auxiliaries, jax.ShapeDtypeStruct((case.batch, *SHAPE), jnp.float32))
    if views > 1:
        build = make_build(case, init, apply, mixer.probability, made_optimizer, views)
        auxiliaries = {name: plug("auxiliary", name).make(build) for name in case.auxiliaries}
    options = source_options(case.labels, mixer.probability) | dict(case.options)
    source = plug("labels", case.labels).make(build, **options)
    look = lambda variables, image: apply(variables, image, train=False)[0]  # noqa: E731
    return steps.Recipe(
        build, source, auxiliaries, (look, look), augment.make((0.5,) * 3, **dict(case.augment)), mixer, schedule,
        case.accumulate, case.ema, param_dtype(DTYPES[case.dtype]), case.skip,
    )  # fmt: skip


@lru_cache(None)
def frozen(dtype="float32", num_classes=K, name="tiny"):
    """Variables of two frozen networks."""
    init, _ = network(dtype, num_classes, name=name)
    return tuple(init(jax.random.key(seed)) for seed in (101, 102))


def stored_rows(probs):
    """The two most probable classes of distributions [..., K], as a file has them."""
    classes = np.argsort(-probs, -1)[..., :2]
    kept = np.take_along_axis(probs, classes, -1)
    return {"stored_classes": classes.astype(np.uint8), "stored_probs": kept.astype(np.float16)}


@lru_cache(None)
def data():
    """Forty resident images with a distribution each, and the seed's key."""
    draw = np.random.default_rng(0)
    images, labels = (
        draw.integers(0, 256, (N, *SHAPE)).astype(np.uint8),
        draw.integers(0, K, N).astype(np.int32),
    )
    given = {"table": draw.dirichlet(np.ones(K), N).astype(np.float32)}
    given |= stored_rows(draw.dirichlet(np.ones(K), (N, STORED.views)))
    return {"key": jax.random.key(3), "images": images, "labels": labels, "given": given}


def resident(step):
    """The batch of a step by its index alone; no example comes twice in an epoch."""
    epoch, place = divmod(step, PER_EPOCH)
    order = np.random.default_rng([7, epoch]).permutation(N)
    return {"index": order[place * B : (place + 1) * B].astype(np.int32)}


def streamed(step, masked=()):
    """The same batch with its images; `masked` slots count for nothing and hold a copy of slot 0."""
    index = resident(step)["index"]
    image, label, mask = data()["images"][index], data()["labels"][index], np.ones(B, np.float32)
    image[list(masked)], mask[list(masked)] = image[0], 0
    return {"index": index, "image": image, "label": label, "mask": mask}


def mixed(step, masked=()):
    """A streamed batch that comes mixed, every second image with its neighbour: memories meet both
    kinds.
    """
    batch = streamed(step, masked)
    own, clean = np.where(np.arange(B) % 2, 0.7, 1.0), batch["image"] / 255
    parts = own[:, None, None, None]
    image = parts * clean + (1 - parts) * np.roll(clean, 1, axis=0)
    mixture = {"partner": np.asarray(mixing.partners(B, 2)), "share": np.stack([own, 1 - own], 1)}
    return batch | mixture | {"image": image, "clean": clean}


@lru_cache(None)
def fresh(case):
    """The state at step 0."""
    return steps.init_state(recipe(case), jax.random.key(3))


def arguments(case):
    """Abstract (state, frozen, data, batch) of a case, of any size: nothing is allocated."""
    struct, made = jax.ShapeDtypeStruct, recipe(case)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(partial(steps.init_state, made), key)
    variables = jax.eval_shape(made.build.init, key)
    images = struct((case.examples, *SHAPE), jnp.uint8)
    labels = struct((case.examples,), jnp.int32)
    given = {"table": struct((case.examples, case.num_classes), jnp.float32)}
    rows = (case.examples, STORED.views, 2)
    given |= {"stored_classes": struct(rows, jnp.uint8), "stored_probs": struct(rows, jnp.float16)}
    table = {"key": key, "images": images, "labels": labels, "given": given}
    return state, (variables, variables), table, {"index": struct((case.batch,), jnp.int32)}


def watched_step(case):
    """A step that also hands out its prepared batch, its targets after mixing and the outputs of
    its network.
    """
    made = recipe(case)

    def watched(state, frozen, data, batch):
        shown = []

        def update(labels, batch, forward):
            shown.append((batch, forward.targets, forward.outputs))
            return made.source.update(labels, batch, forward)

        step = steps.make_train_step(made._replace(source=made.source._replace(update=update)))
        return step(state, frozen, data, batch), shown[0]

    return watched


@lru_cache(None)
def observed(case):
    """The jitted step of a case that shows what it works on."""
    return jax.jit(watched_step(case))


def program(case, step, devices):
    """(the state at step 0 on so many devices, (state, batch) -> what the watched `step` returns,
    the jitted step).
    """
    there = mesh.make_mesh(jax.devices()[:devices])
    shardings = mesh.state_shardings(fresh(case), there)
    state = jax.device_put(jax.tree.map(np.asarray, fresh(case)), shardings)
    jitted = jax.jit(step, out_shardings=((shardings, mesh.replicated(there)), None))
    fixed = mesh.put_replicated(frozen(case.dtype, case.num_classes, case.network), there)
    table = mesh.put_replicated(data(), there)
    return (
        state,
        lambda state, batch: jitted(state, fixed, table, mesh.to_global(batch, there)),
        jitted,
    )


def train(case, count, devices=1, make=resident):
    """(state, scalars of each step) after `count` steps from the initial state, on so many devices."""
    there = mesh.make_mesh(jax.devices()[:devices])
    shardings = mesh.state_shardings(fresh(case), there)
    # through the host: the state is donated
    state = jax.device_put(jax.tree.map(np.asarray, fresh(case)), shardings)
    step = jax.jit(
        steps.make_train_step(recipe(case)),
        donate_argnums=0,
        out_shardings=(shardings, mesh.replicated(there)),
    )
    fixed = mesh.put_replicated(frozen(case.dtype, name=case.network), there)
    table, history = mesh.put_replicated(data(), there), []
    for number in range(count):
        state, scalars = step(state, fixed, table, mesh.to_global(make(number), there))
        history.append(jax.device_get(jax.block_until_ready(scalars)))
    return jax.device_get(state), history


def plain_build(**changes):
    """A build for members that are tested without a step: float64, the linear network, no mixing."""
    init, apply = network("float64", name="linear")
    return make_build(Case(dtype="float64"), init, apply, 0.0, sgd()[1])._replace(**changes)


def plain_batch(label, *, index=None, share=None, mask=None, step=0, teacher=()):
    """A batch without images: what a label source reads."""
    label = jnp.asarray(label, jnp.int32)
    size = len(label)
    share = jnp.ones((size, 1)) if share is None else jnp.asarray(share)
    return Batch(
        image=None, clean=None, index=jnp.arange(size) if index is None else jnp.asarray(index), label=label, given=(),
        partner=mixing.partners(size, share.shape[1]), share=share, mask=jnp.ones(size) if mask is None else mask,
        teacher=tuple(says(logits) for logits in teacher), step=jnp.asarray(step, jnp.int32), key=jax.random.key(0),
    )  # fmt: skip


def says(logits):
    """Outputs of one view with these logits [B, K], and an embedding as wide as the linear network's."""
    logits = jnp.asarray(logits)
    return Outputs(logits[None], (), jnp.ones((1, len(logits), 4), logits.dtype))


def after(logits, *, clean=None, params=None, batch_stats=None, updated=True):
    """What `update` gets, from logits [B, K]."""
    return Forward(says(logits), (), clean, params, batch_stats, jnp.asarray(updated))


def softmax(logits):
    """By numpy, in float64."""
    power = np.exp(np.asarray(logits, np.float64) - np.max(logits, -1, keepdims=True))
    return power / power.sum(-1, keepdims=True)


def float_leaves(tree):
    """The floating leaves that have a type of their own: Python numbers take on that of what they
    meet.
    """
    leaves = jax.tree.leaves(tree)
    return [
        leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating) and not leaf.weak_type
    ]
