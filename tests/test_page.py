"""The report: what stands in it, that nothing in it is run or loaded, and that it looks right in a
browser.
"""

import re
import warnings
import xml.etree.ElementTree as ET

import browser
import numpy as np
import pytest
from PIL import Image
from scipy.stats import gamma

from ldl_jax.evaluation import curves, passes
from ldl_jax.report import bands, evaluation_plots, html, page, plots
from ldl_jax.report.result import Evaluation, Figure, State
from ldl_jax.report.tables import Group, Table, simple

NASTY = "<script>alert('x')</script> & \"q\" $x_1$"


def state(classes, draw, scaled):
    count = draw.integers(0, 50, 15)
    confidence = (np.arange(15) + 0.5) / 15 * count
    correct = draw.binomial(count, 0.9 * (np.arange(15) + 0.5) / 15)
    each = draw.integers(0, 9, classes)
    figures = {
        "accuracy": Figure(0.5, (0.4, 0.6), None, "accuracy"),
        "nll": Figure(1.25, (1.0, 1.5), None, "proper scores"),
        "brier": Figure(0.7, None, None, "proper scores"),
        "ece": Figure(0.0815, (0.05, 0.1), 0.0123, "calibration"),
        "error_auroc": Figure(None, None, None, "knowing when it is wrong"),
    }
    if not scaled:
        figures["own_figure"] = Figure(3.0)
    curves = {
        "reliability": {"count": count.tolist(), "confidence": confidence.tolist(), "correct": correct.tolist()},
        "classes": {
            "count": each.tolist(), "confidence": (0.7 * each).tolist(), "correct": (each // 2).tolist(),
            "variance": (0.21 * each).tolist(), "third": (-0.084 * each).tolist(),
        },
        "risk_coverage": {"coverage": [0.1, 0.5, 1.0], "risk": [0.0, 0.2, 0.5]},
    }  # fmt: skip
    if scaled:
        curves["temperature"] = {
            "temperature": [0.5, 1, 2], "nll": [1.5, 1.2, 1.4], "ece": [0.2, 0.1, 0.15], "examples": 100
        }  # fmt: skip
    return State(figures, curves)


def evaluation(name, classes=4, scaled=True, names=None, seed=0):
    draw = np.random.default_rng(seed)
    fit = {"name": "val", "examples": 99, "temperature": 1.5, "at_bound": False}
    return Evaluation(
        name=name, examples=1234, classes=classes, class_names=names, kind="logits",
        understood="logits by the name logits", seed=0, notes=(f"a note on {name}",),
        temperature=fit if scaled else None, raw=state(classes, draw, False),
        scaled=state(classes, draw, True) if scaled else None,
    )  # fmt: skip


def with_classes(evaluation, sums):
    """The same evaluation with other raw sums of its classes."""
    return evaluation._replace(
        raw=evaluation.raw._replace(curves={**evaluation.raw.curves, "classes": sums})
    )


ONE = [evaluation("one", scaled=False)]
EVALUATIONS = [
    evaluation(NASTY, names=("ant", NASTY, "cat", "dög")),
    evaluation("other", seed=1, scaled=False),
]


@pytest.fixture(scope="module")
def written():
    return page.page(EVALUATIONS, title=NASTY, facts={"command": NASTY})


def test_what_comes_from_files_is_text_and_nothing_is_loaded(written):
    assert "<script" not in written
    assert "&lt;script&gt;alert(" in written
    assert "http" not in written.replace("http-equiv", "")
    assert not re.search(r"@import|url\((?!#)|\bsrc=|<link|<iframe|\bon\w+=", written)
    assert set(re.findall(r'href="([^"]*)"', written)) <= {
        f"#{name}" for name in re.findall(r' id="([^"]+)"', written)
    }


def test_every_plot_of_every_model_is_there_once_in_the_pages_colours(written):
    assert written.count("<svg") == written.count("</svg>") == 3 + 3 + 1 + 2
    identities = re.findall(r' id="([^"]+)"', written)
    assert len(identities) == len(set(identities))
    drawn = "".join(re.findall(r"<svg.*?</svg>", written, re.DOTALL))
    assert "var(--blue)" in drawn
    assert not re.findall(r"#[0-9a-fA-F]{6}\b", drawn)
    assert plots.CALIBRATED not in drawn  # which the page says once
    for part in re.findall(r"<svg.*?</svg>", written, re.DOTALL):
        ET.fromstring(part)


def test_figures_intervals_floors_groups_and_names_of_classes_are_shown(written):
    for text in ("8.15", "5.00 to 10.00", "floor 1.23", "1,234 examples", "Temperature 1.5", "knowing when it is wrong",
                 "dög", "own_figure", ", recalibrated", "a note on other"):  # fmt: skip
        assert text in written, text
    assert "(recalibrated)" not in written  # the headline has a row for each state
    assert "None" not in written
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", written, flags=re.DOTALL)


@pytest.mark.slow
def test_what_was_found_comes_first_and_the_curves_of_a_run_are_drawn():
    (one,) = ONE
    gap = Figure(-0.433, (-0.446, -0.421), None, "calibration")
    figures = {**one.raw.figures, "signed_ece": gap}
    low = one._replace(raw=one.raw._replace(figures=figures), name="a<b")
    rows = [
        {"step": 1, "epoch": 0.5, "train/loss": 2.0, "train/learning_rate": 0.1},
        {"step": 2, "epoch": 1.0, "test/accuracy": 0.5, "test/ece": None},
    ]
    made = page.page([low], title="x", rows=rows, noun="images")
    first = re.search(r'<h1>x</h1>\n<p class="found">(.*?)</p>', made)[1]
    assert first.startswith("<strong>a&lt;b:</strong> underconfident by 43.3 points, beyond chance")
    assert made.count("<svg") == 3 + 3  # loss, accuracy and learning rate, without an ECE
    assert "<h2>Training curves</h2>" in made
    assert {"train loss 2", "test 50"} <= set().union(*map(said, svgs(made)))
    assert "<h2>Training curves</h2>" not in page.page([low], title="x")


def svgs(made):
    return re.findall(r"<svg.*?</svg>", made, re.DOTALL)


def test_the_same_figures_give_the_same_bytes(written):
    kind, name, figure = next(evaluation_plots.every(EVALUATIONS))
    label = f"{page.CAPTIONS[kind][0]} {figure.axes[0].get_title(loc='left')}"
    assert html.plot(name, figure, label) in written


def said(plot):
    """All texts of a plot."""
    return {"".join(text.itertext()) for text in ET.fromstring(plot).iter("text")}


def test_names_are_neither_altered_nor_left_out():
    """A name that looks like what a plot is made of, that a legend would hide, or that no file can
    hold.
    """
    odd = ('_a id="c" href="#q"', "fill: #222222 url(#p)", "二", "a\nb\x00", "no\udcff")
    some = [evaluation(name, 3, names=odd[:3]) for name in odd]
    sums = {
        "count": [4] * 3,
        "confidence": [2] * 3,
        "correct": [1, 2, 3],
        "variance": [1] * 3,
        "third": [0] * 3,
    }
    some[0] = with_classes(some[0], sums)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = [evaluation_plots.coverage(some), evaluation_plots.classes(some[0], "raw")]
        lines, classes = (said(html.plot("x", figure, odd[0])) for figure in figures)
    assert {*odd[:3], "a b\N{REPLACEMENT CHARACTER}", "no\N{REPLACEMENT CHARACTER}"} <= lines
    assert {*odd[:3]} <= classes
    html.document("no\udcff", [html.text("no\udcff")]).encode()


def test_the_axis_of_temperatures_says_2_and_5_only_where_there_is_room():
    one, wide = evaluation("one"), evaluation("wide")
    wide.scaled.curves["temperature"]["temperature"] = [0.001, 1, 1000]
    near, far = (
        html.plot("x", evaluation_plots.temperature(some, "nll", "", 1), "")
        for some in ([one], [one, wide])
    )
    assert ">2</text>" in near
    assert ">2</text>" not in far
    assert ">0.01</text>" in far or ">0.001</text>" in far


def test_a_figure_that_is_missing_at_the_temperature_is_not_shown_as_if_it_were_there(written):
    row = re.search(r"<tr><td>own_figure</td>(.*?)</tr>", written)[1]
    assert re.findall(r"<td>(.*?)</td>", row) == ["3.0000", "", "", "–", "", ""]


def test_of_many_classes_the_ends_are_shown():
    sums = {
        "count": [100] * 60, "confidence": [50] * 60, "correct": list(range(20, 80)), "variance": [25] * 60,
        "third": [0] * 60,
    }  # fmt: skip
    many = evaluation(
        "one", 60, scaled=False, names=tuple(f"class {number}" for number in range(60))
    )
    shown = said(html.plot("x", evaluation_plots.classes(with_classes(many, sums), "raw"), ""))
    assert f"({evaluation_plots.MOST_CLASSES} of 60 classes)" in shown
    assert {name for name in shown if name.startswith("class ")} == {
        f"class {number}" for number in (*range(20), *range(40, 60))
    }


@pytest.mark.parametrize(("size", "sharp"), [(1000, 0.3), (100, 0.3), (30, 1)])
def test_the_band_of_a_class_holds_95_percent_of_calibrated_models(size, sharp):
    """Not of a binomial of the mean confidence, which held 98 to 99 %; about as many lie above it
    as below.
    """
    draw, number = np.random.default_rng(0), 3000
    confidence = 0.1 + 0.9 * draw.beta(1.5, sharp, (number, size))
    correct = draw.random((number, size)) < confidence
    predicted = np.repeat(np.arange(number), size)
    nothing = np.zeros(number * size)
    reduced = passes.Reduced(
        confidence.ravel(), correct.ravel(), predicted, predicted, nothing, nothing, nothing
    )  # fmt: skip
    sums = {name: np.array(values) for name, values in curves.classes(reduced, number).items()}
    np.testing.assert_allclose(sums["variance"], (confidence * (1 - confidence)).sum(1))
    low, high = bands.gap_band(sums["variance"], sums["third"])
    gap = sums["confidence"] - sums["correct"]
    assert np.mean((low <= gap) & (gap <= high)) == pytest.approx(0.95, abs=0.012)
    assert np.mean(gap < low) == pytest.approx(0.025, abs=0.01)
    assert np.mean(gap > high) == pytest.approx(0.025, abs=0.01)


def test_the_bars_of_classes_are_their_gaps_and_bands():
    sums = {
        "count": [100, 9, 100], "confidence": [70, 9, 70], "correct": [80, 9, 60], "variance": [16, 0, 0.01],
        "third": [-4, 0, 0.01],
    }  # fmt: skip
    three = evaluation("one", 3, scaled=False, names=("low", "sure", "high"))
    axes = evaluation_plots.classes(with_classes(three, sums), "raw").axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["low", "sure", "high"]
    ends = np.array([(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches])
    shape = 4 / (4 / 4**3) ** 2  # of the gamma distribution of this skew
    shifted = (gamma.ppf([0.025, 0.975], shape) - shape) / np.sqrt(shape)
    np.testing.assert_allclose(ends[0], 4 * shifted, rtol=1e-5)  # of 100: sums are percent
    np.testing.assert_array_equal(ends[1], [0, 0])
    np.testing.assert_allclose(ends[3:], [[0, -10], [0, 0], [0, 10]], atol=1e-12)


def test_one_example_of_two_classes_whose_other_bins_and_class_are_empty():
    one = evaluation("one", 2, scaled=False)._replace(examples=1)
    for name in ("reliability", "classes"):
        sums = one.raw.curves[name]
        for values in sums.values():
            values[:] = [0] * (len(values) - 1) + values[-1:]
        sums["count"][-1], sums["confidence"][-1], sums["correct"][-1] = 1, 1.0, 1
        sums |= {
            moment: [0.0] * len(sums["count"]) for moment in ("variance", "third") if moment in sums
        }
    made = page.page([one], title="x")
    assert made.count("<svg") == 3
    assert "1 example, 2 classes" in made
    assert "No temperature was fitted." in made
    assert "recalibrated" not in re.sub(r"<section>\n<h2>Definitions.*", "", made, flags=re.DOTALL)


def test_plots_are_written_as_png_and_svg(tmp_path):
    paths = evaluation_plots.save(ONE, tmp_path, ("png", "svg"))
    assert sorted(path.name for path in paths) == sorted(
        f"{name}.{ending}"
        for name in ("reliability-0-raw", "classes-0-raw", "coverage")
        for ending in ("png", "svg")
    )  # fmt: skip
    for path in paths:
        if path.suffix == ".svg":
            assert ET.parse(path).getroot().tag.endswith("svg")
            # what its colours mean
            assert (plots.CALIBRATED in path.read_text()) == (path.stem != "coverage")
        else:
            assert np.asarray(Image.open(path).convert("L")).std() > 5
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths}


def test_a_table_escapes_its_cells_and_keeps_its_shape():
    made = html.table(Table(["", "<a>"], [Group([["x & y", "1\n<2>"]], "<group>")]))
    assert made.count("<tr") == 3
    assert 'colspan="2">&lt;group&gt;' in made
    assert "1<br><small>&lt;2&gt;</small>" in made
    assert "a_<wbr>long/<wbr>path_<wbr>of_<wbr>a_<wbr>run&lt;" in html.table(
        simple([""], [["a_long/path_of_a_run<>"]])
    )


@pytest.mark.slow
@browser.needed
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_in_a_browser_nothing_sticks_out_and_nothing_is_complained_of(
    written, tmp_path, width, dark
):
    """Shown in a frame as wide as a screen or a phone, which says how wide its content is."""
    (tmp_path / "report.html").write_text(written)
    browser.assert_looks_right(tmp_path, width=width, dark=dark)
