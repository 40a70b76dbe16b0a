"""Distances to true distributions (human votes): the measures of label distribution learning.

The six measures of Geng 2016, 'Label distribution learning', table 1, the Jensen-Shannon
divergence, and correlations of the entropies. For an example with true distribution d and
prediction p over K classes; 0 / 0 counts as 0. A class without votes but with any probability adds
1 to Canberra and to the square of Clark, so both are near their maximum if votes are few and
classes many.
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
    """Distances to the true distributions; {} if these or the probabilities are not given."""
    if stored.table is None or stored.probs is None:
        return {}
    values = {}
    for name, value in measure(stored.probs, stored.table).items():
        # The metric `table` has the KL divergence: computed from logits it is exact, whereas
        # probabilities may have been rounded to 0 in float32.
        if name == "kl":
            continue
        values[f"table_{name}" if name in MEASURES else name] = value
    return values


def columns(probs, table) -> dict[str, np.ndarray]:
    """Each measure for each example, f64[B], of predictions f[B, K] and true distributions f[B, K].

    kl: sum d ln(d / p), in nat, over d > 0; p is raised to FLOOR (1.2e-38), so that kl is finite.
    js: (KL(d, m) + KL(p, m)) / 2 with m = (d + p) / 2, in nat, from 0 to ln 2.
    chebyshev: max |d - p|, from 0 to 1. clark: sqrt(sum (d - p)^2 / (d + p)^2), from 0 to sqrt K.
    canberra: sum |d - p| / (d + p), from 0 to K. cosine: d.p / (|d| |p|), from 0 to 1, higher is
    better. intersection: sum min(d, p), from 0 to 1, higher is better. entropy, table_entropy: of p
    and d, in nat; not distances, but the input of the correlations in `figures`.

    The results of several chunks of examples may be concatenated. Raises ValueError if rows are not
    distributions.
    """
    p = _checked("probs", probs)
    d = _checked("table", table)
    _check_shapes(p, d)
    gap = np.abs(d - p)
    total = d + p
    middle = total / 2
    share = np.divide(gap, total, out=np.zeros_like(gap), where=total > 0)
    return {
        "kl": _kl_divergence(d, np.maximum(p, FLOOR)),
        "js": np.maximum(_kl_divergence(d, middle) + _kl_divergence(p, middle), 0) / 2,
        "chebyshev": gap.max(1),
        "clark": np.sqrt((share**2).sum(1)),
        "canberra": share.sum(1),
        "cosine": (d * p).sum(1) / np.sqrt((d**2).sum(1) * (p**2).sum(1)),
        "intersection": np.minimum(d, p).sum(1),
        "entropy": _entropy(p),
        "table_entropy": _entropy(d),
    }


def figures(by_example: dict[str, np.ndarray]) -> dict[str, float]:
    """The mean of each of MEASURES over examples, and the correlations of the entropies.

    by_example: as `columns` returns it. entropy_pearson and entropy_spearman correlate the predictions'
    entropies with those of the true distributions, from -1 to 1; NaN for fewer than two examples,
    and if all entropies of one side are equal.
    """
    means = {name: float(by_example[name].mean()) for name in MEASURES}
    # Rounded, so that equal votes for different classes tie whatever the rounding of their sums.
    own = by_example["entropy"].round(9)
    true = by_example["table_entropy"].round(9)
    pearson = np.nan
    spearman = np.nan
    if min(np.ptp(own), np.ptp(true)) > 0:
        pearson = stats.pearsonr(own, true)[0]
        spearman = stats.spearmanr(own, true)[0]
    return {**means, "entropy_pearson": float(pearson), "entropy_spearman": float(spearman)}


def measure(probs, table) -> dict[str, float]:
    """`figures` of predictions f[N, K] and true distributions f[N, K].

    Works in chunks of ELEMENTS numbers. Raises ValueError for different shapes, and if rows are not
    distributions.
    """
    _check_shapes(probs, table)
    # Chunks, since float64 and the intermediate results take many times the memory of the input.
    rows = max(1, ELEMENTS // probs.shape[1])
    parts = []
    for begin in range(0, len(probs), rows):
        parts.append(columns(probs[begin : begin + rows], table[begin : begin + rows]))
    return figures({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def _check_shapes(probs, table) -> None:
    if np.ndim(probs) != 2 or np.shape(probs) != np.shape(table) or not len(probs):
        raise ValueError(
            "probs and table must both have shape [N, K], got "
            f"{list(np.shape(probs))} and {list(np.shape(table))}"
        )


def _kl_divergence(d, p) -> np.ndarray:
    """KL divergence f64[B] of rows, sum d ln(d / p); p must be positive wherever d is."""
    ratio = np.divide(d, p, out=np.ones_like(d), where=d > 0)
    return (d * np.log(ratio)).sum(1)


def _entropy(rows) -> np.ndarray:
    """Entropy f64[B] of rows, in nat; adding 0 turns -0 into 0."""
    return -(rows * np.log(np.where(rows > 0, rows, 1))).sum(1) + 0.0


def _checked(name: str, rows) -> np.ndarray:
    """Rows as f64[N, K]. Raises ValueError if they are not distributions."""
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2 or not rows.size or rows.shape[1] < 2:
        raise ValueError(
            f"{name} must hold distributions [N, K] over at least two classes, "
            f"got shape {list(rows.shape)}"
        )
    error = np.abs(rows.sum(1) - 1)
    # Comparisons with NaN are False, so a row with a NaN is not valid.
    valid = (rows >= 0).all(1) & (error <= SUM_TOLERANCE)
    if not valid.all():
        row = int(np.argmin(valid))
        raise ValueError(
            f"{name}: rows must be non-negative and sum to 1, but row {row} ranges from "
            f"{rows[row].min():g} to {rows[row].max():g} and sums to {rows[row].sum():g}"
        )
    return rows
