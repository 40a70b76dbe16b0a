"""Networks: counted by a formula, compared with numpy, and of the right types throughout."""

from functools import lru_cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frame import slow_but

from ldl_jax.contract import Outputs
from ldl_jax.models import base, cifar_resnet
from ldl_jax.models.base import Network

DEPTHS = (8, 20, 32, 44, 56, 110)
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)
QUICK = {"xla_backend_optimization_level": 0}  # compiling is most of the time here


def settings(classes=10, dtype=jnp.float32, mean=MEAN, std=STD):
    return Network(classes, mean, std, dtype)


def abstract(network, shape=(1, 32, 32, 3), **options):
    """(variables, outputs) of a network, as shapes and types alone."""
    module = cifar_resnet.make(network, **options)
    kind = base.param_dtype(network.dtype)
    made = jax.eval_shape(
        lambda key, x: module.init(key, x, False), jax.random.key(0), jnp.zeros(shape, kind)
    )
    return made, jax.eval_shape(
        lambda v, x: module.apply(v, x, False), made, jnp.zeros(shape, kind)
    )


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def expected_size(depth, classes, width=16, stem=16, channels=3):
    """(all parameters, those of the projections): a 3x3 layer from a to b has 9ab + 2b, a
    projection ab + 2b.
    """
    total, projections, come = 9 * channels * stem + 2 * stem, 0, stem
    for go in (width, 2 * width, 4 * width):
        total += 9 * come * go + 9 * go * go + 4 * go  # the first block
        total += ((depth - 2) // 6 - 1) * (18 * go * go + 4 * go)  # the others
        projections += come * go + 2 * go if come != go else 0
        come = go
    return total + projections + (come + 1) * classes, projections


@lru_cache(None)
def initial():
    """The variables of a float64 ResNet-8 for 8x8 images and 100 classes."""
    module = cifar_resnet.make(settings(100, jnp.float64), depth=8)
    init = jax.jit(
        lambda key: module.init(key, jnp.zeros((1, 8, 8, 3)), False), compiler_options=QUICK
    )
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), init(jax.random.key(2)))


def images():
    return np.random.default_rng(1).random((6, 8, 8, 3))


@lru_cache(None)
def passed(train, dtype=jnp.float64):
    """(outputs, changed collections) of that ResNet-8 with activations of `dtype`, and maps on the
    way.
    """
    module, kind = cifar_resnet.make(settings(100, dtype), depth=8), base.param_dtype(dtype)

    def forward(variables, shown):
        return module.apply(variables, shown, train, mutable=["batch_stats", "intermediates"],
                            capture_intermediates=lambda part, _: part.name in ("conv1", "bn1"))  # fmt: skip

    variables = jax.tree.map(lambda leaf: leaf.astype(kind), initial())
    return jax.device_get(
        jax.jit(forward, compiler_options=QUICK)(variables, images().astype(kind))
    )


def convolved(image, kernel, stride):
    """PyTorch's conv2d with padding k // 2, by its definition in float64: [B, H, W, C] and [k, k,
    C, D].
    """
    k = len(kernel)
    high, wide = ((extent + 2 * (k // 2) - k) // stride + 1 for extent in image.shape[1:3])
    padded = np.pad(image.astype(np.float64), ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    out = np.zeros((len(image), high, wide, kernel.shape[-1]))
    for y, x in np.ndindex(high, wide):
        window = padded[:, y * stride : y * stride + k, x * stride : x * stride + k]
        out[:, y, x] = np.einsum("bijc,ijcd->bd", window, kernel.astype(np.float64))
    return out


@pytest.mark.parametrize("depth", slow_but([20], DEPTHS, [32]))
def test_a_resnet_has_as_many_parameters_as_the_formula_says(depth):
    hundred = size(abstract(settings(100), depth=depth)[0]["params"])
    assert hundred == expected_size(depth, 100)[0]
    assert hundred - 90 * 65 == expected_size(depth, 10)[0]  # only the head knows the classes
    if depth < 32:
        assert size(abstract(settings(10), depth=depth)[0]["params"]) == expected_size(depth, 10)[0]


def test_parameter_counts_are_the_published_ones():
    # He et al. 2016, table 6, in millions, with shortcuts that have no parameters, 10 classes
    published = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7}
    for depth, millions in published.items():
        total, projections = expected_size(depth, 10)
        assert projections == 16 * 32 + 64 + 32 * 64 + 128
        assert round((total - projections) / 1e6, 1 if depth == 110 else 2) == millions
    # the networks of RepDistiller (github.com/HobbitLong/RepDistiller, models/resnet.py), 100
    # classes
    for options, count in (
        ({"depth": 8}, 83_892), ({"depth": 20}, 278_324), ({"depth": 56}, 861_620), ({"depth": 110}, 1_736_564),
        ({"depth": 8, "width": 64, "stem": 32}, 1_233_540), ({"depth": 32, "width": 64, "stem": 32}, 7_433_860),
    ):  # fmt: skip
        assert expected_size(classes=100, **options)[0] == count


@pytest.mark.parametrize("depth", [8, 32])
def test_a_wider_resnet_has_a_projection_in_its_first_stage_too(depth):
    variables, outputs = abstract(settings(100), depth=depth, width=64, stem=32)
    assert size(variables["params"]) == expected_size(depth, 100, 64, 32)[0]
    assert variables["params"]["layer1_0"]["downsample_0"]["kernel"].shape == (1, 1, 32, 64)
    assert [stage.shape[-1] for stage in outputs.stages] == [64, 128, 256]


@pytest.mark.parametrize(("side", "channels", "sides"), [(8, 1, (8, 4, 2)), (32, 3, (32, 16, 8)), (96, 3, (96, 48, 24)),
                                                         (9, 3, (9, 5, 3))])  # fmt: skip
def test_shapes_of_what_a_network_returns(side, channels, sides):
    network = settings(7, mean=(0.5,) * channels, std=(0.2,) * channels)
    variables, outputs = abstract(network, (2, side, side, channels), depth=14)
    assert isinstance(outputs, Outputs)
    assert outputs.logits.shape == (2, 7)
    assert outputs.embedding.shape == (2, 64)
    assert [stage.shape for stage in outputs.stages] == [
        (2, s, s, width) for s, width in zip(sides, (16, 32, 64), strict=True)
    ]
    assert {name for name in variables["params"] if name.startswith("layer")} == {
        f"layer{stage}_{block}" for stage in (1, 2, 3) for block in (0, 1)
    }
    assert "downsample_0" not in variables["params"]["layer1_0"]


@pytest.mark.parametrize(("dtype", "inside", "outside"), [
    (jnp.float32, jnp.float32, jnp.float32), (jnp.bfloat16, jnp.bfloat16, jnp.float32),
    (jnp.float64, jnp.float64, jnp.float64),
])  # fmt: skip
def test_only_activations_may_be_half_precision(dtype, inside, outside):
    variables, outputs = abstract(settings(dtype=dtype))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables["params"])} == {jnp.dtype(outside)}
    assert all(
        leaf.dtype in (jnp.float32, outside) for leaf in jax.tree.leaves(variables["batch_stats"])
    )
    assert {stage.dtype for stage in outputs.stages} == {jnp.dtype(inside)}
    assert outputs.logits.dtype == outputs.embedding.dtype == outside


@pytest.mark.slow
def test_half_precision_says_about_the_same():
    full, half = passed(False)[0].logits, passed(False, jnp.bfloat16)[0].logits
    assert half.dtype == np.float32
    assert 1e-5 < np.abs(full - half).max() < 0.05 * np.abs(full).max()


def test_convolutions_start_normal_by_fan_out_and_batchnorm_as_the_identity():
    for path, leaf in jax.tree_util.tree_leaves_with_path(initial()["params"]):
        names = [part.key for part in path]
        if leaf.ndim == 4:
            spread = (2 / (leaf.shape[0] * leaf.shape[1] * leaf.shape[3])) ** 0.5
            assert leaf.std() == pytest.approx(spread, rel=4 / (2 * leaf.size) ** 0.5), names
            assert abs(leaf.mean()) < 4 * spread / leaf.size**0.5
            # not cut off at two deviations
            assert leaf.size < 4000 or np.abs(leaf).max() > 3.2 * spread
        elif names[0] != "fc":
            assert (leaf == (1 if names[-1] == "scale" else 0)).all()


def test_the_head_starts_uniform_within_one_over_the_root_of_its_input():
    for leaf in initial()["params"]["fc"].values():
        assert np.abs(leaf).max() <= 1 / 8  # D = 64
        assert np.abs(leaf).max() > 0.95 / 8
        assert leaf.std() == pytest.approx(1 / 8 / 3**0.5, rel=2 / leaf.size**0.5)
        assert abs(leaf.mean()) < 4 * leaf.std() / leaf.size**0.5


@pytest.mark.parametrize(
    ("kernel", "stride", "side"), [(3, 2, 8), (3, 2, 9), (1, 2, 8), (1, 2, 9), (3, 1, 5)]
)
def test_a_convolution_is_padded_on_both_sides_as_pytorch_does(kernel, stride, side):
    layer = base.conv(settings(dtype=jnp.float64), 5, kernel, stride, name="conv")
    draw = np.random.default_rng(0)
    image, weights = (
        draw.standard_normal((2, side, side, 3)),
        draw.standard_normal((kernel, kernel, 3, 5)),
    )
    made = layer.apply({"params": {"kernel": weights}}, image)
    np.testing.assert_allclose(made, convolved(image, weights, stride), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("images", "part"), [(6, 100), (6, 10**6), (5, 64), (4, 1)])
def test_a_weight_gradient_in_parts_is_that_of_the_whole_batch(monkeypatch, images, part):
    monkeypatch.setattr(base, "PART", part)
    maps = jax.random.normal(jax.random.key(0), (images, 7, 8, 2))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 2, 4))
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}

    def loss(convolution, maps, kernel):
        return jnp.square(convolution(maps, kernel, (2, 2), [(1, 1), (1, 1)], **options)).sum()

    ours = jax.grad(loss, (1, 2))(base.convolve, maps, kernel)
    plain = jax.grad(loss, (1, 2))(jax.lax.conv_general_dilated, maps, kernel)
    chex.assert_trees_all_close(ours, plain, rtol=1e-5, atol=1e-4)


def test_the_first_operation_is_the_normalisation():
    seen = passed(False)[1]["intermediates"]["conv1"]["__call__"][0]
    kernel = initial()["params"]["conv1"]["kernel"]
    # padded afterwards: with the mean colour
    expected = convolved((images() - MEAN) / STD, kernel, 1)
    np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-12)


def test_a_network_is_its_blocks_as_in_the_paper():
    # BatchNorm still is a scale
    params, outputs, scale = initial()["params"], passed(False)[0], (1 + 1e-5) ** -0.5
    x = np.maximum(scale * convolved((images() - MEAN) / STD, params["conv1"]["kernel"], 1), 0)
    for stage, stride in ((1, 1), (2, 2), (3, 2)):
        block = params[f"layer{stage}_0"]
        y = np.maximum(scale * convolved(x, block["conv1"]["kernel"], stride), 0)
        shortcut = x if stage == 1 else scale * convolved(x, block["downsample_0"]["kernel"], 2)
        before = scale * convolved(y, block["conv2"]["kernel"], 1) + shortcut
        np.testing.assert_allclose(outputs.stages[stage - 1], before, rtol=0, atol=1e-11)
        x = np.maximum(before, 0)
    np.testing.assert_allclose(outputs.embedding, x.mean((1, 2)), rtol=0, atol=1e-11)
    logits = x.mean((1, 2)) @ params["fc"]["kernel"] + params["fc"]["bias"]
    np.testing.assert_allclose(outputs.logits, logits, rtol=0, atol=1e-11)


def test_training_moves_the_running_statistics_by_a_tenth():
    start, changed = initial()["batch_stats"], passed(True)[1]
    maps = changed["intermediates"]["conv1"]["__call__"][0]
    mean, variance = maps.mean((0, 1, 2)), maps.var((0, 1, 2))  # the biased one
    assert not start["bn1"]["mean"].any()
    assert (start["bn1"]["var"] == 1).all()
    np.testing.assert_allclose(changed["batch_stats"]["bn1"]["mean"], 0.1 * mean, rtol=0, atol=1e-7)
    np.testing.assert_allclose(
        changed["batch_stats"]["bn1"]["var"], 0.9 + 0.1 * variance, rtol=1e-7
    )
    made = changed["intermediates"]["bn1"]["__call__"][0]
    np.testing.assert_allclose(made, (maps - mean) / np.sqrt(variance + 1e-5), rtol=0, atol=1e-6)
    pairs = zip(jax.tree.leaves(start), jax.tree.leaves(changed["batch_stats"]), strict=True)
    assert all((before != after).any() for before, after in pairs)


def test_evaluation_moves_nothing():
    jax.tree.map(
        np.testing.assert_array_equal, passed(False)[1]["batch_stats"], initial()["batch_stats"]
    )


def test_a_fresh_network_says_little_but_something():
    for outputs in (passed(True)[0], passed(False)[0]):
        assert np.isfinite(outputs.logits).all()
        assert 0.05 < outputs.logits.std() < 5  # of order 1
        assert np.abs(outputs.logits - outputs.logits[0]).max() > 1e-3  # images differ
        assert (np.asarray(outputs.embedding) >= 0).all()
        assert all((stage < 0).any() for stage in outputs.stages)  # from before the last ReLU


@pytest.mark.parametrize(
    "options", [{"depth": 18}, {"depth": 2}, {"depth": 21}, {"width": 0}, {"stem": -1}]
)
def test_depths_and_widths_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=rf"model\.cifar_resnet\.{next(iter(options))} must be "):
        cifar_resnet.make(settings(), **options)
