"""Criteria against float64 formulas written in numpy, where logits and targets are ordinary and
where they are not.
"""

from functools import partial
from pathlib import Path

import frame
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frame import plug, softmax

from ldl_jax import config
from ldl_jax.contract import Target
from ldl_jax.labels.base import mix_rows, mix_target, term_loss
from ldl_jax.losses.base import expectation
from ldl_jax.mixing import base as mixing

DRAW = np.random.default_rng(0)
LOGITS = 3 * DRAW.standard_normal((6, 5))
PROBS = DRAW.dirichlet(np.ones(5), 6)
PROBS[0] = np.eye(5)[2]
PROBS[1] = [0.5, 0, 0.5, 0, 0]
GAMMAS = (0.5, 1.0, 2.0, 5.0)
VARIANTS = [  # met by the formula in the default suite, by the other tests in the slow one
    ("dual_focal", (("gamma", 0.5),)),
    ("dual_focal", (("detach", True),)),
    ("bsce_gra", (("gamma", 2.0), ("norm", 3.0))),
    ("bsce_gra", (("gamma", 1.5), ("detach", False))),
    ("sce", (("alpha", 6.0), ("beta", 0.1))),
    ("gce", (("q", 1.0),)),
    ("label_relaxation", (("alpha", 0.4),)),
    ("label_relaxation", (("alpha", 0.0),)),
    ("focal", (("schedule", "flsd53"),)),
    ("bootstrap", (("beta", 0.8), ("hard", True))),
]
CRITERIA = [
    *((name, ()) for name in config.plugs("losses") if name != "focal"),
    *(("focal", (("gamma", gamma),)) for gamma in GAMMAS),
    *VARIANTS,
]
MOST = frame.slow_but([one for one in CRITERIA if one not in VARIANTS], CRITERIA, VARIANTS)
# What does not hold by definition:
BOUNDED = ("sce", "gce", "brier", "bootstrap")  # a share of an impossible class costs a finite loss
FLOORED = ("sce", "bootstrap")  # an impossible class counts as one of probability 1e-7
# A class without a share counts, and so has a gradient by its share.
ALL_CLASSES = [("brier", ()), ("bsce_gra", (("gamma", 1.5), ("detach", False)))]
HUGE = 1e4 * np.array(
    [
        [1, -1, 0, 0, 0],
        [-1, 1, 1, 0, 3e-4],
        [1, 1, -1, -1, 0],
        [0, 0, 0, 0, 1],
        [-1, 0, 1, 0, 1],
        [1, 1, 1, 1, 1],
    ]
)  # all arrays are of one shape, so that each operation is compiled once
HUGE_PROBS = np.array(
    [[1, 0, 0, 0, 0], [0.25, 0.75, 0, 0, 0], [0, 0, 1, 0, 0], [0.2] * 5, [1, 0, 0, 0, 0], [0.2] * 5]
)


def criterion(name, options):
    return plug("losses", name).make(**dict(options))


def log_p(logits):
    logits = np.asarray(logits, np.float64)
    top = logits.max(-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))


def average(q, values):
    """Over the classes of which the target has a share."""
    return (q[q > 0] * values[q > 0]).sum()


def focal_by_numpy(logs, q, fixed, gamma=2.0, schedule=""):
    p = np.exp(logs)
    return -average(q, (1 - p) ** (np.where(p < 0.2, 5, 3) if schedule else gamma) * logs)


def dual_focal_by_numpy(logs, q, fixed, gamma=5.0, detach=False):
    p = np.exp(logs)
    others = np.exp(fixed[0]) if detach else p
    below = [max(others[p < one], default=0) for one in p]
    return -average(q, (1 - p + below) ** gamma * logs)


def bsce_by_numpy(logs, q, fixed, gamma=1.0, norm=1.0, detach=True):
    at_logs, at_q = fixed if detach else (logs, q)
    distance = (np.abs(np.exp(at_logs) - at_q) ** norm).sum() ** (1 / norm)
    return -(distance**gamma) * average(q, logs)


def sce_by_numpy(logs, q, fixed, alpha=0.1, beta=1.0):
    p, q = np.maximum(np.exp(logs), 1e-7), np.maximum(q, 1e-4)
    return -alpha * (q * np.log(p)).sum() - beta * (p * np.log(q)).sum()


def bootstrap_by_numpy(logs, q, fixed, beta=0.95, hard=False):
    p = np.clip(np.exp(logs), 1e-7, 1 - 1e-7)
    rest = np.eye(len(p))[np.argmax(p)] if hard else p
    return -((beta * q + (1 - beta) * rest) * np.log(p)).sum()


def relaxation_by_numpy(logs, q, fixed, alpha=0.1):
    """The scale of the classes that are not at their bound by bisection; the target is constant."""
    p, least = np.exp(logs), (1 - alpha) * fixed[1]
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if np.maximum(least, middle * p).sum() > 1 else (middle, high)
    r = np.maximum(least, high * p)
    return average(r, np.log(np.where(r > 0, r, 1)) - logs)


FORMULAS = {
    "cross_entropy": lambda logs, q, fixed: -average(q, logs),
    "kl": lambda logs, q, fixed: average(q, np.log(np.where(q > 0, q, 1)) - logs),
    "focal": focal_by_numpy,
    "dual_focal": dual_focal_by_numpy,
    "bsce_gra": bsce_by_numpy,
    "sce": sce_by_numpy,
    "gce": lambda logs, t, fixed, q=0.7: average(t, (1 - np.exp(logs) ** q) / q),
    "brier": lambda logs, q, fixed: ((np.exp(logs) - q) ** 2).sum(),
    "label_relaxation": relaxation_by_numpy,
    "bootstrap": bootstrap_by_numpy,
}


def by_numpy(name, options, logits, probs, fixed=None):
    """The formula, row by row.

    What has no gradient is computed from `fixed`, another (logits, probs).
    """
    logits, probs = np.asarray(logits, np.float64), np.asarray(probs, np.float64)
    others = (logits, probs) if fixed is None else fixed
    rows = zip(log_p(logits), probs, log_p(others[0]), others[1], strict=True)
    return np.array(
        [
            FORMULAS[name](logs, q, (at_logs, at_q), **dict(options))
            for logs, q, at_logs, at_q in rows
        ]
    )


def slopes(function, at, step=1e-6):
    """Central differences of rows [B] by the entries [B, K] of the same row."""
    columns = [
        (function(at + step * e) - function(at - step * e)) / (2 * step)
        for e in np.eye(at.shape[1])
    ]
    return np.stack(columns, 1)


def gradient(function, *arguments, by=0):
    return np.asarray(jax.grad(lambda *a: function(*a).sum(), by)(*map(jnp.asarray, arguments)))


@pytest.mark.parametrize(("name", "options"), CRITERIA)
def test_a_criterion_is_its_formula(name, options):
    made = criterion(name, options)
    np.testing.assert_allclose(
        made(LOGITS, PROBS), by_numpy(name, options, LOGITS, PROBS), rtol=1e-12, atol=1e-14
    )
    shifted = LOGITS + 40 * np.arange(6)[:, None]
    np.testing.assert_allclose(made(shifted, PROBS), made(LOGITS, PROBS), rtol=1e-11)


@pytest.mark.parametrize(("name", "options"), MOST)
def test_the_gradient_is_the_slope(name, options):
    made = criterion(name, options)
    formula, at = partial(by_numpy, name, options), (LOGITS, PROBS)
    by_logits = slopes(lambda logits: formula(logits, PROBS, at), LOGITS)
    np.testing.assert_allclose(gradient(made, LOGITS, PROBS), by_logits, rtol=1e-6, atol=1e-8)
    held = PROBS > 2e-6
    by_probs = slopes(lambda probs: formula(LOGITS, probs, at), PROBS)
    found = gradient(made, LOGITS, PROBS, by=1)
    np.testing.assert_allclose(found[held], by_probs[held], rtol=1e-6, atol=1e-8)
    # a class without a share is taken for absent, in the gradient too
    assert (found[~held] == 0).all() or (name, options) in ALL_CLASSES


@pytest.mark.parametrize("name", ["cross_entropy", "kl"])
def test_the_gradient_by_the_logits_is_prediction_less_target(name):
    np.testing.assert_allclose(
        gradient(criterion(name, ()), LOGITS, PROBS), softmax(LOGITS) - PROBS, atol=1e-14
    )


@pytest.mark.parametrize("name", config.plugs("losses"))
def test_a_criterion_takes_a_single_example_and_has_a_formula_here(name):
    made = criterion(name, ())
    np.testing.assert_array_equal(made(LOGITS[:1], PROBS[:1]), made(LOGITS, PROBS)[:1])
    assert name in FORMULAS


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "options"), MOST)
def test_huge_logits_have_a_value_and_a_gradient(name, options, dtype):
    made, logits, probs = criterion(name, options), HUGE.astype(dtype), HUGE_PROBS.astype(dtype)
    expected, loss = by_numpy(name, options, HUGE, probs), made(logits, probs)
    assert np.isfinite(loss).all()
    # The last row has probabilities of 0.2, where the exponent of FLSD-53 jumps.
    compared = slice(5 if options == (("schedule", "flsd53"),) else 6)
    np.testing.assert_allclose(loss[compared], expected[compared], rtol=1e-6, atol=1e-6)
    for by in (0, 1):
        assert np.isfinite(gradient(made, logits, probs, by=by)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "options"), MOST)
def test_a_class_that_is_ruled_out_is_as_if_it_were_not_there(name, options, dtype):
    made, left = criterion(name, options), slice(0, 4)
    logits, probs = LOGITS.astype(dtype), PROBS.astype(dtype)
    logits[:, 4], probs[:, 4] = -np.inf, 0
    probs /= probs.sum(-1, keepdims=True)
    start = logits[:, left].astype(np.float64)

    def formula(z, fixed=None):
        if name in FLOORED:
            return by_numpy(name, options, np.column_stack([z, logits[:, 4]]), probs)
        return by_numpy(name, options, z, probs[:, left], fixed)

    np.testing.assert_allclose(made(logits, probs), formula(start), rtol=1e-5, atol=1e-12)
    slope = slopes(lambda z: formula(z, (start, probs[:, left])), start)
    found = gradient(made, logits, probs)
    np.testing.assert_allclose(found[:, left], slope, rtol=1e-4, atol=1e-5)
    assert (found[:, 4] == 0).all()
    by_probs = gradient(made, logits, probs, by=1)[:, 4]
    assert (by_probs == 0).all() or (name, options) in ALL_CLASSES
    probs[:, 4] = 0.5
    loss = np.asarray(made(logits, probs))
    if name in BOUNDED:
        np.testing.assert_allclose(loss, by_numpy(name, options, logits, probs), rtol=1e-5)
        assert np.isfinite(gradient(made, logits, probs)).all()
    else:
        # a share of what cannot be is infinitely wrong
        assert (loss == np.inf).all()


@pytest.mark.parametrize(("name", "options"), MOST)
@pytest.mark.parametrize(
    ("logits", "probs", "loss"),
    [("float32", "float32", "float32"), ("float64", "float64", "float64"), ("float32", "float64", "float64"),
     ("bfloat16", "float32", "float32"), ("bfloat16", "bfloat16", "float32"), ("float16", "float16", "float32")],
)  # fmt: skip
def test_a_loss_is_never_below_float32(name, options, logits, probs, loss):
    made = criterion(name, options)
    given = jax.ShapeDtypeStruct((6, 5), logits), jax.ShapeDtypeStruct((6, 5), probs)
    found = jax.eval_shape(made, *given)
    assert (found.dtype, found.shape) == (jnp.dtype(loss), (6,))
    slope = jax.eval_shape(jax.grad(lambda *a: made(*a).sum(), (0, 1)), *given)
    assert tuple(one.dtype for one in slope) == (jnp.dtype(logits), jnp.dtype(probs))


def test_logits_in_half_precision_lose_nothing_more_in_the_loss():
    logits = jnp.asarray(LOGITS, jnp.bfloat16)
    for name, options in CRITERIA:
        expected = by_numpy(name, options, np.asarray(logits, np.float64), PROBS)
        found = criterion(name, options)(logits, jnp.asarray(PROBS, jnp.float32))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_best_of_kl_is_zero_and_of_cross_entropy_the_entropy():
    probs = PROBS[2:]
    np.testing.assert_allclose(criterion("kl", ())(np.log(probs), probs), 0, atol=1e-14)
    entropy = -(probs * np.log(probs)).sum(-1)
    np.testing.assert_allclose(
        criterion("cross_entropy", ())(np.log(probs), probs), entropy, rtol=1e-12
    )
    assert (np.asarray(criterion("kl", ())(LOGITS, PROBS)) > 0).all()


@pytest.mark.parametrize("gamma", GAMMAS)
def test_focal_loss_of_a_label_is_the_published_one(gamma):
    label = np.arange(6) % 5
    p = softmax(LOGITS)[np.arange(6), label]
    found = criterion("focal", (("gamma", gamma),))(LOGITS, np.eye(5)[label])
    np.testing.assert_allclose(found, -((1 - p) ** gamma) * np.log(p), rtol=1e-12)


def test_focal_loss_at_gamma_0_is_cross_entropy():
    for function in (lambda made: made(LOGITS, PROBS), lambda made: gradient(made, LOGITS, PROBS)):
        np.testing.assert_array_equal(
            function(criterion("focal", (("gamma", 0.0),))),
            function(criterion("cross_entropy", ())),
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gamma", [0.1, 0.5, 0.9])
def test_focal_loss_is_flat_where_nothing_is_left_to_learn(gamma, dtype):
    made, sure = criterion("focal", (("gamma", gamma),)), np.zeros((6, 5), dtype)
    sure[:, 0] = [200, 100, 50, 40, 39, 38]
    target = np.eye(5, dtype=dtype)[[0] * 6]
    np.testing.assert_allclose(made(sure, target), 0, atol=1e-12)
    np.testing.assert_allclose(gradient(made, sure, target), 0, atol=1e-6)
    assert np.isfinite(gradient(made, sure, target, by=1)).all()


def test_nothing_times_infinity_is_nothing():
    probs, values = (
        jnp.array([[0.0, 1.0], [0.0, 0.0]]),
        jnp.array([[-jnp.inf, 2.0], [jnp.inf, jnp.nan]]),
    )
    np.testing.assert_array_equal(expectation(probs, values), [2, 0])
    np.testing.assert_array_equal(gradient(expectation, probs, values), [[0, 2], [0, 0]])
    np.testing.assert_array_equal(gradient(expectation, probs, values, by=1), probs)


@pytest.mark.parametrize("temperature", [1.0, 4.0, np.linspace(0.5, 5, 6)])
@pytest.mark.parametrize("weight", [1.0, 0.3, np.arange(6) / 3])
def test_a_term_is_weight_times_temperature_squared_times_the_criterion(weight, temperature):
    scaled = LOGITS / np.reshape(temperature, (-1, 1))
    for soft, formula in ((False, ("focal", (("gamma", 2.0),))), (True, ("kl", ()))):
        found = term_loss(
            Target(PROBS, weight, temperature, soft=soft),
            LOGITS,
            criterion("focal", (("gamma", 2.0),)),
        )
        expected = weight * np.square(temperature) * by_numpy(*formula, scaled, PROBS)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def shares(ways, size=6):
    """Partners and shares of a mixing of so many images; the first example is left alone."""
    share = np.random.default_rng(ways).dirichlet(np.ones(ways), size)
    share[0] = np.eye(ways)[0]
    return np.asarray(mixing.partners(size, ways)), share


@pytest.mark.parametrize("ways", [1, 2, 4])
def test_mixed_rows_are_the_shares_of_the_partners_rows(ways):
    partner, share = shares(ways)
    for values in (PROBS, PROBS[:, 0]):
        expected = [sum(share[i, m] * values[partner[i, m]] for m in range(ways)) for i in range(6)]
        np.testing.assert_allclose(
            mix_rows(jnp.asarray(values), partner, share), expected, rtol=1e-14
        )


@pytest.mark.parametrize(
    "weight", [1.0, 0.3, np.array([0, 0, 1, 0.5, 0, 2.0])], ids=["one", "number", "of each"]
)
@pytest.mark.parametrize("ways", [2, 4])
def test_the_cross_entropy_of_a_mixed_term_is_the_sum_of_its_parts(ways, weight):
    partner, share = shares(ways)
    mixed = mix_target(Target(jnp.asarray(PROBS), weight), partner, jnp.asarray(share))
    weights = np.broadcast_to(weight, 6)
    formula = partial(by_numpy, "cross_entropy", ())
    expected = sum(
        share[:, m] * weights[partner[:, m]] * formula(LOGITS, PROBS[partner[:, m]])
        for m in range(ways)
    )
    np.testing.assert_allclose(
        term_loss(mixed, LOGITS, criterion("cross_entropy", ())), expected, rtol=1e-12
    )
    np.testing.assert_allclose(mixed.weight, np.sum(share * weights[partner], 1), rtol=1e-14)
    np.testing.assert_allclose(mixed.probs.sum(-1), 1, rtol=1e-12)
    assert mixed.mixed


def test_a_mixed_term_without_weight_keeps_the_mixed_distribution():
    partner, share = shares(2)
    # the second example is mixed with the first: nothing of it counts
    weight = np.array([0, 0, 1, 1, 1, 1.0])
    mixed = mix_target(Target(jnp.asarray(PROBS), weight, 2.0), partner, jnp.asarray(share))
    assert mixed.weight[0] == mixed.weight[1] == 0
    for i in (0, 1):
        np.testing.assert_allclose(mixed.probs[i], share[i] @ PROBS[partner[i]], rtol=1e-14)
    # the third with the second, which counts for nothing: its own distribution is left
    part = share[2, 0] * PROBS[2]
    np.testing.assert_allclose(mixed.probs[2], part / share[2, 0], rtol=1e-14)
    assert mixed.temperature == 2


def test_a_term_of_the_mixed_image_is_not_mixed_again():
    target = Target(jnp.asarray(PROBS), 0.5, mixed=True)
    assert mix_target(target, *shares(2)) is target
    alone = Target(jnp.asarray(PROBS))
    assert mix_target(alone, *shares(1)) is alone


OFFICIAL = {  # key in vectors/losses/values.npz: the criterion, and the program's sum or mean
    "flsd53": ("focal", {"schedule": "flsd53"}, np.sum),
    "brier": ("brier", {}, np.mean),
    "dual_focal": ("dual_focal", {}, np.sum),
    "dual_focal_detached": ("dual_focal", {"detach": True}, np.sum),
    "bsce_gra": ("bsce_gra", {}, np.sum),
    "bsce_gra_2": ("bsce_gra", {"gamma": 2.0, "norm": 2.0}, np.mean),
    "bsce": ("bsce_gra", {"detach": False}, np.sum),
    "label_relaxation": ("label_relaxation", {}, np.mean),
    "sce": ("sce", {}, np.mean),
    "sce_100": ("sce", {"alpha": 6.0, "beta": 0.1}, np.mean),
    "gce": ("gce", {}, np.mean),
    "bootstrap_soft": ("bootstrap", {}, np.mean),
    "bootstrap_hard": ("bootstrap", {"beta": 0.8, "hard": True}, np.mean),
}
VALUES = Path(__file__).parent / "vectors/losses/values.npz"


@pytest.mark.parametrize("key", OFFICIAL)
def test_a_loss_of_labels_is_that_of_the_published_program(key):
    name, options, reduce = OFFICIAL[key]
    made = plug("losses", name).make(**options)
    with np.load(VALUES) as values:
        z, one_hot = values["z"], np.eye(10)[values["y"]]
        loss, slope = values[key], values[f"{key}_gradient"]
    share = 1 if reduce is np.sum else 1 / len(z)
    found = jax.jit(jax.value_and_grad(lambda z: share * made(z, one_hot).sum()))(z)
    np.testing.assert_allclose(found[0], loss, rtol=1e-12)
    np.testing.assert_allclose(found[1], slope, rtol=0, atol=1e-12 * np.abs(slope).max())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dual_focal", (("gamma", 0.0),)),
        ("bsce_gra", (("gamma", 0.0), ("detach", False))),
        ("bootstrap", (("beta", 1.0),)),
        ("gce", (("q", 1e-9),)),
    ],
)
def test_at_the_end_of_its_range_a_loss_is_cross_entropy(name, options):
    plain, made = criterion("cross_entropy", ()), criterion(name, options)
    np.testing.assert_allclose(made(LOGITS, PROBS), plain(LOGITS, PROBS), rtol=1e-6)
    np.testing.assert_allclose(
        gradient(made, LOGITS, PROBS), gradient(plain, LOGITS, PROBS), atol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "options"), [("brier", ()), ("bsce_gra", ()), ("label_relaxation", ())]
)
def test_these_losses_are_0_at_the_distribution_itself(name, options):
    made = criterion(name, options)
    logits = np.array(jnp.log(PROBS))  # -inf where the distribution has no share
    np.testing.assert_allclose(made(logits, PROBS), 0, atol=1e-14)
    np.testing.assert_allclose(gradient(made, logits, PROBS), 0, atol=1e-14)


def test_label_relaxation_asks_nothing_of_a_prediction_within_its_set():
    made = criterion("label_relaxation", (("alpha", 0.3),))
    inside = 0.75 * PROBS + 0.25 * np.roll(PROBS, 1, axis=0)
    logits = np.log(np.where(inside > 0, inside, 1e-300))
    np.testing.assert_array_equal(made(logits, PROBS), 0)
    np.testing.assert_allclose(gradient(made, logits, PROBS), 0, atol=1e-15)
    # Halfway between two labels each has less than 0.7.
    label = np.eye(5)[np.arange(6) % 5]
    outside = 0.5 * label + 0.5 * np.roll(label, 1, axis=1)
    assert (np.asarray(made(np.log(outside + 1e-9), label)) > 0.05).all()


def test_label_relaxation_moves_a_prediction_to_the_edge_of_its_set_and_no_further():
    made = criterion("label_relaxation", (("alpha", 0.3),))

    def descend(_, logits):
        return logits - jax.grad(lambda z: made(z, jnp.asarray(PROBS)).sum())(logits)

    logits = jax.jit(lambda z: jax.lax.fori_loop(0, 2000, descend, z))(LOGITS)
    p = softmax(logits)
    np.testing.assert_allclose(made(logits, PROBS), 0, atol=1e-6)
    assert (p >= 0.7 * PROBS - 1e-3).all()
    assert (np.abs(p - PROBS).max(-1) > 0.01).all()


def test_dual_focal_loss_looks_past_equal_probabilities():
    made = criterion("dual_focal", (("gamma", 1.0),))
    p = [
        [0.3, 0.3, 0.2, 0.1, 0.1],
        [0.1, 0.3, 0.3, 0.2, 0.1],  # nothing is below the label
        [0.2, 0.2, 0.2, 0.2, 0.2],
        [0.4, 0.3, 0.1, 0.1, 0.1],
        [0.3, 0.3, 0.3, 0.05, 0.05],
        [0.2, 0.5, 0.1, 0.1, 0.1],
    ]
    label, below = np.eye(5)[[0] * 6], np.array([0.2, 0, 0, 0.3, 0.05, 0.1])
    own = np.array(p)[:, 0]
    expected = (1 - own + below) * -np.log(own)
    np.testing.assert_allclose(made(np.log(p), label), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["focal", "dual_focal", "gce", "bootstrap"])
def test_the_loss_of_a_mixture_is_the_mixture_of_the_losses(name):
    made = criterion(name, ())
    for a, b in ((LOGITS, PROBS), (-LOGITS, PROBS)):
        mixed = made(a, 0.3 * b + 0.7 * b[::-1])
        np.testing.assert_allclose(mixed, 0.3 * made(a, b) + 0.7 * made(a, b[::-1]), rtol=1e-12)


NAN = float("nan")
REFUSED = [
    ("focal", "gamma", (-1e-9, -2.0, NAN), "at least 0"),
    ("focal", "schedule", ("flsd", "FLSD53"), "'' or 'flsd53'"),
    ("dual_focal", "gamma", (-1e-9, NAN), "at least 0"),
    ("bsce_gra", "gamma", (-1e-9, NAN), "at least 0"),
    ("bsce_gra", "norm", (0.99, 0.0, NAN), "at least 1"),
    ("sce", "alpha", (-1e-9, NAN), "at least 0"),
    ("sce", "beta", (-1e-9, NAN), "at least 0"),
    ("gce", "q", (0.0, 1.01, NAN), "in (0, 1]"),
    ("label_relaxation", "alpha", (-1e-9, 1.0, NAN), "in [0, 1)"),
    ("bootstrap", "beta", (-1e-9, 1.01, NAN), "in [0, 1]"),
]


@pytest.mark.parametrize(("name", "option", "values", "condition"), REFUSED)
def test_a_wrong_option_is_refused_with_a_sentence(name, option, values, condition):
    for value in values:
        with pytest.raises(ValueError, match="must be") as caught:
            criterion(name, ((option, value),))
        sentence = f"config.losses.{name}.{option} must be {condition}, got {value!r}"
        assert str(caught.value) == sentence


def test_every_criterion_that_says_it_raises_is_refused_something():
    says_so = {
        name
        for name in config.plugs("losses")
        if "Raises ValueError" in plug("losses", name).make.__doc__
    }
    assert says_so == {name for name, *_ in REFUSED}
