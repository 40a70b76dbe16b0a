"""Auxiliaries against references written in numpy float64."""

from functools import lru_cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frame import SHAPE, options_of, plain_batch, plain_build, plug, softmax

from ldl_jax import config
from ldl_jax.auxiliary.base import timed
from ldl_jax.contract import Auxiliary, Outputs, Target
from ldl_jax.labels.base import ramp
from ldl_jax.training.steps import num_views

B, MASK = 4, np.array([1, 1, 0, 1.0])
DRAW = np.random.default_rng(0)


@lru_cache(None)
def build():
    return plain_build()


def make(name, made=None, **options):
    return plug("auxiliary", name).make(made or build(), **options)


def weighted(auxiliary, params, state, batch, outputs, targets=()):
    """The loss times its weight, as the step adds it."""
    return auxiliary.weight * auxiliary.loss(params, state, batch, outputs, targets)[0]


# ---- hint


def network(*sizes):
    """Abstract outputs of a network with one stage of maps (height, width, channels) after the
    other.
    """
    stages = tuple(jax.ShapeDtypeStruct((1, B, *size), jnp.float64) for size in sizes)
    return build().outputs._replace(stages=stages)


def shown(outputs):
    """Outputs with random maps."""
    return Outputs(None, tuple(DRAW.standard_normal(stage.shape) for stage in outputs.stages), None)


def convolve(x, kernel, bias, pad, stride):
    """A convolution of maps [B, h, w, c] by sums over windows."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    high, wide = kernel.shape[:2]
    rows, columns = ((x.shape[1 + axis] - kernel.shape[axis]) // stride + 1 for axis in (0, 1))
    out = np.empty((len(x), rows, columns, kernel.shape[3]))
    for i in range(rows):
        for j in range(columns):
            window = x[:, i * stride : i * stride + high, j * stride : j * stride + wide]
            out[:, i, j] = np.einsum("nhwc,hwcd->nd", window, kernel)
    return out + bias


def hint_by_numpy(params, student, teacher, pad, stride, weight):
    x = convolve(
        np.maximum(student, 0), params["conv"]["kernel"], params["conv"]["bias"], pad, stride
    )
    x = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5) * params["scale"] + params[
        "bias"
    ]
    errors = ((np.maximum(x, 0) - np.maximum(teacher, 0)) ** 2).mean((1, 2, 3))
    return weight * errors[MASK > 0].mean()


SIZES = {  # of the student's and the teacher's maps, the kernel, the padding, the stride
    "equal": ((4, 4, 2), (4, 4, 3), (1, 1), 0, 1),
    "half": ((8, 8, 2), (4, 4, 3), (3, 3), 1, 2),
    "half of a broad image": ((4, 8, 2), (2, 4, 3), (3, 3), 1, 2),
    "a little smaller": ((5, 5, 2), (3, 3, 3), (3, 3), 0, 1),
    "less than half": ((7, 7, 2), (2, 2, 3), (6, 6), 0, 1),
    "other sides by other amounts": ((5, 8, 2), (3, 4, 3), (3, 5), 0, 1),
}


@pytest.mark.parametrize("size", SIZES)
def test_a_hint_is_the_error_of_the_adapted_maps(size):
    mine, theirs, kernel, pad, stride = SIZES[size]
    made = build()._replace(
        outputs=network((9, 9, 1), mine, mine),
        teachers=(network((1, 1, 1), theirs), network((3, 3, 1))),
    )
    auxiliary = make("hint", made, stage=2, weight=7.0)
    params, state = jax.jit(auxiliary.init)(jax.random.key(0))
    assert params["conv"]["kernel"].shape == (*kernel, 2, 3)
    assert (state, auxiliary.draws, auxiliary.views) == ((), 1, None)
    params = jax.tree.map(lambda leaf: leaf + 0.3 * DRAW.standard_normal(leaf.shape), params)
    student, teacher = shown(made.outputs), shown(made.teachers[0])
    batch = plain_batch([0] * B, mask=jnp.asarray(MASK))._replace(teacher=(teacher, None))

    def loss(params, stage):
        seen = student._replace(stages=(student.stages[0], stage, student.stages[2]))
        return weighted(auxiliary, params, state, batch, seen)

    value, (slope, by_maps) = jax.jit(jax.value_and_grad(loss, (0, 1)))(params, student.stages[1])
    params = jax.tree.map(np.asarray, params)

    def reference(p):
        return hint_by_numpy(p, student.stages[1][0], teacher.stages[1][0], pad, stride, 7.0)

    np.testing.assert_allclose(value, reference(params), rtol=1e-10)
    way = jax.tree.map(lambda leaf: DRAW.standard_normal(leaf.shape), params)
    ahead, behind = (
        reference(jax.tree.map(lambda p, w, h=h: p + h * w, params, way)) for h in (1e-6, -1e-6)
    )
    along = sum(jax.tree.leaves(jax.tree.map(lambda g, w: (g * w).sum(), slope, way)))
    np.testing.assert_allclose(along, (ahead - behind) / 2e-6, rtol=1e-5)
    for leaf in (slope["conv"]["kernel"], slope["scale"], slope["bias"], by_maps):
        assert np.abs(leaf).max() > 1e-3


def test_a_hint_starts_with_the_spread_of_he():
    """Variance 2 / fan out, as the official adaptors have; scale 1 and bias 0 of the BatchNorm."""
    made = build()._replace(outputs=network((8, 8, 32)), teachers=(network((4, 4, 64)),))
    params, _ = jax.jit(make("hint", made, stage=1).init)(jax.random.key(0))
    np.testing.assert_allclose(params["conv"]["kernel"].std(), np.sqrt(2 / (9 * 64)), rtol=0.05)
    assert all((params[name] == value).all() for name, value in (("scale", 1), ("bias", 0)))


def test_maps_that_are_the_teachers_cost_nothing_and_masked_ones_neither():
    made = build()._replace(outputs=network((2, 2, 1)), teachers=(network((2, 2, 1)),))
    auxiliary, maps = make("hint", made, stage=1), DRAW.standard_normal((1, B, 2, 2, 1))
    x = np.maximum(maps, 0)
    x = np.maximum(
        (x - x.mean()) / np.sqrt(x.var() + 1e-5), 0
    )  # an adaptor that passes everything on as it is
    params = {
        "conv": {"kernel": jnp.ones((1, 1, 1, 1)), "bias": jnp.zeros(1)},
        "scale": jnp.ones(1),
        "bias": jnp.zeros(1),
    }
    x[:, MASK == 0] += 5
    batch = plain_batch([0] * B, mask=jnp.asarray(MASK))._replace(
        teacher=(Outputs(None, (x,), None),)
    )
    loss, state = auxiliary.loss(params, (), batch, Outputs(None, (jnp.asarray(maps),), None), ())
    np.testing.assert_allclose(loss, 0, atol=1e-12)
    assert state == ()
    nobody = batch._replace(mask=jnp.zeros(B))
    assert auxiliary.loss(params, (), nobody, Outputs(None, (jnp.asarray(maps),), None), ())[0] == 0


# ---- Jensen-Shannon divergence


def jsd_by_numpy(logits, mask):
    """Mean over the views of KL(view || clamped mean of the views), mean over the examples that
    count.
    """
    p = softmax(logits)
    mixture = np.clip(p.mean(0), 1e-7, 1)
    held = p > 0
    terms = np.where(held, p * (np.log(np.where(held, p, 1)) - np.log(mixture)), 0)
    return terms.sum(-1).mean(0)[mask > 0].mean()


def jsd(logits, mask=MASK, **options):
    auxiliary = make("jsd", **options)
    batch = plain_batch([0] * B, mask=jnp.asarray(mask))
    return weighted(auxiliary, {}, (), batch, Outputs(jnp.asarray(logits), (), None))


@pytest.mark.parametrize("spread", [1.0, 40.0])
@pytest.mark.parametrize("views", [2, 3])
def test_the_divergence_of_the_views(views, spread):
    logits = spread * DRAW.standard_normal((views, B, 5))
    assert spread == 1 or softmax(logits).mean(0).min() < 1e-7  # the clamp is met
    np.testing.assert_allclose(
        jsd(logits, weight=2.5, views=views), 2.5 * jsd_by_numpy(logits, MASK), rtol=1e-10
    )
    changed = logits + 9 * (MASK == 0)[:, None] * DRAW.standard_normal((views, 1, 5))
    assert jsd(changed, views=views) == jsd(logits, views=views)  # masked examples do not count
    np.testing.assert_allclose(jsd(logits[::-1], views=views), jsd(logits, views=views), rtol=1e-12)


def test_its_gradient_is_the_slope():
    logits, way = DRAW.standard_normal((2, 3, B, 5))
    along = (jax.jit(jax.grad(jsd))(jnp.asarray(logits)) * way).sum()
    slope = (
        jsd_by_numpy(logits + 1e-6 * way, MASK) - jsd_by_numpy(logits - 1e-6 * way, MASK)
    ) / 2e-6
    np.testing.assert_allclose(along, 12 * slope, rtol=1e-6)


def test_views_that_agree_cost_nothing_and_views_that_exclude_each_other_the_most():
    same = np.tile(DRAW.standard_normal((1, B, 5)), (3, 1, 1))
    np.testing.assert_allclose(jsd(same), 0, atol=1e-14)
    np.testing.assert_allclose(jax.jit(jax.grad(jsd))(jnp.asarray(same)), 0, atol=1e-14)
    apart = np.tile(1e4 * np.eye(5)[:3, None], (1, B, 1))
    np.testing.assert_allclose(jsd(apart, weight=1.0), np.log(3), rtol=1e-10)
    assert jsd(apart, np.zeros(B)) == 0


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_its_gradient_is_finite_at_huge_logits(dtype):
    logits = np.array([[1e4, -1e4, 0, 3, -np.inf], [0, 0, 1e4, 1e4, -np.inf]], dtype)
    logits = jnp.asarray(np.tile(logits[:, None], (1, B, 1)))
    value, slope = jax.value_and_grad(lambda z: jsd(z, views=2))(logits)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()
    assert slope.dtype == dtype


def test_it_asks_for_so_many_draws_and_shows_frozen_networks_one():
    for views in (2, 3, 5):
        auxiliary = make("jsd", views=views)
        assert (auxiliary.draws, auxiliary.views, auxiliary.teacher_views) == (views, None, False)
    assert make("jsd").draws == options_of("auxiliary/jsd.py")["views"]
    assert make("jsd").init(jax.random.key(0)) == ({}, ())


# ---- joint optimisation


def joint_by_numpy(logits, mask, prior, entropy):
    p = softmax(logits)[mask > 0]
    uniform = -np.log(p.mean(0)).mean()
    return prior * uniform - entropy * (p * np.log(p)).sum(1).mean()


def joint(logits, mask=MASK, **options):
    batch = plain_batch([0] * B, mask=jnp.asarray(mask))
    outputs = Outputs(jnp.asarray(logits)[None], (), None)
    return weighted(make("joint", **options), {}, (), batch, outputs)


def test_the_penalties_of_joint_optimisation_and_their_gradient():
    logits, way = DRAW.standard_normal((2, B, 5))
    options = {"prior": 1.5, "entropy": 0.3}
    expected = joint_by_numpy(logits, MASK, **options)
    np.testing.assert_allclose(joint(logits, **options), expected, rtol=1e-12)
    np.testing.assert_allclose(joint(logits, weight=2.0, **options), 2 * expected, rtol=1e-12)
    slope = jax.jit(jax.grad(partial(joint, **options)))(jnp.asarray(logits))
    ahead = joint_by_numpy(logits + 1e-6 * way, MASK, **options)
    behind = joint_by_numpy(logits - 1e-6 * way, MASK, **options)
    np.testing.assert_allclose((slope * way).sum(), (ahead - behind) / 2e-6, rtol=1e-6)
    assert (slope[MASK == 0] == 0).all()


def test_the_prior_counts_classes_of_which_every_probability_underflows():
    logits = np.tile([2000.0, 0, 0, 0, 0], (B, 1))
    value, slope = jax.value_and_grad(partial(joint, entropy=0.0))(jnp.asarray(logits))
    np.testing.assert_allclose(value, 1.2 * 2000 * 4 / 5, rtol=1e-12)
    assert np.isfinite(slope).all()
    nobody = jax.grad(partial(joint, mask=np.zeros(B)))(jnp.asarray(logits))
    assert (nobody == 0).all()


# ---- every auxiliary


@pytest.mark.parametrize(
    ("start", "length", "shares"),
    [
        (0.0, 0.0, [1, 1, 1, 1, 1, 1]),
        (0.0, 2.0, [0, 0.25, 0.5, 0.75, 1, 1]),
        (1.0, 0.0, [0, 0, 1, 1, 1, 1]),
        (1.5, 1.0, [0, 0, 0, 0, 0.5, 1]),
    ],
)
def test_a_term_starts_and_rises_at_its_epochs(start, length, shares):
    """Two steps are an epoch."""
    found = [
        ramp(jnp.asarray(step), build(), start_epoch=start, ramp_epochs=length) for step in range(6)
    ]
    np.testing.assert_allclose(found, shares, atol=1e-15)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
@pytest.mark.parametrize("option", ["weight", "start_epoch", "ramp_epochs"])
def test_the_options_that_all_have_are_finite_and_not_negative(option, value):
    given = {"start_epoch": 0.0, "ramp_epochs": 0.0, "weight": 1.0} | {option: value}
    auxiliary = Auxiliary(None, weight=given.pop("weight"))
    with pytest.raises(ValueError, match=rf"^{option} must be finite and at least 0, got"):
        timed(auxiliary, **given)


@pytest.mark.parametrize("name", config.plugs("auxiliary"))
def test_every_auxiliary_has_a_weight_a_start_and_a_ramp(name):
    options = options_of(f"auxiliary/{name}.py")
    assert {"weight", "start_epoch", "ramp_epochs"} <= set(options)
    own = [key for key in options if key not in ("start_epoch", "ramp_epochs")]
    assert own[0] == "weight"


@pytest.mark.parametrize("name", config.plugs("auxiliary"))
def test_an_auxiliary_takes_a_single_example_and_outputs_without_bound(name):
    auxiliary = make(name)
    params, state = auxiliary.init(jax.random.key(0))

    def outputs(like, views):
        alike = [jnp.ones((views, 1, *stage.shape[2:])) for stage in like.stages]
        logits = 1e4 * np.eye(5)[np.arange(views) % 5][:, None]
        return Outputs(
            jnp.asarray(logits), tuple(alike), jnp.ones((views, 1, *like.embedding.shape[2:]))
        )

    image = jnp.zeros((1, *SHAPE))
    views = num_views({name: auxiliary}, image)
    teacher = tuple(
        outputs(like, views if auxiliary.teacher_views else 1) for like in build().teachers
    )
    batch = plain_batch([2])._replace(teacher=teacher, image=jnp.stack([image] * views))
    look = outputs(build().outputs, views)
    targets = (Target(jnp.asarray(np.eye(5)[[2]])),)
    loss = lambda params: auxiliary.loss(params, state, batch, look, targets)  # noqa: E731
    (value, new), slope = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    assert value.shape == ()
    chex.assert_tree_all_finite((value, slope))
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)


# ---- what is refused


ONE, TWO = ((4, 4, 1),), ((4, 4, 1), (2, 2, 1))
REFUSED = [
    ("hint", {"stage": 0}, TWO, (TWO,), r"hint\.stage must be between 1 and 2, got 0"),
    ("hint", {"stage": 3}, TWO, (TWO,), r"hint\.stage must be between 1 and 2, got 3"),
    ("hint", {"stage": 2}, TWO, (ONE,), r"hint\.stage must be between 1 and 1, got 2"),
    (
        "hint",
        {},
        TWO,
        (),
        r"'hint' needs a teacher, but config\.teachers is empty; name a run directory",
    ),
    (
        "hint",
        {"stage": 1},
        ((4, 4, 1),),
        (((5, 5, 1),),),
        r"hint\.stage 1: .* at least .*\(5, 5\), got \(4, 4\)",
    ),
    (
        "hint",
        {"stage": 1},
        ((4, 4, 1),),
        (((2, 5, 1),),),
        r"hint\.stage 1: .* at least .*\(2, 5\), got \(4, 4\)",
    ),
    ("maxsup", {"end_factor": -1.0}, ONE, (), r"maxsup\.end_factor must be finite and at least 0"),
    ("mbls", {"margin": -1.0}, ONE, (), r"mbls\.margin must be finite and at least 0, got -1\.0"),
    ("acls", {"others": -1.0}, ONE, (), r"acls\.others must be finite and at least 0, got -1\.0"),
    ("mmce", {"width": 0.0}, ONE, (), r"mmce\.width must be finite and above 0, got 0\.0"),
    ("mmce_weighted", {"width": np.nan}, ONE, (), r"weighted\.width must be finite and above 0"),
    ("soft_ece", {"bins": 0}, ONE, (), r"soft_ece\.bins must be between 1 and 1000, got 0"),
    ("cpc", {"exclusion": np.inf}, ONE, (), r"cpc\.exclusion must be finite and at least 0, got"),
    ("pairwise_confusion", {"distance": "cosine"}, ONE, (), r"distance must be 'logits' or 'prob"),
    ("lspp", {"alpha": 1.5}, ONE, (), r"lspp\.alpha must be between 0 and 1, got 1\.5"),
    ("jsd", {"views": 1}, ONE, (), r"jsd\.views must be between 2 and 64, got 1"),
    ("jsd", {"views": -2}, ONE, (), r"jsd\.views must be between 2 and 64, got -2"),
    ("joint", {"prior": -1.0}, ONE, (), r"joint\.prior must be finite and at least 0, got -1\.0"),
    (
        "joint",
        {"entropy": np.nan},
        ONE,
        (),
        r"joint\.entropy must be finite and at least 0, got nan",
    ),
    ("augmix", {"width": 0}, ONE, (), r"augmix\.width must be between 1 and 10, got 0"),
    (
        "augmix",
        {"severity": 11.0},
        ONE,
        (),
        r"augmix\.severity must be above 0\.1 and at most 10, got",
    ),
    ("regmixup", {"alpha": 0.0}, ONE, (), r"regmixup\.alpha must be above 0 and finite, got 0\.0"),
    ("mixupmp", {"alpha": -1.0}, ONE, (), r"mixupmp\.alpha must be above 0 and finite, got -1\.0"),
    ("rankmixup_mrl", {"margin": np.inf}, ONE, (), r"mrl\.margin must be finite, got inf"),
    ("rankmixup_mndcg", {"mixes": 0}, ONE, (), r"mndcg\.mixes must be between 1 and 63, got 0"),
    (
        "soft_augmentation",
        {"spread": 0.0},
        ONE,
        (),
        r"\.spread must be above 0 and finite, got 0\.0",
    ),
]


@pytest.mark.parametrize(("name", "options", "mine", "theirs", "sentence"), REFUSED)
def test_a_wrong_option_is_refused_with_a_sentence(name, options, mine, theirs, sentence):
    made = build()._replace(outputs=network(*mine), teachers=tuple(network(*one) for one in theirs))
    with pytest.raises(ValueError, match=rf"^(config\.)?auxiliary.*{sentence}") as caught:
        make(name, made, **options)
    assert "\n" not in str(caught.value)


def test_every_auxiliary_that_says_it_raises_is_refused_something():
    says_so = {
        n
        for n in config.plugs("auxiliary")
        if "Raises ValueError" in plug("auxiliary", n).make.__doc__
    }
    assert says_so == {name for name, *_ in REFUSED}
