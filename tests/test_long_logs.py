"""Long logs are drawn with some thousand points per curve."""

import numpy as np

from ldl_jax.report import run_plots


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
