"""Temperature scaling: one number that divides all logits."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from ldl_jax.calibrate.base import Calibrator, checked, checked_rows, float64, log_probs, total

LOWEST, HIGHEST = 1e-3, 1e3  # of a fitted temperature
WIDTH = 1e-8  # of the last bracket, in log T


def make() -> Calibrator:
    """Softmax of logits / T, where T minimises the NLL (Guo et al. 2017, section 4.2).

    The NLL is convex in 1/T, so T is certain: `low` < `high` are temperatures 1e-8 apart
    (relatively) between which the derivative changes its sign, and `temperature` lies between them.
    `at_bound` is True where the best T in [1e-3, 1e3] is one of the two ends, as it is where every
    example is classified rightly (T = 0 were best), or the labels' logits are no higher than their
    rows' means (T infinite were best). T is 1 where all rows are constant: any is as good.
    """

    def fit(logits, label):
        label, classes = checked(logits, label)
        with float64():
            low, high = _search(
                lambda function, *arguments: total(function, arguments, logits, label, classes)
            )
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
    """Logits less the largest of their row, and that of the label: f64[n, K], f64[n]; a constant
    row is exactly 0.
    """
    below = logits.astype(jnp.float64)
    below = below - below.max(axis=1, keepdims=True)
    return below, jnp.take_along_axis(below, label[:, None], axis=1)[:, 0]


@jax.jit
def _spread(logits, label, weight):
    """The range of every row's logits, summed over examples: exactly 0 where all rows are constant."""
    below, _ = _below(logits, label)
    return jnp.sum(weight * -below.min(axis=1))


@jax.jit
def _slopes(inverse, logits, label, weight):
    """First and second derivative of the NLL in 1/T: sums of E_p[z] - z_label, and of the variance
    of z under p.
    """
    below, own = _below(logits, label)
    share = jnp.exp(inverse * below)
    size = share.sum(axis=1)
    mean = (share * below).sum(axis=1) / size
    variance = (share * below * below).sum(axis=1) / size - mean * mean
    return jnp.sum(weight * (mean - own)), jnp.sum(weight * variance)


def _search(sums) -> tuple[float, float]:
    """Temperatures (low, high) around the best one; the same number twice where it is a bound, or
    any is best.
    """

    def slopes(position):  # in log T; the first is positive where T is too low
        return sums(_slopes, np.exp(-position))

    slope, curvature = slopes(0.0)
    # not so where probabilities are 0 and 1 by rounding
    if slope == curvature == 0 and sums(_spread) == 0:
        return 1.0, 1.0
    bracket = _widened(slopes, 0.0, slope, curvature)
    if bracket[0] == bracket[1]:
        bound = LOWEST if bracket[0] < 0 else HIGHEST
        return bound, bound
    low, high = _narrowed(slopes, *bracket)
    return math.exp(low), math.exp(high)


def _widened(slopes, position, slope, curvature):
    """(low, high, position, slope, curvature): steps in log T, doubled each time, until the slope
    changes its sign.

    low = high is a bound, where it does not. The last three are of the end that was looked at last.
    """
    step = math.copysign(math.log(2), slope) if slope else -math.log(2)
    while True:
        following = min(max(position + step, math.log(LOWEST)), math.log(HIGHEST))
        before, (slope, curvature) = position, slopes(following)
        position = following
        if (slope > 0) != (step > 0):
            return min(before, position), max(before, position), position, slope, curvature
        if position in (math.log(LOWEST), math.log(HIGHEST)):
            return position, position, position, slope, curvature
        step *= 2


def _narrowed(slopes, low, high, position, slope, curvature):
    """(low, high) in log T, at most WIDTH apart, with the slope positive at low and not at high.

    Newton's step, a little too far, so that the root comes to lie between the last two positions;
    the middle of the bracket where that leaves it or does not halve the step.
    """
    step = high - low
    while high - low > WIDTH:
        newton = slope / (math.exp(-position) * curvature) if curvature > 0 else math.inf
        newton += math.copysign(WIDTH / 4, newton)
        if not (low < position + newton < high and abs(newton) <= step / 2):
            newton = (low + high) / 2 - position
        step, position = abs(newton), position + newton
        slope, curvature = slopes(position)
        low, high = (position, high) if slope > 0 else (low, position)
    return low, high
