"""Our one step beside PyTorch: every method from the same weights, batches and boxes, step by step
in float64.
"""

import os
from functools import lru_cache, partial

import chex
import frame
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import replay
from frame import Case

from ldl_jax import optimizer
from ldl_jax.labels import blend
from ldl_jax.mixing import base as mixing
from ldl_jax.training import steps

VECTORS = replay.arrays("methods.npz")
START = replay.under("start/", VECTORS)
K, N, B, SIDE, PER_EPOCH = 5, 64, 16, 8, 4
TINY = replay.Problem(K, N, (SIDE, SIDE, 3), "float64")
TEACHER = {"labels.name": "teacher"}
KD = {
    "labels.name": "blend",
    "labels.blend.parts": ("hard", "teacher"),
    "labels.teacher.soft": True,
}
MEAN_TEACHER = {"labels.name": "mean_teacher", "labels.mean_teacher.decay": 0.8}
METHODS = {
    "mixup": {},
    "cutmix": {},
    "ricap": {},
    "smooth": {"labels.name": "smooth", "labels.smooth.epsilon": 0.1},
    "pskd": {"labels.name": "online", "labels.online.alpha": 0.8, "optimizer.nesterov": True},
    "pskd_cutmix": {"labels.name": "online", "labels.online.write": "clean", "optimizer.nesterov": True},
    "ensembling": {
        "labels.name": "online", "labels.online.alpha": 0.5, "labels.online.schedule": "constant",
        "labels.online.momentum": 0.6,
    },
    "ols": {"labels.name": "classwise", "labels.classwise.first": "zeros"},
    "ols_fine": {
        "labels.name": "classwise", "labels.classwise.hard_weight": 1.0, "labels.classwise.weight": 1.0,
        "labels.classwise.freeze": 0.88, "optimizer.learning_rate": 1.0,
    },
    "mean_teacher": MEAN_TEACHER | {"labels.mean_teacher.statistics": "batch"},
    "mean_teacher_averaged": MEAN_TEACHER,
    "kd": KD | {"labels.blend.weights": (0.1, 0.9), "labels.teacher.temperature": 4.0},
    "kd_elementwise": KD | {"labels.blend.weights": (1.0, 0.1 / K), "labels.teacher.temperature": 3.0},
    "teacher_cutmix": TEACHER,
    "two_teachers": TEACHER | {"labels.teacher.weight": 2.0},
    "hint": {"auxiliary.names": ("hint",), "optimizer.learning_rate": 0.02},
    "mutual": {"labels.name": "peer"},
}  # fmt: skip
paste_box, patch_four = jax.jit(mixing.paste_box), jax.jit(mixing.patch_four)
QUICK = ("pskd_cutmix",)
SLOW = ("hint", "kd", "mean_teacher", "mutual", "ricap")
ONE_TEACHER = ("kd", "kd_elementwise", "teacher_cutmix", "hint")


def fed(name, step):
    """The batch of a step, mixed as the twin mixed it where its name says so."""
    index = VECTORS["order"][step]
    image, label = VECTORS["images"][index] / 255, VECTORS["labels"][index]
    batch = {"index": index, "label": label, "image": image}
    if name.endswith("ricap"):
        return four(batch, step)
    if not name.endswith(("mixup", "cutmix")):
        return batch
    partner = np.stack([np.arange(B), VECTORS["partner"][step, 0]], axis=1)
    if name.endswith("mixup"):
        share = np.full(B, VECTORS["share"][step])
        mixed = mixing.blend_images(image[None], share, partner)
    else:
        mixed, share = paste_box(image[None], np.tile(VECTORS["box"][step], (B, 1)), partner)
    share = jnp.stack([share, 1 - share], axis=1)
    return batch | {"image": mixed[0], "clean": image, "partner": partner, "share": share}


def four(batch, step):
    """RICAP's batch, in the order of its first permutation: so that column 0 of the partners is the
    own one.
    """
    first = VECTORS["partner"][step, 0]
    batch = {name: value[first] for name, value in batch.items()}
    # where in the new order each example lies
    partner = np.argsort(first)[VECTORS["partner"][step]].T
    split, offset = (
        np.broadcast_to(VECTORS[name][step], (B, *VECTORS[name][step].shape))
        for name in ("split", "offset")
    )
    mixed, share = patch_four(batch["image"][None], split, offset, partner)
    return batch | {"image": mixed[0], "partner": partner, "share": share}


def given(name, recipe):
    """The twin's start: with its adaptor or its peer, where it has one."""
    if name == "mutual":
        peer = replay.from_torch(replay.under("peer/", VECTORS), recipe.build.init)
        peer |= {"opt_state": recipe.build.optimizer.init(peer["params"])}
        recipe = recipe._replace(source=recipe.source._replace(init=lambda key, variables: peer))
    state = replay.begin(recipe, START)
    if name == "hint":
        regress = replay.under("regress/", VECTORS)
        kernel = regress["conv.weight"].transpose(2, 3, 1, 0)
        hint = {
            "conv": {"kernel": jnp.asarray(kernel, float), "bias": jnp.asarray(regress["conv.bias"], float)},
            "scale": jnp.asarray(regress["bn.weight"], float), "bias": jnp.asarray(regress["bn.bias"], float),
        }  # fmt: skip
        return state.replace(params=state.params | {"auxiliary": {"hint": hint}})
    return state


def ours(variables, count, *, biased=False, names=tuple(START)):
    """Our variables as one vector in the twins' order, running variances as the twin keeps them."""
    found = replay.to_torch(variables, {name: START[name] for name in names})
    for name, value in found.items():
        if name.endswith("running_var") and not biased:
            found[name] = replay.unbiased(name, value, START[name], B * SIDE * SIDE, count)
    return np.concatenate([np.ravel(value) for value in found.values()])


def assert_same(one, other):
    np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def made(name, epochs):
    """(recipe, the teachers' variables) of a method on the tiny problem."""
    width = {"model.cifar_resnet.width": 2, "model.cifar_resnet.stem": 2}
    count = 1 if name in ONE_TEACHER else 2 if name == "two_teachers" else 0
    teachers = [
        replay.teacher(
            dict.fromkeys(width, (3, 2)[number]), TINY, replay.under(f"teacher{number}/", VECTORS)
        )
        for number in range(count)
    ]
    recipe = replay.make(
        width | METHODS[name] | {
            "data.batch_size": B, "train.epochs": float(epochs), "optimizer.schedule": "piecewise",
            "optimizer.boundaries": (epochs - 1.0,),
        }, TINY, teachers,
    )  # fmt: skip
    return recipe, tuple(one.variables for one in teachers)


@lru_cache(None)
def quick():
    """XLA's options that make compiling short and the step slow, as far as this version knows them."""
    options = {}
    for name, value in (
        ("xla_backend_optimization_level", 0),
        ("xla_cpu_use_fusion_emitters", False),
    ):
        try:
            jax.jit(lambda x: x + 1, compiler_options={name: value})(0.0)
            options[name] = value
        except jax.errors.JaxRuntimeError:
            continue
    return options


@pytest.mark.parametrize("name", frame.slow_but(QUICK, METHODS, SLOW))
def test_a_method_is_its_twin_in_pytorch(name):
    theirs = replay.under(f"{name}/", VECTORS)
    count = len(theirs["loss"])
    recipe, frozen = made(name, count // PER_EPOCH)
    done = replay.watch(
        recipe, given(name, recipe), frozen, [fed(name, step) for step in range(count)],
        keep=lambda state: jax.device_get(state.labels), options=quick(),
    )  # fmt: skip
    assert_same(done.seen["loss"], theirs["loss"])
    variables = {"params": done.state.params["model"], "batch_stats": done.state.batch_stats}
    assert_same(ours(variables, count, biased=name == "mean_teacher_averaged"), theirs["p"])
    for what in ("memory", "average", "peer", "regress"):
        if what in theirs:
            assert_same(kept(what, name, done), theirs[what])


def kept(what, name, done):
    """What a method keeps beside the network, as its twin recorded it."""
    if what == "memory":
        labels = done.kept[PER_EPOCH - 1 :: PER_EPOCH]
        return np.stack(
            [one["table"] if name.startswith("ols") else one["rows"][:N] for one in labels]
        )
    if what == "average":
        names = [tensor for tensor in START if name.endswith("averaged") or "running" not in tensor]
        return ours(done.state.labels, 0, biased=True, names=names)
    if what == "peer":
        return ours(done.state.labels, len(done.kept))
    hint = done.state.params["auxiliary"]["hint"]
    kernel = hint["conv"]["kernel"].transpose(3, 2, 0, 1)
    return np.concatenate(
        [np.ravel(x) for x in (kernel, hint["conv"]["bias"], hint["scale"], hint["bias"])]
    )


def test_a_batch_fed_mixed_is_the_batch_that_the_step_mixes():
    case = Case("online", "mixup", augment=(("pad", 1), ("flip", True)))
    prepare = jax.jit(partial(steps.prepare, frame.recipe(case), frame.frozen()))
    look = partial(prepare, frame.data())
    batch = frame.streamed(0, masked=(5,))
    one = look(batch, jnp.zeros((), jnp.int32))
    assert np.abs(one.image[0] - one.clean).max() > 0.1
    mixed = {"image": one.image[0], "clean": one.clean, "partner": one.partner, "share": one.share}
    two = look(batch | mixed, jnp.zeros((), jnp.int32))
    for name in ("image", "clean", "partner", "share", "mask", "label"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    chex.assert_trees_all_close(one.teacher, two.teacher, rtol=1e-6)


def test_an_unmixed_batch_is_its_own_clean_batch():
    case = Case("online", "mixup")
    fed = frame.streamed(0) | {"partner": mixing.partners(B, 1), "share": np.ones((B, 1))}
    recipe, state = frame.recipe(case), frame.fresh(case)
    new = jax.jit(steps.make_train_step(recipe), compiler_options=quick())(
        state, frame.frozen(), frame.data(), fed
    )[0]
    variables = {"params": state.params["model"], "batch_stats": state.batch_stats}
    said = recipe.build.apply(variables, fed["image"] / np.float32(255), train=True)[0].logits
    np.testing.assert_allclose(new.labels["rows"][fed["index"]], jax.nn.softmax(said), rtol=1e-5)


@pytest.mark.parametrize(
    ("case", "fields", "words"),
    [
        (Case("hard"), {"partner": mixing.partners(B, 2)}, "'partner' alone"),
        (Case("hard"), {"share": np.ones((B, 1))}, "'share' alone"),
        (
            Case("online", "mixup"),
            {"partner": mixing.partners(B, 2), "share": np.full((B, 2), 0.5)},
            "'clean'",
        ),
        (
            Case(auxiliaries=("jsd",)),
            {"partner": mixing.partners(B, 1), "share": np.ones((B, 1))},
            "'jsd' compares 3",
        ),
    ],
)
def test_what_a_fed_mixed_batch_lacks_is_told(case, fields, words):
    step = steps.make_train_step(frame.recipe(case))
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(
            step, frame.fresh(case), frame.frozen(), frame.data(), frame.streamed(0) | fields
        )


@pytest.mark.slow
def test_partners_not_named_are_the_batch_rolled():
    draw = np.random.default_rng(0)
    image = draw.random((1, B, SIDE, SIDE, 3))
    box = np.sort(draw.integers(0, SIDE + 1, (B, 2, 2)), -1).reshape(B, 4)
    split, offset = np.full((B, 2), 3), np.zeros((B, 4, 2), int)
    for mix, arguments, ways in (
        (mixing.blend_images, (draw.random(B),), 2), (mixing.paste_box, (box,), 2),
        (mixing.patch_four, (split, offset), 4),
    ):  # fmt: skip
        rolled, named = mix(image, *arguments), mix(image, *arguments, mixing.partners(B, ways))
        chex.assert_trees_all_equal(rolled, named)
        other = mix(image, *arguments, np.zeros((B, ways), int))
        assert np.abs(jax.tree.leaves(other)[0] - jax.tree.leaves(rolled)[0]).max() > 0.1


def test_counts_are_divided_in_float64():
    step = jnp.asarray(7, jnp.int32)
    build = frame.plain_build(steps_per_epoch=3, total_steps=21)
    outputs, batch = frame.says(np.zeros((2, K))), frame.plain_batch([0, 1], step=7)
    ramp = blend.make(build, parts=("hard", "smooth"), weights=(0.5, 0.7), ramp_epochs=5.0)
    state = ramp.init(jax.random.key(0), None)
    assert float(ramp.targets(state, batch, outputs)[1].weight) == pytest.approx(
        0.7 * 7 / 15, rel=1e-15
    )
    rate = optimizer.make_schedule(
        0.1,
        schedule="cosine",
        boundaries=(),
        factor=0.1,
        warmup_epochs=4.0,
        updates_per_epoch=3,
        total_updates=21,
    )
    assert float(jax.jit(rate)(step)) == pytest.approx(
        0.05 * (1 + np.cos(np.pi * 7 / 21)) * 8 / 12, rel=1e-15
    )


@pytest.mark.data
@pytest.mark.parametrize("method", frame.slow_but(["pskd"], replay.METHODS, []))
def test_official_code_computes_the_same_in_float64(method, data_dir):
    found = replay.gaps(*replay.replay(method, data_dir, quiet=True))
    assert found["loss"] < 1e-9
    assert found["grad_norm"] < 1e-9
    assert found["logits"] < 1e-8  # of each entry, however near to 0
    assert found["first_step"] < 1e-9
    assert (
        max(found[name] for name in found if name in ("parameters", "statistics", "memory")) < 1e-6
    )


@pytest.mark.data
@pytest.mark.parametrize("method", frame.slow_but(["kd"], replay.METHODS, []))
def test_official_code_computes_nearly_the_same_in_float32(method, data_dir):
    done, theirs, _ = replay.replay(method, data_dir, "float32", steps=8, quiet=True)
    assert done.seen["loss"].dtype == np.float32
    assert replay.relative(done.seen["loss"][:2], theirs["loss"][:2]) < 2e-6
    assert replay.relative(done.seen["loss"][:8], theirs["loss"][:8]) < 5e-4


@pytest.fixture
def data_dir():
    if "LDL_DATA_DIR" not in os.environ:
        pytest.skip("LDL_DATA_DIR is not set")
    return os.environ["LDL_DATA_DIR"]
