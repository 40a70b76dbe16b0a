"""Plots of a study: answers with their intervals, cells at a glance, metrics against the epoch."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ldl_jax.report import plots
from ldl_jax.report.figure_tables import how
from ldl_jax.report.plots import BLUE, GREEN, GREY, INK, VERMILION, short, styled
from ldl_jax.report.result import STATES

VERDICTS = {"supported": GREEN, "refuted": VERMILION, "undecided": GREY}


@styled
def answers(findings: list[dict]) -> Figure | None:
    """Differences of `hypotheses.answers` with 95 % intervals: thick over seeds, thin over images.

    A ring is a difference of ECEs less noise floors. One panel a metric, since their units differ.
    None where there is no difference.
    """
    panels: dict[str, list[tuple[str, dict]]] = {}
    for finding in findings:
        raw = short(f"{finding['name']}: {finding['better']} less {finding['than']}")
        for state in STATES:
            if finding[state] is not None:
                label = raw if state == "raw" else "at T"
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


def _differences(axes: Axes, metric: str, differences: list[tuple[str, dict]]) -> None:
    """The differences of one metric, a line each."""
    shown = how(metric)
    axes.axvline(0, color=INK, linewidth=0.9)
    for place, (_, difference) in enumerate(differences):
        colour = VERDICTS[difference["verdict"]]
        if difference["seeds"]:
            ends = shown.factor * np.array(difference["seeds"])
            axes.plot(ends, [place] * 2, color=colour, linewidth=4, alpha=0.45)
        ends = shown.factor * np.array(difference["images"])
        axes.plot(ends, [place] * 2, color=colour, linewidth=1.1)
        axes.plot(shown.factor * difference["mean"], place, "o", color=colour, markersize=5)
        if difference["excess"] is not None:
            mean = shown.factor * difference["excess"]["mean"]
            axes.plot(mean, place, "o", color=colour, markersize=8, fillstyle="none")
        beside = axes.get_yaxis_transform()
        axes.text(1.02, place, difference["verdict"], transform=beside, va="center")
    axes.set_yticks(range(len(differences)), [label for label, _ in differences])
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    unit = f"{shown.label}, points" if shown.unit == "%" else shown.label
    axes.set(ylim=(len(differences) - 0.4, -0.6), xlabel=f"difference in {unit}")


@styled
def cells(rows: list[dict]) -> Figure:
    """Accuracy and ECE of `study.tables.rows`: mean, standard deviation, the ECE's noise floor."""
    panels = [("raw", "accuracy"), ("raw", "ece"), ("scaled", "ece")]
    panels = [(state, name) for state, name in panels if any(row[state] for row in rows)]
    figure = Figure(figsize=(7.6, 0.9 + 0.22 * len(rows)), layout="constrained")
    columns = figure.subplots(1, len(panels), sharey=True)
    for axes, (state, name) in zip(columns, panels, strict=True):
        _spreads(axes, [row[state] for row in rows], name)
        axes.set(xlabel=f"{how(name).label}{STATES[state]}, %", ylim=(len(rows) - 0.4, -0.6))
    columns[0].set_yticks(range(len(rows)), [short(row["cell"], 28) for row in rows])
    return figure


def _spreads(axes: Axes, values: list[dict | None], name: str) -> None:
    """One metric of all cells in one state, a line each, in percent."""
    for place, value in enumerate(values):
        if value is None:
            continue
        mean, std = 100 * value[name]["mean"], 100 * (value[name]["std"] or 0)
        axes.plot([mean - std, mean + std], [place] * 2, color=BLUE, linewidth=2.2, alpha=0.5)
        axes.plot(mean, place, "o", color=BLUE, markersize=4.5)
        if name == "ece":
            floor = 100 * value["floor"]["mean"]
            axes.plot(floor, place, "|", color=GREY, markersize=9, markeredgewidth=1.6)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if name == "ece":
        axes.set_xlim(0, None)


@styled
def epochs(curves: dict[str, list[tuple]], label: str) -> Figure:
    """A metric against the epoch, in percent: mean over seeds, and a band from lowest to highest.

    curves: name -> [(epochs, values), one for each seed], all seeds of a name at the same epochs;
    values are fractions.
    """
    figure, axes = plots.lines(len(curves))
    for seeds, (colour, dashes) in plots.series(curves.values()):
        values = 100 * np.array([values for _, values in seeds])
        at = np.asarray(seeds[0][0])
        axes.plot(at, values.mean(0), color=colour, linestyle=dashes)
        axes.fill_between(at, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="epoch", ylabel=label, xlim=(0, None))
    return plots.named(figure, [short(name) for name in curves])
