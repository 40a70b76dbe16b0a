"""Analyses of a label memory: rows of distributions f[n, K] of n examples with labels i[n].

A row of zeros is not written yet; others are divided by their sums, as training reads them.
"""

import itertools
import math

import numpy as np
from scipy.special import rel_entr, xlogy


def distributions(rows) -> np.ndarray:
    """Rows f[n, K] of a memory as distributions f64[n, K]; NaN where a row is not written."""
    rows = np.asarray(rows, np.float64)
    total = rows.sum(axis=1, keepdims=True)
    return np.divide(rows, total, out=np.full_like(rows, math.nan), where=total > 0)


def entropy(rows) -> np.ndarray:
    """Entropies f64[n] of distributions f[n, K], in nat."""
    rows = np.asarray(rows, np.float64)
    return -xlogy(rows, rows).sum(axis=1) + 0.0


def class_matrix(rows, label, classes: int) -> np.ndarray:
    """The mean distribution of the examples of each class, f64[K, K]: which classes the memory
    takes for which.

    Row k is the mean of the rows with label k, NaN without any. For a memory of correctly
    classified examples this is the table of Zhang et al. 2021, 'Delving Deep into Label Smoothing'.
    """
    rows = np.asarray(rows, np.float64)
    label = np.asarray(label)
    matrix = np.full((classes, classes), math.nan)
    for number in range(classes):
        own = rows[(label == number) & ~np.isnan(rows[:, 0])]
        if len(own):
            matrix[number] = own.mean(axis=0)
    return matrix


def moved(before, after) -> np.ndarray:
    """How far each row moved, f64[n] from 0 to 1: the total variation distance of two states
    f[n, K] of a memory, half the sum of absolute differences.
    """
    return np.abs(np.asarray(before, np.float64) - np.asarray(after, np.float64)).sum(axis=1) / 2


def path(states) -> np.ndarray:
    """How far each row moved on its way through S states f[S, n, K] of a memory, f64[n]: the sum of
    its moves from state to state, of which those from a state without it do not count.
    """
    moves = [moved(before, after) for before, after in itertools.pairwise(states)]
    return np.nansum([np.zeros(len(states[0])), *moves], axis=0)


def agreement(rows, label) -> dict[str, float]:
    """How rows f[n, K] agree with labels i[n], published or given by people: shares of 1.

    `top`: the share of rows whose largest entry is the label's. `probability`: the label's mean
    entry. Rows that are not written do not count; NaN if none is.
    """
    rows, label = _written(rows, label)
    if not len(rows):
        return {"top": math.nan, "probability": math.nan}
    own = rows[np.arange(len(rows)), label]
    return {
        "top": float((rows.argmax(axis=1) == label).mean()),
        "probability": float(own.mean()),
    }


def agreement_with_votes(rows, votes) -> dict[str, float]:
    """How rows f[n, K] agree with distributions f[n, K] of people's votes.

    `kl`: the mean of sum votes ln(votes / row), in nat, with entries of a row raised to 1e-7, since
    a memory in half precision has no smaller ones. `top`: the share of rows with the same largest
    entry. `entropies`: Pearson's correlation of the entropies, as Peterson et al. 2019 look at; NaN
    if one side has none.
    """
    rows, votes = _written(rows, np.asarray(votes, np.float64))
    if not len(rows):
        return dict.fromkeys(("kl", "top", "entropies"), math.nan)
    own = entropy(rows)
    theirs = entropy(votes)
    correlation = math.nan
    if len(rows) > 1 and min(np.ptp(own), np.ptp(theirs)) > 1e-9:
        correlation = float(np.corrcoef(own, theirs)[0, 1])
    return {
        "kl": float(rel_entr(votes, np.maximum(rows, 1e-7)).sum(axis=1).mean()),
        "top": float((rows.argmax(axis=1) == votes.argmax(axis=1)).mean()),
        "entropies": correlation,
    }


def _written(rows, other) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are written, and what belongs to them."""
    rows = np.asarray(rows, np.float64)
    is_written = ~np.isnan(rows).any(axis=1)
    return rows[is_written], np.asarray(other)[is_written]
