"""Plots of evaluations, for a page or as files: reliability, classes, coverage, temperatures."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ldl_jax.calibrate import describe
from ldl_jax.report import plots
from ldl_jax.report.bands import gap_band
from ldl_jax.report.plots import CALIBRATED, DASHED, GREEN, GREY, VERMILION, short, styled
from ldl_jax.report.result import STATE_NAMES, Evaluation

Plot = tuple[str, str, Figure]  # kind, name, and the plot itself
# Largest number of classes shown; of more, the most over- and the most underconfident ones.
MOST_CLASSES = 40


def every(evaluations: Sequence[Evaluation], *, keyed: bool = False) -> Iterator[Plot]:
    """(kind, name, plot) of every plot of these evaluations, in the order of a page.

    Kinds: 'reliability' and 'classes', one for each model and state; 'coverage' and 'temperature',
    each with all models. keyed: whether plots have a legend, which on a page the captions replace.
    """
    # All plots of one kind in sequence, so that models can be compared.
    for number, evaluation in enumerate(evaluations):
        for state in evaluation.states():
            figure = reliability(evaluation, state, keyed)
            yield "reliability", f"reliability-{number}-{state}", figure
    for number, evaluation in enumerate(evaluations):
        for state in evaluation.states():
            yield "classes", f"classes-{number}-{state}", classes(evaluation, state, keyed)
    yield "coverage", "coverage", coverage(evaluations)
    with_temperature = [evaluation for evaluation in evaluations if evaluation.temperature]
    if with_temperature:
        nll = temperature(with_temperature, "nll", "NLL, nat", 1)
        yield "temperature", "temperature-nll", nll
        ece = temperature(with_temperature, "ece", "ECE, %", 100)
        yield "temperature", "temperature-ece", ece


def save(evaluations: Sequence[Evaluation], folder, endings) -> list[Path]:
    """Write every plot as <name>.<ending>, on white, for endings 'png', 'svg'; returns paths."""
    paths = []
    for _, name, figure in every(evaluations, keyed=True):
        for ending in endings:
            paths.append(plots.write(Path(folder) / f"{name}.{ending}", figure))
    return paths


def _title(evaluation: Evaluation, state: str, more: str = "") -> str:
    """The model's name, and below it the state if there are two."""
    shown = STATE_NAMES[state] if evaluation.scaled else ""
    # Without the name of the calibrator, a reader would assume temperature scaling.
    if state == "scaled" and evaluation.calibrator:
        shown += f" ({evaluation.calibrator['calibrator']})"
    below = " ".join(filter(None, [shown, more]))
    return "\n".join(filter(None, [short(evaluation.name), below]))


def reliability(evaluation: Evaluation, state: str, keyed: bool = False) -> Figure:
    """The reliability diagram of one model in one state."""
    bins = evaluation.states()[state].curves["reliability"]
    return plots.reliability(bins, title=_title(evaluation, state), keyed=keyed)


@styled
def classes(evaluation: Evaluation, state: str, keyed: bool = False) -> Figure:
    """Mean confidence minus accuracy by predicted class, sorted.

    Grey bands around 0 contain 95 % of calibrated models.
    """
    names, values, low, high, subtitle = _gaps(evaluation, state)
    height = 1.2 + 0.3 * keyed + 0.19 * max(3, len(values))
    figure = Figure(figsize=(4.2, height), layout="constrained")
    axes = figure.add_subplot()
    axes.use_sticky_edges = False  # leave a margin between the bars and the frame
    positions = np.arange(len(values))
    colours = np.where(values > 0, VERMILION, GREEN)
    # The band first, so that the narrower bar of the class is drawn over it.
    axes.barh(positions, high - low, 0.86, low, color=GREY, alpha=0.25, linewidth=0)
    axes.barh(positions, values, 0.5, color=colours, alpha=0.85, linewidth=0)
    axes.axvline(0, color=GREY, linewidth=1)

    axes.set_yticks(positions, [short(name, 22) for name in names], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set(xlabel="confidence minus accuracy, percentage points", ylim=(-0.7, len(values) - 0.3))
    axes.set_title(_title(evaluation, state, subtitle))
    if keyed:
        handles = [
            Patch(facecolor=VERMILION, alpha=0.85, label="overconfident"),
            Patch(facecolor=GREEN, alpha=0.85, label="underconfident"),
            Patch(facecolor=GREY, alpha=0.25, label=CALIBRATED),
        ]
        plots.key(figure, handles)
    return figure


def _gaps(evaluation: Evaluation, state: str) -> tuple:
    """(names, gaps, low ends and high ends of the bands, subtitle) of classes, sorted by gap.

    Gaps and bands in percentage points; subtitle: which classes are shown, if not all.
    """
    curve = evaluation.states()[state].curves["classes"]
    sums = {name: np.asarray(values, float) for name, values in curve.items()}
    count = sums["count"]
    confidence = sums["confidence"]
    used = np.flatnonzero(count)
    gap = (confidence - sums["correct"])[used] / count[used]
    order = np.argsort(gap, kind="stable")

    # Of many classes, show both ends: the most under- and the most overconfident.
    subtitle = ""
    if len(order) > MOST_CLASSES:
        subtitle = f"({MOST_CLASSES} of {len(order)} classes)"
        order = np.concatenate([order[: MOST_CLASSES // 2], order[-MOST_CLASSES // 2 :]])
    chosen = used[order]

    # A gap is at least confidence - count (all correct) and at most confidence (none correct).
    low, high = gap_band(sums["variance"][chosen], sums["third"][chosen])
    lowest = (confidence - count)[chosen]
    highest = confidence[chosen]
    low = 100 * np.clip(low, lowest, highest) / count[chosen]
    high = 100 * np.clip(high, lowest, highest) / count[chosen]
    all_names = evaluation.class_names or range(len(count))
    names = [str(all_names[number]) for number in chosen]
    return names, 100 * gap[order], low, high, subtitle


@styled
def coverage(evaluations: Sequence[Evaluation]) -> Figure:
    """Risk-coverage curves of all models: error rate of the most confident share of the examples."""
    figure, axes = plots.lines(len(evaluations))
    for evaluation, (colour, dashes) in plots.series(evaluations):
        curve = evaluation.raw.curves["risk_coverage"]
        percent = 100 * np.asarray(curve["coverage"])
        risk = 100 * np.asarray(curve["risk"])
        axes.plot(percent, risk, color=colour, linestyle=dashes)
    axes.set(xlim=(0, 100), ylim=(0, None))
    axes.set(xlabel="coverage (most confident examples), %", ylabel="error rate, %")
    return plots.named(figure, [short(evaluation.name) for evaluation in evaluations])


@styled
def temperature(evaluations: Sequence[Evaluation], name: str, label: str, factor: float) -> Figure:
    """NLL or ECE of all models at each temperature, with a dot at the fitted temperature."""
    figure, axes = plots.lines(len(evaluations))
    axes.axvline(1, color=GREY, linewidth=1, linestyle=DASHED)
    names = []
    for evaluation, (colour, dashes) in plots.series(evaluations):
        curve = evaluation.scaled.curves["temperature"]
        fitted = evaluation.temperature["temperature"]
        at = np.asarray(curve["temperature"])
        values = factor * np.asarray(curve[name])
        axes.plot(at, values, color=colour, linestyle=dashes)
        axes.plot(fitted, np.interp(fitted, at, values), "o", color=colour, zorder=3)
        between = describe.interval(evaluation.temperature)
        interval = f" ({between})" if between else ""
        names.append(f"{short(evaluation.name, 34)}: T = {fitted:.4g}{interval}")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(_minor_format(axes))
    axes.set(xlabel="temperature", ylabel=label, ylim=(0 if name == "ece" else None, None))
    return plots.named(figure, names)


def _minor_format(axes: Axes):
    """Formatter of ticks between powers of 10: labels 2 and 5 only, if there is room."""

    def label(value, _):
        low, high = axes.get_xlim()
        # Over more than two decades, these labels would overlap.
        return f"{value:g}" if f"{value:e}"[0] in "25" and high < 100 * low else ""

    return label
