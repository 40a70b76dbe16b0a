"""Pictures of a run: how far its confidence can be trusted, and how the training went."""

import textwrap

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from scipy.stats import binom, pearson3

from ldl_jax import files

DPI = 150
# The palette of Okabe and Ito, which colour-blind readers can tell apart.
BLUE, SKY, ORANGE, VERMILION, GREEN, PURPLE = "#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#009E73", "#CC79A7"
INK, GREY = "#222222", "#8A8A8A"
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "text.usetex": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
}
_DASHES = (0, (4, 2))
_FAINT_BELOW = 30  # a bin with fewer images says little: drawn the fainter, the fewer
_MOST_COUNTS = 40  # with more bins than this, they are too narrow for a number each
_MARKED = 30  # a curve of at most so many points shows them
_SMOOTHED = 200  # a training curve of more points is drawn faint, with its moving mean over 1/50 of them


def reliability(path, bins: dict, *, title: str, floor: float | None = None):
    """Draw a reliability diagram with the histogram of confidences below it; returns the path.

    `bins`: arrays `count`, `confidence` (sum of the confidences) and `correct` (number of correct answers) of one
    length, over bins of equal width that cover (0, 1]. `floor`: the noise floor of the ECE, a fraction. A bin's band
    holds the accuracies of 95 % of the perfectly calibrated models with its count and mean confidence (binomial).
    Raises ValueError where the arrays differ in shape.
    """
    count, confidence, correct = (np.asarray(bins[name], float) for name in ("count", "confidence", "correct"))
    if not count.shape == confidence.shape == correct.shape or count.ndim != 1 or not count.size:
        raise ValueError(f"bins need three arrays of one length, not {count.shape} {confidence.shape} {correct.shape}")
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6, 7))
        diagram, histogram = figure.subplots(2, 1, height_ratios=(2.6, 1), sharex=True)
        figure.subplots_adjust(left=0.105, right=0.965, top=0.88, bottom=0.14, hspace=0.1)
        _draw_bins(diagram, count, confidence, correct)
        _draw_histogram(histogram, count, confidence, correct)
        _head(figure, 0.893, title, _summary(count, confidence, correct, floor))
        figure.legend(handles=_keys(), loc="lower center", ncols=3, columnspacing=2, handlelength=1.8)
        return _save(path, figure)


def curves(path, rows: list[dict], *, title: str):
    """Draw loss and NLL, accuracy, ECE and the learning rate against the epoch; returns the path.

    `rows`: those of metrics.jsonl, each with `epoch` and any of `train/loss`, `train/learning_rate` and
    `<split>/nll`, `<split>/accuracy`, `<split>/ece` (NLL in nats, fractions). Panels without a value are left out.
    """
    panels = [(label, series) for label, series in _panels(rows).items() if series]
    with matplotlib.rc_context(_STYLE):
        tall = 1 if len(panels) < 3 else 2
        figure = Figure(figsize=(8.5, 1.1 + 2.7 * tall), layout="constrained")
        figure.suptitle(textwrap.fill(title, 78), x=0.01, ha="left", fontsize=10, fontweight="bold", parse_math=False)
        if not panels:
            figure.text(0.5, 0.45, "nothing to draw yet: no row holds a loss or a score", ha="center", color=GREY)
        for i, (label, series) in enumerate(panels):
            axes = figure.add_subplot(tall, min(len(panels), 2), i + 1)
            _draw_series(axes, series)
            axes.set_title(label)
            if i >= len(panels) - 2:
                axes.set_xlabel("epoch")
        return _save(path, figure)


def band(count, expected) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) accuracies f[bins] of 95 % of calibrated models with these counts and mean confidences: binomial."""
    low, high = (binom.ppf(quantile, count, expected) / count for quantile in (0.025, 0.975))
    return low, high


def gap_band(variance, third) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) f[n] of summed confidence less number correct, of 95 % of calibrated models with these confidences.

    By the second and third central moment f[n] of the number correct, a sum of unlike Bernoulli variables: quantiles of
    the Pearson type III distribution with these moments, which has an end where hardly an error is to be expected. A
    binomial of the mean confidence is wider, the more confidences differ. 0 where nothing is uncertain.
    """
    variance, third = np.asarray(variance, float), np.asarray(third, float)
    deviation = np.sqrt(variance)
    skew = np.divide(-third, deviation**3, out=np.zeros_like(variance), where=variance > 0)
    low, high = (pearson3.ppf(level, skew) * deviation for level in (0.025, 0.975))
    return low, high


def brief(count: float) -> str:
    """A count as it is below 10,000, and in three digits with k, M or G from there on."""
    if count < 10_000:
        return f"{count:,.0f}"
    units = [(f"{count / size:.3g}", unit) for size, unit in ((1e3, "k"), (1e6, "M"), (1e9, "G"))]
    return "".join(next(((text, unit) for text, unit in units if "e" not in text), units[-1]))


def _draw_bins(axes, count, confidence, correct):
    used = count > 0
    n, width = count[used], 1 / len(count)
    left = np.flatnonzero(used) * width
    accuracy, expected = correct[used] / n, np.clip(confidence[used] / n, 0, 1)
    low, high = band(n, expected)
    strength = np.clip(n / _FAINT_BELOW, 0.25, 1)
    shared, gap = np.minimum(accuracy, expected), np.abs(accuracy - expected)
    over = expected > accuracy
    axes.bar(left, shared, width, align="edge", color=_tint(BLUE, 0.5 * strength))
    for colour, here in ((VERMILION, over), (GREEN, ~over)):
        tints = _tint(colour, 0.55 * strength[here])
        axes.bar(left[here], gap[here], width, shared[here], align="edge", color=tints)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1.2, linestyle=_DASHES)
    axes.bar(left + width / 2, high - low, 0.36 * width, low, color=INK, alpha=0.25, zorder=3)
    axes.hlines(expected, left, left + width, colors=INK, linewidth=1.2, zorder=4)
    axes.hlines(accuracy, left, left + width, colors=_tint(BLUE, strength), linewidth=2.2, zorder=4)
    axes.set(xlim=(0, 1), ylim=(0, 1.01), ylabel="accuracy")


def _draw_histogram(axes, count, confidence, correct):
    total, width = max(count.sum(), 1), 1 / len(count)
    left, share = np.arange(len(count)) * width, 100 * count / total
    axes.bar(left, share, width, align="edge", color=SKY, edgecolor="white", linewidth=0.6)
    upright = 0 if len(count) <= 16 else 90
    for x, y, n in zip(left + width / 2, share, count, strict=True) if len(count) <= _MOST_COUNTS else ():
        text = {"fontsize": 6.5, "rotation": upright, "color": INK if n else GREY, "ha": "center", "va": "bottom"}
        label = axes.annotate(brief(n), (x, y), (0, 2), textcoords="offset points", zorder=5, **text)
        label.set_path_effects([withStroke(linewidth=2, foreground="white")])
    axes.axvline(confidence.sum() / total, color=INK, linewidth=1.4)
    axes.axvline(correct.sum() / total, color=BLUE, linewidth=1.6, linestyle=_DASHES)
    axes.set(
        xlabel="confidence", ylabel="share of images (%)", ylim=(0, max(share.max(), 1) * (1.3 if upright else 1.2))
    )


def _keys():
    return [
        Patch(facecolor=_tint(BLUE, 0.5), label="accuracy in the bin"),
        Line2D([], [], color=INK, linewidth=1.4, label="mean confidence"),
        Patch(facecolor=_tint(VERMILION, 0.55), label="gap: overconfident"),
        Patch(facecolor=_tint(GREEN, 0.55), label="gap: underconfident"),
        Patch(facecolor=_tint(INK, 0.25), label="95 % of calibrated models"),
        Line2D([], [], color=BLUE, linewidth=1.6, linestyle=_DASHES, label="accuracy, all images"),
    ]


def _summary(count, confidence, correct, floor):
    n = count.sum()
    if not n:
        return "no images"
    noise = "" if floor is None else f" (noise floor {100 * floor:.2f} %)"
    parts = (
        f"accuracy {100 * correct.sum() / n:.2f} %",
        f"mean confidence {100 * confidence.sum() / n:.2f} %",
        f"ECE {100 * np.abs(confidence - correct).sum() / n:.2f} %{noise}",
        f"n = {n:,.0f}",
    )
    return "    ".join(parts)


def _panels(rows):
    """{panel title: {series name: (epochs, values)}}; what is not finite is left out."""
    found = {"loss and NLL": {}, "accuracy (%)": {}, "ECE (%)": {}, "learning rate": {}}
    for name in dict.fromkeys(name for row in rows for name in row):
        split, _, metric = name.rpartition("/")
        if name == "train/loss":
            panel, label, factor = "loss and NLL", "train loss", 1
        elif name == "train/learning_rate":
            panel, label, factor = "learning rate", "", 1
        elif split and metric == "nll":
            panel, label, factor = "loss and NLL", f"{split} NLL", 1
        elif split and metric in ("accuracy", "ece"):
            panel, label, factor = "accuracy (%)" if metric == "accuracy" else "ECE (%)", split, 100
        else:
            continue
        points = np.array([(row["epoch"], factor * row[name]) for row in rows if row.get(name) is not None], float)
        points = points[np.isfinite(points).all(1)]
        if len(points):
            found[panel][label] = points.T
    return found


def _draw_series(axes, series):
    others = iter((ORANGE, GREEN, PURPLE, VERMILION) * len(series))
    for label, (epoch, value) in series.items():
        colour = {"": INK, "train": GREY, "test": BLUE}.get(label.split(" ")[0]) or next(others)
        if len(value) > _SMOOTHED:
            axes.plot(epoch, value, color=colour, alpha=0.3, linewidth=0.8)
            epoch, value = _moving_mean(epoch, len(value) // 50), _moving_mean(value, len(value) // 50)
        marker = "o" if len(value) <= _MARKED else ""
        axes.plot(epoch, value, color=colour, marker=marker, markersize=3.5, label=f"{label} {value[-1]:.4g}".strip())
    everything = np.concatenate([value for _, value in series.values()])
    if everything.min() > 0 and everything.max() > 50 * everything.min() and "" not in series:
        axes.set_yscale("log")
    axes.margins(y=0.08)
    if "" not in series:
        axes.legend(loc="best", title="last value", title_fontsize=7, alignment="left")


def _moving_mean(values, width):
    return np.convolve(values, np.ones(width) / width, mode="valid")


def _tint(colour, strength):
    """`colour` thinned with white, f64[n, 3] for n strengths: opaque, so that neighbours leave no seam."""
    strength = np.asarray(strength)[..., None]
    return 1 - strength * (1 - np.array(to_rgb(colour)))


def _head(figure, y, title, summary):
    figure.text(0.105, y, summary, fontsize=7.5)
    text = {"fontsize": 10, "fontweight": "bold", "va": "bottom", "parse_math": False}  # a title may hold a $
    figure.text(0.105, y + 0.025, textwrap.fill(title, 56), **text)


def _save(path, figure):
    return files.write_with(path, lambda temporary: figure.savefig(temporary, dpi=DPI, bbox_inches="tight"))
