"""BatchNorm in groups: the numbers of numpy, the names of plain BatchNorm, and what moves between
devices.
"""

from functools import lru_cache

import frame
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_mesh
from flax import traverse_util

from ldl_jax import config, mesh
from ldl_jax.models.base import Network, check_group, norm
from ldl_jax.models.spec import make_network, network_spec
from ldl_jax.training import experiment as build

BATCH = 16


def network(group, dtype=jnp.float32):
    return Network(frame.K, (0.5,) * 3, (0.25,) * 3, dtype, group)


def maps():
    """Maps [16, 3, 5, 4] whose images differ in mean and spread."""
    draw = np.random.default_rng(0)
    return draw.normal(size=(BATCH, 3, 5, 4)) * draw.uniform(1, 3, (BATCH, 1, 1, 4)) + draw.normal(
        size=(BATCH, 1, 1, 4)
    )


def passed(group, x, dtype=jnp.float64):
    """(normalised maps, running statistics) after one pass in training, by a scale and bias that
    are not trivial.
    """
    draw = np.random.default_rng(1)
    variables = {
        "params": {"scale": draw.uniform(0.5, 2, 4), "bias": draw.normal(size=4)},
        "batch_stats": {"mean": draw.normal(size=4), "var": draw.uniform(0.5, 2, 4)},
    }
    made, changed = norm(network(group, dtype), True, name="bn").apply(
        variables, x, mutable=["batch_stats"]
    )
    return np.asarray(made), changed["batch_stats"], variables


@pytest.mark.parametrize("group", [2, 4, 8])
def test_each_group_is_normalised_by_itself_and_the_averages_follow_their_mean(group):
    x = maps()
    made, stats, before = passed(group, x)
    parts = x.reshape(-1, group, 3, 5, 4)
    mean, variance = parts.mean((1, 2, 3)), parts.var((1, 2, 3))  # the biased one
    expected = (parts - mean[:, None, None, None]) / np.sqrt(variance + 1e-5)[:, None, None, None]
    expected = expected.reshape(x.shape) * before["params"]["scale"] + before["params"]["bias"]
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-12)
    old = before["batch_stats"]
    np.testing.assert_allclose(
        stats["mean"], 0.9 * old["mean"] + 0.1 * mean.mean(0), rtol=0, atol=1e-13
    )
    np.testing.assert_allclose(
        stats["var"], 0.9 * old["var"] + 0.1 * variance.mean(0), rtol=0, atol=1e-13
    )


def test_one_group_of_all_is_plain_batchnorm():
    x = maps()
    (one, stats, _), (plain, expected, _) = passed(BATCH, x), passed(0, x)
    np.testing.assert_allclose(one, plain, rtol=0, atol=1e-13)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-13), stats, expected)
    assert np.abs(passed(2, x)[0] - plain).max() > 0.1


def test_statistics_are_float32_where_activations_are_not():
    # a square summed in bfloat16 would leave nothing of the variance
    x = (maps() + 100).astype(jnp.bfloat16)
    made, stats, _ = passed(4, x, jnp.bfloat16)
    assert made.dtype == jnp.bfloat16
    # those of the float64 averages they move
    assert stats["mean"].dtype == stats["var"].dtype == np.float64
    expected = passed(4, x.astype(np.float32), jnp.float32)[0]
    np.testing.assert_allclose(made.astype(np.float32), expected, rtol=0.01, atol=0.02)


def test_weights_interchange_and_evaluation_is_the_same():
    options = {"name": "cifar_resnet", "dtype": "float32", "options": {"depth": 8, "width": 4}}
    spec = {
        "num_classes": 5,
        "shape": [8, 8, 3],
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "model": options,
    }
    (init, plain), (other, grouped) = (
        make_network(s) for s in (spec, spec | {"model": options | {"norm_group": 4}})
    )
    shapes = [jax.eval_shape(make, jax.random.key(0)) for make in (init, other)]
    image = jax.ShapeDtypeStruct((8, 8, 8, 3), jnp.float32)
    shapes += [
        jax.eval_shape(lambda v, x, f=f: f(v, x, train=True)[1], shapes[0], image)
        for f in (plain, grouped)
    ]
    sizes = [{n: x.shape for n, x in traverse_util.flatten_dict(tree).items()} for tree in shapes]
    assert sizes[0] == sizes[1]
    assert sizes[2] == sizes[3]  # the averages that come back
    text = [
        str(jax.make_jaxpr(lambda v, x, f=f: f(v, x, train=False)[0].logits)(shapes[0], image))
        for f in (plain, grouped)
    ]
    assert text[0] == text[1]


def test_the_field_goes_from_the_config_into_the_network():
    c = config.read("configs/digits_online.py")
    c.model.norm_group, c.data.batch_size = 32, 64
    made = build.make_experiment(c, jax.devices()[:1])
    assert made.spec["model"]["norm_group"] == 32
    variables = jax.eval_shape(made.recipe.build.init, jax.random.key(0))
    look = lambda size: jax.eval_shape(  # noqa: E731
        lambda v, x: made.recipe.build.apply(v, x, train=True),
        variables,
        jax.ShapeDtypeStruct((size, 8, 8, 1), "float32"),
    )
    look(64)
    with pytest.raises(
        ValueError,
        match=r"config.model.norm_group must divide the 48 images of a training batch .*got 32",
    ):
        look(48)
    c.model.norm_group = 48
    with pytest.raises(
        ValueError,
        match=r"config.model.norm_group must be 0 .* or divide .* 64 images, got 48",
    ):
        build.make_experiment(c, jax.devices()[:1])
    assert "norm_group" in network_spec(c, made.dataset, (0.5,), (0.25,))["model"]


def test_views_count_as_images():
    check_group(48, 16, 3)
    with pytest.raises(
        ValueError, match=r"divide .* 48 images \(3 views of config.data.batch_size\), got 32"
    ):
        check_group(32, 16, 3)


@lru_cache(None)
def sent(group, *, gradient):
    """Elements that each collective of the 8-device program moves, and those of parameters and of
    one statistic.
    """
    there, module = mesh.make_mesh(jax.devices()), frame.Tiny(network(group))
    variables = jax.eval_shape(
        lambda: module.init(jax.random.key(0), jnp.zeros((1, *frame.SHAPE)), False)
    )

    def forward(params, stats, x):
        outputs, changed = module.apply(
            {"params": params, "batch_stats": stats}, x, True, mutable=["batch_stats"]
        )
        return jax.nn.logsumexp(outputs.logits, -1), changed

    def learn(params, stats, x):
        total = jax.value_and_grad(
            lambda p: (lambda out: (out[0].sum(), out[1]))(forward(p, stats, x)), has_aux=True
        )
        return total(params)

    def place(tree, sharding):
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
        )

    split, everywhere = mesh.batch_sharding(there), mesh.replicated(there)
    image = place(jax.ShapeDtypeStruct((BATCH, *frame.SHAPE), jnp.float32), split)
    job = jax.jit(learn) if gradient else jax.jit(lambda *a: forward(*a)[0], out_shardings=split)
    program = job.lower(
        place(variables["params"], everywhere), place(variables["batch_stats"], everywhere), image
    )
    parameters, stats = (
        sum(leaf.size for leaf in jax.tree.leaves(variables[n])) for n in ("params", "batch_stats")
    )
    return test_mesh.moved(program.compile()), parameters, stats


@pytest.mark.parametrize("group", [1, BATCH // 8])
def test_groups_within_a_device_move_no_statistics(group):
    moved, parameters, stats = sent(group, gradient=False)
    assert moved == []
    moved, parameters, stats = sent(group, gradient=True)
    assert {kind for kind, _ in moved} == {"all-reduce"}
    # gradients, running averages, the loss
    assert sum(size for _, size in moved) == parameters + stats + 1


def test_larger_groups_move_statistics_and_never_maps():
    for group in (0, BATCH // 2):
        moved, _, stats = sent(group, gradient=False)
        assert {kind for kind, _ in moved} == {"all-reduce"}
        assert sum(size for _, size in moved) == stats
        moved, parameters, stats = sent(group, gradient=True)
        assert parameters + stats < sum(size for _, size in moved) <= parameters + 3 * stats + 1


@pytest.mark.slow
def test_groups_do_not_depend_on_the_number_of_devices():
    """A group of four over two devices, float64, across the edge of an epoch."""
    case = frame.Case("online", dtype="float64", norm_group=4)
    (one, said), (eight, heard) = (frame.train(case, 3, devices=count) for count in (1, 8))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-13), one, eight)
    assert max(abs(a["loss"] - b["loss"]) for a, b in zip(said, heard, strict=True)) < 1e-13
    plain = frame.train(case._replace(norm_group=0), 3)[1]
    assert abs(plain[-1]["loss"] - said[-1]["loss"]) > 1e-6
