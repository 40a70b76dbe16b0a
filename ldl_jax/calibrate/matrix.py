"""Matrix scaling: a regularised linear map of the logits."""

from ldl_jax.calibrate.base import (
    Calibrator,
    checked_rows,
    fit_linear,
    linear,
    log_probs,
    number,
    same,
)
from ldl_jax.calibrate.missing import keeping_missing


def make(
    *,
    off_diagonal: float = 1000.0,  # penalty on the mean square of the K (K - 1) off-diagonal weights
    intercept: float = 0.1,  # penalty on the mean square of the K biases
    max_steps: int = 1000,  # maximal number of L-BFGS steps
) -> Calibrator:
    """Softmax of weight @ logits + bias (Guo et al. 2017, section 4.2), with a penalty.

    The penalty is ODIR of Kull et al. 2019; fitted by L-BFGS from the identity. Choose the two
    penalties by cross-validation within the validation split, as Kull et al. do; the defaults stay
    close to vector scaling, since a small off_diagonal overfits for N < K^2. Unlike in `dirichlet`,
    adding a constant to a row of logits changes the fit. `converged` says whether L-BFGS converged
    within max_steps. A step takes 4 N K^2 operations in float64: use a GPU for K = 1,000.
    """
    number("matrix.off_diagonal", off_diagonal, 0.0)
    number("matrix.intercept", intercept, 0.0)
    number("matrix.max_steps", max_steps, 1)

    def fit(logits, label):
        return fit_linear(linear, same, off_diagonal, intercept, logits, label, max_steps)

    def apply(params, logits):
        return log_probs(linear(params, checked_rows(logits, len(params["bias"]))))

    return keeping_missing(Calibrator(fit, apply))
