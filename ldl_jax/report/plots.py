"""Common parts of all plots: palette, style, reliability diagram, and writing to files.

Plots use the colours of COLOURS on a transparent background; a page replaces them by those of its
light or dark theme. Text is kept as text.
"""

import io
import itertools
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ldl_jax import files
from ldl_jax.report.bands import band

# The palette of Okabe and Ito, which colour-blind readers can distinguish.
BLUE = "#0072B2"
SKY = "#56B4E9"
ORANGE = "#E69F00"
VERMILION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
INK = "#222222"
GREY = "#8A8A8A"
LINE = "#DDDDDE"
# Name of a page's colour -> the colour that stands for it in a plot.
COLOURS = {
    "ink": INK,
    "grey": GREY,
    "line": LINE,
    "blue": BLUE,
    "sky": SKY,
    "orange": ORANGE,
    "red": VERMILION,
    "green": GREEN,
    "purple": PURPLE,
}
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)  # colours of lines, in order
DASHES = ("-", ":", "--", "-.")  # dashes of lines: one after all colours are used
DASHED = (0, (4, 3))  # dashes of reference lines, such as the diagonal
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a title may hold a $
    "text.usetex": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "ldl_jax",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
styled = matplotlib.rc_context(STYLE)  # decorator of functions that draw or write a plot
CALIBRATED = "95 % of calibrated models"
MOST_COUNTS = 40  # largest number of bins that are wide enough to show their counts


class Size(NamedTuple):
    """Size and level of detail of a reliability diagram."""

    width: float  # inches
    height: float  # inches, without a legend
    lines: float = 1.0  # factor for the widths of lines
    words: bool = True  # whether to show axis labels and the number of examples in each bin


ON_PAGE = Size(4.2, 5.0)
ALONE = Size(6.0, 6.2)
SMALL = Size(2.4, 2.8, 0.6, words=False)


def svg(figure: Figure) -> str:
    """A plot as SVG; the same plot always gives the same bytes."""
    out = io.StringIO()
    no_metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # Matplotlib only measures the text; the browser has fonts for the missing glyphs.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(out, format="svg", metadata=no_metadata)
    return out.getvalue()


def write(path, figure: Figure) -> Path:
    """Write a plot on white, as PNG or SVG by the path's ending; returns the path."""
    undated = {"metadata": {"Date": None}} if Path(path).suffix == ".svg" else {}

    @styled
    def save(temporary):
        figure.savefig(temporary, dpi=200, facecolor="white", **undated)

    return files.write_with(path, save)


def short(text: str, most: int = 44) -> str:
    """`text` on one line of at most `most` characters, the middle left out if necessary.

    Characters that cannot be printed are replaced.
    """
    line = " ".join(text.split())
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    return line if len(line) <= most else f"{line[: most // 2 - 1]}…{line[-(most // 2) :]}"


def brief(count: float) -> str:
    """A count in full below 10,000, else with three digits and k, M or G."""
    if count < 10_000:
        return f"{count:,.0f}"
    text = ""
    for size, unit in ((1e3, "k"), (1e6, "M"), (1e9, "G")):
        digits = f"{count / size:.3g}"
        text = digits + unit
        # An exponent means that the next larger unit fits better.
        if "e" not in digits:
            break
    return text


@styled
def reliability(bins: dict, *, title: str, size: Size = ON_PAGE, keyed: bool = False) -> Figure:
    """Reliability diagram with the band of calibrated models, above a histogram of confidences.

    bins: arrays `count`, `confidence` (sum of the confidences) and `correct` (number of correct
    predictions) of the same length, for bins of equal width that cover (0, 1]. The band of a bin
    contains the accuracies of 95 % of perfectly calibrated models with its count and mean
    confidence (binomial). keyed: whether to add a legend. Raises ValueError if the arrays differ in
    shape.
    """
    count = np.asarray(bins["count"], float)
    confidence = np.asarray(bins["confidence"], float)
    correct = np.asarray(bins["correct"], float)
    if not count.shape == confidence.shape == correct.shape or count.ndim != 1 or not count.size:
        raise ValueError(
            "bins must hold three arrays of the same length, got shapes "
            f"{count.shape}, {confidence.shape}, {correct.shape}"
        )
    figure = Figure(figsize=(size.width, size.height + 0.5 * keyed), layout="constrained")
    diagram, histogram = figure.subplots(2, 1, height_ratios=(2.7, 1), sharex=True)
    _accuracies(diagram, count, confidence, correct, size)
    _counts(histogram, count, correct, size)
    diagram.set_title(title)
    if keyed:
        _reliability_key(figure)
    return figure


@styled
def reliability_on(axes: Axes, bins: dict, *, title: str = "") -> Axes:
    """The upper part of `reliability` drawn into given axes, which are returned."""
    count, confidence, correct = (
        np.asarray(bins[name], float) for name in ("count", "confidence", "correct")
    )
    _accuracies(axes, count, confidence, correct, ON_PAGE)
    axes.set_xlabel("confidence")
    axes.set_title(title)
    return axes


def shown_inline(figure: Figure) -> Figure:
    """The figure, with the method by which a notebook shows it: it is not made by pyplot."""

    def as_png() -> bytes:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100, facecolor="white")
        return buffer.getvalue()

    figure._repr_png_ = as_png
    return figure


def _accuracies(axes: Axes, count, confidence, correct, size: Size) -> None:
    """The accuracy of each bin, its mean confidence, and the band of calibrated models."""
    used = count > 0
    width = 1 / len(count)
    left = np.flatnonzero(used) * width
    n = count[used]
    accuracy = correct[used] / n
    expected = np.clip(confidence[used] / n, 0, 1)
    low, high = band(n, expected)

    # One shape for all bins: adjacent shapes would leave visible seams.
    edges = np.linspace(0, 1, len(count) + 1)
    share = correct / np.maximum(count, 1)
    axes.stairs(share, edges, fill=True, color=BLUE, alpha=0.35, linewidth=0)
    band_style = {"color": GREY, "alpha": 0.45, "linewidth": 0, "zorder": 3}
    axes.bar(left + width / 2, high - low, 0.42 * width, low, **band_style)
    axes.hlines(accuracy, left, left + width, colors=BLUE, linewidth=2.2 * size.lines, zorder=4)
    inner = (left + 0.15 * width, left + 0.85 * width)
    axes.hlines(expected, *inner, colors=INK, linewidth=1.1 * size.lines, zorder=5)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=DASHED)

    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    if size.words:
        axes.set_ylabel("accuracy")
    else:
        axes.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])


def _counts(axes: Axes, count, correct, size: Size) -> None:
    """Histogram of the confidences: correct and wrong predictions in each bin."""
    edges = np.linspace(0, 1, len(count) + 1)
    most = max(count.max(), 1)
    axes.stairs(correct, edges, fill=True, color=BLUE, alpha=0.7, linewidth=0)
    axes.stairs(count, edges, baseline=correct, fill=True, color=ORANGE, linewidth=0)
    axes.yaxis.set_major_formatter(lambda value, _: brief(value))
    # A small diagram has room for the scale of the counts only.
    if not size.words:
        axes.set_ylim(0, 1.05 * most)
        axes.yaxis.set_major_locator(MaxNLocator(1, integer=True))
        return
    axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10], integer=True))
    axes.set(xlabel="confidence", ylabel="examples", ylim=(0, 1.6 * most))
    if len(count) <= MOST_COUNTS:
        for number in np.flatnonzero(count):
            x = (number + 0.5) / len(count)
            y = count[number] + 0.04 * most
            text = brief(count[number])
            axes.text(x, y, text, rotation=90, ha="center", va="bottom", fontsize=7.5)


def _reliability_key(figure: Figure) -> None:
    handles = [
        Line2D([], [], color=BLUE, linewidth=2.2, label="accuracy"),
        Patch(facecolor=BLUE, alpha=0.7, label="correct"),
        Line2D([], [], color=INK, linewidth=1.1, label="mean confidence"),
        Patch(facecolor=ORANGE, label="wrong"),
        Patch(facecolor=GREY, alpha=0.45, label=CALIBRATED),
    ]
    key(figure, handles)


def key(figure: Figure, handles: list) -> None:
    """Add a legend below a plot."""
    shape = {"ncols": 3, "handlelength": 1.4, "columnspacing": 1.4}
    figure.legend(handles=handles, loc="outside lower center", **shape)


def lines(count: int) -> tuple[Figure, Axes]:
    """An empty plot for `count` lines, with room for their names above it."""
    figure = Figure(figsize=(4.2, 3.2 + 0.17 * count), layout="constrained")
    return figure, figure.add_subplot()


def named(figure: Figure, names: list[str]) -> Figure:
    """Add the names of the lines above a plot; returns the plot."""
    handles = []
    for _, (colour, dashes) in series(names):
        handles.append(Line2D([], [], color=colour, linestyle=dashes))
    # Set the names afterwards: a legend leaves out labels that start with _.
    blank = [" "] * len(names)
    legend = figure.legend(handles, blank, loc="outside upper left", borderpad=0, handlelength=1.8)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)
    return figure


def series(items: Iterable) -> list[tuple]:
    """Each item with its (colour, dashes)."""
    styles = [(colour, dashes) for dashes in DASHES for colour in SERIES]
    return list(zip(items, itertools.cycle(styles), strict=False))
