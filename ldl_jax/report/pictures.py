"""Pictures of stored predictions, drawn from what `suite.measure` gave, for a page and as files.

A picture is drawn with the colours of COLOURS, which `page` exchanges for those of a light and a dark page, and with a
transparent ground; text stays text.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ldl_jax import files
from ldl_jax.report.figures import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILION, band

COLOURS = {  # name -> the colour that is drawn with
    "ink": INK, "grey": GREY, "line": "#DDDDDE", "blue": BLUE, "sky": SKY, "orange": ORANGE, "red": VERMILION,
    "green": GREEN, "purple": PURPLE,
}  # fmt: skip
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)  # of models, in their order; then again, dotted
DASHES = ("-", ":", "--", "-.")
MOST_CLASSES = 40  # shown; of more, those that are most over- and most underconfident
STATES = {"raw": "raw", "scaled": "temperature-scaled"}
STYLE = {
    "font.family": "sans-serif", "font.size": 9, "text.color": INK, "axes.edgecolor": GREY, "axes.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.grid": True,
    "grid.color": COLOURS["line"], "grid.linewidth": 0.7, "axes.titlesize": 9, "axes.titlelocation": "left",
    "xtick.color": GREY, "ytick.color": GREY, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "legend.frameon": False, "legend.fontsize": 8, "lines.linewidth": 1.6, "svg.fonttype": "none",
    "svg.hashsalt": "ldl_jax", "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
    "text.parse_math": False,
}  # fmt: skip


def pictures(suites: list[dict]) -> Iterator[tuple[str, str, Figure]]:
    """(kind, name, figure) of every picture of these suites; kinds come in the order in which a page shows them.

    Kinds: 'reliability' and 'classes', one for each model and state; 'coverage' and 'temperature' show all models.
    """
    with matplotlib.rc_context(STYLE):
        for place, suite in enumerate(suites):
            for state in _states(suite):
                yield "reliability", f"reliability-{place}-{state}", reliability(suite, state)
        for place, suite in enumerate(suites):
            for state in _states(suite):
                yield "classes", f"classes-{place}-{state}", classes(suite, state)
        yield "coverage", "coverage", coverage(suites)
        if any(suite["scaled"] for suite in suites):
            for name, label, factor in (("nll", "NLL, nat", 1), ("ece", "ECE, %", 100)):
                some = [suite for suite in suites if suite["scaled"]]
                yield "temperature", f"temperature-{name}", temperature(some, name, label, factor)


def svg(figure: Figure) -> str:
    """A figure as SVG, the same bytes for the same figure."""
    out = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return out.getvalue()


def save(suites: list[dict], folder, endings) -> list[Path]:
    """Write every picture as <name>.<ending>, on white, for endings 'png' and 'svg'; returns the paths."""
    paths = []
    for _, name, figure in pictures(suites):
        for ending in endings:
            options = {"metadata": {"Date": None}} if ending == "svg" else {}

            def write(path, figure=figure, options=options):
                with matplotlib.rc_context(STYLE):
                    figure.savefig(path, dpi=200, facecolor="white", **options)

            paths.append(files.write_with(Path(folder) / f"{name}.{ending}", write))
    return paths


def _states(suite: dict) -> list[str]:
    return [state for state in STATES if suite[state]]


def _name(suite: dict, state: str) -> str:
    return suite["name"] if suite["scaled"] is None else f"{suite['name']}, {STATES[state]}"


def _short(text: str, most: int = 44) -> str:
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"


def reliability(suite: dict, state: str) -> Figure:
    """Accuracy against confidence with the band of a calibrated model, above how many are right and wrong."""
    bins = suite[state]["curves"]["reliability"]
    count, confidence, correct = (np.asarray(bins[name], float) for name in ("count", "confidence", "correct"))
    figure = Figure(figsize=(4.2, 4.9), layout="constrained")
    diagram, histogram = figure.subplots(2, 1, height_ratios=(2.7, 1), sharex=True)
    used, width = count > 0, 1 / len(count)
    left, n = np.flatnonzero(used) * width, count[used]
    accuracy, expected = correct[used] / n, np.clip(confidence[used] / n, 0, 1)
    low, high = band(n, expected)
    diagram.bar(left, accuracy, width, align="edge", color=BLUE, alpha=0.35, linewidth=0)
    diagram.bar(left + width / 2, high - low, 0.42 * width, low, color=GREY, alpha=0.45, linewidth=0, zorder=3)
    diagram.hlines(accuracy, left, left + width, colors=BLUE, linewidth=2.2, zorder=4)
    diagram.hlines(expected, left + 0.15 * width, left + 0.85 * width, colors=INK, linewidth=1.1, zorder=5)
    diagram.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    diagram.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy", title=_short(_name(suite, state)))
    every = np.arange(len(count)) * width
    histogram.bar(every, correct, width, align="edge", color=BLUE, alpha=0.7, linewidth=0, label="right")
    histogram.bar(every, count - correct, width, correct, align="edge", color=ORANGE, linewidth=0, label="wrong")
    for x, n_here in zip(every + width / 2, count, strict=True):
        if n_here:
            text = {"rotation": 90, "ha": "center", "va": "bottom", "fontsize": 6.5}
            histogram.text(x, n_here + 0.03 * count.max(), f"{int(n_here):,}", **text)
    histogram.set(xlabel="confidence", ylabel="examples", ylim=(0, 1.9 * count.max()))
    histogram.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    histogram.legend(loc="upper left", ncols=2, handlelength=1)
    return figure


def classes(suite: dict, state: str) -> Figure:
    """Mean confidence less accuracy of the examples predicted as each class, sorted; with their 95 % bands around 0."""
    sums = suite[state]["curves"]["classes"]
    count, confidence, correct = (np.asarray(sums[name], float) for name in ("count", "confidence", "correct"))
    names = suite.get("class_names") or [str(number) for number in range(len(count))]
    used = np.flatnonzero(count)
    gap = (confidence - correct)[used] / count[used]
    order = np.argsort(gap, kind="stable")
    few = f" ({MOST_CLASSES} of {len(order)} classes)" if len(order) > MOST_CLASSES else ""
    if few:
        order = np.concatenate([order[: MOST_CLASSES // 2], order[-MOST_CLASSES // 2 :]])
    shown, values = used[order], 100 * gap[order]
    expected = np.clip(confidence[shown] / count[shown], 0, 1)
    low, high = (100 * (expected - end) for end in band(count[shown], expected)[::-1])
    figure = Figure(figsize=(4.2, 1.1 + 0.19 * max(3, len(shown))), layout="constrained")
    axes = figure.add_subplot()
    at = np.arange(len(shown))
    axes.barh(at, values, 0.72, color=[VERMILION if value > 0 else GREEN for value in values], alpha=0.75, linewidth=0)
    axes.hlines(at, low, high, colors=INK, linewidth=1.1)
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(at, [_short(str(names[number]), 22) for number in shown], fontsize=7.5)
    axes.grid(False, axis="y")
    axes.set(xlabel="confidence less accuracy, points", ylim=(-0.7, len(shown) - 0.3))
    axes.set_title(_short(_name(suite, state)) + few)
    return figure


def coverage(suites: list[dict]) -> Figure:
    """Error rate among the most confident examples against their share, all models."""
    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for suite, (colour, dashes) in _series(suites):
        curve = suite["raw"]["curves"]["risk_coverage"]
        share, risk = 100 * np.asarray(curve["coverage"]), 100 * np.asarray(curve["risk"])
        axes.plot(share, risk, color=colour, linestyle=dashes, label=_short(suite["name"]))
    axes.set(xlim=(0, 100), ylim=(0, None), xlabel="coverage: most confident share, %", ylabel="error rate, %")
    axes.legend(loc="upper left")
    return figure


def temperature(suites: list[dict], name: str, label: str, factor: float) -> Figure:
    """NLL or ECE of the reported examples at each temperature, with the one that was fitted on others."""
    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for suite, (colour, dashes) in _series(suites):
        curve, fitted = suite["scaled"]["curves"]["temperature"], suite["temperature"]["temperature"]
        at, values = np.asarray(curve["temperature"]), factor * np.asarray(curve[name])
        axes.plot(at, values, color=colour, linestyle=dashes, label=f"{_short(suite['name'], 30)}: T = {fitted:.3g}")
        axes.plot(fitted, np.interp(fitted, at, values), "o", color=colour)
    axes.axvline(1, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    axes.tick_params(axis="x", which="minor", labelsize=8)
    axes.set(xlabel="temperature", ylabel=label, ylim=(0 if name == "ece" else None, None))
    axes.legend(loc="best")
    return figure


def epochs(curves: dict[str, list[tuple]], label: str, factor: float = 100) -> Figure:
    """A figure against the epoch: for each name the mean over seeds, with a band from the lowest to the highest.

    curves: name -> [(epochs, values), one for each seed], all seeds of a name at the same epochs.
    """
    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for (name, seeds), (colour, dashes) in _series(curves.items()):
        values = factor * np.array([values for _, values in seeds])
        at = np.asarray(seeds[0][0])
        axes.plot(at, values.mean(0), color=colour, linestyle=dashes, label=_short(name))
        axes.fill_between(at, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="epoch", ylabel=label, xlim=(0, None))
    axes.legend(loc="best", fontsize=7.5)
    return figure


def _series(items):
    """Each item with its (colour, dashes)."""
    items = list(items)
    styles = [(SERIES[i % len(SERIES)], DASHES[i // len(SERIES) % len(DASHES)]) for i in range(len(items))]
    return zip(items, styles, strict=True)
