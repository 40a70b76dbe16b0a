"""The ECE under other programs' conventions, and distances from distributions of votes, held to
peers and to loops.
"""

import math
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import spatial, special, stats

from ldl_jax.evaluation import bootstrap, curves, simulation
from ldl_jax.evaluation.passes import Reduced
from ldl_jax.metrics import calibration, distribution
from ldl_jax.metrics import ece_conventions as conventions

VECTORS = np.load(Path(__file__).parent / "vectors/conventions.npz", allow_pickle=False)
SINGLE = np.float32


def loop(name, confidence, correct):
    """The ECE of each convention, an example at a time; None where the original raises."""
    counted, averaged = {}, {}
    for c, right in zip(confidence, correct, strict=True):
        double = float(c)
        if name == "guo15":
            own = sum(SINGLE(c) > SINGLE(k / 15) for k in range(1, 15))
        elif name == "torchmetrics15":
            step = float(SINGLE(1) / SINGLE(15))
            edges = [SINGLE(k * step if k < 8 else 1 - (15 - k) * step) for k in range(16)]
            own = sum(SINGLE(c) >= edge for edge in edges) - 1
        elif name == "netcal10":
            eps = np.finfo(c.dtype).eps
            c = min(max(c, eps), 1 - eps)
            double = float(c)
            own = sum(c >= c.dtype.type(edge) for edge in np.linspace(0, 1, 11)) - 1
        elif name == "pskd10":
            uppers = np.arange(0.1, 1 + 0.1, 0.1)
            own = next((k for k, upper in enumerate(uppers) if upper - 0.1 < double <= upper), None)
        elif name == "ub15":
            own = min(math.floor(SINGLE(c) * SINGLE(15)), 14)
        else:
            own = math.ceil(10 * double - 1)
            if own < 0:
                return None
        there = (
            sum(double >= edge for edge in np.linspace(0, 1, 11)) - 1 if name == "netcal10" else own
        )
        if own is not None:
            averaged.setdefault(own, []).append((double, right))
            counted[there] = counted.get(there, 0) + 1
    pairs = {own: np.mean(np.array(values, float), axis=0) for own, values in averaged.items()}
    return sum(counted.get(own, 0) * abs(c - right) for own, (c, right) in pairs.items()) / len(
        confidence
    )


def near_edges(dtype):
    edges = np.concatenate([np.linspace(0, 1, 11), np.linspace(0, 1, 16)]).astype(dtype)
    return np.concatenate([edges, np.nextafter(edges, dtype(0)), np.nextafter(edges, dtype(1))])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "case", ["drawn", "edges", "all right", "all wrong", "saturated", "two classes", "one"]
)
@pytest.mark.parametrize("name", conventions.CONVENTIONS)
def test_each_convention_is_its_loop(name, case, dtype):
    draw = np.random.default_rng(3)
    confidence = {
        "edges": near_edges(dtype), "saturated": np.ones(30), "two classes": draw.uniform(0.5, 1, 60), "one": [0.7],
    }.get(case, 1 - draw.beta(0.5, 2, 90))  # fmt: skip
    confidence = np.asarray(confidence, dtype)
    correct = draw.uniform(size=len(confidence)) < 0.8
    correct[:] = {"all right": True, "all wrong": False}.get(case, correct)
    expected = loop(name, confidence, correct)
    if expected is None:
        with pytest.raises(ValueError, match="no bin for 0"):
            conventions.ece(confidence, correct, name)
        large = confidence > 6e-18
        confidence, correct = confidence[large], correct[large]
        expected = loop(name, confidence, correct)
    assert conventions.ece(confidence, correct, name) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("case", ["spread", "edges"])
@pytest.mark.parametrize("name", ["torchmetrics15", "netcal10", "ub15"])
def test_a_convention_is_what_its_program_says(name, case):
    probs, label = VECTORS[f"{case}/probs"], VECTORS[f"{case}/label"]
    found = conventions.ece(probs.max(1), probs.argmax(1) == label, name)
    assert found == pytest.approx(float(VECTORS[f"{case}/{name}"]), abs=1e-6)


def test_the_default_has_the_bins_of_scikit_learn():
    probs, label = VECTORS["spread/probs"], VECTORS["spread/label"]
    confidence, correct = probs.max(1), probs.argmax(1) == label
    place = conventions.guo15(confidence).place
    found = [
        (correct[place == own].mean(), confidence[place == own].mean()) for own in np.unique(place)
    ]
    np.testing.assert_allclose(np.transpose(found), VECTORS["spread/curve"], atol=1e-6)


def test_the_vectors_tell_the_conventions_apart():
    assert (
        len(
            {
                round(float(VECTORS[f"edges/{name}"]), 6)
                for name in ("torchmetrics15", "netcal10", "ub15")
            }
        )
        == 3
    )
    assert any("torchmetrics" in version for version in VECTORS["versions"])


def test_the_default_is_the_ece_of_the_rest_of_the_package():
    confidence = near_edges(np.float32)
    correct = np.random.default_rng(1).uniform(size=len(confidence)) < 0.7
    found = conventions.ece(confidence, correct)
    place = conventions.guo15(confidence).place
    np.testing.assert_array_equal(
        place, np.argmax(calibration.bin_of(jax.numpy.asarray(confidence)), 1)
    )
    np.testing.assert_array_equal(place, bootstrap.bin_number(confidence))
    assert bootstrap.figures(confidence, correct)["ece"] == pytest.approx(found)
    wide = confidence.astype(np.float64)
    bins = curves.reliability(Reduced(wide, correct, *[None] * 5))
    assert np.abs(np.subtract(bins["confidence"], bins["correct"])).sum() / len(
        wide
    ) == pytest.approx(found)
    assert conventions.ece(wide, correct) == pytest.approx(found)


def test_one_has_its_own_bin_in_torchmetrics_alone_and_zero_none_in_pskd():
    confidence = np.array([0.95, 0.95, 1.0, 1.0], np.float32)
    correct = np.array([1, 1, 0, 1], bool)
    apart = (2 * 0.05 + 2 * 0.5) / 4
    for name in conventions.CONVENTIONS:
        expected = apart if name == "torchmetrics15" else abs(3 / 4 - confidence.mean())
        assert conventions.ece(confidence, correct, name) == pytest.approx(expected, abs=1e-6), name
    zero = np.array([0.0, 0.5])
    found = {
        name: conventions.ece(zero, [True, True], name)
        for name in conventions.CONVENTIONS
        if name != "focal10"
    }
    assert found.pop("pskd10") == 0.25
    assert (
        set(found.values()) == {0.75} or max(abs(value - 0.75) for value in found.values()) < 1e-6
    )


def test_pskd_drops_the_double_between_its_edges():
    between = np.nextafter(0.6, 1)
    assert conventions.ece([between], [False], "pskd10") == 0
    assert conventions.ece([np.nextafter(between, 1)], [False], "pskd10") == pytest.approx(0.6)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0.0625, 1, width=32), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
)
def test_conventions_agree_on_gaps_of_one_sign_and_order_changes_nothing(values, order):
    confidence = np.array(values, np.float32)
    mean, correct = confidence.astype(np.float64).mean(), np.arange(len(values)) % 3 > 0
    places = list(range(len(values)))
    order.shuffle(places)
    for name in conventions.CONVENTIONS:
        found = conventions.ece(confidence, correct, name)
        assert conventions.ece(confidence[places], correct[places], name) == pytest.approx(
            found, abs=1e-12
        )
        assert 0 <= found <= 1
        if name != "netcal10":  # which counts 0.7 and 0.9 in other bins than it averages them in
            assert conventions.ece(confidence, np.zeros(len(values)), name) == pytest.approx(
                mean, abs=1e-12
            )
            assert found >= abs(correct.mean() - mean) - 1e-12


@pytest.mark.parametrize(
    ("confidence", "correct", "name", "sentence"),
    [
        ([0.5, np.nan], [True, True], "guo15", "between 0 and 1"),
        ([1.1], [True], "ub15", "between 0 and 1"),
        ([0.5], [True], "guo", "convention must be one of guo15, torchmetrics15, .* got 'guo'"),
        ([0.5, 0.5], [True], "guo15", r"\[2\] and \[1\]"),
        ([], [], "guo15", "N at least 1"),
        ([0.0, 0.5], [True, True], "focal10", "focal10 has no bin for 0"),
    ],
)
def test_what_has_no_ece_is_refused(confidence, correct, name, sentence):
    with pytest.raises(ValueError, match=sentence):
        conventions.ece(confidence, correct, name)


@pytest.mark.parametrize(("size", "expected"), [(1000, 0.024), (10_000, 0.0079)])
def test_the_noise_floor_falls_as_that_of_a_calibrated_network(size, expected):
    """Loosely: the figures are of another calibrated network, as right."""
    confidence = np.random.default_rng(0).beta(5, 1, size)
    mean, most = simulation.noise_floor(jax.random.key(0), confidence)
    assert mean == pytest.approx(expected, rel=0.25)
    assert mean < most < 2 * mean


def some(draw, count=50, classes=6):
    """Predictions and votes of ten people, who leave out classes."""
    probs = draw.dirichlet(np.full(classes, 0.5), count)
    return probs, draw.multinomial(10, draw.dirichlet(np.full(classes, 0.4), count)) / 10


def test_distances_are_those_of_scipy_and_loops():
    probs, table = some(np.random.default_rng(0))
    found = distribution.columns(probs, table)
    assert {len(column) for column in found.values()} == {50}
    for row, (p, d) in enumerate(zip(probs, table, strict=True)):
        expected = {
            "kl": special.rel_entr(d, p).sum(), "js": spatial.distance.jensenshannon(d, p) ** 2,
            "chebyshev": spatial.distance.chebyshev(d, p), "canberra": spatial.distance.canberra(d, p),
            "cosine": 1 - spatial.distance.cosine(d, p),
            "intersection": sum(min(a, b) for a, b in zip(d, p, strict=True)),
            "clark": math.sqrt(sum(((a - b) / (a + b)) ** 2 for a, b in zip(d, p, strict=True) if a + b)),
            "entropy": stats.entropy(p), "table_entropy": stats.entropy(d),
        }  # fmt: skip
        assert set(expected) == set(found)
        for name, value in expected.items():
            assert found[name][row] == pytest.approx(value, abs=1e-12), name


def test_distances_of_the_same_and_of_the_farthest_and_zeros():
    same = np.array([[0.25, 0.75], [0.0, 1.0]])
    found = distribution.columns(same, same)
    for name in ("kl", "js", "chebyshev", "clark", "canberra"):
        np.testing.assert_allclose(found[name], 0, atol=1e-15)
    np.testing.assert_allclose([found["cosine"], found["intersection"]], 1)
    far = distribution.columns(np.float32([[1, 0]]), [[0, 1]])
    assert far["kl"] == pytest.approx(-math.log(np.finfo(np.float32).tiny))
    assert far["js"] == pytest.approx(math.log(2))
    assert [far[name][0] for name in ("chebyshev", "canberra", "cosine", "intersection")] == [
        1,
        2,
        0,
        0,
    ]
    assert far["clark"] == pytest.approx(math.sqrt(2))


def test_figures_of_all_are_means_and_correlations_of_chunks(monkeypatch):
    probs, table = some(np.random.default_rng(1), 40)
    found, columns = distribution.measure(probs, table), distribution.columns(probs, table)
    monkeypatch.setattr(distribution, "ELEMENTS", 42)  # 7 rows
    assert distribution.measure(probs, table) == found
    assert found["kl"] == pytest.approx(columns["kl"].mean())
    own, true = stats.entropy(probs, axis=1), stats.entropy(table, axis=1)
    assert found["entropy_pearson"] == pytest.approx(np.corrcoef(own, true)[0, 1])
    ranks = stats.rankdata(own.round(9)), stats.rankdata(true.round(9))
    assert found["entropy_spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    order = np.random.default_rng(2).permutation(40)
    for name, value in distribution.measure(probs[order], table[order]).items():
        assert value == pytest.approx(found[name]), name


def test_entropies_that_do_not_vary_have_no_correlation():
    for probs in ([[0.5, 0.5]], [[0.5, 0.5]] * 3):
        found = distribution.measure(
            np.array(probs), np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]][: len(probs)])
        )
        assert math.isnan(found["entropy_pearson"])
        assert math.isnan(found["entropy_spearman"])


@pytest.mark.parametrize(
    ("probs", "table", "sentence"),
    [
        ([[0.5, 0.5]], [[0.5, np.nan]], "table: rows must be .* but row 0 ranges from nan"),
        ([[1.5, -0.5]], [[0.5, 0.5]], "probs: rows must be .* but row 0 ranges from -0.5 to 1.5"),
        ([[0.5, 0.5]], [[3, 7]], "sums to 10"),
        ([[0.5, 0.5]], [[0.2, 0.3, 0.5]], r"\[1, 2\] and \[1, 3\]"),
        ([[1.0]], [[1.0]], "at least two classes"),
    ],
)
def test_what_is_no_distribution_is_refused(probs, table, sentence):
    with pytest.raises(ValueError, match=sentence):
        distribution.columns(np.array(probs), np.array(table))
