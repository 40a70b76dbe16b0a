"""What all plots share: one palette, one style, one reliability diagram, and how they are written.

Plots are made with the colours of COLOURS, which a page exchanges for those of its light or dark
look, and on a transparent ground; text stays text.
"""

import io
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
from scipy.stats import binom, pearson3

from ldl_jax import files

# the palette of Okabe and Ito, which colour-blind readers can tell apart
BLUE, SKY, ORANGE, VERMILION = "#0072B2", "#56B4E9", "#E69F00", "#D55E00"
GREEN, PURPLE, INK, GREY = "#009E73", "#CC79A7", "#222222", "#8A8A8A"
LINE = "#DDDDDE"
COLOURS = {  # name of a page's colour -> the colour that stands for it in a plot
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
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)  # of lines in order; then again, dotted
DASHES = ("-", ":", "--", "-.")
DASHED = (0, (4, 3))  # a line to compare with, such as the diagonal
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
styled = matplotlib.rc_context(STYLE)  # decorates a function that makes or writes a plot
CALIBRATED = "95 % of calibrated models"
MOST_COUNTS = 40  # with more bins than this, they are too narrow for a number each


class Size(NamedTuple):
    """How large a reliability diagram is, and how much it says."""

    width: float  # inches
    height: float  # inches, without a legend
    lines: float = 1.0  # factor of the widths of lines
    words: bool = True  # the names of the axes, and the number of examples of each bin


ON_PAGE = Size(4.2, 5.0)
ALONE = Size(6.0, 6.2)
SMALL = Size(2.4, 2.8, 0.6, words=False)


def svg(figure: Figure) -> str:
    """A plot as SVG, the same bytes for the same plot."""
    out = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # the font that is missing only measures: the browser has more of them
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(out, format="svg", metadata=nothing)
    return out.getvalue()


def write(path, figure: Figure) -> Path:
    """Write a plot on white, as PNG or SVG by the path's ending; returns the path."""
    undated = {"metadata": {"Date": None}} if Path(path).suffix == ".svg" else {}

    @styled
    def save(temporary):
        figure.savefig(temporary, dpi=200, facecolor="white", **undated)

    return files.write_with(path, save)


def short(text: str, most: int = 44) -> str:
    """`text` on one line, what cannot be printed replaced, the middle of a long one left out."""
    line = " ".join(text.split())
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    return line if len(line) <= most else f"{line[: most // 2 - 1]}…{line[-(most // 2) :]}"


def brief(count: float) -> str:
    """A count as it is below 10,000, and in three digits with k, M or G from there on."""
    if count < 10_000:
        return f"{count:,.0f}"
    units = [(f"{count / size:.3g}", unit) for size, unit in ((1e3, "k"), (1e6, "M"), (1e9, "G"))]
    return "".join(next(((text, unit) for text, unit in units if "e" not in text), units[-1]))


def band(count, expected) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) accuracies f[bins] of 95 % of calibrated models with these counts.

    Binomial, of the mean confidence of each bin.
    """
    low, high = (binom.ppf(quantile, count, expected) / count for quantile in (0.025, 0.975))
    return low, high


def gap_band(variance, third) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) f[n] of summed confidence less number correct, of 95 % of calibrated models.

    By the second and third central moment f[n] of the number correct, a sum of unlike Bernoulli
    variables: quantiles of the Pearson type III distribution with these moments, which has an end
    where hardly an error is to be expected. A binomial of the mean confidence is wider, the more
    confidences differ. 0 where nothing is uncertain.
    """
    variance, third = np.asarray(variance, float), np.asarray(third, float)
    deviation = np.sqrt(variance)
    skew = np.divide(-third, deviation**3, out=np.zeros_like(variance), where=variance > 0)
    low, high = (pearson3.ppf(level, skew) * deviation for level in (0.025, 0.975))
    return low, high


@styled
def reliability(bins: dict, *, title: str, size: Size = ON_PAGE, keyed: bool = False) -> Figure:
    """Accuracy against confidence with the band of calibrated models, above how many are right.

    `bins`: arrays `count`, `confidence` (sum of the confidences) and `correct` (number of correct
    answers) of one length, over bins of equal width that cover (0, 1]. A bin's band holds the
    accuracies of 95 % of the perfectly calibrated models with its count and mean confidence
    (binomial). `keyed`: a legend says what the colours mean, as a plot without a page needs. Raises
    ValueError where the arrays differ in shape.
    """
    names = ("count", "confidence", "correct")
    count, confidence, correct = (np.asarray(bins[name], float) for name in names)
    if not count.shape == confidence.shape == correct.shape or count.ndim != 1 or not count.size:
        shapes = f"{count.shape} {confidence.shape} {correct.shape}"
        raise ValueError(f"bins need three arrays of one length, not {shapes}")
    figure = Figure(figsize=(size.width, size.height + 0.5 * keyed), layout="constrained")
    diagram, histogram = figure.subplots(2, 1, height_ratios=(2.7, 1), sharex=True)
    _accuracies(diagram, count, confidence, correct, size)
    _counts(histogram, count, correct, size)
    diagram.set_title(title)
    if keyed:
        _reliability_key(figure)
    return figure


def _accuracies(axes: Axes, count, confidence, correct, size: Size) -> None:
    """The accuracy of each bin, its mean confidence, and the band of calibrated models."""
    used, width = count > 0, 1 / len(count)
    left, n = np.flatnonzero(used) * width, count[used]
    accuracy, expected = correct[used] / n, np.clip(confidence[used] / n, 0, 1)
    low, high = band(n, expected)

    # one shape for all bins: shapes side by side would leave seams
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
    """How many examples of each bin are right and wrong."""
    edges, most = np.linspace(0, 1, len(count) + 1), max(count.max(), 1)
    axes.stairs(correct, edges, fill=True, color=BLUE, alpha=0.7, linewidth=0)
    axes.stairs(count, edges, baseline=correct, fill=True, color=ORANGE, linewidth=0)
    axes.yaxis.set_major_formatter(lambda value, _: brief(value))
    if not size.words:
        axes.set_ylim(0, 1.05 * most)
        axes.yaxis.set_major_locator(MaxNLocator(1, integer=True))
        return
    axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10], integer=True))
    axes.set(xlabel="confidence", ylabel="examples", ylim=(0, 1.6 * most))
    if len(count) <= MOST_COUNTS:
        for place in np.flatnonzero(count):
            at = ((place + 0.5) / len(count), count[place] + 0.04 * most)
            axes.text(*at, brief(count[place]), rotation=90, ha="center", va="bottom", fontsize=7.5)


def _reliability_key(figure: Figure) -> None:
    handles = [
        Line2D([], [], color=BLUE, linewidth=2.2, label="accuracy"),
        Patch(facecolor=BLUE, alpha=0.7, label="right"),
        Line2D([], [], color=INK, linewidth=1.1, label="mean confidence"),
        Patch(facecolor=ORANGE, label="wrong"),
        Patch(facecolor=GREY, alpha=0.45, label=CALIBRATED),
    ]
    key(figure, handles)


def key(figure: Figure, handles: list) -> None:
    """Say what the colours mean, below a plot."""
    shape = {"ncols": 3, "handlelength": 1.4, "columnspacing": 1.4}
    figure.legend(handles=handles, loc="outside lower center", **shape)


def lines(count: int) -> tuple[Figure, Axes]:
    """An empty plot for `count` lines, whose names stand above it."""
    figure = Figure(figsize=(4.2, 3.2 + 0.17 * count), layout="constrained")
    return figure, figure.add_subplot()


def named(figure: Figure, names: list[str]) -> Figure:
    """The plot with the names of its lines.

    Also a name with _ at its start, which would be left out as a label.
    """
    styles = [style for _, style in series(names)]
    handles = [Line2D([], [], color=colour, linestyle=dashes) for colour, dashes in styles]
    blank = [" "] * len(names)
    legend = figure.legend(handles, blank, loc="outside upper left", borderpad=0, handlelength=1.8)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)
    return figure


def series(items: Iterable) -> list[tuple]:
    """Each item with its (colour, dashes)."""
    styles = [(colour, dashes) for dashes in DASHES for colour in SERIES]
    return [(item, styles[place % len(styles)]) for place, item in enumerate(items)]
