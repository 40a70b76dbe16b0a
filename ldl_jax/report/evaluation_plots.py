"""Plots of evaluations: reliability, classes, coverage, temperatures; for a page and as files."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ldl_jax.report import plots
from ldl_jax.report.plots import CALIBRATED, DASHED, GREEN, GREY, VERMILION, gap_band, short, styled
from ldl_jax.report.result import Evaluation

Plot = tuple[str, str, Figure]  # its kind, its name, and itself
MOST_CLASSES = 40  # shown; of more, those that are most over- and most underconfident
_STATE_TITLES = {"raw": "raw", "scaled": "temperature-scaled"}


def every(evaluations: Sequence[Evaluation], *, keyed: bool = False) -> Iterator[Plot]:
    """(kind, name, plot) of every plot of these evaluations, in the order of a page.

    Kinds: 'reliability' and 'classes', one for each model and state; 'coverage' and 'temperature'
    show all models. `keyed`: a plot says itself what its colours mean, as one without a page does.
    """
    each = [(place, one, state) for place, one in enumerate(evaluations) for state in one.states()]
    for place, evaluation, state in each:
        yield "reliability", f"reliability-{place}-{state}", reliability(evaluation, state, keyed)
    for place, evaluation, state in each:
        yield "classes", f"classes-{place}-{state}", classes(evaluation, state, keyed)
    yield "coverage", "coverage", coverage(evaluations)
    scaled = [evaluation for evaluation in evaluations if evaluation.temperature]
    if scaled:
        for name, label, factor in (("nll", "NLL, nat", 1), ("ece", "ECE, %", 100)):
            yield "temperature", f"temperature-{name}", temperature(scaled, name, label, factor)


def save(evaluations: Sequence[Evaluation], folder, endings) -> list[Path]:
    """Write every plot as <name>.<ending>, on white, for endings 'png', 'svg'; returns paths."""
    return [
        plots.write(Path(folder) / f"{name}.{ending}", figure)
        for _, name, figure in every(evaluations, keyed=True)
        for ending in endings
    ]


def _title(evaluation: Evaluation, state: str, more: str = "") -> str:
    """The model's name, and below it the state where there are two."""
    shown = _STATE_TITLES[state] if evaluation.scaled else ""
    if state == "scaled" and evaluation.calibrator:
        shown = f"after {evaluation.calibrator['calibrator']}"
    below = " ".join(filter(None, [shown, more]))
    return "\n".join(filter(None, [short(evaluation.name), below]))


def reliability(evaluation: Evaluation, state: str, keyed: bool = False) -> Figure:
    """The reliability diagram of one model in one state."""
    bins = evaluation.states()[state].curves["reliability"]
    return plots.reliability(bins, title=_title(evaluation, state), keyed=keyed)


@styled
def classes(evaluation: Evaluation, state: str, keyed: bool = False) -> Figure:
    """Mean confidence less accuracy of the examples predicted as each class, sorted.

    With the bands around 0 that hold 95 % of calibrated models.
    """
    names, values, low, high, few = _gaps(evaluation, state)
    height = 1.2 + 0.3 * keyed + 0.19 * max(3, len(values))
    figure = Figure(figsize=(4.2, height), layout="constrained")
    axes = figure.add_subplot()
    axes.use_sticky_edges = False  # bars keep off the frame
    places = np.arange(len(values))
    colours = np.where(values > 0, VERMILION, GREEN)
    axes.barh(places, high - low, 0.86, low, color=GREY, alpha=0.25, linewidth=0)
    axes.barh(places, values, 0.5, color=colours, alpha=0.85, linewidth=0)
    axes.axvline(0, color=GREY, linewidth=1)

    axes.set_yticks(places, [short(name, 22) for name in names], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set(xlabel="confidence less accuracy, points", ylim=(-0.7, len(values) - 0.3))
    axes.set_title(_title(evaluation, state, few))
    if keyed:
        handles = [
            Patch(facecolor=VERMILION, alpha=0.85, label="overconfident"),
            Patch(facecolor=GREEN, alpha=0.85, label="underconfident"),
            Patch(facecolor=GREY, alpha=0.25, label=CALIBRATED),
        ]
        plots.key(figure, handles)
    return figure


def _gaps(evaluation: Evaluation, state: str) -> tuple:
    """(names, gaps, low and high ends of their bands, what is shown) of classes; in points."""
    curve = evaluation.states()[state].curves["classes"]
    sums = {name: np.asarray(values, float) for name, values in curve.items()}
    count, confidence, correct = (sums[name] for name in ("count", "confidence", "correct"))
    used = np.flatnonzero(count)
    gap = (confidence - correct)[used] / count[used]
    order = np.argsort(gap, kind="stable")

    # of many classes, both ends
    few = f"({MOST_CLASSES} of {len(order)} classes)" if len(order) > MOST_CLASSES else ""
    if few:
        order = np.concatenate([order[: MOST_CLASSES // 2], order[-MOST_CLASSES // 2 :]])
    chosen = used[order]

    # a gap is from confidence - count, all right, to confidence, none
    ends = gap_band(sums["variance"][chosen], sums["third"][chosen])
    least, most = (confidence - count)[chosen], confidence[chosen]
    low, high = (100 * np.clip(end, least, most) / count[chosen] for end in ends)
    names = evaluation.class_names or range(len(count))
    return [str(names[number]) for number in chosen], 100 * gap[order], low, high, few


@styled
def coverage(evaluations: Sequence[Evaluation]) -> Figure:
    """Error rate among the most confident examples against their share, all models."""
    figure, axes = plots.lines(len(evaluations))
    for evaluation, (colour, dashes) in plots.series(evaluations):
        curve = evaluation.raw.curves["risk_coverage"]
        share, risk = 100 * np.asarray(curve["coverage"]), 100 * np.asarray(curve["risk"])
        axes.plot(share, risk, color=colour, linestyle=dashes)
    axes.set(xlim=(0, 100), ylim=(0, None))
    axes.set(xlabel="coverage: most confident share, %", ylabel="error rate, %")
    return plots.named(figure, [short(evaluation.name) for evaluation in evaluations])


@styled
def temperature(evaluations: Sequence[Evaluation], name: str, label: str, factor: float) -> Figure:
    """NLL or ECE of the reported examples at each temperature, and at that fitted on others."""
    figure, axes = plots.lines(len(evaluations))
    axes.axvline(1, color=GREY, linewidth=1, linestyle=DASHED)
    names = []
    for evaluation, (colour, dashes) in plots.series(evaluations):
        curve = evaluation.scaled.curves["temperature"]
        fitted = evaluation.temperature["temperature"]
        at, values = np.asarray(curve["temperature"]), factor * np.asarray(curve[name])
        axes.plot(at, values, color=colour, linestyle=dashes)
        axes.plot(fitted, np.interp(fitted, at, values), "o", color=colour, zorder=3)
        names.append(f"{short(evaluation.name, 34)}: T = {fitted:.4g}")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(_between(axes))
    axes.set(xlabel="temperature", ylabel=label, ylim=(0 if name == "ece" else None, None))
    return plots.named(figure, names)


def _between(axes: Axes):
    """The format of ticks between powers of 10: 2 and 5 are written, where there is room."""

    def label(value, _):
        low, high = axes.get_xlim()
        return f"{value:g}" if f"{value:e}"[0] in "25" and high < 100 * low else ""

    return label
