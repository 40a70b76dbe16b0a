"""A config's whole build and its train step by shapes alone: nothing is read, trained or compiled."""

import json
from functools import lru_cache, partial

import chex
import jax
import numpy as np

from ldl_jax import config
from ldl_jax.config.options import plug
from ldl_jax.data.base import Dataset, Split
from ldl_jax.evaluation.load import Teacher
from ldl_jax.models.spec import make_network, network_spec
from ldl_jax.training import experiment as build
from ldl_jax.training import steps

PUBLISHED = {  # training and test images, their shape, classes
    "cifar10": (50_000, 10_000, (32, 32, 3), 10), "cifar100": (50_000, 10_000, (32, 32, 3), 100),
    "stl10": (5_000, 8_000, (96, 96, 3), 10), "imagefolder": (100_000, 10_000, (64, 64, 3), 200),
}  # fmt: skip


def blank(name):
    """A data set of the published size and shape without its images: zeros that are never touched
    take no memory.
    """
    train, test, shape, classes = PUBLISHED[name]
    halves = [
        Split(n, shape, np.zeros((n, *shape), np.uint8), np.zeros(n, np.int32))
        for n in (train, test)
    ]
    return Dataset(*halves, tuple(map(str, range(classes))), (0.5,) * 3, (0.25,) * 3)


def sized(settings):
    """The data set of a config, sizes alone; None where it comes along with the package."""
    if settings.name in PUBLISHED:
        return blank(settings.name)
    known = hasattr(plug("data", settings.name), "published")
    return build.make_dataset(settings, published=True) if known else None


def untrained(spec):
    """A frozen network known by its shapes alone."""
    init, apply = make_network(spec)
    return Teacher(
        lambda v, x: apply(v, x, train=False)[0], jax.eval_shape(init, jax.random.key(0)), ""
    )


@lru_cache(None)
def check_network(model: str, shape: tuple, classes: int):
    """The network of a config's `model` block, as JSON, trains a batch of these images: once for
    all that share it.
    """
    c = config.default()
    c.model.update(json.loads(model))
    data = Dataset(Split(0, shape), None, tuple(map(str, range(classes))), (0.5,) * 3, (0.25,) * 3)
    init, apply = make_network(network_spec(c, data, data.mean, data.std))
    variables = jax.eval_shape(init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((2, *shape), "float32")
    outputs, statistics = jax.eval_shape(
        partial(apply, train=True), variables, image, key=jax.random.key(0)
    )
    assert outputs.logits.shape == (2, classes)
    assert outputs.logits.dtype == "float32"
    chex.assert_trees_all_equal_shapes_and_dtypes(statistics, variables["batch_stats"])


def built(c):
    """The experiment of a config, with untrained teachers, data of the published size and the
    smallest network.

    The network that it names is built on its own, since a deep one takes seconds to trace.
    """
    dataset = sized(c.data) or build.make_dataset(c.data)
    # The smallest of each kind: depths are counted where networks are tested.
    c.model.resnet.depth, c.model.cifar_resnet.depth = 14 if c.model.resnet.depth >= 50 else 10, 8
    check_network(c.model.to_json(sort_keys=True), dataset.train.shape, len(dataset.classes))
    c.model.name = "tests.tiny"
    teachers, c.teachers = (untrained,) * len(c.teachers), ()
    return build.make_experiment(c, jax.devices()[:1], dataset=dataset, teachers=teachers)


def check(c):
    """A config builds, and its step keeps the state's shapes."""
    made = built(c)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(lambda k: steps.init_state(made.recipe, k), key)
    train, size, struct = made.dataset.train, made.config.data.batch_size, jax.ShapeDtypeStruct
    data, batch = {"key": key, "given": ()}, {"index": struct((size,), "int32")}
    held, count = (data, train.num_examples) if train.images is not None else (batch, size)
    images, labels = ("images", "labels") if held is data else ("image", "label")
    held |= {images: struct((count, *train.shape), "uint8"), labels: struct((count,), "int32")}
    after, scalars = jax.eval_shape(
        steps.make_train_step(made.recipe), state, made.frozen, data, batch
    )
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert scalars["loss"].shape == ()
