"""Plots of a run: how far its confidence can be trusted, and how the training went."""

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ldl_jax.report import plots
from ldl_jax.report.plots import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, VERMILION, styled

_COLOURS = {"": INK, "train": GREY, "test": BLUE}  # split -> colour; the others take theirs in turn
_OTHERS = (ORANGE, GREEN, PURPLE, VERMILION)
_MARKED = 30  # a curve of at most this many points shows them
_SMOOTHED = 200  # a curve of more points is faint, with its moving mean over 1/50 of them


@styled
def reliability(path, bins: dict, *, title: str, floor: float | None = None) -> Path:
    """Write the reliability diagram of `bins` (see `plots.reliability`); returns the path.

    `floor`: the noise floor of the ECE, a fraction. Raises ValueError where the bins' arrays differ
    in shape.
    """
    figure = plots.reliability(bins, title="", size=plots.ALONE, keyed=True)
    figure.axes[0].set_title(_summary(bins, floor), fontsize=7.5)
    _title(figure, title, 64)
    return plots.write(path, figure)


def _summary(bins: dict, floor: float | None) -> str:
    n, confidence, correct = (np.sum(bins[name]) for name in ("count", "confidence", "correct"))
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
    """Write loss and NLL, accuracy, ECE and the learning rate against the epoch; returns the path.

    `rows`: those of metrics.jsonl, each with `epoch` and any of `train/loss`, `train/learning_rate`
    and `<split>/nll`, `<split>/accuracy`, `<split>/ece` (NLL in nats, fractions). Panels without a
    value are left out.
    """
    panels = [(label, series) for label, series in _panels(rows).items() if series]
    tall = 1 if len(panels) < 3 else 2
    figure = Figure(figsize=(8.5, 1.1 + 2.7 * tall), layout="constrained")
    _title(figure, title, 78)
    if not panels:
        empty = "nothing to draw yet: no row holds a loss or a score"
        figure.text(0.5, 0.45, empty, ha="center", color=GREY)
    for i, (label, series) in enumerate(panels):
        axes = figure.add_subplot(tall, min(len(panels), 2), i + 1)
        _series(axes, series)
        axes.set_title(label)
        if i >= len(panels) - 2:
            axes.set_xlabel("epoch")
    return plots.write(path, figure)


def _panels(rows: list[dict]) -> dict[str, dict[str, np.ndarray]]:
    """{panel: {series: f64[2, n], epochs and values}}; what is not finite is left out."""
    panels = {"loss and NLL": {}, "accuracy (%)": {}, "ECE (%)": {}, "learning rate": {}}
    for name in dict.fromkeys(name for row in rows for name in row):
        panel, label, factor = _place(name)
        if panel is None:
            continue
        points = [(row["epoch"], factor * row[name]) for row in rows if row.get(name) is not None]
        points = np.array(points, float)
        points = points[np.isfinite(points).all(1)]
        if len(points):
            panels[panel][label] = points.T
    return panels


def _place(name: str) -> tuple[str | None, str, int]:
    """(panel, series, factor) of an entry of metrics.jsonl; panel None: it is not plotted."""
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
    others = iter(_OTHERS * len(series))
    for label, (epoch, value) in series.items():
        colour = _COLOURS.get(label.split(" ")[0]) or next(others)
        if len(value) > _SMOOTHED:
            axes.plot(epoch, value, color=colour, alpha=0.3, linewidth=0.8)
            width = len(value) // 50
            epoch, value = _moving_mean(epoch, width), _moving_mean(value, width)
        marker = "o" if len(value) <= _MARKED else ""
        last = f"{label} {value[-1]:.4g}".strip()
        axes.plot(epoch, value, color=colour, marker=marker, markersize=3.5, label=last)
    axes.margins(y=0.08)
    if "" in series:  # the learning rate, which needs neither
        return
    values = np.concatenate([value for _, value in series.values()])
    if values.min() > 0 and values.max() > 50 * values.min():
        axes.set_yscale("log")
    axes.legend(loc="best", title="last value", title_fontsize=7, alignment="left")


def _moving_mean(values, width):
    return np.convolve(values, np.ones(width) / width, mode="valid")
