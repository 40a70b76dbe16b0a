"""Isotonic regression: a non-decreasing function of the probabilities, fitted by least squares."""

from itertools import pairwise

import numpy as np
from scipy.special import logsumexp
from sklearn.isotonic import IsotonicRegression

from ldl_jax.calibrate.base import FLOOR, Calibrator, checked, checked_rows, floored, log_probs
from ldl_jax.calibrate.missing import keeping_missing

LEAD = 1e-6  # relative lead of the predicted class over the next: survives rounding to float32


def make(
    *,
    which: str = "one_vs_rest",  # 'one_vs_rest': a function for each class, 'top_label': one for the confidence
) -> Calibrator:
    """Isotonic regression of outcomes on probabilities (Zadrozny and Elkan 2002).

    Functions are linear between their knots. one_vs_rest: the K values are raised to at least 1e-7
    and normalised. top_label: the largest probability is replaced by its function's value and the
    others are rescaled in proportion. The predicted class and the order of the others are
    preserved: a value so low that the next class would overtake it is raised to where the two tie
    (and by 1e-6 more), and a value above 1 - 1e-7 is lowered to that. Parameters: knots f64[M] and
    values f64[M] of all functions in sequence, function k from start[k] to start[k + 1]. Uses N K
    float64 of memory.
    """
    if which not in ("one_vs_rest", "top_label"):
        raise ValueError(
            f"calibrate.isotonic.which must be 'one_vs_rest' or 'top_label', got {which!r}"
        )

    def fit(logits, label):
        label, classes = checked(logits, label)
        logits = checked_rows(logits)
        probs = np.exp(log_probs(logits))
        if which == "top_label":
            return _functions([(probs.max(axis=1), logits.argmax(axis=1) == label)])
        return _functions([(probs[:, k], label == k) for k in range(classes)])

    def top_label(params, logits):
        logits = checked_rows(logits)
        log_p = log_probs(logits)
        top = logits.argmax(axis=1)[:, None]
        confidence = np.exp(np.take_along_axis(log_p, top, axis=1))
        return _replaced(log_p, top, np.interp(confidence, params["knots"], params["values"]))

    def one_vs_rest(params, logits):
        start = params["start"]
        probs = np.exp(log_probs(checked_rows(logits, len(start) - 1)))
        columns = []
        for k, (begin, end) in enumerate(pairwise(start)):
            knots = params["knots"][begin:end]
            values = params["values"][begin:end]
            columns.append(np.interp(probs[:, k], knots, values))
        return floored(np.stack(columns, axis=1))

    if which == "top_label":
        return Calibrator(fit, top_label)
    return keeping_missing(Calibrator(fit, one_vs_rest), mix=True)


def _functions(pairs) -> dict:
    """Parameters of the functions fitted to all (probability f64[N], outcome bool[N])."""
    knots = []
    values = []
    for probability, outcome in pairs:
        regression = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        regression.fit(probability, outcome.astype(np.float64))
        knots.append(regression.X_thresholds_)
        values.append(regression.y_thresholds_)
    # Functions have different numbers of knots, so they are stored in sequence with their starts.
    return {
        "knots": np.concatenate(knots),
        "values": np.concatenate(values),
        "start": np.cumsum([0, *map(len, knots)]),
    }


def _replaced(log_p: np.ndarray, top: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Log-probabilities with `confidence` f64[N, 1] for class top i[N, 1].

    Clipped so that this class stays the largest.
    """
    rest = log_p.copy()
    np.put_along_axis(rest, top, -np.inf, axis=1)
    # log(1 - p) of the largest, from the others: 1 - p itself would cancel.
    size = logsumexp(rest, axis=1, keepdims=True)
    # Of the probability mass that is not the top class's, the share of the next class.
    share = np.exp(rest.max(axis=1, keepdims=True) - size) * (1 + LEAD)
    confidence = np.clip(confidence, share / (1 + share), 1 - FLOOR)
    rest += np.log1p(-confidence) - size
    np.put_along_axis(rest, top, np.log(confidence), axis=1)
    return rest
