"""Pictures of a study: its answers with their intervals, its cells at a glance, reliability diagrams in small."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ldl_jax.report.figure_tables import how
from ldl_jax.report.plots import STYLE, short
from ldl_jax.report.result import STATES
from ldl_jax.report.run_plots import BLUE, GREEN, GREY, INK, VERMILION, band

VERDICTS = {"supported": GREEN, "refuted": VERMILION, "undecided": GREY}


def answers(findings: list[dict]) -> Figure | None:
    """Differences of `verdict.answers` with 95 % intervals: thick over seeds, thin over images; None where none is.

    A ring is a difference of ECEs less noise floors. One panel a metric, since their units differ.
    """
    shown: dict[str, list[tuple[str, dict]]] = {}
    for one in findings:
        for state, own in ((state, one[state]) for state in STATES):
            if own is not None:
                name = f"{one['name']}: {one['better']} less {one['than']}" if state == "raw" else "at T"
                shown.setdefault(one["metric"], []).append((short(name), own))
    if not shown:
        return None
    with matplotlib.rc_context(STYLE):
        heights = [1.2 + len(some) for some in shown.values()]
        figure = Figure(figsize=(7.6, 0.34 * sum(heights) + 0.3 * len(shown)), layout="constrained")
        panels = figure.subplots(len(shown), 1, height_ratios=heights, squeeze=False)[:, 0]
        for axes, (metric, some) in zip(panels, shown.items(), strict=True):
            _differences(axes, metric, some)
    return figure


def _differences(axes: Axes, metric: str, some: list[tuple[str, dict]]) -> None:
    factor = how(metric).factor
    axes.axvline(0, color=INK, linewidth=0.9)
    for place, (_, own) in enumerate(some):
        colour = VERDICTS[own["verdict"]]
        if own["seeds"]:
            axes.plot(factor * np.array(own["seeds"]), [place] * 2, color=colour, linewidth=4, alpha=0.45)
        axes.plot(factor * np.array(own["images"]), [place] * 2, color=colour, linewidth=1.1)
        axes.plot(factor * own["mean"], place, "o", color=colour, markersize=5)
        if own["excess"] is not None:
            axes.plot(factor * own["excess"]["mean"], place, "o", color=colour, markersize=8, fillstyle="none")
        said = {"transform": axes.get_yaxis_transform(), "va": "center", "color": INK}
        axes.text(1.02, place, own["verdict"], **said)
    axes.set_yticks(range(len(some)), [label for label, _ in some])
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    unit = f"{how(metric).label}, points" if how(metric).unit == "%" else how(metric).label
    axes.set(ylim=(len(some) - 0.4, -0.6), xlabel=f"difference in {unit}")


def cells(rows: list[dict]) -> Figure:
    """Accuracy and ECE of rows of `study.page`: mean, a line of the std over seeds, and the ECE's noise floor."""
    panels = [(state, name) for state, name in (("raw", "accuracy"), ("raw", "ece"), ("scaled", "ece"))
              if any(row[state] for row in rows)]  # fmt: skip
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 0.9 + 0.22 * len(rows)), layout="constrained")
        for axes, (state, name) in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
            for place, own in enumerate(row[state] for row in rows):
                if own is not None:
                    mean, std = 100 * own[name]["mean"], 100 * (own[name]["std"] or 0)
                    axes.plot([mean - std, mean + std], [place] * 2, color=BLUE, linewidth=2.2, alpha=0.5)
                    axes.plot(mean, place, "o", color=BLUE, markersize=4.5)
                    if name == "ece":
                        axes.plot(100 * own["floor"]["mean"], place, "|", color=GREY, markersize=9, markeredgewidth=1.6)
            axes.tick_params(axis="y", length=0)
            axes.set(xlabel=f"{how(name).label}{STATES[state]}, %", ylim=(len(rows) - 0.4, -0.6))
            axes.xaxis.set_major_locator(MaxNLocator(5))
            if name == "ece":
                axes.set_xlim(0, None)
        figure.axes[0].set_yticks(range(len(rows)), [short(row["cell"], 28) for row in rows])
    return figure


def reliability(name: str, bins: dict) -> Figure:
    """Accuracy against confidence with the band of a calibrated model, small enough for many side by side."""
    count, confidence, correct = (np.asarray(bins[field], float) for field in ("count", "confidence", "correct"))
    used, width = count > 0, 1 / len(count)
    left, n = np.flatnonzero(used) * width, count[used]
    accuracy, expected = correct[used] / n, np.clip(confidence[used] / n, 0, 1)
    low, high = band(n, expected)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.4, 2.5), layout="constrained")
        axes = figure.add_subplot()
        axes.bar(left + width / 2, high - low, 0.9 * width, low, color=GREY, alpha=0.3, linewidth=0, zorder=3)
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        axes.scatter(expected, accuracy, 6 + 60 * n / n.sum(), color=BLUE, linewidth=0, zorder=5, clip_on=False)
        ticks = [0, 0.5, 1]
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xticks=ticks, yticks=ticks, title=short(name, 28))
    return figure
