"""Plots of a run: its reliability diagram and its training curves."""

import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ldl_jax.report import plots
from ldl_jax.report.plots import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, VERMILION, styled

_COLOURS = {"": INK, "train": GREY, "test": BLUE}  # split -> colour
_FURTHER_COLOURS = (ORANGE, GREEN, PURPLE, VERMILION)  # of other splits, in turn
_MARKED = 30  # curves of at most this many points have markers
_SMOOTHED = 200  # longer curves are faint, with a moving mean over 1/50 of their points
_DRAWN = 2000  # longer curves are drawn with about this many points


@styled
def reliability(path, bins: dict, *, title: str, floor: float | None = None) -> Path:
    """Write the reliability diagram of `bins` (see `plots.reliability`); returns the path.

    floor: the noise floor of the ECE, a fraction. Raises ValueError if the arrays of the bins
    differ in shape.
    """
    figure = plots.reliability(bins, title="", size=plots.ALONE, keyed=True)
    figure.axes[0].set_title(_summary(bins, floor), fontsize=7.5)
    _title(figure, title, 64)
    return plots.write(path, figure)


def _summary(bins: dict, floor: float | None) -> str:
    """Accuracy, mean confidence, ECE and the number of images, in one line."""
    n = np.sum(bins["count"])
    confidence = np.sum(bins["confidence"])
    correct = np.sum(bins["correct"])
    if not n:
        return "no images"
    gap = np.abs(np.subtract(bins["confidence"], bins["correct"])).sum()
    noise = "" if floor is None else f" (noise floor {100 * floor:.2f} %)"
    parts = (
        f"accuracy {100 * correct / n:.2f} %",
        f"mean confidence {100 * confidence / n:.2f} %",
        f"ECE {100 * gap / n:.2f} %{noise}",
        f"n = {n:,.0f}",
    )
    return "   ".join(parts)


def _title(figure: Figure, title: str, width: int) -> None:
    figure.suptitle(textwrap.fill(title, width), x=0.01, ha="left", fontsize=10, fontweight="bold")


@styled
def curves(path, rows: list[dict], *, title: str) -> Path:
    """Write plots of loss, NLL, accuracy, ECE and learning rate by epoch; returns the path.

    rows: of metrics.jsonl, each with `epoch` and any of `train/loss`, `train/learning_rate` and
    `<split>/nll`, `<split>/accuracy`, `<split>/ece` (NLL in nat, fractions). Panels without values
    are left out.
    """
    panels = _panels(rows)
    grid_rows = 1 if len(panels) < 3 else 2
    figure = Figure(figsize=(8.5, 1.1 + 2.7 * grid_rows), layout="constrained")
    _title(figure, title, 78)
    # A run that was stopped before its first evaluation still gets a file.
    if not panels:
        message = "nothing to draw yet: no row of metrics.jsonl has a loss or a metric"
        figure.text(0.5, 0.45, message, ha="center", color=GREY)
    for i, (label, series) in enumerate(panels.items()):
        axes = figure.add_subplot(grid_rows, min(len(panels), 2), i + 1)
        _series(axes, series)
        axes.set_title(label)
        if i >= len(panels) - 2:
            axes.set_xlabel("epoch")
    return plots.write(path, figure)


@styled
def panels(rows: Sequence[dict]) -> list[tuple[str, Figure]]:
    """The plots of `curves` as (label, figure), for a page."""
    figures = []
    for label, series in _panels(rows).items():
        figure = Figure(figsize=(4.6, 2.9), layout="constrained")
        axes = figure.add_subplot()
        _series(axes, series)
        axes.set(title=label, xlabel="epoch")
        figures.append((label, figure))
    return figures


def _panels(rows: Sequence[dict]) -> dict[str, dict[str, np.ndarray]]:
    """{panel: {series: f64[2, n], epochs and values}} of panels with values that are finite."""
    panels = {"loss and NLL": {}, "accuracy (%)": {}, "ECE (%)": {}, "learning rate": {}}
    for name in dict.fromkeys(itertools.chain.from_iterable(rows)):
        panel, label, factor = _panel_of(name)
        if panel is None:
            continue
        # Rows hold different entries: a loss every few steps, metrics once an epoch.
        points = [(row["epoch"], factor * row[name]) for row in rows if row.get(name) is not None]
        points = np.array(points, float).reshape(-1, 2)
        points = points[np.isfinite(points).all(1)]
        if len(points):
            panels[panel][label] = points.T
    return {label: series for label, series in panels.items() if series}


def _panel_of(name: str) -> tuple[str | None, str, int]:
    """(panel, series, factor) of an entry of metrics.jsonl; panel None if it is not plotted."""
    split, _, metric = name.rpartition("/")
    if name == "train/loss":
        return "loss and NLL", "train loss", 1
    if name == "train/learning_rate":
        return "learning rate", "", 1
    if split and metric == "nll":
        return "loss and NLL", f"{split} NLL", 1
    if split and metric in ("accuracy", "ece"):
        return "accuracy (%)" if metric == "accuracy" else "ECE (%)", split, 100
    return None, "", 1


def _series(axes: Axes, series: dict[str, np.ndarray]) -> None:
    """The curves of one panel."""
    further = iter(_FURTHER_COLOURS * len(series))
    for label, (epoch, value) in series.items():
        colour = _COLOURS.get(label.split(" ")[0]) or next(further)
        if len(value) > _SMOOTHED:
            axes.plot(*_thinned(epoch, value), color=colour, alpha=0.3, linewidth=0.8)
            width = len(value) // 50
            epoch, value = _moving_mean(epoch, value, width)
        marker = "o" if len(value) <= _MARKED else ""
        last = f"{label} {value[-1]:.4g}".strip()
        axes.plot(epoch, value, color=colour, marker=marker, markersize=3.5, label=last)
    axes.margins(y=0.08)
    # The learning rate needs neither a logarithmic axis nor a legend.
    if "" in series:
        return
    values = np.concatenate([value for _, value in series.values()])
    if values.min() > 0 and values.max() > 50 * values.min():
        axes.set_yscale("log")
    axes.legend(loc="best", title="last value", title_fontsize=7, alignment="left")


def _thinned(epoch: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most about _DRAWN points of a curve: the lowest and the highest of equally many each."""
    if len(value) <= _DRAWN:
        return epoch, value
    # Extremes rather than every n-th point, so that a single spike stays visible.
    chosen = [0, len(value) - 1]
    edges = np.linspace(0, len(value), _DRAWN // 2 + 1).astype(int)
    for start, stop in itertools.pairwise(edges):
        part = value[start:stop]
        chosen += [start + part.argmin(), start + part.argmax()]
    kept = np.unique(chosen)
    return epoch[kept], value[kept]


def _moving_mean(epoch: np.ndarray, value: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Means over `width` points, at no more than _DRAWN positions."""
    count = len(value) - width + 1
    starts = np.linspace(0, count - 1, min(count, _DRAWN)).astype(int)
    windows = [slice(start, start + width) for start in starts]
    means = [(epoch[window].mean(), value[window].mean()) for window in windows]
    return tuple(np.array(means).T)
