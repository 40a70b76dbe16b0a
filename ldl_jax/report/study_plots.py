"""Plots of a study: findings with their intervals, all cells, and metrics by epoch."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ldl_jax.report import plots
from ldl_jax.report.figure_tables import how
from ldl_jax.report.plots import BLUE, GREEN, GREY, INK, VERMILION, short, styled
from ldl_jax.report.result import STATE_NAMES, STATES

VERDICTS = {"supported": GREEN, "refuted": VERMILION, "undecided": GREY}


@styled
def answers(findings: list[dict]) -> Figure | None:
    """Differences of `hypotheses.answers` with 95 % intervals: thick over seeds, thin over images.

    A ring is a difference of ECEs minus their noise floors. Returns None if there are no
    differences.
    """
    # One panel for each metric, since their units differ.
    panels: dict[str, list[tuple[str, dict]]] = {}
    for finding in findings:
        question = _question(finding)
        for state in STATES:
            if finding[state] is not None:
                label = question if state == "raw" else STATE_NAMES[state]
                panels.setdefault(finding["metric"], []).append((label, finding[state]))
    if not panels:
        return None
    heights = [1.2 + len(differences) for differences in panels.values()]
    size = (7.6, 0.34 * sum(heights) + 0.3 * len(panels))
    figure = Figure(figsize=size, layout="constrained")
    columns = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)
    for axes, (metric, differences) in zip(columns[:, 0], panels.items(), strict=True):
        _differences(axes, metric, differences)
    return figure


def _question(finding: dict) -> str:
    """The difference of a finding in the names of its cells; a second pair is on a second line."""
    lines = [f"{finding['name']}: {finding['better']} minus {finding['than']}"]
    if finding["minus"]:
        to, start = finding["minus"]
        lines.append(f"minus ({to} minus {start})")
    return "\n".join(map(short, lines))


def _differences(axes: Axes, metric: str, differences: list[tuple[str, dict]]) -> None:
    """The differences of one metric, one line for each."""
    shown = how(metric)
    axes.axvline(0, color=INK, linewidth=0.9)
    for line, (_, difference) in enumerate(differences):
        finished = difference["n"] == difference["of"]
        verdict = difference["verdict"] if finished else "not finished"
        colour = VERDICTS.get(verdict, GREY)
        # A single seed has no interval over seeds.
        if difference["seeds"]:
            ends = shown.factor * np.array(difference["seeds"])
            axes.plot(ends, [line] * 2, color=colour, linewidth=4, alpha=0.45)
        ends = shown.factor * np.array(difference["images"])
        axes.plot(ends, [line] * 2, color=colour, linewidth=1.1)
        axes.plot(shown.factor * difference["mean"], line, "o", color=colour, markersize=5)
        if difference["excess"] is not None:
            mean = shown.factor * difference["excess"]["mean"]
            axes.plot(mean, line, "o", color=colour, markersize=8, fillstyle="none")
        # The verdict stands right of the panel: x in axes coordinates, y in data coordinates.
        right_of_axes = axes.get_yaxis_transform()
        axes.text(1.02, line, verdict, transform=right_of_axes, va="center")
    axes.set_yticks(range(len(differences)), [label for label, _ in differences])
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    unit = f"{shown.label}, percentage points" if shown.unit == "%" else shown.label
    axes.set(ylim=(len(differences) - 0.4, -0.6), xlabel=f"difference in {unit}")


@styled
def cells(rows: list[dict]) -> Figure:
    """Accuracy, ECE and NLL of `study.tables.rows`: mean, standard deviation, noise floor of the ECE.

    The NLL is shown recalibrated and raw; the difference is its calibration part. Without recalibrated
    predictions there are no panels of these.
    """
    panels = [("raw", "accuracy"), ("raw", "ece")]
    recalibrated = any(row["scaled"] for row in rows)
    if recalibrated:
        panels.append(("scaled", "ece"))
    figure = Figure(figsize=(7.6, 0.9 + 0.22 * len(rows)), layout="constrained")
    columns = figure.subplots(1, len(panels) + recalibrated, sharey=True)
    if recalibrated:
        _nll(columns[-1], rows)
    for axes, (state, name) in zip(columns, panels, strict=False):
        _spreads(axes, [row[state] for row in rows], name)
        axes.set(xlabel=f"{how(name).label}{STATES[state]}, %", ylim=(len(rows) - 0.4, -0.6))
    columns[0].set_yticks(range(len(rows)), [short(row["cell"], 28) for row in rows])
    return figure


def _spreads(axes: Axes, values: list[dict | None], name: str) -> None:
    """One metric of all cells in one state, in percent, one line for each cell."""
    for line, value in enumerate(values):
        # A cell without runs, or without a calibrator in the recalibrated state, stays empty.
        if value is None:
            continue
        mean = 100 * value[name]["mean"]
        std = 100 * (value[name]["std"] or 0)
        axes.plot([mean - std, mean + std], [line] * 2, color=BLUE, linewidth=2.2, alpha=0.5)
        axes.plot(mean, line, "o", color=BLUE, markersize=4.5)
        if name == "ece":
            floor = 100 * value["floor"]["mean"]
            axes.plot(floor, line, "|", color=GREY, markersize=9, markeredgewidth=1.6)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if name == "ece":
        axes.set_xlim(0, None)


def _nll(axes: Axes, rows: list[dict]) -> None:
    """The NLL of all cells: a point recalibrated, a ring raw, and between them the calibration part."""
    for line, row in enumerate(rows):
        if row["parts"] is None:
            continue
        refinement = row["parts"]["refinement"]
        raw = row["raw"]["nll"]["mean"]
        std = refinement["std"] or 0
        low, high = refinement["mean"] - std, refinement["mean"] + std
        axes.plot([low, high], [line] * 2, color=BLUE, linewidth=2.2, alpha=0.5)
        axes.plot([refinement["mean"], raw], [line] * 2, color=VERMILION, linewidth=1.1)
        axes.plot(refinement["mean"], line, "o", color=BLUE, markersize=4.5)
        axes.plot(raw, line, "o", color=VERMILION, markersize=5.5, fillstyle="none")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set(xlabel="NLL", ylim=(len(rows) - 0.4, -0.6))


@styled
def epochs(curves: dict[str, list[tuple]], label: str) -> Figure:
    """A metric by epoch, in percent: mean over seeds, with a band from the lowest to the highest.

    curves: name -> [(epochs, values) of each seed]; all seeds of a name must have the same epochs.
    Values are fractions.
    """
    figure, axes = plots.lines(len(curves))
    for seeds, (colour, dashes) in plots.series(curves.values()):
        values = 100 * np.array([values for _, values in seeds])
        at = np.asarray(seeds[0][0])
        axes.plot(at, values.mean(0), color=colour, linestyle=dashes)
        axes.fill_between(at, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="epoch", ylabel=label, xlim=(0, None))
    return plots.named(figure, [short(name) for name in curves])
