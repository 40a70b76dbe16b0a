"""Long logs and large studies: the number of points, plots and files, not the time."""

import numpy as np
import pytest

from ldl_jax.config import options
from ldl_jax.config.fields import default
from ldl_jax.report import plots, run_plots
from ldl_jax.study import page
from ldl_jax.study.cards import Card


def test_long_curves_are_thinned_but_keep_their_spikes():
    draw = np.random.default_rng(0)
    epoch = np.arange(50_000) / 100
    value = draw.uniform(1, 2, len(epoch))
    value[12_345], value[33_333] = 90.0, 0.1
    kept_epoch, kept = run_plots._thinned(epoch, value)
    assert 1000 < len(kept) <= run_plots._DRAWN + 2
    assert (np.diff(kept_epoch) > 0).all()
    assert (kept_epoch[0], kept_epoch[-1]) == (epoch[0], epoch[-1])
    for spike in (12_345, 33_333):
        assert value[spike] == kept[kept_epoch == epoch[spike]]
    short = epoch[: run_plots._DRAWN], value[: run_plots._DRAWN]
    assert run_plots._thinned(*short) == short


def test_the_moving_mean_of_a_long_curve_is_that_of_its_positions():
    value = np.random.default_rng(0).normal(size=30_000)
    epoch = np.arange(30_000.0)
    at, mean = run_plots._moving_mean(epoch, value, 600)
    assert len(mean) == run_plots._DRAWN
    sums = np.concatenate([[0], np.cumsum(value)])
    start = (at - 299.5).astype(int)
    np.testing.assert_allclose(mean, (sums[start + 600] - sums[start]) / 600, atol=1e-10)
    at, mean = run_plots._moving_mean(epoch[:250], value[:250], 5)
    np.testing.assert_allclose(mean, np.convolve(value[:250], np.ones(5) / 5, "valid"), atol=1e-12)


def test_a_plot_of_a_long_log_draws_some_thousand_points():
    rows = [{"epoch": step / 100, "train/loss": 1 + step % 7} for step in range(20_000)]
    (_, figure), *_ = run_plots.panels(rows)
    points = [len(line.get_xdata()) for line in figure.axes[0].lines]
    assert len(points) == 2
    assert max(points) <= run_plots._DRAWN + 2


@pytest.mark.slow
def test_the_page_of_a_large_study_draws_some_diagrams_and_says_how_many(monkeypatch):
    bins = {"count": [4, 6], "confidence": [2.0, 5.0], "correct": [1.0, 5.0]}
    cells = {f"c{number}": {0: Card({"raw": {"reliability": bins}}, {})} for number in range(5)}
    drawn = []
    draw = plots.reliability
    monkeypatch.setattr(
        plots,
        "reliability",
        lambda *args, **named: drawn.append(named["title"]) or draw(*args, **named),
    )
    monkeypatch.setattr(page, "MOST_DIAGRAMS", 2)
    assert "Shown: the first 2 of 5 cells." in page._reliability(cells)
    assert drawn == ["c0", "c1"]
    monkeypatch.setattr(page, "MOST_DIAGRAMS", 5)
    assert "Shown:" not in page._reliability(cells)


def test_many_configs_list_the_plugs_once(monkeypatch):
    default()
    listed = []
    monkeypatch.setattr(options, "_has_function", lambda *args: listed.append(args))
    default()
    assert not listed
