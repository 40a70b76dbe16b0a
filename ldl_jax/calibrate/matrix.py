"""Matrix scaling: a linear map of the logits, kept near its diagonal."""

from ldl_jax.calibrate.base import (
    Calibrator,
    checked_rows,
    fit_linear,
    linear,
    log_probs,
    number,
    same,
)


def make(
    *,
    off_diagonal: float = 1000.0,  # times the mean square of the K (K - 1) weights between classes is added to the NLL
    intercept: float = 0.1,  # times the mean square of the K biases is added to the NLL
    max_steps: int = 1000,  # of L-BFGS at most
) -> Calibrator:
    """Softmax of weight @ logits + bias (Guo et al. 2017, section 4.2), with the penalty ODIR of
    Kull et al. 2019.

    By L-BFGS from the identity. The two strengths are to be chosen by cross-validation within the
    validation split, as Kull et al. do; the defaults stay near vector scaling, since too little of
    off_diagonal overfits where N < K^2. Logits count as they are: adding a number to a row changes
    what is fitted, unlike in `dirichlet`. `converged` says whether L-BFGS came to a minimum within
    max_steps. A step takes 4 N K^2 operations in float64: K = 1,000 wants a GPU.
    """
    number("matrix.off_diagonal", off_diagonal, 0.0)
    number("matrix.intercept", intercept, 0.0)
    number("matrix.max_steps", max_steps, 1)

    def fit(logits, label):
        return fit_linear(linear, same, off_diagonal, intercept, logits, label, max_steps)

    def apply(params, logits):
        return log_probs(linear(params, checked_rows(logits, len(params["bias"]))))

    return Calibrator(fit, apply)
