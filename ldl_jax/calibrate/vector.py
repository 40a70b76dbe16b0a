"""Vector scaling: a scale and a bias for each class."""

import numpy as np

from ldl_jax.calibrate.base import (
    Calibrator,
    checked,
    checked_rows,
    curvature,
    log_probs,
    minimise,
    number,
    same,
)
from ldl_jax.calibrate.missing import keeping_missing


def make(
    *,
    ridge: float = 1e-4,  # penalty on the mean over classes of (scale - 1)^2 + bias^2 (0: none)
    max_steps: int = 1000,  # maximal number of L-BFGS steps
) -> Calibrator:
    """Softmax of scale * logits + bias (Guo et al. 2017, section 4.2).

    Fitted by L-BFGS from the identity. The ridge keeps parameters finite if the NLL has no minimum,
    as for a class without examples. `converged` says whether L-BFGS converged within max_steps.
    """
    number("vector.ridge", ridge, 0.0)
    number("vector.max_steps", max_steps, 1)

    def fit(logits, label):
        label, classes = checked(logits, label)
        scale, bias = curvature(same, logits, label, classes)
        added = 2 * ridge / classes
        start = {"scale": np.ones(classes), "bias": np.zeros(classes)}
        curved = {"scale": np.diag(scale) + added, "bias": bias + added}
        return minimise(_scores, _penalty, start, curved, (ridge,), logits, label, max_steps)

    def apply(params, logits):
        return log_probs(_scores(params, checked_rows(logits, len(params["bias"]))))

    return keeping_missing(Calibrator(fit, apply))


def _scores(params, logits):
    return logits * params["scale"] + params["bias"]


def _penalty(params, ridge):
    return ridge * ((params["scale"] - 1) ** 2 + params["bias"] ** 2).mean()
