"""Distances of predictions from true distributions (human votes): the measures of label
distribution learning.

The six of Geng 2016, 'Label distribution learning', table 1, the Jensen-Shannon divergence, and how
far the entropies go together. For an example with true distribution d and prediction p over K
classes; 0 / 0 counts as 0. A class that has no votes and some probability, however little, adds 1
to Canberra and to the square of Clark, which are therefore near their largest values wherever votes
are few and classes many.
"""

import numpy as np
from scipy import stats

from ldl_jax.metrics.base import ELEMENTS, FLOOR, SUM_TOLERANCE, Shown, Stored

SHOWN = {
    "table_js": Shown("Jensen-Shannon", "nat", 4, "human votes", 2, "lower"),
    "table_chebyshev": Shown("Chebyshev", "", 4, "human votes", 3, "lower"),
    "table_clark": Shown("Clark", "", 4, "human votes", 4, "lower"),
    "table_canberra": Shown("Canberra", "", 4, "human votes", 5, "lower"),
    "table_cosine": Shown("cosine", "", 4, "human votes", 6, "higher"),
    "table_intersection": Shown("intersection", "", 4, "human votes", 7, "higher"),
    "entropy_pearson": Shown("entropies: Pearson", "", 4, "human votes", 8, "higher"),
    "entropy_spearman": Shown("entropies: Spearman", "", 4, "human votes", 9, "higher"),
}

MEASURES = ("kl", "js", "chebyshev", "clark", "canberra", "cosine", "intersection")


def of(stored: Stored) -> dict[str, float]:
    """Distances from the true distributions; nothing where these, or the probabilities, are not
    given.

    But for kl, which `table` has from logarithms: of the probabilities, which float32 may have made
    0, it is too small.
    """
    if stored.table is None or stored.probs is None:
        return {}
    means = measure(stored.probs, stored.table)
    correlations = {name: means.pop(name) for name in ("entropy_pearson", "entropy_spearman")}
    return {f"table_{name}": value for name, value in means.items() if name != "kl"} | correlations


def columns(probs, table) -> dict[str, np.ndarray]:
    """Each measure of each example, f64[B], of predictions f[B, K] and true distributions f[B, K].

    kl: sum d ln(d / p), in nat, where d > 0; p below FLOOR (1.2e-38) counts as FLOOR, so that it
    stays finite. js: (KL(d, m) + KL(p, m)) / 2 with m = (d + p) / 2, in nat, from 0 to ln 2.
    chebyshev: max |d - p|, from 0 to 1. clark: sqrt(sum (d - p)^2 / (d + p)^2), from 0 to sqrt K.
    canberra: sum |d - p| / (d + p), from 0 to K. cosine: d.p / (|d| |p|), from 0 to 1, more is
    better. intersection: sum min(d, p), from 0 to 1, more is better. entropy, table_entropy: those
    of p and d, in nat; these are no distances, `figures` correlates them.

    Rows of a chunk of examples may be joined with those of others. Raises ValueError where rows are
    no distributions.
    """
    p, d = _checked("probs", probs), _checked("table", table)
    if p.shape != d.shape:
        raise ValueError(
            f"probs is {list(p.shape)} and table {list(d.shape)}; allowed are both [N, K]"
        )
    off, both, middle = np.abs(d - p), d + p, (d + p) / 2
    share = np.divide(off, both, out=np.zeros_like(off), where=both > 0)
    return {
        "kl": _relative(d, np.maximum(p, FLOOR)),
        "js": np.maximum(_relative(d, middle) + _relative(p, middle), 0) / 2,
        "chebyshev": off.max(1),
        "clark": np.sqrt((share**2).sum(1)),
        "canberra": share.sum(1),
        "cosine": (d * p).sum(1) / np.sqrt((d**2).sum(1) * (p**2).sum(1)),
        "intersection": np.minimum(d, p).sum(1),
        "entropy": _entropy(p),
        "table_entropy": _entropy(d),
    }


def figures(found: dict[str, np.ndarray]) -> dict[str, float]:
    """The mean of each of MEASURES over the examples of `columns`, and entropy_pearson and
    entropy_spearman.

    These are the correlations of the predictions' entropies with the true ones, from -1 to 1; NaN
    where there is none: for fewer than two examples, and where all entropies of one side are the
    same.
    """
    means = {name: float(found[name].mean()) for name in MEASURES}
    own, true = found["entropy"], found["table_entropy"]
    # the same votes for other classes tie, however their sum was rounded
    own, true = own.round(9), true.round(9)
    pearson, spearman = np.nan, np.nan
    if min(np.ptp(own), np.ptp(true)) > 0:
        pearson, spearman = stats.pearsonr(own, true)[0], stats.spearmanr(own, true)[0]
    return {**means, "entropy_pearson": float(pearson), "entropy_spearman": float(spearman)}


def measure(probs, table) -> dict[str, float]:
    """`figures` of all predictions f[N, K] and true distributions f[N, K], in chunks of ELEMENTS
    numbers.
    """
    if np.ndim(probs) != 2 or np.shape(probs) != np.shape(table) or not len(probs):
        raise ValueError(
            f"probs is {list(np.shape(probs))} and table {list(np.shape(table))}; allowed are both [N, K]"
        )
    rows = max(1, ELEMENTS // probs.shape[1])
    parts = [
        columns(probs[begin : begin + rows], table[begin : begin + rows])
        for begin in range(0, len(probs), rows)
    ]
    return figures({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def _relative(one, other) -> np.ndarray:
    """KL divergence f64[B] of rows; `other` is above 0 wherever `one` is."""
    ratio = np.divide(one, other, out=np.ones_like(one), where=one > 0)
    return (one * np.log(ratio)).sum(1)


def _entropy(rows) -> np.ndarray:
    return -(rows * np.log(np.where(rows > 0, rows, 1))).sum(1) + 0.0  # no -0


def _checked(name: str, rows) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2 or not rows.size or rows.shape[1] < 2:
        raise ValueError(
            f"{name} is {list(rows.shape)}; allowed are distributions [N, K] over at least two classes"
        )
    off = np.abs(rows.sum(1) - 1)
    wrong = ~((rows >= 0).all(1) & (off <= SUM_TOLERANCE))  # a NaN is no less than 0
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{name}: row {row} is from {rows[row].min():g} to {rows[row].max():g} and sums to {rows[row].sum():g}; "
            "allowed are numbers from 0 that sum to 1"
        )
    return rows
