"""Data of the plots of stored predictions, as plain lists: bins, classes, coverage, temperatures."""

import numpy as np

from ldl_jax.evaluation.bootstrap import bin_number
from ldl_jax.evaluation.passes import Reduced
from ldl_jax.metrics import selective
from ldl_jax.metrics.base import BINS

POINTS = 200  # maximal number of points of the risk-coverage curve
TEMPERATURES = np.geomspace(0.25, 4, 25)  # of a curve, as multiples of the fitted temperature


def reliability(reduced: Reduced) -> dict[str, list[float]]:
    """Count, sum of confidences and number correct of each of BINS confidence bins."""
    return _sums(bin_number(reduced.confidence), reduced, BINS)


def classes(reduced: Reduced, count: int) -> dict[str, list[float]]:
    """Count, sum of confidences and number correct by predicted class, for `count` classes.

    With the second and third central moments that the number correct would have if each example
    were correct with probability equal to its confidence c: `variance`, the sum of c (1 - c), and
    `third`, the sum of c (1 - c) (1 - 2 c).
    """
    c = reduced.confidence
    moments = {"variance": c * (1 - c), "third": c * (1 - c) * (1 - 2 * c)}
    sums = _sums(reduced.predicted, reduced, count)
    for name, values in moments.items():
        sums[name] = np.bincount(reduced.predicted, values, count).tolist()
    return sums


def _sums(member, reduced, length):
    """Sums over the examples of each of `length` groups; member: the group i[N] of each example."""

    def total(weights):
        return np.bincount(member, weights, length).tolist()

    return {
        "count": total(None),
        "confidence": total(reduced.confidence),
        "correct": total(reduced.correct),
    }


def risk_coverage(reduced: Reduced) -> dict[str, list[float]]:
    """Error rate of the most confident share of the examples, at up to POINTS shares.

    Geifman and El-Yaniv 2017, section 2; ties in confidence are averaged over all orders.
    """
    risk = selective.risk(reduced.confidence, reduced.correct)
    # A plot needs no more points than it has pixels; a test set may have millions.
    chosen = np.unique(np.linspace(0, len(risk) - 1, min(POINTS, len(risk))).astype(int))
    return {"coverage": ((chosen + 1) / len(risk)).tolist(), "risk": risk[chosen].tolist()}


def temperatures(fitted: float, swept: list[Reduced]) -> dict[str, list[float]]:
    """NLL and ECE at the temperatures `around(fitted)`.

    swept: the same examples reduced at each of these temperatures.
    """
    curve = {"temperature": around(fitted), "nll": [], "ece": [], "examples": len(swept[0].nll)}
    for reduced in swept:
        bins = reliability(reduced)
        gap = np.abs(np.subtract(bins["confidence"], bins["correct"]))
        curve["nll"].append(float(reduced.nll.mean()))
        curve["ece"].append(float(gap.sum() / len(reduced.nll)))
    return curve


def around(temperature: float) -> list[float]:
    """The temperatures of a curve around the fitted one."""
    return (temperature * TEMPERATURES).tolist()
