"""ResNets and wide ResNets: published sizes, shapes, types, and how they start."""

from functools import lru_cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from frame import slow_but

from ldl_jax.models import resnet
from ldl_jax.models.base import BasicBlock, Network, PreActBlock
from ldl_jax.models.spec import make_network

SMALL = {  # name of a case -> (name of the model, its options)
    "post": ("resnet", {"depth": 10, "width": 8}),
    "post bottleneck": ("resnet", {"depth": 14, "width": 4, "stem": "imagenet"}),
    "preact": ("resnet", {"depth": 10, "width": 8, "preact": True}),
    "wide": ("wide_resnet", {"depth": 10, "widen": 1}),
}


def network(name, options, *, num_classes=10, side=32, dtype="float32"):
    return make_network(
        {
            "num_classes": num_classes, "shape": [side, side, 3], "mean": [0.5] * 3, "std": [0.25] * 3,
            "model": {"name": name, "dtype": dtype, "options": options},
        }
    )  # fmt: skip


@lru_cache(None)
def fresh(case):
    """Variables as a network starts, by a kind of key whose draws compile in a tenth of the time."""
    init, _ = network(*SMALL[case])
    return jax.device_get(jax.jit(init)(jax.random.key(0, impl="rbg")))


def abstract(init):
    return jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)))


def look(name, options, side, **more):
    """Abstract outputs for two images."""
    init, apply = network(name, options, side=side, **more)
    image = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    return jax.eval_shape(lambda v, x: apply(v, x, train=False)[0], abstract(init), image)


IMAGENET = {"stem": "imagenet"}
COUNTS = [
    # torchvision's documentation of its models, 1000 classes
    ("resnet", IMAGENET | {"depth": 18}, 1000, 11_689_512),
    ("resnet", IMAGENET | {"depth": 34}, 1000, 21_797_672),
    ("resnet", IMAGENET | {"depth": 50}, 1000, 25_557_032),
    ("resnet", IMAGENET | {"depth": 101}, 1000, 44_549_160),
    ("resnet", IMAGENET | {"depth": 152}, 1000, 60_192_808),
    ("resnet", IMAGENET | {"depth": 50, "width_factor": 2}, 1000, 68_883_240),
    # kuangliu's pytorch-cifar, 10 classes
    ("resnet", {"depth": 18}, 10, 11_173_962),
    ("resnet", {"depth": 34}, 10, 21_282_122),
    ("resnet", {"depth": 50}, 10, 23_520_842),
    ("resnet", {"depth": 101}, 10, 42_512_970),
    ("resnet", {"depth": 18, "preact": True, "stem_norm": False}, 10, 11_171_146),
    # PS-KD's PreActResNet-18: the same, with 128 parameters after the stem, and 90 classes more
    ("resnet", {"depth": 18, "preact": True}, 100, 11_171_146 + 128 + 90 * 513),
    # Zagoruyko and Komodakis 2016, table 3: 36.5M; the exact number of published ports
    ("wide_resnet", {"depth": 28, "widen": 10}, 10, 36_479_194),
    # RepDistiller's wrn.py, 100 classes
    ("wide_resnet", {"depth": 40, "widen": 2}, 100, 2_255_156),
    ("wide_resnet", {"depth": 16, "widen": 2}, 100, 703_284),
    ("wide_resnet", {"depth": 40, "widen": 1}, 100, 569_780),
]


# tracing takes as long as a network is deep
QUICK = [row for row in COUNTS if row[1]["depth"] <= 18]


@pytest.mark.parametrize(("name", "options", "classes", "published"), slow_but(QUICK, COUNTS, []))
def test_parameters_count_as_published(name, options, classes, published):
    side = 224 if options.get("stem") == "imagenet" else 32
    params = abstract(network(name, options, num_classes=classes, side=side)[0])["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == published


@pytest.mark.parametrize("side", slow_but([32], [32, 64, 96, 224], [224]))
@pytest.mark.parametrize("case", SMALL)
def test_stages_halve_the_side_and_the_embedding_is_their_end(case, side):
    name, options = SMALL[case]
    outputs = look(name, options, side)
    first = side // 4 if options.get("stem") == "imagenet" else side
    wide = 16 if name == "wide_resnet" else options["width"] * (4 if options["depth"] == 14 else 1)
    count = 3 if name == "wide_resnet" else 4
    expected = [(2, -(-first // 2**n), -(-first // 2**n), wide * 2**n) for n in range(count)]
    assert [stage.shape for stage in outputs.stages] == expected
    assert outputs.embedding.shape == (2, expected[-1][-1])
    assert outputs.logits.shape == (2, 10)


@pytest.mark.parametrize("case", SMALL)
@pytest.mark.parametrize(("dtype", "inside", "outside"), slow_but(["bfloat16"], [
    ("float32", jnp.float32, jnp.float32), ("bfloat16", jnp.bfloat16, jnp.float32),
    ("float64", jnp.float64, jnp.float64),
]))  # fmt: skip
def test_activations_have_the_type_asked_for_and_the_rest_is_never_below_float32(
    case, dtype, inside, outside
):
    name, options = SMALL[case]
    outputs = look(name, options, 32, dtype=dtype)
    assert {stage.dtype for stage in outputs.stages} == {jnp.dtype(inside)}
    assert outputs.logits.dtype == outputs.embedding.dtype == outside
    variables = abstract(network(name, options, dtype=dtype)[0])
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(outside)}


@lru_cache(None)
def train_logits(case, dtype):
    """Of 32 images, by a network as it starts, in training mode."""
    image = np.random.default_rng(0).random((32, 16, 16, 3), np.float32)
    apply = network(*SMALL[case], side=16, dtype=dtype)[1]
    return jax.jit(partial(apply, train=True))(fresh(case), image)[0].logits


@pytest.mark.parametrize("case", slow_but([], ["post", "wide"]))
def test_a_network_starts_close_to_a_guess(case):
    logits = train_logits(case, "float32")
    label = jnp.arange(32) % 10
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
    assert 0.05 < jnp.std(logits) < 2
    assert abs(loss - jnp.log(10)) < 0.5


@pytest.mark.slow
def test_bfloat16_says_about_the_same():
    full, half = (train_logits("wide", dtype) for dtype in ("float32", "bfloat16"))
    assert half.dtype == jnp.float32
    assert 0 < jnp.abs(half - full).max() < 0.1 * jnp.abs(full).max()


@pytest.mark.parametrize("case", slow_but(["wide"], ["post", "wide"]))
def test_kernels_start_he_normal_by_fan_out_and_norms_as_the_identity(case):
    flat = traverse_util.flatten_dict(fresh(case)["params"], sep="/")
    for name, leaf in flat.items():
        if leaf.ndim == 4:
            spread = np.sqrt(2 / (leaf.shape[0] * leaf.shape[1] * leaf.shape[3]))
            assert abs(leaf.std() / spread - 1) < 4 / np.sqrt(2 * leaf.size), name
        elif name == "fc/kernel":
            bound = leaf.shape[0] ** -0.5
            assert 0.9 * bound < np.abs(leaf).max() <= bound
        elif not name.startswith("fc/"):
            np.testing.assert_array_equal(leaf, float(name.endswith("scale")), name)


@pytest.mark.parametrize(
    "block", [BasicBlock, partial(resnet.Bottleneck, inner=2, stride_in_3x3=True)]
)
def test_with_zero_init_a_block_starts_as_its_shortcut(block):
    x = np.random.default_rng(0).standard_normal((2, 4, 4, 8))
    for zero_init in (True, False):
        module = block(
            Network(2, (0.0,), (1.0,), jnp.float64), features=8, strides=1, zero_init=zero_init
        )
        y, variables = module.init_with_output(jax.random.key(0, impl="rbg"), x, False)
        assert np.array_equal(y, x) == zero_init
        zero = [
            name
            for name, part in variables["params"].items()
            if "scale" in part and not np.any(part["scale"])
        ]
        assert zero == (["bn2" if block is BasicBlock else "bn3"] if zero_init else [])


@pytest.mark.parametrize(("depth", "count"), slow_but([(34, 16)], [(34, 16), (50, 16)]))
def test_zero_init_reaches_every_block(depth, count):
    told = {}

    def listen(call, args, kwargs, context):
        if hasattr(context.module, "zero_init"):
            told[context.module.name] = context.module.zero_init
        return call(*args, **kwargs)

    with nn.intercept_methods(listen):
        abstract(network("resnet", {"depth": depth, "width": 2, "zero_init": True}, side=8)[0])
    assert len(told) == count
    assert all(told.values())


@pytest.mark.parametrize("block", [resnet.Bottleneck, resnet.PreActBottleneck])
@pytest.mark.parametrize("stride_in_3x3", slow_but([True], [True, False]))
def test_a_stride_in_the_first_convolution_looks_at_every_fourth_pixel_alone(block, stride_in_3x3):
    options = {"zero_init": False} if block is resnet.Bottleneck else {}
    module = block(
        Network(2, (0.0,), (1.0,)), features=8, inner=16, strides=2, stride_in_3x3=stride_in_3x3, **options
    )  # fmt: skip
    x = np.random.default_rng(0).standard_normal((1, 4, 4, 4), np.float32)
    start = jax.jit(partial(module.init_with_output, train=False))
    seen = np.zeros((4, 4), bool)
    for place in np.ndindex(4, 4):
        changed = x.copy()
        changed[0][place] += 1
        outputs = [
            jax.tree.leaves(start(jax.random.key(0, impl="rbg"), image)[0])[0]
            for image in (x, changed)
        ]
        seen[place] = not np.array_equal(*outputs)
    grid = np.zeros((4, 4), bool)
    grid[::2, ::2] = True
    assert np.array_equal(seen, np.ones_like(grid) if stride_in_3x3 else grid)


def test_dropout_draws_by_its_key():
    apply = network("wide_resnet", SMALL["wide"][1] | {"dropout": 0.3}, side=8)[1]
    image = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    run = jax.jit(lambda key: apply(fresh("wide"), image, train=True, key=key)[0].logits)
    first, again, other = (run(jax.random.key(seed, impl="rbg")) for seed in (2, 2, 3))
    np.testing.assert_array_equal(first, again)
    assert jnp.abs(first - other).max() > 1e-3


def test_dropout_drops_its_share_of_the_second_convolution_s_input_in_training_alone():
    module = PreActBlock(Network(2, (0.0,), (1.0,)), 1, 1, dropout=0.25)
    x = np.zeros((1, 64, 64, 1), np.float32)
    variables = jax.tree.map(np.zeros_like, module.init(jax.random.key(0, impl="rbg"), x, False))
    # all that reaches the second convolution are ones
    variables["params"]["bn2"]["bias"] = np.ones(1, np.float32)
    variables["params"]["conv2"]["kernel"][1, 1] = 1  # which it hands on
    train = jax.jit(partial(module.apply, train=True, mutable=["batch_stats"]))
    (y, _), _ = train(variables, x, rngs={"dropout": jax.random.key(1, impl="rbg")})
    assert set(np.unique(y).round(6)) == {0, np.float32(4 / 3).round(6)}
    assert abs(float((y == 0).mean()) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4096)
    np.testing.assert_array_equal(module.apply(variables, x, False)[0], 1)


REFUSED = [
    (
        "resnet",
        {"depth": 20},
        "model.resnet.depth must be one of 10, 14, 18, 34, 50, 101, 152; got 20",
    ),
    ("resnet", {"stem": "stl"}, "model.resnet.stem must be 'cifar' or 'imagenet', got 'stl'"),
    ("resnet", {"width": 0}, "model.resnet.width and .* must be at least 1"),
    ("resnet", {"width_factor": 2}, "apply only to bottleneck blocks .* at depth 18"),
    ("resnet", {"stride_in_3x3": False}, "apply only to bottleneck blocks .* at depth 18"),
    ("resnet", {"preact": True, "zero_init": True}, "zero_init must be False with preact=True"),
    ("resnet", {"final_norm": True}, "must be True and False unless preact=True"),
    ("resnet", {"stem_norm": False}, "must be True and False unless preact=True"),
    ("wide_resnet", {"depth": 20}, "model.wide_resnet.depth must be 6n .*got 20"),
    ("wide_resnet", {"depth": 4}, "model.wide_resnet.depth must be 6n .*got 4"),
    ("wide_resnet", {"widen": 0}, "model.wide_resnet.widen must be .*got 0"),
    ("wide_resnet", {"dropout": 1.0}, "model.wide_resnet.dropout must be in .*got 1.0"),
]


@pytest.mark.parametrize(("name", "options", "sentence"), REFUSED)
def test_an_option_out_of_range_is_named(name, options, sentence):
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")) as caught:
        network(name, options)
    assert "\n" not in str(caught.value)
