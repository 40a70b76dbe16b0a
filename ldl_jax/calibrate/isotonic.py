"""Isotonic regression: probabilities are replaced by the best non-decreasing function of them."""

from itertools import pairwise

import numpy as np
from scipy.special import logsumexp
from sklearn.isotonic import IsotonicRegression

from ldl_jax.calibrate.base import FLOOR, Calibrator, checked, checked_rows, floored, log_probs

LEAD = 1e-6  # of the predicted class before the next, relatively: enough for float32


def make(
    *,
    which: str = "one_vs_rest",  # 'one_vs_rest': a function for each class, 'top_label': one for the confidence
) -> Calibrator:
    """Isotonic regression of what was right on the probability (Zadrozny and Elkan 2002), between
    its knots linear.

    one_vs_rest: the K values are raised to 1e-7 where they are below it, and made to sum to 1.
    top_label: the largest probability is replaced by its function's value, the rest are rescaled in
    proportion. The order of the rest stays, and so does the predicted class: a value so low that
    the next class would overtake it is raised to where the two tie (and 1e-6 above), and one above
    1 - 1e-7 is lowered to that. Parameters: knots f64[M] and values f64[M] of all functions, one
    after the other, function k from start[k] to start[k + 1]. Takes N K float64 of memory.
    """
    if which not in ("one_vs_rest", "top_label"):
        raise ValueError(
            f"calibrate.isotonic.which is {which!r}; allowed are one_vs_rest, top_label"
        )

    def fit(logits, label):
        label, classes = checked(logits, label)
        logits = checked_rows(logits)
        probs = np.exp(log_probs(logits))
        if which == "top_label":
            return _functions([(probs.max(axis=1), logits.argmax(axis=1) == label)])
        return _functions((probs[:, k], label == k) for k in range(classes))

    def top_label(params, logits):
        logits = checked_rows(logits)
        log_p, top = log_probs(logits), logits.argmax(axis=1)[:, None]
        confidence = np.exp(np.take_along_axis(log_p, top, axis=1))
        return _replaced(log_p, top, np.interp(confidence, params["knots"], params["values"]))

    def one_vs_rest(params, logits):
        start = params["start"]
        probs = np.exp(log_probs(checked_rows(logits, len(start) - 1)))
        parts = [slice(*ends) for ends in pairwise(start)]
        columns = [
            np.interp(probs[:, k], params["knots"][s], params["values"][s])
            for k, s in enumerate(parts)
        ]
        return floored(np.stack(columns, axis=1))

    return Calibrator(fit, top_label if which == "top_label" else one_vs_rest)


def _functions(pairs) -> dict:
    """The fitted functions of all (probability f64[N], right bool[N])."""
    fitted = [
        IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(
            probability, right.astype(np.float64)
        )
        for probability, right in pairs
    ]
    return {
        "knots": np.concatenate([own.X_thresholds_ for own in fitted]),
        "values": np.concatenate([own.y_thresholds_ for own in fitted]),
        "start": np.cumsum([0, *(len(own.X_thresholds_) for own in fitted)]),
    }


def _replaced(log_p: np.ndarray, top: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Log-probabilities with `confidence` f64[N, 1] for class top i[N, 1], within bounds that keep
    it the largest.
    """
    rest = log_p.copy()
    np.put_along_axis(rest, top, -np.inf, axis=1)
    size = logsumexp(rest, axis=1, keepdims=True)  # log(1 - p) of the largest, without cancellation
    share = np.exp(rest.max(axis=1, keepdims=True) - size) * (1 + LEAD)
    confidence = np.clip(confidence, share / (1 + share), 1 - FLOOR)
    rest += np.log1p(-confidence) - size
    np.put_along_axis(rest, top, np.log(confidence), axis=1)
    return rest
