"""How far a figure may be off: the noise floor of the ECE, bootstrap intervals, differences, the spread over seeds.

Letters in shapes: N examples, R resamples. The bootstrap is the nonparametric one (Efron 1979): N examples drawn from
the N at hand with replacement, R times. A resample is held as how often each example is in it, so that every statistic
of sums over examples is a product with a matrix, and two networks are measured on the very same resamples. It is drawn
block by block of the examples: how many fall into each block is multinomial, and within a block all are as likely.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from ldl_jax.evaluation import binning as base

BINS = 15  # over (0, 1], (lo, hi]; a confidence of 0 counts in the first
RESAMPLES = 1000
LEVEL = 0.95  # of every interval here
ABSOLUTE = ("ece", "mce", "rmsce", "overconfidence", "underconfidence")  # figures that noise makes larger
_BLOCK = 2**14  # examples whose counts are drawn and multiplied at once, in the processor's cache
_ROWS = 128  # resamples of a block in memory at once, 16 MB
_DRAWN = 2**21  # numbers of a simulation on the device at once, 8 MB


class Spread(NamedTuple):
    """Values of several seeds."""

    mean: float
    std: float | None  # with n - 1 below the sum; None for one seed
    n: int
    interval: tuple[float, float] | None  # 95 %, of the mean over seeds; None for one seed


def place(confidence: np.ndarray, bins: int = BINS) -> np.ndarray:
    """The bin of each confidence f[N], i64[N]: equal width, (lo, hi], edges rounded to float32."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1].astype(np.float32), confidence)


def noise_floor(key, confidence, *, draws: int = 200, bins: int = BINS) -> tuple[float, float]:
    """The ECE expected of a perfectly calibrated model with these confidences f[N], and its 95 % quantile.

    By simulation on the device: each example is right with the probability that it claims, `draws` times. Memory is of
    N numbers, not of draws x N. An ECE below the quantile is no evidence of miscalibration.
    """
    confidence, _ = base.checked(confidence, np.zeros(np.shape(confidence), bool))
    found = _floors(key, jnp.asarray(confidence, jnp.float32), jnp.asarray(place(confidence, bins)), draws, bins)
    found = np.asarray(found, np.float64)
    return float(found.mean()), float(np.quantile(found, LEVEL))


@partial(jax.jit, static_argnames=("draws", "bins"))
def _floors(key, confidence, member, draws, bins):
    """ECE of each simulation, f32[draws]; all of them go through the examples together, a block at a time."""
    count = len(confidence)
    block = min(count, max(1, _DRAWN // draws))
    blocks = -(-count // block)
    padding = (0, blocks * block - count)  # of confidence 0, which is never right and adds no gap
    parts = [jnp.pad(x, padding).reshape(blocks, block) for x in (confidence, member)]

    def step(gaps, part):
        key, confidence, member = part
        right = jax.random.uniform(key, (draws, block), confidence.dtype) < confidence
        # Gaps are summed, not counts and confidences apart, which float32 could not hold to a thousandth of N = 1e6.
        gap = jnp.where(right, 1 - confidence, -confidence)
        inside = jax.nn.one_hot(member, bins, dtype=gap.dtype)
        return gaps + jnp.matmul(gap, inside, precision="highest"), None

    start = jnp.zeros((draws, bins), confidence.dtype)
    gaps, _ = jax.lax.scan(step, start, (jax.random.split(key, blocks), *parts))
    return jnp.abs(gaps).sum(-1) / count


def _columns(side, part: slice) -> np.ndarray:
    """Some examples' f64[n, M + 2 BINS]: M columns of means, then for each bin if one is in it, and its gap there."""
    confidence, correct, means = side
    bins, first = place(confidence[part]), len(means)
    every = np.arange(len(bins))
    columns = np.zeros((len(bins), first + 2 * BINS))
    for number, values in enumerate(means.values()):
        columns[:, number] = values[part]
    columns[every, first + bins] = 1
    columns[every, first + BINS + bins] = confidence[part] - correct[part]
    return columns


def _blocks(count: int) -> list[slice]:
    return [slice(begin, min(begin + _BLOCK, count)) for begin in range(0, count, _BLOCK)]


def _value(side) -> dict[str, np.ndarray]:
    """The figures of all examples, once each."""
    return _figures(sum(_columns(side, part).sum(0) for part in _blocks(len(side[0]))), list(side[2]))


def _resampled(seed: int, sides: list, resamples: int) -> list[dict[str, np.ndarray]]:
    """Each side's figures on the same resamples, f64[R] each."""
    draw, count = np.random.default_rng(seed), len(sides[0][0])
    parts = _blocks(count)
    shares = draw.multinomial(count, [(part.stop - part.start) / count for part in parts], resamples)  # i64[R, blocks]
    sums = [np.zeros((resamples, len(side[2]) + 2 * BINS)) for side in sides]
    for part, share in zip(parts, shares.T, strict=True):
        columns = [_columns(side, part) for side in sides]
        for first in range(0, resamples, _ROWS):
            rows = slice(first, first + _ROWS)
            counts = _counts(draw, part.stop - part.start, share[rows])
            for total, own in zip(sums, columns, strict=True):
                total[rows] += counts @ own
    return [_figures(total, list(side[2])) for total, side in zip(sums, sides, strict=True)]


def _counts(draw, size: int, shares) -> np.ndarray:
    """How often each of `size` examples is among as many drawn as each of `shares` says, f64[shares, size]."""
    counts = np.empty((len(shares), size))
    for row, share in zip(counts, shares, strict=True):
        if size == _BLOCK:  # a power of 2: the lowest bits of random ones are a place, four of them in 64
            places = draw.bit_generator.random_raw(-(-share // 4)).view(np.uint16)[:share] & (_BLOCK - 1)
        else:
            places = draw.integers(0, size, share)
        row[:] = np.bincount(places, minlength=size)
    return counts


def _figures(sums: np.ndarray, names) -> dict[str, np.ndarray]:
    """Figures of sums of `_columns` f64[..., M + 2 BINS]: the means by their names, and those of the bins."""
    count, gap = sums[..., len(names) : -BINS], sums[..., -BINS:]
    total = count.sum(-1)
    found = {name: sums[..., place] / total for place, name in enumerate(names)}
    share = gap / np.maximum(count, 1)
    return found | {
        "ece": np.abs(gap).sum(-1) / total,
        "overconfidence": np.maximum(gap, 0).sum(-1) / total,
        "underconfidence": np.maximum(-gap, 0).sum(-1) / total,
        "signed_ece": gap.sum(-1) / total,
        "mce": np.abs(share).max(-1),
        "rmsce": np.sqrt((count * share**2).sum(-1) / total),
    }


def figures(confidence, correct, means: dict[str, np.ndarray] | None = None) -> dict[str, float]:
    """The figures of one network that `bootstrap` has intervals for, on all its examples."""
    return {name: float(value) for name, value in _value(_side(confidence, correct, means)).items()}


def _side(confidence, correct, means=None) -> tuple:
    """A network's columns, checked: (confidence f64[N], correct bool[N], means {name: [N]})."""
    confidence, correct = base.checked(confidence, correct)
    confidence = confidence.astype(np.float64)
    means = {name: np.asarray(values) for name, values in (means or {}).items()}
    for name, values in means.items():
        if values.shape != confidence.shape or not np.isfinite(values).all():
            found = list(values.shape) if values.shape != confidence.shape else "not all finite"
            raise ValueError(f"{name} is {found}; allowed are {len(confidence):,} finite numbers")
    return confidence, correct, means


def bootstrap(
    seed: int, confidence, correct, means: dict[str, np.ndarray] | None = None, *,
    chance: float = 0.0, resamples: int = RESAMPLES,
) -> dict[str, tuple[float, float]]:  # fmt: skip
    """95 % intervals of figures of one network, (low, high) by name; deterministic in `seed`.

    means: columns f[N] whose means are figures (accuracy, NLL, Brier). Of the bins of the confidence: ece,
    overconfidence, underconfidence, signed_ece (mean confidence less accuracy), mce, rmsce. Means and signed_ece have
    percentile intervals (a share of 0 or 1, of a column of bool, Wilson's). The others add up absolute gaps, which
    noise makes larger, in a resample by about as much again as in the sample: percentiles lie too high (in 150
    simulated test sets near calibration they never held the true ECE). Theirs is the basic interval, 2 x value less
    the percentiles (Davison and Hinkley 1997, section 5.2), cut off at 0 and reaching up to the value at least; it aims
    at the figure that endless data would give, which is mostly below the value. An ECE of at most `chance`, the 95 %
    quantile of `noise_floor`, has one from 0. So made it held the true ECE in 83 to 95 % of 200 simulated test sets
    each, of 1,000 and 10,000 examples with true ECEs from 0 to 0.06.
    """
    side = _side(confidence, correct, means)
    value, (drawn,) = _value(side), _resampled(seed, [side], resamples)
    found = {name: _above_zero(value[name], x) if name in ABSOLUTE else _ends(x) for name, x in drawn.items()}
    found |= {name: _wilson(x) for name, x in side[2].items() if x.dtype == bool and x.all() == x.any()}
    if value["ece"] <= chance:
        found["ece"] = (0.0, found["ece"][1])
    return found


def _ends(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _basic(value, drawn) -> tuple[float, float]:
    low, high = _ends(drawn)
    return 2 * float(value) - high, 2 * float(value) - low


def _above_zero(value, drawn) -> tuple[float, float]:
    low, high = _basic(value, drawn)
    return max(0.0, low), max(float(value), high)


def _wilson(same: np.ndarray) -> tuple[float, float]:
    """Wilson's interval of a share that is 0 or 1, of which every resample has the same."""
    found = stats.binomtest(int(same.sum()), len(same)).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


class Difference(NamedTuple):
    """One network's figure less another's, on the same examples."""

    value: float
    interval: tuple[float, float]  # 95 %, over examples
    p: float  # two-sided, from 2 / (R + 1) up: the level at which the interval would end at 0


def paired(seed: int, pairs: list, *, resamples: int = RESAMPLES) -> dict[str, Difference]:
    """Differences of two networks on the same examples, by figure: as `bootstrap`, without means that are not in both.

    pairs: ((confidence, correct, means), (confidence, correct, means)) for one pair of networks, or for several (seeds)
    whose differences are averaged. Every network is measured on the same resamples. Intervals are percentile ones for
    means and signed_ece, and basic ones for what adds up absolute gaps, as in `bootstrap`. Noise adds most to the
    smaller of two ECEs, and an interval makes up for a part of it alone: between a network overconfident by 0.01 to
    0.05 and a calibrated one (60 simulated test sets each, of 1,000 to 10,000) the basic interval held the true
    difference in 48 to 83 %, percentiles in none of the larger ones; between two calibrated or two overconfident
    networks the basic interval held it in 89 to 95 %. Differences in signed_ece, NLL and Brier score have no such
    bias. Raises ValueError where the networks have not as many examples.
    """
    sizes = {len(side[0]) for pair in pairs for side in pair}
    if len(sizes) != 1:
        raise ValueError(f"networks of {sorted(sizes)} examples were given; allowed for pairs are the same examples")
    names = [name for name in pairs[0][0][2] if all(name in side[2] for pair in pairs for side in pair)]
    sides = [_side(*side[:2], {name: side[2][name] for name in names}) for pair in pairs for side in pair]
    value = _less([_value(side) for side in sides])
    drawn = _less(_resampled(seed, sides, resamples))
    return {name: _difference(value[name], x, name in ABSOLUTE) for name, x in drawn.items()}


def _less(figures: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Every first one's figures less the second one's, averaged."""
    return {
        name: np.mean([one[name] - other[name] for one, other in zip(figures[::2], figures[1::2], strict=True)], axis=0)
        for name in figures[0]
    }


def _difference(value, drawn, absolute: bool) -> Difference:
    """The basic interval holds 0 where the percentiles hold twice the value."""
    null = 2 * value if absolute else 0.0
    smaller = min((drawn <= null).sum(), (drawn >= null).sum())
    p = min(1.0, 2 * (smaller + 1) / (len(drawn) + 1))
    return Difference(float(value), _basic(value, drawn) if absolute else _ends(drawn), float(p))


def over_seeds(values) -> Spread:
    """Mean, standard deviation and 95 % interval of the mean (Student's t) of values f[n], one a seed."""
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"values over seeds are {values.tolist()}; allowed are finite numbers [n], n from 1")
    mean, n = float(values.mean()), len(values)
    if n == 1:
        return Spread(mean, None, 1, None)
    std = float(values.std(ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * std / np.sqrt(n)
    return Spread(mean, std, n, (mean - half, mean + half))


def unpaired(one, other) -> tuple[float, float] | None:
    """95 % interval of the difference of two means f[n], f[m], by Welch's t; None where one has a single value."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if min(len(one), len(other)) < 2:
        return None
    if one.std() == other.std() == 0:
        return (float(one.mean() - other.mean()),) * 2
    found = stats.ttest_ind(one, other, equal_var=False).confidence_interval(LEVEL)
    return float(found.low), float(found.high)
