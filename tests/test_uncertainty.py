"""Intervals, noise floors and differences, held to what probability theory says of them."""

import jax
import numpy as np
import pytest
from frame import slow_but
from scipy import stats

from ldl_jax.evaluation import bootstrap, simulation

DRAW = np.random.default_rng(0)


def calibrated(count, draw=DRAW):
    """Confidences of a network of ten classes, and answers as right as they claim."""
    confidence = 1 - 0.9 * draw.beta(0.6, 3, count)
    return confidence, draw.uniform(size=count) < confidence


def plain(confidence, correct, bins=15):
    """The figures of the bins, by loops."""
    gaps, counts = np.zeros(bins), np.zeros(bins)
    for c, right in zip(confidence, correct, strict=True):
        place = max(0, int(np.ceil(c * bins)) - 1)
        gaps[place] += c - right
        counts[place] += 1
    used = counts > 0
    rates = gaps[used] / counts[used]
    return {
        "ece": abs(gaps).sum() / len(correct), "mce": abs(rates).max(), "signed_ece": gaps.sum() / len(correct),
        "rmsce": np.sqrt((counts[used] * rates**2).sum() / len(correct)),
        "overconfidence": gaps[gaps > 0].sum() / len(correct), "underconfidence": -gaps[gaps < 0].sum() / len(correct),
    }  # fmt: skip


@pytest.mark.parametrize("case", ["drawn", "all right", "all wrong", "saturated", "one"])
def test_figures_are_those_of_a_loop_over_examples(case):
    confidence, correct = calibrated(400)
    if case == "all right":
        correct[:] = True
    elif case == "all wrong":
        correct[:] = False
    elif case == "saturated":
        confidence[:] = 1.0
    elif case == "one":
        confidence, correct = confidence[:1], correct[:1]
    found = bootstrap.figures(confidence, correct, {"accuracy": correct})
    for name, value in plain(confidence, correct).items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    assert found["accuracy"] == pytest.approx(correct.mean())
    assert found["ece"] == pytest.approx(found["overconfidence"] + found["underconfidence"])
    assert found["ece"] >= abs(found["signed_ece"]) - 1e-15


def test_a_mean_has_the_interval_of_normal_theory():
    confidence, correct = calibrated(4000)
    low, high = bootstrap.bootstrap(3, confidence, correct, {"accuracy": correct})["accuracy"]
    half = 1.96 * correct.std() / np.sqrt(4000)
    assert low == pytest.approx(correct.mean() - half, abs=0.12 * half)
    assert high == pytest.approx(correct.mean() + half, abs=0.12 * half)


def test_the_same_seed_draws_the_same_and_another_one_does_not():
    confidence, correct = calibrated(300)
    one, again = (bootstrap.bootstrap(1, confidence, correct) for _ in range(2))
    assert one == again
    assert one != bootstrap.bootstrap(2, confidence, correct)


def test_resamples_in_parts_are_those_in_one(monkeypatch):
    confidence, correct = calibrated(50)
    whole = bootstrap.bootstrap(0, confidence, correct, resamples=40)
    monkeypatch.setattr(bootstrap, "_ROWS", 7)
    parts = bootstrap.bootstrap(0, confidence, correct, resamples=40)
    np.testing.assert_allclose([*whole.values()], [*parts.values()], atol=1e-14)


@pytest.mark.parametrize("count", [40, 3])
def test_every_example_is_as_likely_in_every_block(count, monkeypatch):
    """Counts of a resample are multinomial: of mean 1, variance 1 - 1/N, covariance -1/N, in and
    across blocks.
    """
    monkeypatch.setattr(bootstrap, "_BLOCK", 16)
    means = {str(number): np.arange(count) == number for number in range(count)}
    (drawn,) = bootstrap._resampled(
        0, [bootstrap.Answers(np.ones(count), np.ones(count), means)], 8000
    )
    counts = count * np.stack([drawn[name] for name in means])
    np.testing.assert_allclose(counts.sum(0), count)
    np.testing.assert_allclose(counts.mean(1), 1, atol=0.06)
    np.testing.assert_allclose(np.cov(counts), np.eye(count) - 1 / count, atol=0.12)


@pytest.mark.slow
def test_differences_of_the_ece_hold_the_true_one_where_percentiles_do_not():
    """Between an overconfident network, by 0.05, and a calibrated one, whose ECE is all noise, on
    the same images.
    """
    draw, inside, percentiles = np.random.default_rng(5), 0, 0
    for trial in range(60):
        confidence = draw.uniform(0.4, 1, 5000)
        correct = draw.uniform(size=5000) < confidence - 0.05
        pair = (confidence, correct, {}), (confidence - 0.05, correct, {})
        value, (low, high), p = bootstrap.paired(trial, [pair], resamples=200)["ece"]
        assert p < 0.05
        assert low > 0
        inside += low <= 0.05 <= high
        percentiles += 2 * value - high <= 0.05 <= 2 * value - low
    assert inside >= 36
    assert percentiles < 10


@pytest.mark.parametrize("gap", slow_but([], [0.0, 0.005, 0.06], [0.0]))
def test_intervals_of_the_ece_mostly_hold_the_true_one(gap):
    """Of networks overconfident by `gap` everywhere, by simulation; near calibration percentiles do
    not.
    """
    draw, inside, percentiles = np.random.default_rng(5), 0, 0
    for trial in range(100):
        confidence = draw.uniform(0.4, 1, 1000)
        correct = draw.uniform(size=1000) < confidence - gap
        chance = simulation.noise_floor(jax.random.key(0), confidence)[1]
        low, high = bootstrap.bootstrap(trial, confidence, correct, chance=chance, resamples=300)[
            "ece"
        ]
        inside += low <= gap <= high
        value = bootstrap.figures(confidence, correct)["ece"]
        percentiles += 2 * value - high <= gap <= (2 * value - low if low else 1)
    assert 0.82 <= inside / 100 <= 1
    assert percentiles < 10 or gap == 0.06


def test_the_noise_floor_is_what_calibrated_networks_score():
    scored = [plain(*calibrated(1000, np.random.default_rng(seed)))["ece"] for seed in range(60)]
    confidence, _ = calibrated(1000)
    mean, most = simulation.noise_floor(jax.random.key(0), confidence)
    assert mean == pytest.approx(np.mean(scored), rel=0.1)
    assert most == pytest.approx(np.quantile(scored, 0.95), rel=0.2)
    four, _ = simulation.noise_floor(jax.random.key(0), calibrated(4000)[0])
    # falls with the root of the number of examples
    assert four == pytest.approx(mean / 2, rel=0.15)


@pytest.mark.parametrize(("confidence", "size"), [(0.7, 50), (0.99, 200)])
def test_the_noise_floor_of_one_confidence_is_the_mean_deviation_of_a_binomial(confidence, size):
    hits = np.arange(size + 1)
    chance = stats.binom(size, confidence).pmf(hits)
    deviation = abs(hits / size - confidence)
    expected, spread = (
        chance @ deviation,
        np.sqrt(chance @ deviation**2 - (chance @ deviation) ** 2),
    )
    found, _ = simulation.noise_floor(jax.random.key(0), np.full(size, confidence), draws=2000)
    assert abs(found - expected) < 4 * spread / 2000**0.5 + 1e-6


def test_certainty_has_no_noise():
    assert simulation.noise_floor(jax.random.key(0), np.ones(50), draws=2000) == (0, 0)


def test_a_network_and_itself_differ_by_nothing():
    side = (*calibrated(200), {"nll": DRAW.uniform(size=200)})
    for difference in bootstrap.paired(0, [(side, side)] * 2).values():
        assert difference == (0.0, (0.0, 0.0), 1.0)


def test_paired_differences_are_narrower_than_those_of_two_samples():
    confidence, correct = calibrated(2000)
    nll = DRAW.normal(1, 1, 2000)
    better = (confidence, correct, {"nll": nll - 0.05 + DRAW.normal(0, 0.1, 2000)})
    found = bootstrap.paired(0, [(better, (confidence, correct, {"nll": nll}))])["nll"]
    apart = better[2]["nll"] - nll
    half = 1.96 * apart.std() / np.sqrt(2000)
    np.testing.assert_allclose(
        found.interval, [apart.mean() - half, apart.mean() + half], atol=0.2 * half
    )
    assert found.p < 0.01
    assert found.value == pytest.approx(apart.mean())


def test_several_pairs_are_averaged():
    sides = [(*calibrated(500), {"nll": DRAW.uniform(size=500)}) for _ in range(4)]
    pairs = [(sides[0], sides[1]), (sides[2], sides[3])]
    single = [bootstrap.paired(0, [pair])["ece"].value for pair in pairs]
    assert bootstrap.paired(0, pairs)["ece"].value == pytest.approx(np.mean(single))


def test_seeds_have_students_interval():
    values = [0.1, 0.3, 0.2, 0.4]
    found = bootstrap.over_seeds(values)
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    np.testing.assert_allclose(found.interval, expected)
    assert (found.mean, found.n) == (pytest.approx(0.25), 4)
    assert found.std == pytest.approx(np.std(values, ddof=1))
    assert bootstrap.over_seeds([0.5]) == (0.5, None, 1, None)
    assert bootstrap.unpaired([0.5], values) is None
    assert bootstrap.unpaired([0.5, 0.5], [0.25, 0.25]) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("confidence", "correct", "sentence"),
    [
        ([0.5, np.nan], [True, True], "between 0 and 1"),
        ([0.5, 1.5], [True, True], "between 0 and 1"),
        ([0.5], [True, True], r"\[1\] and \[2\]"),
        ([], [], r"N at least 1"),
    ],
)
def test_what_is_no_prediction_is_refused(confidence, correct, sentence):
    with pytest.raises(ValueError, match=sentence):
        bootstrap.bootstrap(0, confidence, correct)


def test_values_over_seeds_must_be_numbers_and_pairs_of_one_size():
    with pytest.raises(ValueError, match="finite"):
        bootstrap.over_seeds([0.1, np.nan])
    short, long = (*calibrated(5), {}), (*calibrated(6), {})
    with pytest.raises(ValueError, match=r"networks of \[5, 6\] examples"):
        bootstrap.paired(0, [(short, long)])


def test_a_share_of_one_has_wilsons_interval_and_a_small_ece_reaches_up_to_its_value():
    confidence, _ = calibrated(50)
    low, high = bootstrap.bootstrap(
        0, confidence, np.ones(50, bool), {"accuracy": np.ones(50, bool)}
    )["accuracy"]
    z = stats.norm.ppf(0.975)
    assert (low, high) == (pytest.approx(50 / (50 + z**2)), 1.0)
    exact = np.full(400, 0.5)
    correct = np.arange(400) % 2 == 0  # as right as it claims, to the last example
    correct[0] = False
    value = bootstrap.figures(exact, correct)["ece"]
    low, high = bootstrap.bootstrap(0, exact, correct)["ece"]
    assert low == 0
    assert value <= high
