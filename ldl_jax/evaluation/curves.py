"""What the pictures of stored predictions are drawn from, as plain lists: bins, classes, coverage, temperatures."""

import numpy as np

from ldl_jax.evaluation.predictions import Predictions, Reduced, Transform, picked, reduce
from ldl_jax.metrics import selective

BINS = 15  # over (0, 1], (lo, hi]; a confidence of 0 counts in the first
POINTS = 200  # of the risk-coverage curve, at most
TEMPERATURES = np.geomspace(0.25, 4, 25)  # beside the fitted one, as its multiples
SAMPLE = 10_000  # examples that the curve over temperatures is measured on, at most


def reliability(reduced: Reduced, bins: int = BINS) -> dict[str, list[float]]:
    """Count, summed confidence and number correct of each bin of the confidence."""
    edges = np.linspace(0, 1, bins + 1)[1:-1].astype(np.float32)  # as the confidences were rounded
    return _sums(np.searchsorted(edges, reduced.confidence), reduced, bins)


def classes(reduced: Reduced, count: int) -> dict[str, list[float]]:
    """Count, summed confidence and number correct of the examples predicted as each of `count` classes.

    And of the number correct, were each example right with the probability that it claims, the second and third central
    moment: `variance` sum c (1 - c), and `third` sum c (1 - c) (1 - 2 c).
    """
    c = reduced.confidence
    moments = {"variance": c * (1 - c), "third": c * (1 - c) * (1 - 2 * c)}
    sums = {name: np.bincount(reduced.predicted, x, count).tolist() for name, x in moments.items()}
    return _sums(reduced.predicted, reduced, count) | sums


def _sums(place, reduced, length):
    def total(weights):
        return np.bincount(place, weights, length).tolist()

    return {"count": total(None), "confidence": total(reduced.confidence), "correct": total(reduced.correct)}


def risk_coverage(reduced: Reduced) -> dict[str, list[float]]:
    """Error rate of the most confident share of the examples, for shares up to 1, at POINTS of them at most.

    Geifman and El-Yaniv 2017, section 2; among equal confidences the mean over all orders.
    """
    risk = selective.risk(reduced.confidence, reduced.correct)
    some = np.unique(np.linspace(0, len(risk) - 1, min(POINTS, len(risk))).astype(int))
    return {"coverage": ((some + 1) / len(risk)).tolist(), "risk": risk[some].tolist()}


def temperatures(seed: int, predictions: Predictions, fitted: float) -> dict[str, list[float]]:
    """NLL and ECE at temperatures around the fitted one, on SAMPLE of the examples, drawn by `seed`."""
    count = len(predictions.values)
    part = predictions
    if count > SAMPLE:
        part = picked(part, np.sort(np.random.default_rng(seed).choice(count, SAMPLE, replace=False)))
    found = {"temperature": (fitted * TEMPERATURES).tolist(), "nll": [], "ece": [], "examples": min(count, SAMPLE)}
    for temperature in found["temperature"]:
        reduced = reduce(part, divided(temperature))
        bins = reliability(reduced)
        gap = np.abs(np.subtract(bins["confidence"], bins["correct"]))
        found["nll"].append(float(reduced.nll.mean()))
        found["ece"].append(float(gap.sum() / len(reduced.nll)))
    return found


def divided(temperature: float) -> Transform:
    """Logits divided by a temperature."""
    return lambda logits: logits / np.asarray(temperature, logits.dtype)
