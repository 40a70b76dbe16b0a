"""Plots of analyses: matrices, curves by run, embeddings on a plane, images with their labels."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ldl_jax.report import plots
from ldl_jax.report.plots import BLUE, DASHED, GREY, INK, series, short, styled

MOST_NUMBERS = 12  # most classes whose matrix has its numbers in the cells
MOST_NAMES = 30  # most classes that are named at the axes
CORNERS = plots.SERIES[:3]  # colours of the three classes of a plane
Curve = tuple[np.ndarray, np.ndarray]  # x f[m], y f[m]


@styled
def matrix(values: np.ndarray, names: Sequence[str], *, title: str, axis: str) -> Figure:
    """A matrix f[K, K] of shares, in per cent: the darker, the larger; NaN stays empty.

    The scale ends at the largest entry off the diagonal, since the diagonal is far above the rest.
    axis: what the columns are.
    """
    count = len(values)
    shares = np.nan_to_num(values)
    beside = shares[~np.eye(count, dtype=bool)]
    largest = max(float(beside.max(initial=0.0)), 1e-9)
    # The colour of the page shines through, so that the picture fits a light and a dark one.
    image = np.zeros((count, count, 4))
    image[..., :3] = to_rgb(BLUE)
    image[..., 3] = np.clip(shares / largest, 0, 1)
    image[np.eye(count, dtype=bool), :3] = to_rgb(GREY)
    figure = Figure(figsize=(4.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(image, interpolation="none")
    axes.grid(False)
    if count <= MOST_NAMES:
        labels = [short(name, 12) for name in names]
        axes.set_xticks(range(count), labels, rotation=90, fontsize=7)
        axes.set_yticks(range(count), labels, fontsize=7)
    else:
        axes.set(xticks=[], yticks=[])
    if count <= MOST_NUMBERS:
        for row, column in np.argwhere(100 * shares >= 0.05):
            text = f"{100 * shares[row, column]:.1f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=5.5)
    axes.tick_params(length=0)
    axes.set(title=title, xlabel=axis, ylabel="given label")
    return figure


@styled
def by_epoch(curves: dict[str, dict[str, Curve]], *, label: str, factor: float = 1) -> Figure:
    """Lines of several runs against the epoch: {run: {split: curve}}, test solid, training dotted."""
    figure, axes = plots.lines(len(curves))
    for splits, (colour, _) in series(curves.values()):
        for split, (epochs, values) in splits.items():
            dashes = "-" if split == "test" else ":"
            axes.plot(epochs, factor * values, color=colour, linestyle=dashes)
    axes.set(xlabel="epoch", ylabel=label)
    axes.margins(x=0.02)
    return _named(figure, curves)


@styled
def right_and_wrong(curves: dict[str, dict[str, Curve]], *, title: str) -> Figure:
    """Mean confidence of {run: {'right', 'wrong': curve}} by epoch: right solid, wrong dashed."""
    figure, axes = plots.lines(len(curves))
    for kinds, (colour, _) in series(curves.values()):
        for kind, (epochs, values) in kinds.items():
            axes.plot(
                epochs, 100 * values, color=colour, linestyle="-" if kind == "right" else "--"
            )
    axes.set(xlabel="epoch", ylabel="mean confidence, %", ylim=(None, 101), title=title)
    axes.margins(x=0.02)
    return _named(figure, curves)


@styled
def spread_by_epoch(bands: dict[str, tuple], *, label: str) -> Figure:
    """The median of several runs by epoch, with a band from the 10th to the 90th percentile.

    bands: {run: (epochs, low, median, high)}, f[m] each.
    """
    figure, axes = plots.lines(len(bands))
    for (epochs, low, median, high), (colour, dashes) in series(bands.values()):
        marker = "o" if len(epochs) <= 30 else ""
        axes.fill_between(epochs, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(epochs, median, color=colour, linestyle=dashes, marker=marker, markersize=3)
    axes.set(xlabel="epoch", ylabel=label, ylim=(0, None))
    return _named(figure, bands)


def _named(figure: Figure, runs) -> Figure:
    """The figure with the names of the runs; all lines of a run have one colour."""
    return plots.named(figure, [short(name, 40) for name in runs])


@styled
def plane(
    points: np.ndarray, member: np.ndarray, corners: np.ndarray, names: Sequence[str], *, title: str
) -> Figure:
    """Embeddings f[n, 2] on the plane of three classes, i[n] of 0, 1, 2, and their corners f[3, 2]."""
    figure = Figure(figsize=(3.7, 3.9), layout="constrained")
    axes = figure.add_subplot()
    for number, colour in enumerate(CORNERS):
        own = points[member == number]
        axes.plot(*own.T, "o", color=colour, markersize=2.6, alpha=0.45, markeredgewidth=0)
    axes.plot(*np.vstack([corners, corners[:1]]).T, color=GREY, linewidth=0.8, linestyle=DASHED)
    axes.plot(*corners.T, "x", color=INK, markersize=5)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(title)
    handles = []
    for name, colour in zip(names, CORNERS, strict=True):
        style = {"color": colour, "marker": "o", "linestyle": "", "markersize": 4}
        handles.append(Line2D([], [], **style, label=short(name, 16)))
    plots.key(figure, handles)
    return figure


@styled
def classes(values: dict[str, np.ndarray], names: Sequence[str], *, label: str) -> Figure:
    """A number of each class, {run: f[K]}; NaN is left out."""
    count = len(names)
    figure = Figure(figsize=(7.6, 2.6 + 0.17 * len(values)), layout="constrained")
    axes = figure.add_subplot()
    for number, (own, (colour, _)) in enumerate(series(values.values())):
        # Side by side, so that equal values of several runs are seen.
        offset = 0.5 * ((number + 0.5) / len(values) - 0.5)
        axes.plot(np.arange(count) + offset, own, "o", color=colour, markersize=4)
    axes.axhline(1, color=GREY, linewidth=1, linestyle=DASHED)
    if count <= MOST_NAMES:
        axes.set_xticks(range(count), [short(name, 12) for name in names], rotation=30)
    else:
        axes.set_xlabel("class")
    axes.set_ylabel(label)
    return _named(figure, values)


@styled
def stages(values: dict[str, np.ndarray], names: Sequence[str]) -> Figure:
    """CKA of several pairs of networks by stage: {pair: f[S]}."""
    figure, axes = plots.lines(len(values))
    for own, (colour, dashes) in series(values.values()):
        axes.plot(range(len(own)), own, color=colour, linestyle=dashes, marker="o", markersize=3.5)
    axes.set_xticks(range(len(names)), names, rotation=30)
    axes.set(ylabel="linear CKA", ylim=(0, 1.02))
    return plots.named(figure, [short(name) for name in values])


@styled
def shares(curves: dict[str, dict[str, np.ndarray]], at: np.ndarray, *, title: str) -> Figure:
    """What runs predict along a mix: {run: {'confidence', 'first': f[S]}} at the shares f[S]."""
    figure, axes = plots.lines(len(curves))
    for own, (colour, _) in series(curves.values()):
        axes.plot(at, 100 * own["first"], color=colour)
        axes.plot(at, 100 * own["confidence"], color=colour, linestyle="--")
    axes.plot([0, 1], [0, 100], color=GREY, linewidth=1, linestyle=DASHED)
    axes.set(xlabel="share of the first image", ylabel="mean probability, %", title=title)
    axes.set(xlim=(0, 1), ylim=(0, 101))
    return _named(figure, curves)


@styled
def images(pictures: Sequence[np.ndarray], texts: Sequence[str]) -> Figure:
    """Images u8[H, W, C] in rows of four, each with a few lines of text below it."""
    columns = min(4, len(pictures))
    lines = -(-len(pictures) // columns)
    figure = Figure(figsize=(7.6, 2.75 * lines), layout="constrained")
    for number, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        axes = figure.add_subplot(lines, columns, number + 1)
        grey = picture.shape[-1] == 1
        shown = np.repeat(picture, 3, axis=-1) if grey else picture[..., :3]
        axes.imshow(shown, interpolation="none")
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.set_xlabel(text, fontsize=7.5, loc="left")
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure
