"""The likelihood of a temperature: its maximum, its interval, and what a safe fit makes of both."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ldl_jax.calibrate.base import checked, float64, total

LOWEST = 1e-3  # smallest temperature of the search
HIGHEST = 1e3  # largest temperature of the search
WIDTH = 1e-8  # width of the last bracket, in log T
RISE = 1.920729  # half the 95 % quantile of the chi-squared distribution with 1 degree of freedom
# What a safe fit asks for; docs/calibration.md has the measurements behind it.
RATIO_ABOVE = 4.0  # likelihood ratio that a T above 1 must exceed
RATIO_BELOW = 5.0  # likelihood ratio that a T below 1 must exceed
PRIOR_ABOVE = 5.0  # strength of the prior if the best T is above 1
PRIOR_BELOW = 40.0  # strength of the prior if the best T is below 1
STEPS = 100  # maximal number of steps to an end of the interval; about 6 are needed


class Terms(NamedTuple):
    """Sums over the examples at one temperature."""

    nll: float  # in nat
    slope: float  # derivative of the NLL by 1/T: E_p[z] - z_label, with z the logits
    curvature: float  # second derivative by 1/T: the variance of z under p


class Safe(NamedTuple):
    """The result of `safe`."""

    position: float  # log T
    best: float  # log T of maximum likelihood
    ratio: float  # twice the gain in log-likelihood of that T over T = 1, at least 0
    needed: float  # what it must exceed for T to differ from 1


class Likelihood:
    """The NLL of labels i[N] under softmax(logits f[N, K] / T), as a function of T.

    Raises ValueError if logits and labels do not match. It is convex in 1/T.
    """

    def __init__(self, logits, label):
        label, classes = checked(logits, label)
        self._inputs = (logits, label, classes)
        self._terms: dict[float, Terms] = {}
        spread, errors = self._total(_facts)
        self.constant = not float(spread)  # whether all rows are constant: T plays no role
        self.errors = int(errors)  # number of labels whose logit is not the largest

    def _total(self, function, *arguments):
        with float64():
            return total(function, arguments, *self._inputs)

    def at(self, position: float) -> Terms:
        """The sums at log T = position. Each pass over the logits is made once."""
        if position not in self._terms:
            sums = self._total(_sums, np.exp(-position))
            self._terms[position] = Terms(*map(float, sums))
        return self._terms[position]


def _below(logits, label):
    """Logits minus the largest of their row, f64[n, K], and those of the labels, f64[n].

    A constant row is exactly 0.
    """
    below = logits.astype(jnp.float64)
    below = below - below.max(axis=1, keepdims=True)
    return below, jnp.take_along_axis(below, label[:, None], axis=1)[:, 0]


@jax.jit
def _facts(logits, label, weight):
    """The range of each row's logits, and the number of errors, summed over examples."""
    below, own = _below(logits, label)
    return jnp.sum(weight * -below.min(axis=1)), jnp.sum(weight * (own < 0))


@jax.jit
def _sums(inverse, logits, label, weight):
    """`Terms` at 1/T = inverse."""
    below, own = _below(logits, label)
    share = jnp.exp(inverse * below)
    size = share.sum(axis=1)
    mean = (share * below).sum(axis=1) / size
    variance = (share * below * below).sum(axis=1) / size - mean * mean
    nll = jnp.log(size) - inverse * own
    return jnp.sum(weight * nll), jnp.sum(weight * (mean - own)), jnp.sum(weight * variance)


def search(likelihood: Likelihood, prior: float = 0.0) -> tuple[float, float]:
    """Positions (low, high) in log T, at most WIDTH apart, around the best temperature.

    It minimises the NLL plus prior * (1/T - 1 + log T), which is convex in 1/T and least at T = 1.
    The same position twice if it is a limit of the search, or if every temperature is equally good.
    """
    if likelihood.constant:
        return 0.0, 0.0

    def slopes(position):
        """Derivatives by 1/T at log T = position; the first is positive if T is too low."""
        terms = likelihood.at(position)
        slope = terms.slope + prior * (1 - math.exp(position))
        return slope, terms.curvature + prior * math.exp(2 * position)

    bracket = _widened(slopes)
    if bracket[0] == bracket[1]:
        return bracket[:2]
    return _narrowed(slopes, *bracket)


def _widened(slopes):
    """Bracket the minimum by steps in log T that double: (low, high, position, slope, curvature).

    Stops when the slope changes sign; low = high is a limit of the search if it does not. The last
    three results belong to the end that was computed last.
    """
    position = 0.0
    slope, curvature = slopes(position)
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


def interval(likelihood: Likelihood, best: float) -> tuple[float | None, float | None]:
    """The 95 % profile-likelihood interval of T, with the likelihood's maximum at log T = best.

    Its ends are where the NLL of all examples is RISE above its minimum, to a relative 1e-6. None:
    open, because the NLL does not rise that far within the limits of the search.
    """
    if likelihood.constant:
        return None, None
    level = likelihood.at(best).nll + RISE
    low = _crossing(likelihood, level, best, math.log(LOWEST))
    high = _crossing(likelihood, level, best, math.log(HIGHEST))
    return low, high


def _crossing(likelihood: Likelihood, level: float, best: float, limit: float) -> float | None:
    """The temperature between the positions best and limit at which the NLL reaches a level."""
    if likelihood.at(limit).nll <= level:
        return None
    inside, outside = best, limit
    terms = likelihood.at(best)
    information = math.exp(-2 * best) * terms.curvature
    # The first guess is where a parabola would reach the level.
    width = math.sqrt(2 * RISE / information) if information > 0 else math.inf
    position = best + math.copysign(width, limit - best)
    for _ in range(STEPS):
        if not min(inside, outside) < position < max(inside, outside):
            position = (inside + outside) / 2
        terms = likelihood.at(position)
        if terms.nll > level:
            outside = position
        else:
            inside = position
        # By log T, the derivative of the NLL is -slope / T.
        slope = -terms.slope * math.exp(-position)
        newton = (level - terms.nll) / slope if slope else math.inf
        if abs(newton) <= 1e-7 or abs(outside - inside) <= 1e-7:
            break
        position += newton
    return math.exp(position)


def facts(likelihood: Likelihood, best: float) -> dict:
    """What a fitted temperature rests on, for its parameters: the interval and the errors."""
    low, high = interval(likelihood, best)
    return {"interval_low": low, "interval_high": high, "errors": likelihood.errors}


def safe(
    likelihood: Likelihood,
    ratio_above: float = RATIO_ABOVE,
    ratio_below: float = RATIO_BELOW,
    prior_above: float = PRIOR_ABOVE,
    prior_below: float = PRIOR_BELOW,
) -> Safe:
    """A fit that leaves T = 1 in doubt.

    T differs from 1 only if the likelihood ratio exceeds ratio_above, or ratio_below if the best T
    is below 1. It is then where the NLL plus prior_above or prior_below (as in `search`) is least.
    """
    best = sum(search(likelihood)) / 2
    ratio = max(0.0, 2 * (likelihood.at(0.0).nll - likelihood.at(best).nll))
    needed, prior = (ratio_above, prior_above) if best > 0 else (ratio_below, prior_below)
    if ratio <= needed:
        return Safe(0.0, best, ratio, needed)
    return Safe(sum(search(likelihood, prior)) / 2, best, ratio, needed)
