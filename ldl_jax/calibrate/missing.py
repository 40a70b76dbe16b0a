"""Classes without examples: they keep the probability that a temperature gives them."""

from collections.abc import Iterator

import numpy as np

from ldl_jax.calibrate import likelihood
from ldl_jax.calibrate.base import ELEMENTS, Calibrator, checked, checked_rows, chunks, log_probs


class _Columns:
    """Some columns of logits, in chunks that can be read repeatedly."""

    def __init__(self, logits, columns: np.ndarray, classes: int):
        self.logits = logits
        self.columns = columns
        self.size = max(1, ELEMENTS // classes)

    def __iter__(self) -> Iterator[np.ndarray]:
        for values in chunks(self.logits, self.size):
            yield values[:, self.columns]


def keeping_missing(calibrator: Calibrator, *, mix: bool = False) -> Calibrator:
    """The calibrator, fitted on the classes that occur; the others stay where a temperature puts them.

    Without an example, no method can tell the probability of a class: those that try give it almost
    none. So where a label is missing, the calibrator sees the logits of the classes that occur. In
    `apply` the missing ones have their probability at the temperature of `safe_temperature`, fitted
    on all examples, and the others share the rest as the calibrator says. mix: then mix in the
    uniform distribution with weight 1 / (N + 1), for calibrators that give probabilities of 0.

    If all classes occur nothing changes. Otherwise the parameters also have: occurring i64[S] (the
    classes), classes (K), missing_classes (K - S), missing_temperature, and uniform (the weight).
    """

    def fit(logits, label):
        label, classes = checked(logits, label)
        occurring, own = np.unique(label, return_inverse=True)
        if len(occurring) == classes:
            return calibrator.fit(logits, label)
        # A single class leaves nothing to fit but the temperature.
        params = {}
        if len(occurring) > 1:
            params = calibrator.fit(_Columns(logits, occurring, classes), own)
        fitted = likelihood.safe(likelihood.Likelihood(logits, label))
        return {
            **params,
            "occurring": occurring.astype(np.int64),
            "classes": classes,
            "missing_classes": classes - len(occurring),
            "missing_temperature": float(np.exp(fitted.position)),
            "uniform": 1 / (len(label) + 1) if mix else 0.0,
        }

    def apply(params, logits):
        if "occurring" not in params:
            return calibrator.apply(params, logits)
        values = checked_rows(logits, params["classes"])
        log_p = log_probs(values / params["missing_temperature"])
        occurring = params["occurring"]
        if len(occurring) > 1:
            together = np.logaddexp.reduce(log_p[:, occurring], axis=1, keepdims=True)
            log_p[:, occurring] = together + calibrator.apply(params, values[:, occurring])
        if params["uniform"]:
            uniform = params["uniform"]
            mixed = np.log(uniform / params["classes"])
            log_p = np.logaddexp(np.log1p(-uniform) + log_p, mixed)
        return log_p

    return Calibrator(fit, apply)
