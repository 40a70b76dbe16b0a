"""Logits of published networks: our figures beside those of their paper, and beside float64 numpy.

tests/vectors/published/README.md has the source, docs/results/published.md what is found.
"""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, special

import ldl_jax as ldl
from ldl_jax import evaluate

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("LDL_DATA_DIR", "/nowhere"))
PAGE = ROOT / "docs" / "results" / "published.md"
NETWORKS = ("cross_entropy", "flsd53")
# Per cent; the last is how far our ECE at their temperature may be from theirs.
ERROR = {"cross_entropy": 4.95, "flsd53": 4.98}
RAW = {"cross_entropy": 4.35, "flsd53": 1.55}
TEMPERATURE = {"cross_entropy": 2.5, "flsd53": 1.1}
SCALED = {"cross_entropy": 1.35, "flsd53": 0.95}
WITHIN = {"cross_entropy": 0.005, "flsd53": 0.04}
# KL of the predictions from the votes of CIFAR-10H, raw and at the fitted temperature, in nat.
VOTES = {"cross_entropy": (0.765, 0.253), "flsd53": (0.240, 0.226)}


@pytest.fixture(scope="module")
def script():
    """The module docs/results/published.py."""
    spec = importlib.util.spec_from_file_location("published", PAGE.with_suffix(".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wide(script, network, split):
    """Logits f64[N, 10] and labels i64[N]."""
    logits, labels = script.read(network, split)
    return logits.astype(np.float64), labels.astype(np.int64)


def ece(logits, labels):
    """The ECE in 15 bins (lo, hi], in per cent."""
    probs = special.softmax(logits, axis=1)
    confidence = probs.max(axis=1)
    correct = probs.argmax(axis=1) == labels
    bins = np.maximum(np.ceil(confidence * 15) - 1, 0).astype(int)
    return 100 * np.abs(np.bincount(bins, confidence - correct, 15)).sum() / len(labels)


def best_temperature(logits, labels):
    """The temperature with the lowest NLL."""

    def nll(temperature):
        log_probs = special.log_softmax(logits / temperature, axis=1)
        return -log_probs[np.arange(len(labels)), labels].mean()

    return optimize.minimize_scalar(
        nll, bounds=(0.5, 5), method="bounded", options={"xatol": 1e-8}
    ).x


@pytest.mark.parametrize("network", NETWORKS)
def test_the_logits_have_the_published_error_and_ece(script, network):
    logits, labels = wide(script, network, "test")
    assert logits.shape == (10_000, 10)
    assert 100 * np.mean(logits.argmax(axis=1) != labels) == pytest.approx(ERROR[network])
    assert ece(logits, labels) == pytest.approx(RAW[network], abs=0.005)
    ours = 100 * ldl.ece(logits=script.read(network, "test")[0], labels=labels)
    assert ours == pytest.approx(ece(logits, labels), abs=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
def test_their_grid_gives_the_published_temperature(script, network):
    grid = np.arange(1, 101) / 10
    val, val_labels = wide(script, network, "val")
    chosen = grid[np.argmin([ece(val / t, val_labels) for t in grid])]
    assert chosen == TEMPERATURE[network]
    assert script.by_grid(*script.read(network, "val")) == chosen
    logits, labels = wide(script, network, "test")
    assert ece(logits / chosen, labels) == pytest.approx(SCALED[network], abs=WITHIN[network])


@pytest.mark.parametrize("network", NETWORKS)
def test_our_temperature_is_that_of_the_likelihood(script, network):
    logits, labels = script.read(network, "val")
    fitted = ldl.calibrate.fit("temperature", logits=logits, labels=labels)
    expected = best_temperature(*wide(script, network, "val"))
    assert fitted.params["temperature"] == pytest.approx(expected, rel=1e-6)
    test, test_labels = wide(script, network, "test")
    assert ece(test / expected, test_labels) == pytest.approx(SCALED[network], abs=0.03)


@pytest.mark.nightly
def test_the_command_measures_both_networks(script, tmp_path):
    files = [str(script.FOLDER / f"{network}_test.npz") for network in NETWORKS]
    vals = [f"--val={script.FOLDER / network}_val.npz" for network in NETWORKS]
    assert evaluate.main([*files, *vals, f"--out={tmp_path}"]) == 0
    results = json.loads((tmp_path / "evaluation.json").read_text())["suites"]
    for network, result in zip(NETWORKS, results, strict=True):
        logits, labels = wide(script, network, "test")
        temperature = result["temperature"]["temperature"]
        # The prior of the default calibrator moves the temperature a little towards 1.
        best = best_temperature(*wide(script, network, "val"))
        assert best - 0.003 < temperature < best
        for state, divisor in (("raw", 1), ("scaled", temperature)):
            figure = result[state]["figures"]["ece"]
            assert 100 * figure["value"] == pytest.approx(ece(logits / divisor, labels), abs=1e-4)
            published = (RAW if state == "raw" else SCALED)[network] / 100
            assert figure["interval"][0] < published < figure["interval"][1]


@pytest.mark.slow
def test_the_page_holds_what_the_script_prints(script, capsys):
    script.main([])
    tables = capsys.readouterr().out
    page = PAGE.read_text()
    for line in tables.splitlines():
        assert line in page


@pytest.mark.data
@pytest.mark.parametrize("network", NETWORKS)
def test_the_distance_to_the_votes_of_people(script, network):
    if not (DATA / "cifar10h.npy").exists():
        pytest.skip("needs cifar10h.npy below LDL_DATA_DIR")
    votes = np.load(DATA / "cifar10h.npy")
    result = script.measured(network, votes)
    logits, _ = wide(script, network, "test")
    temperatures = (1, result.temperature["temperature"])
    states = (result.raw, result.scaled)
    for expected, state, temperature in zip(VOTES[network], states, temperatures, strict=True):
        log_probs = special.log_softmax(logits / temperature, axis=1)
        kl = (special.xlogy(votes, votes) - votes * log_probs).sum(axis=1).mean()
        assert state["table_kl"].value == pytest.approx(kl, rel=1e-5)
        assert kl == pytest.approx(expected, abs=0.0005)
