"""Scores of sorted predictions: loops in float64, adversarial inputs, and what the peers themselves
computed.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from ldl_jax.metrics import base, ks, marginal, mass, selective, smooth

VECTORS = Path(__file__).parent / "vectors" / "sorted.npz"
CASES = ("over", "tied", "two")


@pytest.fixture(scope="module")
def peers():
    with np.load(VECTORS, allow_pickle=False) as file:
        return dict(file)


def case(peers, name):
    probs, label = peers[f"{name}/probs"], peers[f"{name}/label"]
    return probs, label, probs.max(1), probs.argmax(1) == label


def parts(prob, hits, bins=15):
    """(n, mean probability, share of hits) of bins of equal mass with ties together, by a loop over
    sorted examples.
    """
    order = sorted(range(len(prob)), key=lambda i: prob[i])
    groups, first = [], 0
    for size in (len(part) for part in np.array_split(order, min(bins, len(order)))):
        groups.append([prob[i] for i in order[first : first + size]])
        first += size
    upper = [*sorted({(one[-1] + other[0]) / 2 for one, other in pairwise(groups)}), np.inf]
    found, low = [], -np.inf
    for high in upper:
        inside = [i for i in order if low < prob[i] <= high]
        if inside:
            found.append(
                (
                    len(inside),
                    np.mean([prob[i] for i in inside]),
                    np.mean([hits[i] for i in inside]),
                )
            )
        low = high
    return found


@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_that_the_peers_computed(peers, name):
    probs, label, confidence, correct = case(peers, name)
    found = marginal.every_class(probs, label)
    assert mass.ece(confidence, correct) == pytest.approx(peers[f"{name}/mass_ece"], abs=1e-6)
    assert mass.debiased(confidence, correct)["l2"] == pytest.approx(peers[f"{name}/l2"], abs=1e-6)
    cut = np.sqrt(
        np.maximum(base.debiased(found), 0) @ np.ones(len(found.count)) / len(found.count)
    )
    assert cut == pytest.approx(peers[f"{name}/marginal"], abs=1e-6)  # they cut each class off at 0
    assert marginal.debiased(found)["marginal"] <= cut
    assert selective.errors(confidence, correct)["error_auroc"] == pytest.approx(
        peers[f"{name}/error_auroc"], abs=1e-9
    )
    assert selective.unknown(confidence[correct], confidence[~correct])[
        "ood_aupr"
    ] == pytest.approx(peers[f"{name}/error_aupr"], abs=1e-9)
    # relplot integrates over 200 points with both ends in full, and halves the bandwidth's interval
    # ten times.
    assert smooth.ece(confidence, correct) == pytest.approx(peers[f"{name}/smooth_ece"], abs=6e-4)
    for width in (0.02, 0.1, 0.3):
        assert smooth.at(confidence, correct, width) == pytest.approx(
            peers[f"{name}/smooth_ece_{width}"], abs=6e-4
        )


@pytest.mark.parametrize("name", CASES)
def test_bins_of_equal_mass_are_those_of_a_loop(peers, name):
    probs, label, confidence, correct = case(peers, name)
    own = parts(confidence.astype(np.float64), correct)
    squares = [n * ((p - h) ** 2 - h * (1 - h) / (n - 1)) if n > 1 else 0.0 for n, p, h in own]
    assert mass.ece(confidence, correct) == pytest.approx(
        sum(n * abs(p - h) for n, p, h in own) / len(label)
    )
    assert mass.debiased(confidence, correct)["l2_squared"] == pytest.approx(
        sum(squares) / len(label)
    )
    for above in (-1.0, 0.05):
        each = []
        for number in range(probs.shape[1]):
            used = probs[:, number] > above
            some = parts(probs[used, number].astype(np.float64), (label == number)[used])
            each.append(np.mean([abs(p - h) for _, p, h in some]))
        assert marginal.ace(marginal.every_class(probs, label, above=above)) == pytest.approx(
            np.mean(each)
        )


def test_blocks_of_classes_change_nothing(peers, monkeypatch):
    probs, label, _, _ = case(peers, "over")
    whole = marginal.every_class(probs, label)
    monkeypatch.setattr(marginal, "_BLOCK", 900)
    for one, other in zip(whole, marginal.every_class(probs, label), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_smooth_error_is_the_integral_with_reflected_kernels():
    draw = np.random.default_rng(2)
    confidence = draw.uniform(0.3, 1, 200)
    correct = draw.uniform(size=200) < confidence**2
    grid = (np.arange(4000) + 0.5) / 4000
    for width in (0.02, 0.4):
        kernel = sum(
            norm.pdf(grid[:, None], 2 * turn + sign * confidence, width)
            for turn in (-1, 0, 1)
            for sign in (1, -1)
        )
        expected = np.abs(kernel @ (confidence - correct)).mean() / 200
        assert smooth.at(confidence, correct, width) == pytest.approx(expected, abs=1e-5)
    value = smooth.ece(confidence, correct)
    assert smooth.at(confidence, correct, value) == pytest.approx(value, abs=2e-6)


@pytest.mark.parametrize("name", CASES)
def test_the_largest_sum_of_gaps_is_that_of_a_loop(peers, name):
    _, _, confidence, correct = case(peers, name)
    gaps = [
        (confidence[confidence <= c].astype(float) - correct[confidence <= c]).sum()
        for c in set(confidence)
    ]
    assert ks.ks(confidence, correct) == pytest.approx(np.max(np.abs(gaps)) / len(correct))


def test_ties_in_the_risk_are_the_mean_over_all_orders():
    confidence = np.array([0.9, 0.5, 0.5, 0.5, 0.3])
    correct = np.array([True, False, True, True, False])
    draw, curves = np.random.default_rng(0), []
    for _ in range(4000):
        order = sorted(range(5), key=lambda i: (-confidence[i], draw.random()))
        curves.append(np.cumsum(~correct[order]) / np.arange(1, 6))
    np.testing.assert_allclose(selective.risk(confidence, correct), np.mean(curves, 0), atol=0.01)
    assert selective.errors(confidence, correct)["aurc"] == pytest.approx(
        np.mean(curves), abs=0.005
    )


def test_the_best_ranking_has_no_excess_and_the_area_is_that_of_pairs():
    correct = np.array([True] * 6 + [False] * 4)
    confidence = np.linspace(1, 0.1, 10)
    found = selective.errors(confidence, correct)
    assert found["e_aurc"] == pytest.approx(0, abs=1e-15)
    assert (found["error_auroc"], found["error_fpr95"]) == (1, 0)
    draw = np.random.default_rng(1)
    confidence = draw.choice([0.2, 0.4, 0.6, 0.8], 50)
    correct = draw.uniform(size=50) < 0.6
    right, wrong = confidence[correct][:, None], confidence[~correct]
    pairs = np.mean(right > wrong) + np.mean(right == wrong) / 2
    assert selective.errors(confidence, correct)["error_auroc"] == pytest.approx(pairs)
    threshold = max(c for c in set(confidence) if np.mean(right >= c) >= 0.95)
    assert selective.errors(confidence, correct)["error_fpr95"] == pytest.approx(
        np.mean(wrong >= threshold)
    )


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("count", [1, 7])
def test_all_right_or_all_wrong_and_saturated(right, count):
    confidence, correct = np.ones(count, np.float32), np.full(count, right)
    gap = 0.0 if right else 1.0
    assert mass.ece(confidence, correct) == gap
    expected = gap if count > 1 else np.nan  # of one example no noise can be estimated
    np.testing.assert_equal(
        mass.debiased(confidence, correct), {"l2_squared": expected, "l2": expected}
    )
    assert smooth.ece(confidence, correct) == pytest.approx(gap, abs=1e-4)
    assert ks.ks(confidence, correct) == gap
    found = selective.errors(confidence, correct)
    assert (found["aurc"], found["e_aurc"]) == (gap, 0)
    assert np.isnan(found["error_auroc"])


def test_the_order_of_examples_changes_nothing(peers):
    probs, label, confidence, correct = case(peers, "tied")
    order = np.random.default_rng(3).permutation(len(label))
    for function in (mass.ece, smooth.ece, ks.ks):
        assert function(confidence[order], correct[order]) == pytest.approx(
            function(confidence, correct), abs=1e-9
        )
    for name, value in selective.errors(confidence, correct).items():
        assert selective.errors(confidence[order], correct[order])[name] == pytest.approx(
            value, abs=1e-12
        ), name
    for one, other in zip(
        marginal.every_class(probs[order], label[order]),
        marginal.every_class(probs, label),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_without_bias_a_calibrated_network_scores_zero_on_average():
    draw, plain, debiased, every = np.random.default_rng(4), [], [], []
    for _ in range(150):
        probs = draw.dirichlet([0.6] * 3, 500)
        label = (draw.uniform(size=(500, 1)) > probs.cumsum(1)).sum(1)
        confidence, correct = probs.max(1), probs.argmax(1) == label
        bins = base.equal_mass(confidence, correct)
        plain.append((bins.count * bins.gap() ** 2).sum() / 500)
        debiased.append(mass.debiased(confidence, correct)["l2_squared"])
        every.append(marginal.debiased(marginal.every_class(probs, label))["marginal_squared"])
    assert np.mean(plain) > 3e-3
    for values in (debiased, every):
        assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(150)
        assert min(values) < 0


@pytest.mark.parametrize(
    "function", [mass.ece, mass.debiased, smooth.ece, ks.ks, selective.errors, selective.risk]
)
def test_what_is_no_probability_is_refused(function):
    for confidence, correct, sentence in (
        ([0.5, np.nan], [True, True], "between 0 and 1"),
        ([-0.1, 0.5], [True, True], "between 0 and 1"),
        ([0.5], [True, False], r"\[1\] and \[2\]"),
        ([], [], "N at least 1"),
    ):
        with pytest.raises(ValueError, match=sentence):
            function(np.array(confidence), np.array(correct, bool))


def test_a_matrix_that_does_not_fit_its_labels_is_refused():
    probs, label = np.full((3, 2), 0.5), np.array([0, 1, 1])
    for bad, sentence in (
        ((probs, label[:2]), r"\[3, 2\] and \[2\]"),
        ((probs, label + 1), "label must be between 0 and 1, got 1 to 2"),
        ((np.where(np.eye(3, 2), np.nan, probs), label), "for class 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            marginal.every_class(*bad)
    with pytest.raises(ValueError, match="bandwidth must be at least"):
        smooth.at(probs[:, 0], label > 0, 0)
