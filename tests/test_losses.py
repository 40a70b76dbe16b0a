"""Criteria against float64 formulas written in numpy, where logits and targets are ordinary and
where they are not.
"""

from functools import partial

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
CRITERIA = [("cross_entropy", ()), ("kl", ())] + [
    ("focal", (("gamma", gamma),)) for gamma in GAMMAS
]
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


def by_numpy(name, options, logits, probs):
    """The formula, summed over the classes of which the target has a share."""
    rows = []
    for logs, row in zip(log_p(logits), np.asarray(probs, np.float64), strict=True):
        held = row > 0
        q, logs = row[held], logs[held]
        power = (1 - np.exp(logs)) ** dict(options).get("gamma", 0)
        rows.append(-(q * power * logs).sum() + (name == "kl") * (q * np.log(q)).sum())
    return np.array(rows)


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


@pytest.mark.parametrize(("name", "options"), CRITERIA)
def test_the_gradient_is_the_slope(name, options):
    made = criterion(name, options)
    by_logits = slopes(lambda logits: by_numpy(name, options, logits, PROBS), LOGITS)
    np.testing.assert_allclose(gradient(made, LOGITS, PROBS), by_logits, rtol=1e-6, atol=1e-8)
    held = PROBS > 1e-5
    by_probs = slopes(
        lambda probs: by_numpy(name, options, LOGITS, probs), np.where(held, PROBS, 0)
    )
    found = gradient(made, LOGITS, np.where(held, PROBS, 0), by=1)
    np.testing.assert_allclose(found[held], by_probs[held], rtol=1e-6, atol=1e-8)
    # a class without a share is taken for absent, in the gradient too
    assert (found[~held] == 0).all()


@pytest.mark.parametrize("name", ["cross_entropy", "kl"])
def test_the_gradient_by_the_logits_is_prediction_less_target(name):
    np.testing.assert_allclose(
        gradient(criterion(name, ()), LOGITS, PROBS), softmax(LOGITS) - PROBS, atol=1e-14
    )


@pytest.mark.parametrize("name", config.plugs("losses"))
def test_a_criterion_takes_a_single_example_and_knows_no_other(name):
    made = criterion(name, ())
    np.testing.assert_array_equal(made(LOGITS[:1], PROBS[:1]), made(LOGITS, PROBS)[:1])
    assert name in {known for known, _ in CRITERIA}  # has a formula here


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "options"), CRITERIA)
def test_huge_logits_have_a_value_and_a_gradient(name, options, dtype):
    made, logits, probs = criterion(name, options), HUGE.astype(dtype), HUGE_PROBS.astype(dtype)
    expected = by_numpy(name, options, HUGE, probs)
    np.testing.assert_allclose(made(logits, probs), expected, rtol=1e-6, atol=1e-6)
    for by in (0, 1):
        assert np.isfinite(gradient(made, logits, probs, by=by)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "options"), CRITERIA)
def test_a_class_that_is_ruled_out_is_as_if_it_were_not_there(name, options, dtype):
    made, left = criterion(name, options), slice(0, 4)
    logits, probs = LOGITS.astype(dtype), PROBS.astype(dtype)
    logits[:, 4], probs[:, 4] = -np.inf, 0
    probs /= probs.sum(-1, keepdims=True)
    formula = partial(by_numpy, name, options)
    np.testing.assert_allclose(
        made(logits, probs), formula(logits[:, left], probs[:, left]), rtol=1e-5
    )
    slope = slopes(lambda z: formula(z, probs[:, left]), logits[:, left].astype(np.float64))
    found = gradient(made, logits, probs)
    np.testing.assert_allclose(found[:, left], slope, rtol=1e-4, atol=1e-5)
    assert (found[:, 4] == 0).all()
    assert (gradient(made, logits, probs, by=1)[:, 4] == 0).all()
    probs[:, 4] = 0.5
    # a share of what cannot be is infinitely wrong
    assert (np.asarray(made(logits, probs)) == np.inf).all()


@pytest.mark.parametrize(("name", "options"), CRITERIA)
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


@pytest.mark.parametrize("gamma", [-1e-9, -2.0])
def test_a_negative_exponent_is_refused(gamma):
    with pytest.raises(ValueError, match=r"losses\.focal\.gamma must be at least 0, got"):
        criterion("focal", (("gamma", gamma),))
