"""The plots of a run: drawn, whole, and saying the numbers they stand for."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ldl_jax.report import bands, plots, run_plots


def some_bins(size=15, count=100):
    draw = np.random.default_rng(0)
    counts = draw.integers(0, count, size).astype(float)
    confidence = counts * (np.arange(size) + 0.5) / size
    return {
        "count": counts,
        "confidence": confidence,
        "correct": draw.binomial(counts.astype(int), 0.6).astype(float),
    }


def some_rows(count=5):
    rows = [
        {"step": i, "epoch": i / 2, "train/loss": 2.0 / (i + 1), "train/learning_rate": 0.1}
        for i in range(count)
    ]
    rows += [
        {"step": i, "epoch": i / 2, "test/nll": 1.0, "test/accuracy": 0.5, "test/ece": math.nan}
        for i in range(3)
    ]
    return [*rows, {"step": 4, "epoch": 2, "holdout/accuracy": 0.4, "other/thing": 3.0}]


def drawn_texts(monkeypatch):
    """All texts of every figure that is saved from here on."""
    texts, save = [], Figure.savefig

    def watched(figure, *arguments, **options):
        texts.extend(
            text.get_text() for text in figure.findobj(lambda part: hasattr(part, "get_text"))
        )
        return save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", watched)
    return texts


def is_plot(path):
    with Image.open(path) as image:
        image.load()
        colours = image.convert("RGB").getcolors(2**24)
        return image.format == "PNG" and min(image.size) > 300 and len(colours) > 10


def test_plots_are_written_whole(tmp_path, monkeypatch):
    texts = drawn_texts(monkeypatch)
    bins = some_bins()
    path = run_plots.reliability(tmp_path / "sub" / "r.png", bins, title="a run", floor=0.0079)
    assert path == tmp_path / "sub" / "r.png"
    assert is_plot(path)
    n, gap = bins["count"].sum(), np.abs(bins["confidence"] - bins["correct"]).sum()
    (summary,) = (text for text in texts if text.startswith("accuracy ") and "ECE" in text)
    assert f"accuracy {100 * bins['correct'].sum() / n:.2f} %" in summary
    assert f"ECE {100 * gap / n:.2f} % (noise floor 0.79 %)" in summary
    assert f"n = {n:,.0f}" in summary
    assert is_plot(run_plots.curves(tmp_path / "sub" / "c.png", some_rows(), title="a run"))
    assert {
        "a run",
        "loss and NLL",
        "accuracy (%)",
        "learning rate",
        "test 50",
        "holdout 40",
        "test NLL 1",
    } <= set(texts)
    assert "ECE (%)" not in texts  # nothing finite to draw
    assert sorted(p.name for p in (tmp_path / "sub").iterdir()) == ["c.png", "r.png"]


def test_a_title_with_any_characters_is_drawn_as_it_is(tmp_path, monkeypatch):
    texts, title = drawn_texts(monkeypatch), r"a_b^c < $5 & 10 % \ # cost $x_$ and $\frac{$ <Größe>"
    assert is_plot(run_plots.reliability(tmp_path / "r.png", some_bins(3), title=title))
    assert is_plot(run_plots.curves(tmp_path / "c.png", some_rows(2), title=title))
    assert texts.count(title) == 2


@pytest.mark.parametrize("bins", [
    {"count": np.ones(3), "confidence": np.ones(4), "correct": np.ones(3)},
    {"count": np.ones((3, 2)), "confidence": np.ones((3, 2)), "correct": np.ones((3, 2))},
    {"count": np.ones(0), "confidence": np.ones(0), "correct": np.ones(0)},
    {"count": 1.0, "confidence": 1.0, "correct": 1.0},
])  # fmt: skip
def test_bins_of_other_shapes_are_refused(tmp_path, bins):
    with pytest.raises(
        ValueError, match="bins must hold three arrays of the same length, got shapes "
    ):
        run_plots.reliability(tmp_path / "r.png", bins, title="a run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("count", "said"), [
    (0, "0"), (999, "999"), (9_999, "9,999"), (10_000, "10k"), (12_345, "12.3k"), (999_499, "999k"), (999_500, "1M"),
    (1_000_000, "1M"), (1_281_167, "1.28M"), (999_499_999, "999M"), (999_500_001, "1G"),
])  # fmt: skip
def test_a_count_is_said_in_brief(count, said):
    assert plots.brief(count) == said


@pytest.mark.parametrize("size", [plots.ON_PAGE, plots.ALONE, plots.SMALL])
def test_the_reliability_diagram_shows_each_bin_in_every_size(size):
    bins = {"count": [0, 40, 60], "confidence": [0, 20, 54], "correct": [0, 30, 48]}
    figure = plots.reliability(bins, title="a title", size=size, keyed=True)
    diagram, histogram = figure.axes
    accuracy, expected = (lines.get_segments() for lines in diagram.collections)
    np.testing.assert_allclose([line[0, 1] for line in accuracy], [0.75, 0.8])
    np.testing.assert_allclose([line[0, 1] for line in expected], [0.5, 0.9])
    low, high = bands.band(np.array([40, 60]), np.array([0.5, 0.9]))
    drawn = [
        (bar.get_y(), bar.get_y() + bar.get_height())
        for bar in diagram.patches
        if hasattr(bar, "get_y")
    ]
    np.testing.assert_allclose(drawn, np.stack([low, high], 1))
    assert diagram.get_title(loc="left") == "a title"
    assert [text.get_text() for text in histogram.texts] == (["40", "60"] if size.words else [])
    assert plots.CALIBRATED in [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.slow
def test_bins_may_be_empty_few_or_many(tmp_path):
    nothing = {name: np.zeros(15) for name in ("count", "confidence", "correct")}
    for bins in (some_bins(1), some_bins(50), nothing):
        assert is_plot(run_plots.reliability(tmp_path / "r.png", bins, title=""))


@pytest.mark.slow
def test_curves_of_nothing_and_of_very_much_are_drawn(tmp_path, monkeypatch):
    texts = drawn_texts(monkeypatch)
    assert is_plot(run_plots.curves(tmp_path / "c.png", [], title="a run"))
    assert any(text.startswith("nothing to draw yet") for text in texts)
    assert is_plot(run_plots.curves(tmp_path / "c.png", some_rows(500), title="a run"))


def test_a_plot_that_fails_leaves_the_old_one_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "r.png"
    path.write_bytes(b"old")

    def fail(figure, target, **options):
        target.write_bytes(b"half")
        raise OSError("no more room")

    monkeypatch.setattr(Figure, "savefig", fail)
    for draw in (
        lambda: run_plots.reliability(path, some_bins(), title="x"),
        lambda: run_plots.curves(path, [], title="x"),
    ):
        with pytest.raises(OSError, match="no more room"):
            draw()
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("r.png", b"old")]


@pytest.mark.parametrize("expected", [1e-3, 0.05, 0.3, 10.0, 50.0])
def test_the_band_of_a_class_holds_what_is_likely_however_few_errors_are_to_be_expected(expected):
    count = 400
    c = np.full(count, 1 - expected / count)
    low, high = bands.gap_band([(c * (1 - c)).sum()], [(c * (1 - c) * (1 - 2 * c)).sum()])
    low, high = (np.clip(end, -expected, count - expected) for end in (low, high))
    gap = np.random.default_rng(0).binomial(count, expected / count, 100_000) - expected
    held = (gap >= low - 1e-9) & (gap <= high + 1e-9)
    assert 0.94 < held.mean() <= 1
    assert held[np.argmin(np.abs(gap))]
