"""The ECE as other programs compute it: one statistic of the top label's confidence, under named
conventions.

ECE = sum over bins of (count / N) |accuracy - mean confidence|. Programs differ in how many bins
there are, which edge belongs to a bin, in what precision edges are made, and what becomes of
confidences of exactly 0 and 1. A convention is a function from confidences f[N] to `Placed`, to the
last bit of the edges of its original; sums are float64 in all of them, where an original may lose
digits in float32. Where all bins err in the same direction, and no example is left out, all
conventions agree: the ECE is then |accuracy - mean confidence|.
"""

from typing import NamedTuple

import numpy as np

from ldl_jax.metrics import base
from ldl_jax.metrics.base import Shown, Stored

SHOWN = {
    "ece_torchmetrics15": Shown(
        "ECE torchmetrics15", "%", 2, "ECE as others compute it", 0, "lower"
    ),
    "ece_netcal10": Shown("ECE netcal10", "%", 2, "ECE as others compute it", 1, "lower"),
    "ece_pskd10": Shown("ECE pskd10", "%", 2, "ECE as others compute it", 2, "lower"),
    "ece_ub15": Shown("ECE ub15", "%", 2, "ECE as others compute it", 3, "lower"),
    "ece_focal10": Shown("ECE focal10", "%", 2, "ECE as others compute it", 4, "lower"),
}


class Placed(NamedTuple):
    """How a program sorts N confidences into bins."""

    place: np.ndarray  # i64[N]: the bin; -1 for an example that is in none, though N counts it
    confidence: np.ndarray  # f64[N]: as it is averaged
    # i64[N]: the bin whose count it adds to, where that is not `place`
    counted: np.ndarray | None = None


def of(stored: Stored) -> dict[str, float]:
    """The ECE under every convention but the default, `ece` itself, in float32, in which other
    programs compare.

    netcal's is left out where there are two classes, of which it measures something else.
    """
    single = _single(stored.confidence)
    figures = {}
    for name in CONVENTIONS:
        if name == "guo15" or (name == "netcal10" and stored.classes == 2):
            continue
        figures[f"ece_{name}"] = ece(single, stored.correct, name)
    return figures


def ece(confidence, correct, convention: str = "guo15") -> float:
    """The expected calibration error, a fraction, as the program that `convention` is named after
    computes it.

    confidence: f[N] in [0, 1], float32 as a network gives it, or float64; correct: bool[N];
    convention: of CONVENTIONS. Raises ValueError for other values, NaN among them, and where the
    original raises.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention is {convention!r}; allowed are {', '.join(CONVENTIONS)}")
    confidence, correct = base.checked(confidence, correct)
    confidence = confidence.astype(np.float64 if confidence.dtype == np.float64 else np.float32)
    place, said, counted = CONVENTIONS[convention](confidence)
    size = 1 + max(place.max(), 0 if counted is None else counted.max())
    # -1 is left out
    inside, gap = (np.bincount(place + 1, x, size + 1)[1:] for x in (None, correct - said))
    count = inside if counted is None else np.bincount(counted, minlength=size)
    return float((count * np.abs(gap) / np.maximum(inside, 1)).sum() / len(place))


def guo15(confidence) -> Placed:
    """15 bins (lo, hi], a confidence of 0 in the first: Guo et al. 2017, section 2, and the default
    of this package.

    Edges are k / 15, rounded to float32, in which confidences are compared. 1.0 is in the last bin.
    The authors' code (gpleiss/temperature_scaling) drops 0, which no largest probability is, and
    takes torch's edges (`torchmetrics15`).
    """
    return Placed(
        np.searchsorted(_edges(15).astype(np.float32), _single(confidence)), _double(confidence)
    )


def torchmetrics15(confidence) -> Placed:
    """15 bins [lo, hi), and a bin of its own for 1.0: torchmetrics' multiclass_calibration_error
    (1.9.0).

    Its sums have a place for each of the 16 edges, and 1.0 is not below the last. 0 is in the first
    bin. Edges are torch.linspace(0, 1, 16) in float32 on a CPU: the lower half k * step, the upper
    1 - (15 - k) * step rounded once, of which three are 1 unit in the last place below k / 15 and
    three above. Confidences are compared in float32.
    """
    step, place = np.float64(np.float32(1) / np.float32(15)), np.arange(16)
    edges = np.where(place < 8, place * step, 1 - (15 - place) * step).astype(np.float32)
    return Placed(
        np.searchsorted(edges, _single(confidence), side="right") - 1, _double(confidence)
    )


def netcal10(confidence) -> Placed:
    """10 bins [lo, hi): netcal's ECE (1.4.0), with its default number of bins and more than two
    classes.

    Confidences are cut off to [eps, 1 - eps] first, eps of their own precision (1.2e-7 in float32),
    and averaged so: 0 is in the first bin, 1.0 in the last, less eps. Edges are np.linspace(0, 1,
    11), in float64 for the counts, but in the confidences' precision for the means: of float32
    confidences, 0.7 and 0.9 are counted in the bin below the one that averages them. With labels of
    at most two classes netcal measures the probability of the second class instead, which is not
    the top label's ECE.
    """
    eps = np.finfo(confidence.dtype).eps
    said = np.clip(confidence, eps, 1 - eps)
    place = np.searchsorted(_edges(10).astype(said.dtype), said, side="right")
    return Placed(place, _double(said), np.searchsorted(_edges(10), _double(said), side="right"))


def pskd10(confidence) -> Placed:
    """10 bins (lo, hi], 0 in none: utils/metric.py of lgcnsai/PS-KD-Pytorch, which gives it in
    percent.

    Upper edges are np.arange(0.1, 1.1, 0.1), lower ones the upper less 0.1, in float64. Two of
    these lie above the edge before (by 3e-17 at 0.2, 1e-16 at 0.6), so that the one double between
    them at 0.6 is in no bin either; no float32 is. 1.0 is in the last bin. What is in no bin counts
    in N.
    """
    upper, said = np.arange(0.1, 1.1, 0.1), _double(confidence)
    place = np.searchsorted(upper, said)
    return Placed(np.where(said > upper[place] - 0.1, place, -1), said)


def ub15(confidence) -> Placed:
    """15 bins [lo, hi), the last closed: ECE of google-research/robustness_metrics, which
    uncertainty-baselines report.

    The bin is floor(15 c) in float32, at most 14 (tf.histogram_fixed_width_bins), so that no edge
    is made. 0 is in the first bin, 1.0 in the last. Their evaluation may leave out the last,
    smaller batch; here every example counts.
    """
    return Placed(
        np.minimum(np.float32(15) * _single(confidence), 14).astype(np.int64), _double(confidence)
    )


def focal10(confidence) -> Placed:
    """10 bins (lo, hi]: expected_calibration_error in Metrics/metrics.py of
    torrvision/focal_calibration.

    The bin is ceil(10 c - 1) in float64. 1.0 is in the last bin. 0, and what is too small to change
    the 1 (below 6e-18), gives bin -1, for which the original raises KeyError and this ValueError.
    (ECELoss, in the same file, has 15 bins.)
    """
    said = _double(confidence)
    place = np.ceil(10 * said - 1).astype(np.int64)
    if place.min() < 0:
        raise ValueError(
            f"a confidence is {said.min():g}; focal10 has no bin for 0, allowed are numbers above it to 1"
        )
    return Placed(place, said)


CONVENTIONS = {
    each.__name__: each for each in (guo15, torchmetrics15, netcal10, pskd10, ub15, focal10)
}


def _edges(bins: int) -> np.ndarray:
    """The inner edges of equal bins, f64[bins - 1]."""
    return np.linspace(0, 1, bins + 1)[1:-1]


def _single(confidence) -> np.ndarray:
    return confidence.astype(np.float32)


def _double(confidence) -> np.ndarray:
    return confidence.astype(np.float64)
