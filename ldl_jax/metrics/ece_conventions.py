"""The ECE as other programs compute it, by named conventions.

ECE = sum over bins of (count / N) |accuracy - mean confidence|. Programs differ in the number of
bins, in which edge belongs to a bin, in the precision of the edges, and in what they do with
confidences of exactly 0 and 1. A convention is a function from confidences f[N] to `Placed` whose
edges equal those of the original to the last bit; sums are always float64, whereas an original may
lose digits in float32. If all bins err in the same direction and no example is left out, all
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
    """How a program assigns N confidences to bins."""

    place: np.ndarray  # i64[N]: the bin; -1 for an example in no bin, which N still counts
    confidence: np.ndarray  # f64[N]: the confidences as they are averaged
    # i64[N]: the bin whose count the example adds to, if the program uses another than `place`.
    counted: np.ndarray | None = None


def of(stored: Stored) -> dict[str, float]:
    """The ECE by every convention except guo15, which is `ece` itself.

    In float32, in which the other programs compare confidences.
    """
    single = _single(stored.confidence)
    figures = {}
    for name in CONVENTIONS:
        # With two classes, netcal measures another quantity.
        if name == "guo15" or (name == "netcal10" and stored.classes == 2):
            continue
        figures[f"ece_{name}"] = ece(single, stored.correct, name)
    return figures


def ece(confidence, correct, convention: str = "guo15", *, bins: int = 15) -> float:
    """The expected calibration error, a fraction, as computed by the program named by `convention`.

    confidence: f[N] in [0, 1], float32 (as networks give it) or float64; correct: bool[N];
    convention: one of CONVENTIONS. bins: number of bins, of guo15 only. Raises ValueError for other
    values, and if the original raises an error.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be one of {', '.join(CONVENTIONS)}, got {convention!r}")
    if bins != 15 and convention != "guo15":
        raise ValueError(f"bins can be chosen for the convention guo15 only, got {convention!r}")
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    confidence, correct = base.checked(confidence, correct)
    confidence = confidence.astype(np.float64 if confidence.dtype == np.float64 else np.float32)
    options = (bins,) if convention == "guo15" else ()
    place, averaged, counted = CONVENTIONS[convention](confidence, *options)
    size = 1 + max(place.max(), 0 if counted is None else counted.max())
    # Bins are shifted by one so that -1 can be counted, and then dropped.
    inside = np.bincount(place + 1, None, size + 1)[1:]
    gap = np.bincount(place + 1, correct - averaged, size + 1)[1:]
    count = inside if counted is None else np.bincount(counted, minlength=size)
    return float((count * np.abs(gap) / np.maximum(inside, 1)).sum() / len(place))


def guo15(confidence, bins: int = 15) -> Placed:
    """15 bins (lo, hi]: Guo et al. 2017, section 2, and the default of this package.

    Edges are k / bins rounded to float32, in which confidences are compared. A confidence of 0 is in
    the first bin, 1.0 in the last. The authors' code (gpleiss/temperature_scaling) drops 0, which
    cannot be a largest probability, and uses torch's edges (`torchmetrics15`).
    """
    place = np.searchsorted(_edges(bins).astype(np.float32), _single(confidence))
    return Placed(place, _double(confidence))


def torchmetrics15(confidence) -> Placed:
    """15 bins [lo, hi) and a separate bin for 1.0: torchmetrics' multiclass_calibration_error 1.9.0.

    Its sums have an entry for each of the 16 edges, and 1.0 is not below the last. 0 is in the
    first bin. Edges are torch.linspace(0, 1, 16) in float32 on a CPU: the lower half is k * step,
    the upper half 1 - (15 - k) * step, rounded once; three of them are 1 unit in the last place
    below k / 15 and three above. Confidences are compared in float32.
    """
    step = np.float64(np.float32(1) / np.float32(15))
    k = np.arange(16)
    edges = np.where(k < 8, k * step, 1 - (15 - k) * step).astype(np.float32)
    bins = np.searchsorted(edges, _single(confidence), side="right") - 1
    return Placed(bins, _double(confidence))


def netcal10(confidence) -> Placed:
    """10 bins [lo, hi): netcal's ECE (1.4.0) with its default number of bins, for K > 2.

    Confidences are clipped to [eps, 1 - eps] first, with eps of their own precision (1.2e-7 in
    float32), and averaged like that: 0 is in the first bin, 1.0 in the last. Edges are
    np.linspace(0, 1, 11), in float64 for the counts but in the confidences' precision for the
    means: the float32 confidences 0.7 and 0.9 are counted in the bin below the one that averages
    them. If labels have at most two classes, netcal measures the probability of the second class
    instead, which is not the ECE of the largest probability.
    """
    eps = np.finfo(confidence.dtype).eps
    clipped = np.clip(confidence, eps, 1 - eps)
    averaged = np.searchsorted(_edges(10).astype(clipped.dtype), clipped, side="right")
    counted = np.searchsorted(_edges(10), _double(clipped), side="right")
    return Placed(averaged, _double(clipped), counted)


def pskd10(confidence) -> Placed:
    """10 bins (lo, hi], 0 in none: utils/metric.py of lgcnsai/PS-KD-Pytorch (there in percent).

    Upper edges are np.arange(0.1, 1.1, 0.1), lower edges the upper ones minus 0.1, in float64. Two
    lower edges are above the upper edge of the bin before (by 3e-17 at 0.2, 1e-16 at 0.6), so the
    one double between them at 0.6 is in no bin; no float32 lies there. 1.0 is in the last bin.
    Examples in no bin still count in N.
    """
    values = _double(confidence)
    upper = np.arange(0.1, 1.1, 0.1)
    bins = np.searchsorted(upper, values)
    return Placed(np.where(values > upper[bins] - 0.1, bins, -1), values)


def ub15(confidence) -> Placed:
    """15 bins [lo, hi), the last one closed: the ECE of google-research/robustness_metrics.

    uncertainty-baselines reports it. The bin is floor(15 c) in float32, at most 14
    (tf.histogram_fixed_width_bins), without computing edges. 0 is in the first bin, 1.0 in the
    last. Their evaluation may leave out the last, smaller batch; here every example counts.
    """
    bins = np.minimum(np.float32(15) * _single(confidence), 14).astype(np.int64)
    return Placed(bins, _double(confidence))


def focal10(confidence) -> Placed:
    """10 bins (lo, hi]: expected_calibration_error of torrvision/focal_calibration.

    In its Metrics/metrics.py. The bin is ceil(10 c - 1) in float64; 1.0 is in the last bin. 0, and
    values too small to change the 1 (below 6e-18), give bin -1, for which the original raises
    KeyError and this function ValueError. (ECELoss, in the same file, has 15 bins.)
    """
    values = _double(confidence)
    bins = np.ceil(10 * values - 1).astype(np.int64)
    if bins.min() < 0:
        raise ValueError(
            f"confidence must be in (0, 1], since focal10 has no bin for 0; got {values.min():g}"
        )
    return Placed(bins, values)


CONVENTIONS = {
    "guo15": guo15,
    "torchmetrics15": torchmetrics15,
    "netcal10": netcal10,
    "pskd10": pskd10,
    "ub15": ub15,
    "focal10": focal10,
}


def _edges(bins: int) -> np.ndarray:
    """The inner edges of `bins` bins of equal width, f64[bins - 1]."""
    return np.linspace(0, 1, bins + 1)[1:-1]


def _single(confidence) -> np.ndarray:
    return confidence.astype(np.float32)


def _double(confidence) -> np.ndarray:
    return confidence.astype(np.float64)
