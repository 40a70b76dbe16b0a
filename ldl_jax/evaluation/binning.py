"""What the scores of sorted predictions share: checks, bins of equal mass, and every class's bins."""

from typing import NamedTuple

import numpy as np

BINS = 15
_BLOCK = 2**22  # numbers of a block of classes, 32 MB


class Bins(NamedTuple):
    """Sums over the examples of each bin, f64[..., bins]; empty ones are 0."""

    count: np.ndarray
    prob: np.ndarray  # of the probabilities
    hits: np.ndarray  # of the examples that are what the probability is of

    def gap(self) -> np.ndarray:
        """Mean probability less the share of hits, 0 in an empty bin."""
        return (self.prob - self.hits) / np.maximum(self.count, 1)


def checked(confidence, correct) -> tuple[np.ndarray, np.ndarray]:
    """Both as f[N] and bool[N]. Raises ValueError for other shapes, and for what is no probability."""
    confidence, correct = np.asarray(confidence), np.asarray(correct)
    if confidence.ndim != 1 or confidence.shape != correct.shape or not confidence.size:
        raise ValueError(
            f"confidence is {list(confidence.shape)} and correct {list(correct.shape)}; allowed are both [N], N from 1"
        )
    if not ((confidence >= 0) & (confidence <= 1)).all():  # a NaN is not
        raise ValueError("confidence holds a number outside 0 to 1; allowed are probabilities")
    return confidence, correct.astype(bool)


def edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Upper edges f64[at most bins - 1] of bins (lo, hi] that hold as equally many values f[N] as ties allow.

    Sorted values are split into parts whose sizes differ by at most one, the larger first; an edge lies midway between
    two parts, so that equal values are in one bin, whatever the order of the examples.
    """
    ordered = np.sort(values)
    first = np.cumsum([len(part) for part in np.array_split(ordered, min(bins, len(ordered)))])[:-1]
    return np.unique((ordered[first - 1].astype(np.float64) + ordered[first]) / 2)


def sums(place: np.ndarray, prob: np.ndarray, hits: np.ndarray, bins: int) -> Bins:
    """The sums of examples in bins `place` i64[N]."""
    return Bins(*(np.bincount(place, weights, bins).astype(np.float64) for weights in (None, prob, hits)))


def equal_mass(prob: np.ndarray, hits: np.ndarray, bins: int = BINS) -> Bins:
    """Sums over bins of equal mass, f64[bins]; where values are tied or few, the last bins stay empty."""
    return sums(np.searchsorted(edges(prob, bins), prob), prob, hits, bins)


def every_class(probs, label, *, bins: int = BINS, above: float = -1.0) -> Bins:
    """Sums over bins of equal mass of each class's probabilities, f64[K, bins], from probs f[N, K], label i[N].

    above: only probabilities above it count. Memory beside the input is that of a block of classes. Raises ValueError
    for other shapes, labels and probabilities.
    """
    probs, label = np.asarray(probs), np.asarray(label)
    if probs.ndim != 2 or label.shape != probs.shape[:1] or not probs.size:
        raise ValueError(f"probs is {list(probs.shape)} and label {list(label.shape)}; allowed are [N, K] and [N]")
    count, classes = probs.shape
    if label.min() < 0 or label.max() >= classes:
        raise ValueError(f"label holds {label.min()} to {label.max()}; allowed are 0 to {classes - 1}")
    found = Bins(*(np.zeros((classes, bins)) for _ in Bins._fields))
    step = max(1, _BLOCK // count)
    for first in range(0, classes, step):
        for number, column in enumerate(np.ascontiguousarray(probs[:, first : first + step].T), first):
            if not ((column >= 0) & (column <= 1)).all():
                raise ValueError(f"probs holds a number outside 0 to 1 for class {number}; allowed are probabilities")
            used = column > above
            hits = label == number
            if not used.all():
                column, hits = column[used], hits[used]
            if column.size:
                for whole, part in zip(found, equal_mass(column, hits, bins), strict=True):
                    whole[number] = part
    return found


def debiased(found: Bins) -> np.ndarray:
    """Squared L2 calibration error without the bias of small bins, f64[...]; it may be negative.

    Sum over bins of their share times (gap^2 - h (1 - h) / (n - 1)), h the share of hits among the n examples: the
    second term is an unbiased estimate of how much noise adds to the first (Kumar, Liang and Ma 2019, section 4.2).
    Bins of one example, which have no such estimate, are left out; NaN where no bin has two.
    """
    share = found.hits / np.maximum(found.count, 1)
    own = found.gap() ** 2 - share * (1 - share) / np.maximum(found.count - 1, 1)
    used = np.where(found.count > 1, found.count, 0)
    total = used.sum(-1)
    return np.where(total > 0, (used * own).sum(-1) / np.maximum(total, 1), np.nan)
