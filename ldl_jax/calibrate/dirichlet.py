"""Dirichlet calibration: a linear map of the log-probabilities, kept near its diagonal."""

import jax

from ldl_jax.calibrate.base import Calibrator, checked_rows, fit_linear, linear, log_probs, number


def make(
    *,
    off_diagonal: float = 1000.0,  # times the mean square of the K (K - 1) weights between classes is added to the NLL
    intercept: float = 0.1,  # times the mean square of the K biases is added to the NLL
    max_steps: int = 1000,  # of L-BFGS at most
) -> Calibrator:
    """Softmax of weight @ log p + bias: what Dirichlet-distributed p within each class give (Kull
    et al. 2019).

    Section 3 there, with its penalty ODIR; by L-BFGS from the identity. The two strengths are to be
    chosen by cross-validation within the validation split; too little of off_diagonal overfits
    where N < K^2. log p is taken from the logits, so that no probability is rounded to 0.
    `converged` says whether L-BFGS came to a minimum within max_steps. A step takes 4 N K^2
    operations in float64: K = 1,000 wants a GPU.
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

    return Calibrator(fit, apply)


def _scores(params, logits):
    return linear(params, jax.nn.log_softmax(logits, axis=1))
