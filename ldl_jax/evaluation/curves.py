"""What the plots of stored predictions are drawn from, as plain lists: bins, classes, coverage,
temperatures.
"""

import numpy as np

from ldl_jax.evaluation.bootstrap import bin_number
from ldl_jax.evaluation.passes import Reduced
from ldl_jax.metrics import selective
from ldl_jax.metrics.base import BINS

POINTS = 200  # of the risk-coverage curve, at most
TEMPERATURES = np.geomspace(0.25, 4, 25)  # beside the fitted one, as its multiples


def reliability(reduced: Reduced) -> dict[str, list[float]]:
    """Count, summed confidence and number correct of each of BINS bins of the confidence."""
    return _sums(bin_number(reduced.confidence), reduced, BINS)


def classes(reduced: Reduced, count: int) -> dict[str, list[float]]:
    """Count, summed confidence and number correct of the examples predicted as each of `count`
    classes.

    And of the number correct, were each example right with the probability that it claims, the
    second and third central moment: `variance` sum c (1 - c), and `third` sum c (1 - c) (1 - 2 c).
    """
    c = reduced.confidence
    moments = {"variance": c * (1 - c), "third": c * (1 - c) * (1 - 2 * c)}
    sums = {name: np.bincount(reduced.predicted, x, count).tolist() for name, x in moments.items()}
    return _sums(reduced.predicted, reduced, count) | sums


def _sums(member, reduced, length):
    def total(weights):
        return np.bincount(member, weights, length).tolist()

    return {
        "count": total(None),
        "confidence": total(reduced.confidence),
        "correct": total(reduced.correct),
    }


def risk_coverage(reduced: Reduced) -> dict[str, list[float]]:
    """Error rate of the most confident share of the examples, for shares up to 1, at POINTS of them
    at most.

    Geifman and El-Yaniv 2017, section 2; among equal confidences the mean over all orders.
    """
    risk = selective.risk(reduced.confidence, reduced.correct)
    some = np.unique(np.linspace(0, len(risk) - 1, min(POINTS, len(risk))).astype(int))
    return {"coverage": ((some + 1) / len(risk)).tolist(), "risk": risk[some].tolist()}


def temperatures(fitted: float, swept: list[Reduced]) -> dict[str, list[float]]:
    """NLL and ECE at temperatures around the fitted one, of the same examples after each of
    `around(fitted)`.
    """
    curve = {"temperature": around(fitted), "nll": [], "ece": [], "examples": len(swept[0].nll)}
    for reduced in swept:
        bins = reliability(reduced)
        gap = np.abs(np.subtract(bins["confidence"], bins["correct"]))
        curve["nll"].append(float(reduced.nll.mean()))
        curve["ece"].append(float(gap.sum() / len(reduced.nll)))
    return curve


def around(temperature: float) -> list[float]:
    """The temperatures of a curve."""
    return (temperature * TEMPERATURES).tolist()
