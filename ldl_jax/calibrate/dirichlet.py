"""Dirichlet calibration: a regularised linear map of the log-probabilities."""

import jax

from ldl_jax.calibrate.base import Calibrator, checked_rows, fit_linear, linear, log_probs, number
from ldl_jax.calibrate.missing import keeping_missing


def make(
    *,
    off_diagonal: float = 1000.0,  # penalty on the mean square of the K (K - 1) off-diagonal weights
    intercept: float = 0.1,  # penalty on the mean square of the K biases
    max_steps: int = 1000,  # maximal number of L-BFGS steps
) -> Calibrator:
    """Softmax of weight @ log p + bias, exact if p is Dirichlet-distributed within each class.

    Kull et al. 2019, section 3, with their penalty ODIR; fitted by L-BFGS from the identity. Choose
    the two penalties by cross-validation within the validation split; if off_diagonal is too small,
    the fit overfits for N < K^2. log p is computed from the logits, so that no probability is
    rounded to 0. `converged` says whether L-BFGS converged within max_steps. A step takes 4 N K^2
    operations in float64: use a GPU for K = 1,000.
    """
    number("dirichlet.off_diagonal", off_diagonal, 0.0)
    number("dirichlet.intercept", intercept, 0.0)
    number("dirichlet.max_steps", max_steps, 1)

    def fit(logits, label):
        return fit_linear(
            _scores, jax.nn.log_softmax, off_diagonal, intercept, logits, label, max_steps
        )

    def apply(params, logits):
        return log_probs(linear(params, log_probs(checked_rows(logits, len(params["bias"])))))

    return keeping_missing(Calibrator(fit, apply))


def _scores(params, logits):
    return linear(params, jax.nn.log_softmax(logits, axis=1))
