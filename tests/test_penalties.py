"""Penalties against formulas written in numpy, in float64, and against published programs."""

from functools import lru_cache
from pathlib import Path

import frame
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frame import Case, plain_batch, plain_build, plug, softmax

from ldl_jax.auxiliary.base import gaps, root
from ldl_jax.contract import Outputs

# All arrays are of one shape and every batch is mixed, so that each penalty is compiled once.
B, K = 16, 10
DRAW = np.random.default_rng(0)
LOGITS = 4 * DRAW.standard_normal((B, K))
LABEL = DRAW.integers(0, K, B)
LABEL[::3] = LOGITS[::3].argmax(1)
MASK = np.ones(B)
MASK[[2, 7, 13]] = 0
OWN = DRAW.uniform(0, 1, B)
MATRIX = DRAW.standard_normal((K, K - 1))
WAY, MATRIX_WAY = DRAW.standard_normal((B, K)), DRAW.standard_normal((K, K - 1))
VALUES = Path(__file__).parent / "vectors/penalties/values.npz"


def log_softmax(z):
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


# Formulas of the examples that count: logits [n, K], label distributions [n, K]. What has no
# gradient is computed from `held`, other logits, which stay as they are where `z` moves.


def maxsup(z, label, held, epoch=0):
    return (1 + epoch / 2) * (z.max(1) - z.mean(1)).mean()


def mbls(z, label, held, margin=10.0):
    return np.maximum(z.max(1, keepdims=True) - z - margin, 0).mean()


def acls(z, label, held, others=0.1, margin=10.0):
    total = 0.0
    for row, fixed in zip(z, held, strict=True):
        rest = np.delete(row, row.argmax())
        total += max(row.max() - margin, 0) ** 2
        total += others * (np.maximum(fixed.max() - rest - margin, 0) ** 2).mean()
    return total / len(z)


def mdca(z, label, held):
    return np.abs(softmax(z).mean(0) - label.mean(0)).mean()


def correct(z, label):
    """(confidence, accuracy) of each example."""
    return softmax(z).max(1), label[np.arange(len(z)), z.argmax(1)]


def dca(z, label, held):
    r, c = correct(z, label)
    return abs(r.mean() - c.mean())


def mmce(z, label, held, width=0.4):
    r, c = correct(z, label)
    total = 0.0
    for i in range(len(z)):
        for j in range(len(z)):
            total += (c[i] - r[i]) * (c[j] - r[j]) * np.exp(-abs(r[i] - r[j]) / width)
    return total / len(z) ** 2


def mmce_weighted(z, label, held, width=0.4, as_published=True):
    r, c = correct(z, label)
    groups = [(c, 1 - r, 1), (1 - c, r, -1)]  # member by share, weight, sign
    total = 1e-10
    for share, weight, sign in groups:
        for other_share, other_weight, other_sign in groups:
            pairs = 0.0
            for i in range(len(z)):
                kernel = np.exp(-np.abs(r[i] - r) / width)
                pairs += share[i] * weight[i] * (other_share * other_weight * kernel).sum()
            count = share.sum() * other_share.sum()
            mean = pairs / count
            total += sign * other_sign * (mean / (count + 1e-5) if as_published else mean)
    return np.sqrt(total)


def confidence_penalty(z, label, held):
    return (np.exp(log_softmax(z)) * log_softmax(z)).sum(1).mean()


def soft_ece(z, label, held, bins=15, temperature=0.01, order=2.0):
    r, c = correct(z, label)
    centres = np.arange(0.5, bins) / bins
    u = np.exp(-((r[:, None] - centres) ** 2) / temperature)
    u /= u.sum(1, keepdims=True)
    total = 0.0
    for b in range(bins):
        size = u[:, b].sum()
        accuracy, confidence = (u[:, b] * c).sum() / size, (u[:, b] * r).sum() / size
        if size > 1e-5:
            total += size / len(z) * abs(accuracy - confidence) ** order
    return total ** (1 / order)


def cpc(z, label, held, exclusion=1.0):
    def softplus(x):
        return np.logaddexp(0, x)

    total = 0.0
    for row, shares in zip(z, label, strict=True):
        for y, share in enumerate(shares):
            rest = np.delete(row, y)
            pairs = softplus(rest[:, None] - rest[None, :]).sum() / ((K - 1) * (K - 2))
            total += share * (softplus(rest - row[y]).mean() + exclusion * pairs / 2)
    return total / len(z)


def logit_penalty(z, label, held):
    return (z**2).sum(1).mean() / 2


def lspp(z, label, held, alpha=0.1, matrix=MATRIX, held_matrix=MATRIX):
    def target(numbers):
        table = np.zeros((K, K))
        for y in range(K):
            table[y, np.arange(K) != y] = alpha * softmax(numbers[y])
            table[y, y] = 1 - alpha
        return label @ table

    network = -(target(held_matrix) * np.log(softmax(z) + 1e-6)).sum(1)
    return (network - (softmax(held) * np.log(target(matrix) + 1e-6)).sum(1)).mean() / 2


FORMULAS = [
    (maxsup, {}),
    (mbls, {}),
    (mbls, {"margin": 0.0}),
    (acls, {}),
    (acls, {"margin": 1.0}),
    (acls, {"margin": 1.0, "others": 0.7}),
    (mdca, {}),
    (dca, {}),
    (mmce, {}),
    (mmce_weighted, {}),
    (mmce_weighted, {"as_published": False, "width": 0.2}),
    (confidence_penalty, {}),
    (soft_ece, {}),
    (soft_ece, {"bins": 7, "temperature": 0.1, "order": 1.0}),
    (cpc, {}),
    (cpc, {"exclusion": 0.3}),
    (logit_penalty, {}),
    (lspp, {}),
]
QUICK = [(one, options) for one, options in FORMULAS if not options or [*options] == ["margin"]]
CASES = [(one.__name__, tuple(options.items())) for one, options in FORMULAS]
CASES += [("pairwise_confusion", ()), ("pairwise_confusion", (("distance", "probabilities"),))]
PENALTIES = sorted({name for name, _ in CASES})


@lru_cache(None)
def make(name, options=()):
    build = plain_build(num_classes=K)
    return plug("auxiliary", name).make(build, **dict(options))


@lru_cache(None)
def program(name, options=()):
    """(logits, matrix, label, own share, mask, step) -> (loss, its gradient by the first two)."""
    auxiliary = make(name, options)

    def loss(logits, matrix, label, own, mask, step):
        share = jnp.stack([own, 1 - own], axis=1)
        batch = plain_batch(label, share=share, mask=mask)._replace(step=step)
        outputs = Outputs(jnp.stack([logits, 0 * logits]), (), None)
        return auxiliary.loss({"matrix": matrix}, (), batch, outputs, ())[0]

    return jax.jit(jax.value_and_grad(loss, (0, 1)))


def graded(name, options=(), *, z=LOGITS, matrix=MATRIX, label=LABEL, own=OWN, mask=MASK, step=0):
    """(loss, gradient by the logits, gradient by the matrix of `lspp`) by the program."""
    arrays = [jnp.asarray(each) for each in (z, matrix, label, own, mask, step)]
    value, slopes = program(name, options)(*arrays)
    return np.asarray(value), *map(np.asarray, slopes)


def mixed_labels(label, own):
    """Distributions of labels, each image mixed with the one before it."""
    rows = np.eye(K)[label]
    return own[:, None] * rows + (1 - own)[:, None] * np.roll(rows, 1, axis=0)


def by_formula(formula, options, way=0.0, z=LOGITS, **more):
    counts = MASK > 0
    label = mixed_labels(LABEL, OWN)
    return formula((z + way * WAY)[counts], label[counts], z[counts], **options, **more)


@pytest.mark.parametrize(("formula", "options"), frame.slow_but(QUICK, FORMULAS))
def test_a_penalty_and_its_slope_are_those_of_its_formula(formula, options):
    value, slope, _ = graded(formula.__name__, tuple(options.items()))
    np.testing.assert_allclose(value, by_formula(formula, options), rtol=1e-10, atol=1e-15)
    ahead, behind = (by_formula(formula, options, way) for way in (1e-6, -1e-6))
    np.testing.assert_allclose((slope * WAY).sum(), (ahead - behind) / 2e-6, rtol=1e-5, atol=1e-9)


def pairs_by_numpy(z, distance):
    label = mixed_labels(LABEL, OWN)
    total, count = 0.0, 0
    for i in range(B // 2):
        j = i + B // 2
        if not MASK[i] or not MASK[j]:
            continue
        count += 1
        if distance == "logits":
            total += np.linalg.norm(z[i] - z[j])
        else:
            same = (label[i] * label[j]).sum()
            total += (1 - same) * ((softmax(z)[i] - softmax(z)[j]) ** 2).sum()
    return total / (2 * count)


@pytest.mark.parametrize("distance", ["logits", "probabilities"])
def test_confusion_is_the_distance_of_the_halves(distance):
    value, slope, _ = graded("pairwise_confusion", (("distance", distance),))
    np.testing.assert_allclose(value, pairs_by_numpy(LOGITS, distance), rtol=1e-12)
    ahead, behind = (pairs_by_numpy(LOGITS + way * WAY, distance) for way in (1e-6, -1e-6))
    np.testing.assert_allclose((slope * WAY).sum(), (ahead - behind) / 2e-6, rtol=1e-6)


def test_the_matrix_of_label_smoothing_learns_from_the_predictions():
    _, _, slope = graded("lspp")
    ahead, behind = (
        by_formula(lspp, {}, matrix=MATRIX + way * MATRIX_WAY) for way in (1e-6, -1e-6)
    )
    np.testing.assert_allclose((slope * MATRIX_WAY).sum(), (ahead - behind) / 2e-6, rtol=1e-6)
    params, state = make("lspp").init(jax.random.key(0))
    assert state == ()
    np.testing.assert_array_equal(params["matrix"], np.zeros((K, K - 1)))


@pytest.mark.parametrize(
    ("name", "options"), frame.slow_but([case for case in CASES if not case[1]], CASES)
)
def test_masked_examples_change_nothing(name, options):
    """Masked images are mixed with nobody: the step masks what is mixed with a masked one."""
    label, z = LABEL.copy(), LOGITS.copy()
    counts = MASK > 0
    z[~counts], label[~counts] = np.nan, 0
    before = graded(name, options, own=np.ones(B))
    after = graded(name, options, own=np.ones(B), z=z, label=label)
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[1], before[1])
    np.testing.assert_array_equal(after[1][~counts], 0)
    np.testing.assert_array_equal(after[2], before[2])
    nobody = graded(name, options, z=z, mask=np.zeros(B))
    for part in nobody:
        np.testing.assert_array_equal(part, 0)


HUGE = np.zeros((B, K))
HUGE[0, 3] = 1e4
HUGE[1] = -1e4 * np.arange(K)
HUGE[2, :5] = -np.inf
HUGE[3, 1:] = -np.inf
HUGE[4, [0, 9]] = 1e4
HUGE[5] = 40 * DRAW.standard_normal(K)
HUGE[6] = -1e3
HUGE[7] = 1e30
HUGE[8] = HUGE[0]


@pytest.mark.parametrize(
    ("name", "options"), frame.slow_but([case for case in CASES if not case[1]], CASES)
)
def test_loss_and_gradient_are_finite_at_extreme_logits(name, options):
    right = np.where(np.isfinite(HUGE), HUGE, -1e30).argmax(1)
    for label in (right, (right + 1) % K, LABEL):
        for own in (np.ones(B), OWN):
            for mask in (MASK, np.ones(B), np.eye(B)[2], np.eye(B)[3]):
                for part in graded(name, options, z=HUGE, label=label, own=own, mask=mask):
                    assert np.isfinite(part).all()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), CASES)
def test_so_they_are_in_float32(name, options):
    z = np.clip(HUGE, -1e4, 1e4)
    z[~np.isfinite(HUGE)] = -np.inf
    single = {"matrix": np.float32(MATRIX), "own": np.float32(OWN), "mask": np.float32(MASK)}
    for part in graded(name, options, z=np.float32(z), **single):
        assert part.dtype == np.float32
        assert np.isfinite(part).all()


OFFICIAL = {  # key in vectors/penalties/values.npz: the penalty, its options, the epoch, the weight
    "mmce": ("mmce", (), 0, 1.0),
    "mmce_weighted": ("mmce_weighted", (), 0, 1.0),
    "mbls_0": ("mbls", (("margin", 0.0),), 0, None),
    "entropy": ("confidence_penalty", (), 0, 1 / K),
    "mdca": ("mdca", (), 0, None),
    "dca": ("dca", (), 0, None),
    "acls_1": ("acls", (("margin", 1.0),), 0, None),
    "cpc": ("cpc", (), 0, None),
    "maxsup_first": ("maxsup", (), 0, None),
    "maxsup_last": ("maxsup", (), 2, None),
    "logit_penalty": ("logit_penalty", (), 0, None),
    "lspp": ("lspp", (), 0, None),
}
ALONE = ("mmce", "mmce_weighted", "mdca", "lspp")  # without the cross entropy


@pytest.mark.parametrize("key", OFFICIAL)
def test_a_penalty_is_that_of_the_published_program(key):
    name, options, epoch, weight = OFFICIAL[key]
    with np.load(VALUES) as values:
        z, label, loss, slope = (values[each] for each in ("z", "y", key, f"{key}_gradient"))
        matrix, by_matrix = values["lspp_matrix"], values["lspp_matrix_gradient"]
    weight = make(name, options).weight if weight is None else weight
    step = epoch * frame.PER_EPOCH + 1
    given = {"z": z, "matrix": matrix, "label": label, "step": step}
    found = graded(name, options, own=np.ones(B), mask=np.ones(B), **given)
    if key not in ALONE:
        loss = loss + log_softmax(z)[np.arange(B), label].mean()
        slope = slope - (softmax(z) - np.eye(K)[label]) / B
    np.testing.assert_allclose(weight * found[0], loss, rtol=1e-10)
    np.testing.assert_allclose(weight * found[1], slope, rtol=0, atol=1e-12 * np.abs(slope).max())
    if key == "lspp":
        np.testing.assert_allclose(found[2], by_matrix, rtol=0, atol=1e-12)


def test_the_weight_of_max_suppression_rises_by_epoch():
    first = graded("maxsup")[0]
    for step, factor in [(0, 1), (1, 1), (2, 1.5), (3, 1.5), (4, 2), (5, 2), (6, 2)]:
        np.testing.assert_allclose(graded("maxsup", step=step)[0], factor * first, rtol=1e-14)


def test_soft_bins_of_temperature_zero_are_hard():
    value, _, _ = graded("soft_ece", (("temperature", 1e-7), ("order", 1.0)), own=np.ones(B))
    z = LOGITS[MASK > 0]
    confidence, right = correct(z, np.eye(K)[LABEL[MASK > 0]])
    bins = np.floor(confidence * 15).astype(int)
    error = sum(abs((confidence - right)[bins == b].sum()) for b in range(15)) / len(z)
    np.testing.assert_allclose(value, error, rtol=1e-10)


def test_with_no_or_all_predictions_right_the_weighted_error_is_zero():
    right = LOGITS.argmax(1)
    for label in (right, (right + 1) % K):
        value, slope, _ = graded("mmce_weighted", label=label, own=np.ones(B))
        assert value == 0
        np.testing.assert_array_equal(slope, 0)


@pytest.mark.slow
def test_two_classes_have_one_kind_of_pairwise_constraint():
    z, label = jnp.asarray(LOGITS[:, :2]), LABEL % 2
    auxiliary = plug("auxiliary", "cpc").make(plain_build(num_classes=2))
    loss = auxiliary.loss({}, (), plain_batch(label), Outputs(z[None], (), None), ())[0]
    expected = np.logaddexp(0, z[np.arange(B), 1 - label] - z[np.arange(B), label]).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-12)


def test_of_tied_logits_the_first_has_the_gradient():
    z = np.zeros((B, K))
    z[:, [4, 7]] = 3
    _, slope, _ = graded("maxsup", z=z, mask=np.ones(B))
    expected = np.full(K, -1 / K)
    expected[4] += 1
    np.testing.assert_allclose(slope, np.tile(expected / B, (B, 1)), rtol=1e-12)
    # Each of them counts in the first part of ACLS.
    z[:, [4, 7]] = 12
    value, slope, _ = graded("acls", z=z, mask=np.ones(B))
    np.testing.assert_allclose(value, 2 * 2**2 + 0.1 * 8 * 2**2 / (K - 1), rtol=1e-12)
    np.testing.assert_allclose(slope[0, [4, 7]], [2 * 2 * 2 / B, 0], rtol=1e-12)


def test_parts_at_their_edges():
    z = jnp.asarray([[0.0, -jnp.inf, 3.0]])
    np.testing.assert_array_equal(gaps(jnp.asarray([3.0]), z), [[3, 0, 0]])
    np.testing.assert_allclose(root(jnp.asarray([0.0, 8.0]), 3.0), [0, 2])
    np.testing.assert_allclose(jax.grad(lambda x: root(x).sum())(jnp.zeros(2)), 0)


RANGES = {
    "maxsup.end_factor": ("finite and at least 0", [-0.1, np.nan, np.inf]),
    "mbls.margin": ("finite and at least 0", [-1.0, np.nan, np.inf]),
    "acls.margin": ("finite and at least 0", [-1.0, np.nan, np.inf]),
    "acls.others": ("finite and at least 0", [-1.0, np.nan, np.inf]),
    "mmce.width": ("finite and above 0", [0.0, -1.0, np.nan, np.inf]),
    "mmce_weighted.width": ("finite and above 0", [0.0, -1.0, np.nan, np.inf]),
    "soft_ece.bins": ("between 1 and 1000", [0, 1001]),
    "soft_ece.temperature": ("finite and above 0", [0.0, np.nan, np.inf]),
    "soft_ece.order": ("finite and at least 1", [0.5, np.nan, np.inf]),
    "cpc.exclusion": ("finite and at least 0", [-1.0, np.nan, np.inf]),
    "pairwise_confusion.distance": ("'logits' or 'probabilities'", ["", "cosine"]),
    "lspp.alpha": ("between 0 and 1", [-0.1, 1.1, np.nan]),
}


@pytest.mark.parametrize("option", RANGES)
def test_an_option_out_of_range_is_refused_with_a_sentence(option):
    name, own = option.split(".")
    condition, values = RANGES[option]
    for value in values:
        with pytest.raises(
            ValueError, match=rf"^config\.auxiliary\.{name}\.{own} must be"
        ) as caught:
            make(name, ((own, value),))
        assert str(caught.value).endswith(f"{own} must be {condition}, got {value!r}")


# ---- in a step


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", PENALTIES)
def test_a_step_with_a_penalty_is_finite_and_in_float32(name, dtype):
    case = Case("hard", "mixup", dtype, auxiliaries=(name,), network="linear")
    state, (scalars,) = frame.train(case, 1, make=frame.streamed)
    assert scalars["finite"]
    assert np.isfinite(scalars[f"loss_{name}"])
    kinds = {leaf.dtype for leaf in jax.tree.leaves((state, scalars))}
    assert {kind for kind in kinds if np.issubdtype(kind, np.floating)} == {np.dtype("float32")}


@pytest.mark.slow
@pytest.mark.parametrize("name", PENALTIES)
def test_eight_devices_are_one_device_with_a_penalty(name):
    def batch(step):
        return frame.streamed(step, masked=(5,))

    case = Case("hard", "mixup", "float64", (name,), network="linear")
    (one, before), (eight, after) = (frame.train(case, 3, n, batch) for n in (1, 8))
    for key in ("loss", f"loss_{name}", "grad_norm"):
        found = [scalars[key] for scalars in after]
        np.testing.assert_allclose(found, [scalars[key] for scalars in before], atol=1e-10, rtol=0)
    for mine, other in zip(jax.tree.leaves(one.params), jax.tree.leaves(eight.params), strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-10)
