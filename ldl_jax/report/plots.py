"""Pictures of stored predictions, drawn from what `suite.measure` gave, for a page and as files.

A picture is drawn with the colours of COLOURS, which `page` exchanges for those of a light and a dark page, and with a
transparent ground; text stays text.
"""

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ldl_jax import files
from ldl_jax.report.run_plots import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILION, band, brief, gap_band

COLOURS = {  # name -> the colour that is drawn with
    "ink": INK, "grey": GREY, "line": "#DDDDDE", "blue": BLUE, "sky": SKY, "orange": ORANGE, "red": VERMILION,
    "green": GREEN, "purple": PURPLE,
}  # fmt: skip
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)  # of models, in their order; then again, dotted
DASHES = ("-", ":", "--", "-.")
MOST_CLASSES = 40  # shown; of more, those that are most over- and most underconfident
STATES = {"raw": "raw", "scaled": "temperature-scaled"}
CALIBRATED = "95 % of calibrated models"
STYLE = {
    "font.family": "sans-serif", "font.size": 9, "text.color": INK, "axes.edgecolor": GREY, "axes.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.grid": True,
    "grid.color": COLOURS["line"], "grid.linewidth": 0.7, "axes.titlesize": 9, "axes.titlelocation": "left",
    "xtick.color": GREY, "ytick.color": GREY, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "legend.frameon": False, "legend.fontsize": 8, "lines.linewidth": 1.6, "svg.fonttype": "none",
    "svg.hashsalt": "ldl_jax", "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
    "text.parse_math": False,
}  # fmt: skip


def pictures(suites: list[dict], *, keyed: bool = False) -> Iterator[tuple[str, str, Figure]]:
    """(kind, name, figure) of every picture of these suites; kinds come in the order in which a page shows them.

    Kinds: 'reliability' and 'classes', one for each model and state; 'coverage' and 'temperature' show all models.
    `keyed`: a picture says itself what its colours mean, as one without a page has to.
    """
    with matplotlib.rc_context(STYLE):
        for place, suite in enumerate(suites):
            for state in _states(suite):
                yield "reliability", f"reliability-{place}-{state}", reliability(suite, state, keyed)
        for place, suite in enumerate(suites):
            for state in _states(suite):
                yield "classes", f"classes-{place}-{state}", classes(suite, state, keyed)
        yield "coverage", "coverage", coverage(suites)
        some = [suite for suite in suites if suite["temperature"]]
        if some:
            for name, label, factor in (("nll", "NLL, nat", 1), ("ece", "ECE, %", 100)):
                yield "temperature", f"temperature-{name}", temperature(some, name, label, factor)


def svg(figure: Figure) -> str:
    """A figure as SVG, the same bytes for the same figure."""
    out = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # which only measures: the browser has more fonts
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return out.getvalue()


def save(suites: list[dict], folder, endings) -> list[Path]:
    """Write every picture as <name>.<ending>, on white, for endings 'png' and 'svg'; returns the paths."""
    paths = []
    for _, name, figure in pictures(suites, keyed=True):
        for ending in endings:
            options = {"metadata": {"Date": None}} if ending == "svg" else {}

            def write(path, figure=figure, options=options):
                with matplotlib.rc_context(STYLE):
                    figure.savefig(path, dpi=200, facecolor="white", **options)

            paths.append(files.write_with(Path(folder) / f"{name}.{ending}", write))
    return paths


def _states(suite: dict) -> list[str]:
    return [state for state in STATES if suite[state]]


def _title(suite: dict, state: str, more: str = "") -> str:
    """The model's name, and below it the state where there are two."""
    below = " ".join(filter(None, [STATES[state] if suite["scaled"] else "", more]))
    return "\n".join(filter(None, [short(suite["name"]), below]))


def short(text: str, most: int = 44) -> str:
    """`text` on one line, what cannot be printed replaced, and the middle of a long one left out."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"


def reliability(suite: dict, state: str, keyed: bool = False) -> Figure:
    """Accuracy against confidence with the band of a calibrated model, above how many are right and wrong."""
    bins = suite[state]["curves"]["reliability"]
    count, confidence, correct = (np.asarray(bins[name], float) for name in ("count", "confidence", "correct"))
    figure = Figure(figsize=(4.2, 5.5 if keyed else 5.0), layout="constrained")
    diagram, histogram = figure.subplots(2, 1, height_ratios=(2.7, 1), sharex=True)
    used, width = count > 0, 1 / len(count)
    left, n, edges = np.flatnonzero(used) * width, count[used], np.linspace(0, 1, len(count) + 1)
    accuracy, expected = correct[used] / n, np.clip(confidence[used] / n, 0, 1)
    low, high = band(n, expected)
    # one shape for all bins: shapes side by side would leave seams
    diagram.stairs(correct / np.maximum(count, 1), edges, fill=True, color=BLUE, alpha=0.35, linewidth=0)
    diagram.bar(left + width / 2, high - low, 0.42 * width, low, color=GREY, alpha=0.45, linewidth=0, zorder=3)
    diagram.hlines(accuracy, left, left + width, colors=BLUE, linewidth=2.2, zorder=4)
    diagram.hlines(expected, left + 0.15 * width, left + 0.85 * width, colors=INK, linewidth=1.1, zorder=5)
    diagram.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    diagram.set(xlim=(0, 1), ylim=(0, 1.01), ylabel="accuracy", title=_title(suite, state))
    histogram.stairs(correct, edges, fill=True, color=BLUE, alpha=0.7, linewidth=0)
    histogram.stairs(count, edges, baseline=correct, fill=True, color=ORANGE, linewidth=0)
    for x, here in zip(left + width / 2, n, strict=True):
        text = {"rotation": 90, "ha": "center", "va": "bottom", "fontsize": 7.5}
        histogram.text(x, here + 0.04 * count.max(), brief(here), **text)
    histogram.set(xlabel="confidence", ylabel="examples", ylim=(0, 1.6 * count.max()))
    histogram.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10], integer=True))
    histogram.yaxis.set_major_formatter(lambda value, _: brief(value))
    if keyed:
        _key(figure, [
            Line2D([], [], color=BLUE, linewidth=2.2, label="accuracy"),
            Patch(facecolor=BLUE, alpha=0.7, label="right"),
            Line2D([], [], color=INK, linewidth=1.1, label="mean confidence"), Patch(facecolor=ORANGE, label="wrong"),
            Patch(facecolor=GREY, alpha=0.45, label=CALIBRATED),
        ])  # fmt: skip
    return figure


def classes(suite: dict, state: str, keyed: bool = False) -> Figure:
    """Mean confidence less accuracy of the examples predicted as each class, sorted; with their 95 % bands around 0."""
    sums = {name: np.asarray(values, float) for name, values in suite[state]["curves"]["classes"].items()}
    count, confidence, correct = (sums[name] for name in ("count", "confidence", "correct"))
    names = suite.get("class_names") or [str(number) for number in range(len(count))]
    used = np.flatnonzero(count)
    gap = (confidence - correct)[used] / count[used]
    order = np.argsort(gap, kind="stable")
    few = f"({MOST_CLASSES} of {len(order)} classes)" if len(order) > MOST_CLASSES else ""
    if few:
        order = np.concatenate([order[: MOST_CLASSES // 2], order[-MOST_CLASSES // 2 :]])
    shown, values = used[order], 100 * gap[order]
    # a gap is from confidence - count, all right, to confidence, none
    ends = gap_band(sums["variance"][shown], sums["third"][shown])
    low, high = (100 * np.clip(end, (confidence - count)[shown], confidence[shown]) / count[shown] for end in ends)
    figure = Figure(figsize=(4.2, 1.2 + 0.3 * keyed + 0.19 * max(3, len(shown))), layout="constrained")
    axes = figure.add_subplot()
    axes.use_sticky_edges = False  # bars keep off the frame
    at, colours = np.arange(len(shown)), [VERMILION if value > 0 else GREEN for value in values]
    axes.barh(at, high - low, 0.86, low, color=GREY, alpha=0.25, linewidth=0)
    axes.barh(at, values, 0.5, color=colours, alpha=0.85, linewidth=0)
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(at, [short(str(names[number]), 22) for number in shown], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set(xlabel="confidence less accuracy, points", ylim=(-0.7, len(shown) - 0.3), title=_title(suite, state, few))
    if keyed:
        meant = (("overconfident", VERMILION, 0.85), ("underconfident", GREEN, 0.85), (CALIBRATED, GREY, 0.25))
        _key(figure, [Patch(facecolor=colour, alpha=alpha, label=label) for label, colour, alpha in meant])
    return figure


def _key(figure: Figure, handles: list) -> None:
    """What the colours mean, below a figure."""
    figure.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=1.4, columnspacing=1.4)


def coverage(suites: list[dict]) -> Figure:
    """Error rate among the most confident examples against their share, all models."""
    figure, axes = _lines(len(suites))
    for suite, (colour, dashes) in _series(suites):
        curve = suite["raw"]["curves"]["risk_coverage"]
        share, risk = 100 * np.asarray(curve["coverage"]), 100 * np.asarray(curve["risk"])
        axes.plot(share, risk, color=colour, linestyle=dashes)
    axes.set(xlim=(0, 100), ylim=(0, None), xlabel="coverage: most confident share, %", ylabel="error rate, %")
    return _named(figure, [short(suite["name"]) for suite in suites])


def temperature(suites: list[dict], name: str, label: str, factor: float) -> Figure:
    """NLL or ECE of the reported examples at each temperature, with the one that was fitted on others."""
    figure, axes = _lines(len(suites))
    fits = [suite["temperature"]["temperature"] for suite in suites]
    axes.axvline(1, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    for (suite, (colour, dashes)), fitted in zip(_series(suites), fits, strict=True):
        curve = suite["scaled"]["curves"]["temperature"]
        at, values = np.asarray(curve["temperature"]), factor * np.asarray(curve[name])
        axes.plot(at, values, color=colour, linestyle=dashes)
        axes.plot(fitted, np.interp(fitted, at, values), "o", color=colour, zorder=3)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(_between(axes))
    axes.set(xlabel="temperature", ylabel=label, ylim=(0 if name == "ece" else None, None))
    both = zip(suites, fits, strict=True)
    return _named(figure, [f"{short(suite['name'], 34)}: T = {fitted:.4g}" for suite, fitted in both])


def _between(axes: Axes):
    """The format of ticks between powers of 10: 2 and 5 are written, where there is room."""

    def shown(value, _):
        low, high = axes.get_xlim()
        return f"{value:g}" if f"{value:e}"[0] in "25" and high < 100 * low else ""

    return shown


def _lines(count: int) -> tuple[Figure, Axes]:
    """An empty figure for `count` lines, whose names stand above it."""
    figure = Figure(figsize=(4.2, 3.2 + 0.17 * count), layout="constrained")
    return figure, figure.add_subplot()


def _named(figure: Figure, names: list[str]) -> Figure:
    """The figure with the names of its lines; a name with _ at its start, too, which would be left out as a label."""
    styles = [Line2D([], [], color=colour, linestyle=dashes) for _, (colour, dashes) in _series(names)]
    legend = figure.legend(styles, [" "] * len(names), loc="outside upper left", borderpad=0, handlelength=1.8)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)
    return figure


def epochs(curves: dict[str, list[tuple]], label: str, factor: float = 100) -> Figure:
    """A figure against the epoch: for each name the mean over seeds, with a band from the lowest to the highest.

    curves: name -> [(epochs, values), one for each seed], all seeds of a name at the same epochs.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _lines(len(curves))
        for (_, seeds), (colour, dashes) in _series(curves.items()):
            values = factor * np.array([values for _, values in seeds])
            at = np.asarray(seeds[0][0])
            axes.plot(at, values.mean(0), color=colour, linestyle=dashes)
            axes.fill_between(at, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
        axes.set(xlabel="epoch", ylabel=label, xlim=(0, None))
        return _named(figure, [short(name) for name in curves])


def _series(items):
    """Each item with its (colour, dashes)."""
    items = list(items)
    styles = [(SERIES[i % len(SERIES)], DASHES[i // len(SERIES) % len(DASHES)]) for i in range(len(items))]
    return zip(items, styles, strict=True)
