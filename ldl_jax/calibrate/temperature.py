"""Temperature scaling: one number that divides all logits."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from ldl_jax.calibrate.base import Calibrator, checked, checked_rows, float64, log_probs, total

LOWEST = 1e-3  # smallest temperature of the search
HIGHEST = 1e3  # largest temperature of the search
WIDTH = 1e-8  # width of the last bracket, in log T


def make() -> Calibrator:
    """Softmax of logits / T, where T minimises the NLL (Guo et al. 2017, section 4.2).

    The NLL is convex in 1/T, so the minimum is unique: `low` < `high` are temperatures a relative
    distance of 1e-8 apart between which the derivative changes sign, and `temperature` is between
    them. `at_bound` is True if the best T in [1e-3, 1e3] is one of the two limits: the lower if
    every example is classified correctly (T = 0 would be best), the upper if the labels' logits are
    on average not above the means of their rows (T infinite would be best). T is 1 if all rows are
    constant, since then every T is equally good.
    """

    def fit(logits, label):
        label, classes = checked(logits, label)

        def sums(function, *arguments):
            return total(function, arguments, logits, label, classes)

        with float64():
            low, high = _search(sums)
        return {
            "temperature": math.sqrt(low * high),
            "low": low,
            "high": high,
            "at_bound": low == high and low in (LOWEST, HIGHEST),
        }

    def apply(params, logits):
        return log_probs(checked_rows(logits) / params["temperature"])

    return Calibrator(fit, apply)


def _below(logits, label):
    """Logits minus the largest of their row, f64[n, K], and those of the labels, f64[n].

    A constant row is exactly 0.
    """
    below = logits.astype(jnp.float64)
    below = below - below.max(axis=1, keepdims=True)
    return below, jnp.take_along_axis(below, label[:, None], axis=1)[:, 0]


@jax.jit
def _spread(logits, label, weight):
    """The range of each row's logits, summed over examples; exactly 0 if all rows are constant."""
    below, _ = _below(logits, label)
    return jnp.sum(weight * -below.min(axis=1))


@jax.jit
def _slopes(inverse, logits, label, weight):
    """First and second derivatives of the NLL by 1/T, summed over examples.

    They are E_p[z] - z_label and the variance of z under p, with z the logits.
    """
    below, own = _below(logits, label)
    share = jnp.exp(inverse * below)
    size = share.sum(axis=1)
    mean = (share * below).sum(axis=1) / size
    variance = (share * below * below).sum(axis=1) / size - mean * mean
    return jnp.sum(weight * (mean - own)), jnp.sum(weight * variance)


def _search(sums) -> tuple[float, float]:
    """Temperatures (low, high) around the best one.

    The same number twice if it is a limit of the search, or if every temperature is equally good.
    """

    def slopes(position):
        """Derivatives at log T = position; the first is positive if T is too low."""
        return sums(_slopes, np.exp(-position))

    slope, curvature = slopes(0.0)
    # Both are also 0 if probabilities round to 0 and 1, so look at the logits themselves.
    if slope == curvature == 0 and sums(_spread) == 0:
        return 1.0, 1.0
    bracket = _widened(slopes, 0.0, slope, curvature)
    if bracket[0] == bracket[1]:
        bound = LOWEST if bracket[0] < 0 else HIGHEST
        return bound, bound
    low, high = _narrowed(slopes, *bracket)
    return math.exp(low), math.exp(high)


def _widened(slopes, position, slope, curvature):
    """Bracket the minimum by steps in log T that double: (low, high, position, slope, curvature).

    Stops when the slope changes sign; low = high is a limit of the search if it does not. The last
    three results belong to the end that was computed last.
    """
    # A positive slope means that T is too low.
    step = math.copysign(math.log(2), slope) if slope else -math.log(2)
    while True:
        previous = position
        position = min(max(position + step, math.log(LOWEST)), math.log(HIGHEST))
        slope, curvature = slopes(position)
        if (slope > 0) != (step > 0):
            return min(previous, position), max(previous, position), position, slope, curvature
        if position in (math.log(LOWEST), math.log(HIGHEST)):
            return position, position, position, slope, curvature
        step *= 2


def _narrowed(slopes, low, high, position, slope, curvature):
    """(low, high) in log T, at most WIDTH apart, with the slope positive at low and not at high.

    Newton's method, with bisection as the fallback.
    """
    step = high - low
    while high - low > WIDTH:
        newton = slope / (math.exp(-position) * curvature) if curvature > 0 else math.inf
        # Go slightly too far, so that the root lies between the last two positions.
        newton += math.copysign(WIDTH / 4, newton)
        # Bisect if Newton's step leaves the bracket or does not halve the previous step.
        if not (low < position + newton < high and abs(newton) <= step / 2):
            newton = (low + high) / 2 - position
        step = abs(newton)
        position += newton
        slope, curvature = slopes(position)
        if slope > 0:
            low = position
        else:
            high = position
    return low, high
