"""Settings that nobody would write: each is refused in one sentence that names the field, or makes
a step.

More examples: LDL_FUZZ=20 python -m pytest tests/test_fuzz.py -m "slow or nightly" takes twenty
times as many.
"""

import contextlib
import os
import re
from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ldl_jax import config, mesh
from ldl_jax.data import order
from ldl_jax.errors import Usage
from ldl_jax.main import parse
from ldl_jax.main import settings as read_settings
from ldl_jax.training import experiment as build
from ldl_jax.training import schedule as plan
from ldl_jax.training import steps

TIMES = int(os.environ.get("LDL_FUZZ", "1"))
FILE = "configs/digits_online.py"
DEFAULTS = config.flatten(config.default())
NAMES = {
    "data.name": config.plugs("data"),
    "model.name": (*config.plugs("models"), "tests.tiny", "no.module", "..", "os.path"),
    "labels.name": config.plugs("labels"), "losses.name": config.plugs("losses"), "mixing.name": config.plugs("mixing"),
    "model.dtype": ("float32", "bfloat16", "float64"), "train.on_nonfinite": ("stop", "skip_step"),
    "optimizer.schedule": ("piecewise", "cosine", "constant", "cosine_restarts", "onecycle"),
    "optimizer.name": ("sgd", "adamw", "muon", "sam", "schedule_free", "lbfgs"), "eval.weights": ("raw", "ema"),
    "optimizer.decay": ("all", "kernels"), "labels.online.write": ("clean", "unmixed"),
}  # fmt: skip
WHOLE = st.sampled_from(
    [
        -1,
        0,
        1,
        2,
        3,
        7,
        8,
        64,
        100,
        2**31 - 1,
        2**31,
        2**40,
        10**9,
        10**30,
        -(2**40),
        -(2**63),
        2**64,
    ]
)
REAL = st.one_of(
    st.sampled_from(
        [
            0.0,
            -0.0,
            0.5,
            1.0,
            2.0,
            -1.0,
            1e-300,
            1e-30,
            1e30,
            1e300,
            1.7e308,
            np.nan,
            np.inf,
            -np.inf,
        ]
    ),
    st.floats(0, 4),
)
TEXT = st.sampled_from(
    [
        "",
        "x",
        "None",
        "a\0b",
        "../..",
        "/",
        "é",
        "hard",
        "online",
        "float32",
        "a" * 5000,
        "a'b",
        "\n",
    ]
)
LISTS = st.lists(
    st.one_of(REAL, WHOLE, TEXT, st.sampled_from([*config.plugs("labels"), "jsd", "hint"])),
    max_size=3,
)
ANY = st.one_of(st.none(), st.booleans(), WHOLE, REAL, TEXT, LISTS.map(tuple))


def likely(field):
    """Values of the field's own type, most of them in range."""
    usual = DEFAULTS[field]
    if field in NAMES:
        return st.sampled_from(NAMES[field])
    if field == "auxiliary.names":
        return st.lists(st.sampled_from(["jsd", "hint"]), max_size=2).map(tuple)
    if isinstance(usual, list):
        return LISTS.map(tuple)
    if usual is None:
        return st.one_of(st.none(), WHOLE)
    return {bool: st.booleans(), int: WHOLE, float: REAL, str: TEXT}[type(usual)]


@st.composite
def changes(draw, wild=0.3):
    """A few fields and what they are set to; among them one that is not there."""
    fields = draw(st.lists(st.sampled_from(sorted(DEFAULTS)), min_size=1, max_size=5, unique=True))
    made = {}
    for field in fields:
        made[field] = draw(ANY if draw(st.floats(0, 1)) < wild else likely(field))
    if draw(st.integers(0, 19)) == 0:
        made[
            draw(
                st.sampled_from(
                    ["sed", "labels.onlin.alpha", "model", "labels.online", "seed.x", "", "."]
                )
            )
        ] = draw(ANY)
    return made


def often(count):
    return settings(
        max_examples=count * TIMES, derandomize=TIMES == 1, deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


@contextlib.contextmanager
def one_sentence(made):
    """Let through what is refused as it should be: one line, which names one of the fields or its
    section.
    """
    try:
        yield
    except (ValueError, Usage) as error:
        said = str(error)
        if type(error) not in (ValueError, Usage):  # as of a text that is no UTF-8
            raise
        assert "\n" not in said, said
        assert len(said) < 12_000, said
        parts = {part for field in made for part in field.split(".")} | {"--config"}
        assert any(re.search(rf"{re.escape(part)}", said) for part in parts), (said, made)


def checked(made):
    """The config with these changes, as the config file of a user's would make them, checked."""
    c = config.read(FILE)
    for field, value in made.items():
        try:
            c.update_from_flattened_dict({field: value})
        except (
            TypeError,
            KeyError,
            AttributeError,
            ValueError,
            OverflowError,
        ):  # by ml_collections, in the user's line
            return None
    config.check(c)
    return c


def by_flags(made):
    with one_sentence(made):
        parsed = parse(
            [f"--config={FILE}", *(f"--config.{field}={value}" for field, value in made.items())]
        )
        config.check(read_settings(*parsed)[0])


def by_file(made):
    with one_sentence(made):
        checked(made)


test_flags = often(20)(given(changes())(by_flags))
test_a_config_file = often(50)(given(changes())(by_file))
test_many_flags = pytest.mark.nightly(often(300)(given(changes())(by_flags)))
test_many_config_files = pytest.mark.nightly(often(700)(given(changes())(by_file)))


def small(made):
    """The changes on a network that is quick to trace, where they name no other."""
    return {"model.name": "tests.tiny", "data.batch_size": 64, "labels.name": "hard", **made}


def built(made):
    c = checked(small(made))
    return c and build.make_experiment(c, jax.devices()[:1])


def assert_shapes_kept(made):
    """The shapes of a step: nothing is computed, and nothing held."""
    experiment = built(made)
    if experiment is None:
        return None
    plan.make_plan(experiment)
    state = plan.abstract_state(experiment)
    train, key = experiment.dataset.train, jax.eval_shape(lambda: jax.random.key(0))
    images = jax.ShapeDtypeStruct((train.num_examples, *train.shape), "uint8")
    labels = jax.ShapeDtypeStruct((train.num_examples,), "int32")
    data = {"key": key, "given": (), "images": images, "labels": labels}
    index = jax.ShapeDtypeStruct((experiment.config.data.batch_size,), "int32")
    after, scalars = jax.eval_shape(
        steps.make_train_step(experiment.recipe), state, experiment.frozen, data, {"index": index}
    )
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert scalars["loss"].shape == ()
    return experiment


@pytest.mark.slow
@often(50)
@given(changes(wild=0.05))
def test_shapes_of_a_step(made):
    with one_sentence(small(made)):
        assert_shapes_kept(made)


@pytest.mark.slow
@often(10)
@given(changes(wild=0.02))
def test_a_step(made):
    with one_sentence(small(made)):
        experiment = assert_shapes_kept({**made, "model.name": "tests.tiny"})
        if experiment is None:
            return
        train, c = experiment.dataset.train, experiment.config
        data = {
            "key": jax.random.key(c.seed),
            "given": (),
            "images": train.images,
            "labels": train.labels,
        }
        if train.images is None:
            return
        state = jax.jit(partial(steps.init_state, experiment.recipe))(data["key"])
        first = order.batches(
            experiment.train, seed=c.seed, batch_size=c.data.batch_size,
            steps_per_epoch=experiment.recipe.build.steps_per_epoch, first_step=0,
        )  # fmt: skip
        batch = {"index": next(first)[1]}
        step = jax.jit(steps.make_train_step(experiment.recipe))
        after, _ = step(state, mesh.put_replicated(experiment.frozen, experiment.mesh), data, batch)
        assert int(after.step) == 1
