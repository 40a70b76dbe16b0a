"""Calibrators: the contract of the folder, and every method against a reference of its own."""

import importlib
import json
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax
from scipy.stats import chi2
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from ldl_jax.calibrate import (
    base,
    describe,
    dirichlet,
    histogram,
    isotonic,
    likelihood,
    matrix,
    missing,
    safe_temperature,
    temperature,
    vector,
)
from ldl_jax.calibrate import fit as fit_calibrator
from ldl_jax.config.options import plugs, read_options

WAYS = [(name, {}) for name in plugs("calibrate")]
WAYS += [("isotonic", {"which": "top_label"}), ("histogram", {"spacing": "width"})]
PARAMETRIC = ("safe_temperature", "temperature", "vector", "matrix", "dirichlet")
N, K = 300, 4


def made(way):
    name, options = way
    return importlib.import_module(f"ldl_jax.calibrate.{name}").make(**options)


def drawn(seed=0, count=N, classes=K, factor=2.0, bias=0.7):
    """Logits f64 of an overconfident model, with labels: softmax(logits / factor - bias of class 0)
    is the truth.
    """
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, classes)) * 3
    shift = bias * (np.arange(classes) == 0)
    return logits, np.argmax(logits / factor - shift + random.gumbel(size=logits.shape), axis=1)


def nll(log_p, label):
    return -log_p[np.arange(len(label)), label].mean()


def slope(logits, label, inverse):
    """The derivative of the NLL in 1/T."""
    return (
        (softmax(inverse * logits, axis=1) * logits).sum(1) - logits[np.arange(len(label)), label]
    ).mean()


@pytest.fixture(scope="module")
def fitted():
    """Every way's parameters, fitted on the same examples."""
    logits, label = drawn()
    return {str(way): made(way).fit(logits, label) for way in WAYS}


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_calibrator_gives_log_probabilities_and_survives_its_file(way, fitted, tmp_path):
    calibrator, params = made(way), fitted[str(way)]
    logits, _ = drawn(1)
    log_p = calibrator.apply(params, logits)
    assert log_p.shape == logits.shape
    assert log_p.dtype == np.float64
    assert np.isfinite(log_p).all()
    np.testing.assert_allclose(logsumexp(log_p, axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(calibrator.apply(params, logits[40:50]), log_p[40:50], rtol=1e-13)
    assert calibrator.apply(params, logits[:0]).shape == (0, K)

    path = base.save(tmp_path / "fitted.json", *way, params)
    name, options, read = base.load(path)
    assert (name, options) == way
    assert {key: np.asarray(value).dtype for key, value in read.items()} == {
        key: np.asarray(value).dtype for key, value in params.items()
    }
    np.testing.assert_array_equal(made((name, options)).apply(read, logits), log_p)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_order_and_chunks_change_nothing(way, fitted):
    logits, label = drawn()
    held, _ = drawn(1)
    order = np.random.default_rng(2).permutation(N)
    parts = [logits[order[:130]], logits[order[130:]]]
    calibrator = made(way)
    want = calibrator.apply(fitted[str(way)], held)
    np.testing.assert_allclose(
        calibrator.apply(calibrator.fit(parts, label[order]), held), want, atol=1e-5
    )


@pytest.mark.parametrize("name", PARAMETRIC)
def test_a_parametric_fit_lowers_the_nll_where_it_was_fitted(name, fitted):
    logits, label = drawn()
    params = fitted[str((name, {}))]
    before, after = (
        nll(log_softmax(logits, axis=1), label),
        nll(made((name, {})).apply(params, logits), label),
    )
    assert after < before - 0.1
    assert params.get("converged", True)
    if "temperature" not in name:  # a temperature is among what they may choose, penalties aside
        assert after < nll(temperature.make().apply(fitted["('temperature', {})"], logits), label)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("label", [0, 1])
def test_one_example_of_two_classes_can_be_fitted(way, label):
    logits, label = np.array([[2.0, -1.0]]), np.array([label])
    log_p = made(way).apply(made(way).fit(logits, label), logits)
    assert np.isfinite(log_p).all()
    np.testing.assert_allclose(np.exp(log_p).sum(), 1)


def test_temperature_is_what_labels_were_drawn_at():
    logits, label = drawn(3, count=20_000, factor=1.7, bias=0)
    params = temperature.make().fit(logits.astype(np.float32), label)
    assert abs(params["temperature"] - 1.7) < 0.06  # three standard errors
    assert not params["at_bound"]


@pytest.mark.parametrize("scale", [0.02, 1.0, 300.0])
def test_temperature_is_certain_and_follows_the_scale_of_logits(scale):
    logits, label = drawn()
    params = temperature.make().fit(logits * scale, label)
    loss = lambda position: nll(log_softmax(logits / np.exp(position), axis=1), label)  # noqa: E731
    want = np.exp(
        minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-12}).x
    )
    np.testing.assert_allclose(params["temperature"] / scale, want, rtol=1e-6)
    low, high = params["low"] / scale, params["high"] / scale
    assert 1 < high / low < 1 + 2e-8
    assert slope(logits, label, 1 / low) > 0 > slope(logits, label, 1 / high)


def rise(logits, label, T):
    """How far the NLL of all examples is above that of the best T, on a grid f[M] of temperatures."""
    below = logits - logits.max(1, keepdims=True)
    own = below[np.arange(len(label)), label]
    loss = np.array([(np.log(np.exp(below / t).sum(1)) - own / t).sum() for t in T])
    return loss - loss.min()


@pytest.mark.parametrize(("factor", "count"), [(0.4, 40), (1.0, 300), (3.0, 120)])
def test_the_interval_is_where_the_likelihood_falls_by_the_quantile(factor, count):
    logits, label = drawn(7, count=count, factor=factor, bias=0)
    params = temperature.make().fit(logits, label)
    T = np.exp(np.linspace(-3, 3, 6001))
    inside = T[rise(logits, label, T) <= chi2.ppf(0.95, 1) / 2]
    np.testing.assert_allclose(params["interval_low"], inside[0], rtol=0.0011)
    np.testing.assert_allclose(params["interval_high"], inside[-1], rtol=0.0011)
    assert params["interval_low"] < params["temperature"] < params["interval_high"]
    safely = safe_temperature.make().fit(logits, label)
    assert safely["interval_low"] == params["interval_low"]
    assert safely["errors"] == params["errors"] == (logits.argmax(1) != label).sum()


@pytest.mark.parametrize(
    ("right", "low", "high"), [(True, True, False), (False, False, True), (None, True, True)]
)
def test_an_interval_is_open_where_nothing_bounds_it(right, low, high):
    logits, label = drawn(count=60)
    if right is None:
        logits = np.zeros_like(logits)
    else:
        label = logits.argmax(1) if right else logits.argmin(1)
    params = temperature.make().fit(logits, label)
    assert (params["interval_low"] is None, params["interval_high"] is None) == (low, high)
    end = params["interval_high"] if right else params["interval_low"]
    if right is not None:  # the best NLL is reached only in the limit
        reached = nll(log_softmax(logits / end, axis=1), label) * 60
        best = nll(log_softmax(logits / params["temperature"], axis=1), label) * 60
        np.testing.assert_allclose(reached - best, chi2.ppf(0.95, 1) / 2, rtol=1e-4)


@pytest.mark.parametrize(("factor", "option"), [(0.3, "prior_below"), (1.8, "prior_above")])
def test_a_safe_temperature_minimises_the_nll_with_its_prior(factor, option):
    logits, label = drawn(8, factor=factor, bias=0)
    for prior in (5.0, 40.0):
        params = safe_temperature.make(**{option: prior}).fit(logits, label)

        def loss(position, prior=prior):
            own = N * nll(log_softmax(logits / np.exp(position), axis=1), label)
            return own + prior * (np.exp(-position) - 1 + position)

        want = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-12}).x
        np.testing.assert_allclose(params["temperature"], np.exp(want), rtol=1e-6)
    plain = temperature.make().fit(logits, label)["temperature"]
    np.testing.assert_allclose(params["maximum_likelihood"], plain, rtol=1e-8)
    assert abs(np.log(params["temperature"])) < abs(np.log(plain))


@pytest.mark.parametrize(("factor", "option"), [(1.3, "ratio_above"), (0.75, "ratio_below")])
def test_a_safe_temperature_stays_1_up_to_its_likelihood_ratio(factor, option):
    logits, label = drawn(9, factor=factor, bias=0)
    best = temperature.make().fit(logits, label)["temperature"]
    ratio = 2 * N * (nll(log_softmax(logits, axis=1), label)
                     - nll(log_softmax(logits / best, axis=1), label))  # fmt: skip
    for needed, stays in ((ratio + 1e-4, True), (ratio - 1e-4, False)):
        params = safe_temperature.make(**{option: needed}).fit(logits, label)
        np.testing.assert_allclose(params["likelihood_ratio"], ratio, atol=1e-7)
        assert (params["temperature"] == 1) == stays


def test_without_errors_a_safe_temperature_does_not_collapse():
    """Plain maximum likelihood reaches the limit of its search, and then one error is fatal."""
    logits, _ = drawn(10, factor=0.3, bias=0)
    label = logits.argmax(1)
    fitted = safe_temperature.make().fit(logits, label)["temperature"]
    assert 0.1 < fitted < 1
    assert temperature.make().fit(logits, label)["temperature"] == 1e-3


def test_temperature_may_depend_on_one_example_in_many():
    logits, label = np.tile([[8.0, 0.0, 0.0, 0.0]], (N, 1)), np.zeros(N, int)
    label[7] = 2
    # 299 of 300 right: 1 / (1 + 3 exp(-8 / T)) = 299 / 300
    params = temperature.make().fit(logits, label)
    np.testing.assert_allclose(params["temperature"], 8 / np.log(3 * 299), rtol=1e-7)


@pytest.mark.parametrize(
    ("case", "want"),
    [
        ("right", 1e-3),
        ("saturated", 1e-3),
        ("wrong", 1e3),
        ("unrelated", 1e3),
        ("small", 1e-3),
        ("large", 1e3),
    ],
)
def test_a_temperature_at_a_bound_says_so(case, want):
    logits, label = drawn()
    label = {
        "right": logits.argmax(1),
        "saturated": logits.argmax(1),
        "wrong": logits.argmin(1),
    }.get(case, label)
    if case == "unrelated":
        own = np.arange(K) == label[:, None]
        logits = np.where(own, logits.mean(1, keepdims=True, where=~own) - 0.01, logits)
    factor = {"saturated": 1e30, "small": 1e-5, "large": 1e5}.get(case, 1)
    params = temperature.make().fit(logits * factor, label)
    searched = {key: params[key] for key in ("temperature", "low", "high", "at_bound")}
    assert searched == {"temperature": want, "low": want, "high": want, "at_bound": True}
    assert params["interval_low" if want < 1 else "interval_high"] is None
    assert params["errors"] == (logits.argmax(1) != label).sum()


def test_any_temperature_fits_constant_rows():
    params = temperature.make().fit(np.full((N, K), 0.1) * np.arange(N)[:, None], drawn()[1])
    assert (params["temperature"], params["low"], params["high"]) == (1.0, 1.0, 1.0)
    assert not params["at_bound"]
    assert params["interval_low"] is params["interval_high"] is None


def test_a_memory_mapped_file_is_read_in_chunks(tmp_path, monkeypatch):
    logits, label = drawn(count=950)
    np.save(tmp_path / "logits.npy", logits.astype(np.float32))
    monkeypatch.setattr(base, "ELEMENTS", N * K)  # 4 chunks, the last of 50 rows
    mapped = np.load(tmp_path / "logits.npy", mmap_mode="r")
    want = temperature.make().fit(logits.astype(np.float32), label)["temperature"]
    np.testing.assert_allclose(
        temperature.make().fit(mapped, label)["temperature"], want, rtol=1e-12
    )
    loss = lambda position: nll(log_softmax(logits / np.exp(position), axis=1), label)  # noqa: E731
    np.testing.assert_allclose(
        want, np.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded").x), rtol=1e-4
    )


def test_vector_scaling_ends_where_its_gradient_is_zero(fitted):
    logits, label = drawn()
    params = fitted["('vector', {})"]
    scale, bias = params["scale"], params["bias"]
    residual = softmax(logits * scale + bias, axis=1) - np.eye(K)[label]
    np.testing.assert_allclose(
        (residual * logits).mean(0) + 1e-4 * 2 * (scale - 1) / K, 0, atol=1e-6
    )
    np.testing.assert_allclose(residual.mean(0) + 1e-4 * 2 * bias / K, 0, atol=1e-6)
    assert bias[0] < bias[1:].min() - 0.3  # what the labels were drawn with


CLASSWISE = [("vector", {}), ("matrix", {}), ("dirichlet", {}), ("histogram", {}), ("isotonic", {})]


@pytest.mark.parametrize("way", CLASSWISE, ids=str)
def test_classes_without_examples_keep_the_probabilities_of_a_temperature(way, tmp_path):
    logits, label = drawn(5, classes=6)
    label = np.where(np.isin(label, (1, 4)), 0, label)
    held, _ = drawn(6, classes=6)
    occurring = [0, 2, 3, 5]
    calibrator = made(way)
    params = calibrator.fit(logits, label)
    fitted = safe_temperature.make().fit(logits, label)["temperature"]
    assert (params["missing_classes"], params["classes"]) == (2, 6)
    np.testing.assert_allclose(params["missing_temperature"], fitted, rtol=1e-12)

    want = softmax(held / fitted, axis=1)
    own = made(way).fit(logits[:, occurring], np.searchsorted(occurring, label))
    among = np.exp(made(way).apply(own, held[:, occurring]))
    want[:, occurring] = want[:, occurring].sum(1, keepdims=True) * among
    if way[0] in ("histogram", "isotonic"):
        want = N / (N + 1) * want + 1 / (N + 1) / 6
    np.testing.assert_allclose(np.exp(calibrator.apply(params, held)), want, rtol=1e-6)
    base.save(tmp_path / "fitted.json", *way, params)
    read = base.load(tmp_path / "fitted.json")[2]
    np.testing.assert_array_equal(calibrator.apply(read, held), calibrator.apply(params, held))
    assert describe.notes(way[0], params, "val")[-1].startswith(
        f"2 of 6 classes do not occur in val; {way[0]} was fitted on the others"
    )


@pytest.mark.parametrize("way", CLASSWISE[3:], ids=str)
def test_missing_classes_are_found_in_chunks(way, monkeypatch):
    logits, label = drawn(classes=6)
    label = np.where(label == 1, 0, label)
    want = made(way).fit(logits, label)
    monkeypatch.setattr(missing, "ELEMENTS", 6 * 70)
    params = made(way).fit([logits[:110], logits[110:]], label)
    for name, value in want.items():
        np.testing.assert_allclose(params[name], value, rtol=1e-10)


@pytest.mark.parametrize("method", [matrix, dirichlet])
def test_without_penalty_a_linear_map_is_logistic_regression(method):
    logits, label = drawn()
    calibrator = method.make(off_diagonal=0, intercept=0)
    features = logits if method is matrix else log_softmax(logits, axis=1)
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(features, label)
    log_p = calibrator.apply(calibrator.fit(logits, label), logits)
    np.testing.assert_allclose(np.exp(log_p), reference.predict_proba(features), atol=2e-4)


@pytest.mark.parametrize("method", [matrix, dirichlet])
def test_a_great_penalty_leaves_the_diagonal(method):
    logits, label = drawn()
    calibrator = method.make(off_diagonal=1e7, intercept=0)
    params = calibrator.fit(logits, label)
    assert params["converged"]
    assert np.abs(params["weight"] - np.diag(np.diag(params["weight"]))).max() < 1e-5
    features = logits if method is matrix else log_softmax(logits, axis=1)
    diagonal = vector.make(ridge=0)
    want = diagonal.apply(diagonal.fit(features, label), features)
    np.testing.assert_allclose(calibrator.apply(params, logits), want, atol=2e-3)
    bias = method.make(off_diagonal=1e7, intercept=1e7).fit(logits, label)["bias"]
    assert np.abs(bias).max() < 1e-5


def test_dirichlet_does_not_see_what_is_added_to_a_row(fitted):
    logits, label = drawn()
    added = np.random.default_rng(4).normal(size=(N, 1)) * 10
    again = dirichlet.make().fit(logits + added, label)
    np.testing.assert_allclose(again["weight"], fitted["('dirichlet', {})"]["weight"], atol=1e-5)


@pytest.mark.parametrize("spacing", ["mass", "width"])
def test_histogram_gives_the_frequencies_of_its_bins(spacing):
    logits, label = drawn()
    held, _ = drawn(1)
    calibrator = histogram.make(bins=5, spacing=spacing)
    params = calibrator.fit(logits, label)
    probs, held_probs = softmax(logits, axis=1), softmax(held, axis=1)
    want = np.zeros((N, K))
    for k in range(K):
        column = np.sort(probs[:, k])
        inner = (
            [0.2, 0.4, 0.6, 0.8]
            if spacing == "width"
            else np.quantile(column, [0.2, 0.4, 0.6, 0.8])
        )
        ends = np.array([-1, *inner, 2])
        for low, high in pairwise(ends):
            member = (low < probs[:, k]) & (probs[:, k] <= high)
            assert spacing == "width" or member.sum() == N / 5
            want[(low < held_probs[:, k]) & (held_probs[:, k] <= high), k] = (
                label[member] == k
            ).mean()
    want = np.maximum(want, 1e-7)
    np.testing.assert_allclose(
        np.exp(calibrator.apply(params, held)), want / want.sum(1, keepdims=True), rtol=1e-12
    )


def test_an_edge_belongs_to_the_bin_below_and_an_empty_bin_gives_its_middle():
    calibrator = histogram.make(bins=4, spacing="width")
    logits = np.log([[0.5, 0.5], [0.5, 0.5], [0.4, 0.6]])
    logits[:2] = 0  # softmax is 0.5 exactly
    params = calibrator.fit(logits, np.array([0, 1, 1]))
    np.testing.assert_array_equal(
        params["frequency"], [[0.125, 1 / 3, 0.625, 0.875], [0.125, 0.5, 1.0, 0.875]]
    )


def test_isotonic_one_vs_rest_is_that_of_scikit_learn(fitted):
    logits, label = drawn()
    held, _ = drawn(1)
    probs, held_probs = softmax(logits, axis=1), softmax(held, axis=1)
    columns = [
        IsotonicRegression(out_of_bounds="clip")
        .fit(probs[:, k], label == k)
        .predict(held_probs[:, k])
        for k in range(K)
    ]
    want = np.maximum(np.stack(columns, 1), 1e-7)
    got = np.exp(isotonic.make().apply(fitted["('isotonic', {})"], held))
    np.testing.assert_allclose(got, want / want.sum(1, keepdims=True), rtol=1e-6)


def test_isotonic_top_label_replaces_the_confidence_and_keeps_the_order(fitted):
    logits, label = drawn()
    held, _ = drawn(1)
    probs, before = softmax(logits, axis=1), softmax(held, axis=1)
    reference = IsotonicRegression(out_of_bounds="clip").fit(probs.max(1), probs.argmax(1) == label)
    after = np.exp(isotonic.make(which="top_label").apply(fitted[str(WAYS[-2])], held))
    np.testing.assert_array_equal(np.argsort(after, axis=1), np.argsort(before, axis=1))
    want = reference.predict(before.max(1))
    second = np.sort(before, axis=1)[:, -2]
    free = want > second * (1 - want) / (1 - before.max(1)) * 1.001
    free &= want < 1
    assert 50 < free.sum() < N
    np.testing.assert_allclose(after.max(1)[free], want[free], rtol=1e-6)
    ratio = after / before
    np.testing.assert_allclose(np.sort(ratio, 1)[free, 1], np.sort(ratio, 1)[free, 2], rtol=1e-6)
    tied = np.sort(after, axis=1)[~free & (want < 1)]
    np.testing.assert_allclose(tied[:, -1] / tied[:, -2], 1 + 1e-6, rtol=1e-9)


@pytest.mark.parametrize(("right", "want"), [(True, 1 - 1e-7), (False, 0.5000003)])
def test_a_saturated_top_label_is_moved_without_a_zero(right, want):
    logits = np.array([[0.0, 900.0, -30.0]])
    calibrator = isotonic.make(which="top_label")
    after = calibrator.apply(calibrator.fit(logits, np.array([1 if right else 0])), logits)
    np.testing.assert_allclose(np.exp(after[0, 1]), want, rtol=1e-6)
    np.testing.assert_allclose(after[0, 0] - after[0, 2], 30)


GOOD = np.zeros((3, 2))
BAD = {
    "rank": (np.zeros(3), [0, 0, 0], "shape"),
    "one class": (np.zeros((3, 1)), [0, 0, 0], "at least 2 classes"),
    "nan": (np.array([[0, np.nan]]), [0], "NaN"),
    "inf": (np.array([[0, -np.inf]]), [0], "NaN"),
    "too large": (np.array([[0, 1e300]]), [0], "beyond 3.4e"),
    "text": (np.array([["a", "b"]]), [0], "real numbers"),
    "objects": (np.array([[None, 1]]), [0], "real numbers"),
    "nothing": (None, [0], "real numbers"),
    "an iterator": (iter([GOOD]), [0, 0, 0], "read once"),
    "other chunks": ([GOOD, np.zeros((3, 3))], [0] * 6, "3 classes"),
    "lengths": (GOOD, [0, 1], "same length, got 3 and 2"),
    "no examples": (np.zeros((0, 2)), np.zeros(0, int), "N at least 1"),
    "real labels": (GOOD, [0.0, 1.0, 1.0], "whole numbers"),
    "one-hot labels": (GOOD, [[0, 1]] * 3, "whole numbers"),
    "a label of K": (GOOD, [0, 1, 2], "between 0 and 1, got 0 to 2"),
    "a label below 0": (GOOD, [0, 1, -1], "-1 to 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_logits_and_labels_is_refused_in_a_sentence(case):
    logits, label, said = BAD[case]
    for way in WAYS if case != "an iterator" else WAYS[:1]:
        with pytest.raises(ValueError, match=said) as error:
            made(way).fit(logits, label)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_logits_that_do_not_fit_the_parameters_are_refused(way, fitted):
    with pytest.raises(ValueError, match="NaN"):
        made(way).apply(fitted[str(way)], np.full((2, K), np.nan))
    # these know no number of classes
    if way != ("isotonic", {"which": "top_label"}) and "temperature" not in way[0]:
        with pytest.raises(ValueError, match="must have 4 classes, got 5"):
            made(way).apply(fitted[str(way)], np.zeros((2, 5)))


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (safe_temperature.make, {"prior_above": -1.0}), (safe_temperature.make, {"ratio_above": np.inf}),
        (safe_temperature.make, {"ratio_below": "9"}),
        (vector.make, {"ridge": -1.0}), (vector.make, {"max_steps": 0}), (matrix.make, {"off_diagonal": np.nan}),
        (dirichlet.make, {"intercept": "1"}), (histogram.make, {"bins": 0}), (histogram.make, {"bins": 2.5}),
        (histogram.make, {"spacing": "equal"}), (isotonic.make, {"which": "top"}),
    ],
)  # fmt: skip
def test_an_option_out_of_range_is_refused_by_its_name(make, options):
    method = make.__module__.rsplit(".", 1)[1]
    with pytest.raises(
        ValueError, match=rf"calibrate\.{method}\.{next(iter(options))} must be .*, got "
    ):
        make(**options)


@pytest.mark.parametrize("harm", ["cut", "empty", "foreign", "list", "number", "version", "binary"])
def test_a_damaged_or_foreign_file_is_refused(harm, tmp_path):
    path = base.save(
        tmp_path / "t.json", "temperature", {}, {"temperature": 1.25, "knots": np.arange(3.0)}
    )
    text = path.read_text()
    content = json.loads(text)
    path.write_bytes(
        {
            "cut": text[:-20].encode(),
            "empty": b"",
            "foreign": b'{"temperature": 1.25}',
            "list": b"[1, 2]",
            "number": text.replace("1.25", "1.35").encode(),
            "version": json.dumps({**content, "version": 2}).encode(),
            "binary": b"\x93NUMPY\x01\x00\xff",
        }[harm]
    )
    with pytest.raises(ValueError, match=r"t\.json is") as error:
        base.load(path)
    assert "\n" not in str(error.value)


def test_a_temperature_is_shown_with_its_interval_and_what_to_be_wary_of():
    logits, _ = drawn(count=40)
    fit = {"temperature": 1.5, "interval_low": 1.2, "interval_high": 1.9, "errors": 12}
    assert describe.temperature(fit) == "temperature 1.5 (95 % interval 1.2 to 1.9)"
    assert describe.notes("temperature", fit, "val") == []
    old = {"temperature": 1.5, "at_bound": False}
    assert describe.temperature(old) == "temperature 1.5"
    assert describe.notes("temperature", old, "val") == []
    few = describe.notes("temperature", {**fit, "errors": 1}, "val")
    assert few == ["The temperature rests on 1 error in val, fewer than 10, so it is uncertain "
                   "(95 % interval 1.2 to 1.9)"]  # fmt: skip
    none = temperature.make().fit(logits, logits.argmax(1))
    assert ", open below" in describe.temperature(none)
    told = describe.notes("temperature", none, "val")
    assert "hit a limit" in told[0]
    assert "rests on 0 errors" in told[1]
    wide = {**fit, "interval_high": None, "errors": 50}
    assert describe.notes("temperature", wide, "val") == [
        "val does not bound the temperature (95 % interval from 1.2, open above)"
    ]


def test_the_thresholds_of_missing_classes_are_those_of_the_safe_temperature():
    given = {
        option.name: option.value for option in read_options("calibrate/safe_temperature.py")[1]
    }
    used = (
        likelihood.RATIO_ABOVE,
        likelihood.RATIO_BELOW,
        likelihood.PRIOR_ABOVE,
        likelihood.PRIOR_BELOW,
    )
    assert tuple(given.values()) == used


def test_a_fitted_calibrator_shows_its_temperature():
    logits, label = drawn()
    shown = repr(fit_calibrator(logits=logits, labels=label))
    assert shown.startswith("<safe_temperature: temperature ")
    assert " (95 % interval " in shown
