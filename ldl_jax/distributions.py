"""Tables of distributions that people bring: rows of probabilities, percentages or votes.

Probabilities that were rounded before they were written down do not sum to 1. There is one rule for
what is taken, `rows`.

Letters in shapes: N examples, K classes.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from ldl_jax.metrics.base import SUM_TOLERANCE

# To which people round probabilities before they write them down; percentages have two fewer.
DECIMALS = (2, 3, 4, 5)
TOTALS = (1.0, 100.0)  # sums of probabilities and of percentages
HALVES = {"float16": 2.0**-10, "bfloat16": 2.0**-7}  # relative rounding, of softmax and value
VOTES = "whole-number votes"
MOST_LOST = 0.5  # a row may be off 1 by at most this, however coarse the rounding
Parts = Callable[[], Iterable[np.ndarray]]  # returns a matrix f[N, K] in parts, from the beginning


class Sums(NamedTuple):
    """What is known of a matrix after a pass over it."""

    lowest: float
    highest: float
    row: int  # whose sum is farthest from 1
    total: float  # its sum
    errors: tuple[float, ...]  # largest distance of a sum from each of TOTALS


class Rows(NamedTuple):
    """How the rows of a matrix are distributions."""

    total: float  # one of TOTALS, to which they sum
    rounded: str  # how they were rounded, if that explains their sums; '' if they are exact

    @property
    def exact(self) -> bool:
        """Whether the rows sum to 1 within SUM_TOLERANCE as they are."""
        return self.total == 1 and not self.rounded

    @property
    def reason(self) -> str:
        """Why the rows are divided by their sums."""
        if self.total == 1:
            return self.rounded
        return (
            f"percentages {self.rounded}" if self.rounded else "percentages, since rows sum to 100"
        )


def sums(parts: Iterable[np.ndarray]) -> Sums:
    """The extremes of a matrix f[N, K] and of its rows' sums, which are not computed of logits."""
    lowest = np.inf
    highest = -np.inf
    row = 0
    farthest = 1.0
    errors = [0.0] * len(TOTALS)
    begin = 0
    for part in parts:
        lowest = min(lowest, float(part.min()))
        highest = max(highest, float(part.max()))
        # Logits need no sums, which take as long as the rest.
        if _in_range(lowest, highest, TOTALS[-1]):
            total = part.sum(1, dtype=np.float64)
            worst = int(np.argmax(abs(total - 1)))
            if abs(total[worst] - 1) > abs(farthest - 1):
                row = begin + worst
                farthest = float(total[worst])
            for number, goal in enumerate(TOTALS):
                errors[number] = max(errors[number], float(abs(total - goal).max()))
        begin += len(part)
    return Sums(lowest, highest, row, farthest, tuple(errors))


def rows(parts: Parts, known: Sums | None = None) -> Rows | None:
    """How the rows of a matrix f[N, K] are probabilities or percentages; None if they are neither.

    This is the one rule for all tables of distributions: rows must sum to 1 or 100 within
    SUM_TOLERANCE of that, or within what their rounding explains. known: the matrix's `sums`, if
    the caller has them.
    """
    known = known or sums(parts())
    for total, error in zip(TOTALS, known.errors, strict=True):
        if not _in_range(known.lowest, known.highest, total):
            continue
        # The last bit of a sum must not decide.
        exact = error <= SUM_TOLERANCE * total * (1 + 1e-4)
        rounded = "" if exact else explanation(parts, total)
        if rounded is not None:
            return Rows(total, rounded)
    return None


def normalised(part: np.ndarray) -> np.ndarray:
    """Rows f[N, K] divided by their sums, after cutting off what rounding left below 0."""
    wide = np.maximum(part.astype(np.promote_types(part.dtype, np.float32)), 0)
    return wide / wide.sum(1, keepdims=True)


def explanation(parts: Parts, total: float = 1.0) -> str | None:
    """How the rows of a matrix were rounded, if that explains sums other than `total`.

    parts: a function that returns the matrix f[N, K] in parts, from the beginning. Each of K
    numbers that were rounded to d decimals is off by half a unit of the last decimal; a number in
    half precision is off by a share of itself. None if no rounding explains the sums.
    """
    for name, share in HALVES.items():
        if all(_sums_fit(part, total, share * total, _is_half(part, name)) for part in parts()):
            return f"rounded to {name}"
    for decimals in DECIMALS:
        shown = decimals - 2 if total == TOTALS[-1] else decimals
        if all(_fits_decimals(part, total, shown) for part in parts()):
            return f"rounded to {shown} decimal{'s' * (shown != 1)}"
    return None


def _fits_decimals(part: np.ndarray, total: float, decimals: int) -> bool:
    room = min(part.shape[1] * 10.0**-decimals / 2, MOST_LOST * total) + SUM_TOLERANCE * total / 100
    return _sums_fit(part, total, room, _is_rounded(part, decimals, total))


def _in_range(lowest: float, highest: float, total: float) -> bool:
    """Whether all numbers can be parts of `total`, up to rounding below 0 or above it."""
    return lowest >= -SUM_TOLERANCE * total and highest <= (1 + SUM_TOLERANCE) * total


def _sums_fit(part: np.ndarray, total: float, room: float, rounded: bool) -> bool:
    return rounded and bool((abs(part.sum(1, dtype=np.float64) - total) <= room).all())


def _is_rounded(array: np.ndarray, decimals: int, total: float) -> bool:
    """Whether all numbers have at most so many decimals, up to the precision of their type."""
    precision = 4 * np.finfo(array.dtype).eps * total
    wide = np.asarray(array, np.float64)
    return bool((abs(wide - np.round(wide, decimals)) <= precision).all())


def _is_half(array: np.ndarray, name: str) -> bool:
    """Whether all numbers are representable in float16 or bfloat16."""
    single = np.asarray(array, np.float32)
    if name == "float16":
        return bool((single.astype(np.float16).astype(np.float32) == single).all())
    # bfloat16 is the upper half of a float32.
    return bool((single.view(np.uint32) & 0xFFFF == 0).all())


def checked(
    table: np.ndarray, name: str, positions: np.ndarray | None = None
) -> tuple[np.ndarray, str | None]:
    """Distributions f64[N, K], rows that sum to 1, and a note if they were not stored as such.

    table: whole-number votes with any sums, or probabilities or percentages, whose rows sum to 1 or
    100 as `rows` allows it. positions: numbers of the rows, for messages. Raises ValueError naming
    the table and a row that is none of these.
    """
    wide = table.astype(np.float64)
    sums = wide.sum(1)
    numbers = np.arange(len(table)) if positions is None else positions
    for fault, wrong in (
        ("has a negative or NaN entry", ~(wide >= 0).all(1)),
        ("has no entry above 0", ~(wide > 0).any(1)),
    ):
        if wrong.any():
            raise ValueError(
                f"{name}: row {numbers[int(np.argmax(wrong))]} {fault}; each row must be a "
                "distribution over the classes, or whole-number votes"
            )
    reason = _sums_of(table, wide, sums)
    if reason is None:
        total = 100 if 90 < np.median(sums) < 110 else 1
        # The last bit of a sum must not decide which row is the worst.
        row = int(np.argmax(np.round(abs(sums - total), 9)))
        raise ValueError(
            f"{name}: row {numbers[row]} does not sum to {total} within {SUM_TOLERANCE * total:g} "
            f"(its sum is {sums[row]:g}), which rounding does not explain; each row must be a "
            "distribution over the classes, or whole-number votes (divide rows of weights by their "
            "sums)"
        )
    note = f"{name}: rows were divided by their sums ({reason})" if reason else None
    return wide / sums[:, None], note


def smoothed(table: np.ndarray, name: str, pseudo_count: float) -> np.ndarray:
    """Distributions f32[N, K] of votes: (n + pseudo_count) / (sum n + K pseudo_count).

    The mean of a symmetric Dirichlet prior and the votes n; a row without votes is uniform. Raises
    ValueError naming the table and a row that has something else than whole-number votes.
    """
    wide = table.astype(np.float64)
    wrong = ~((wide >= 0) & (wide == np.round(wide)) & np.isfinite(wide)).all(1)
    if wrong.any():
        raise ValueError(
            f"{name}: row {int(np.argmax(wrong))} must have whole-number votes, since "
            f"config.data.table_pseudo_count is {pseudo_count:g}"
        )
    counts = wide + pseudo_count
    return (counts / counts.sum(1, keepdims=True)).astype(np.float32)


def _sums_of(table: np.ndarray, wide: np.ndarray, totals: np.ndarray) -> str | None:
    """Why rows need not sum to 1; '' if they do; None if nothing explains their sums."""
    if not np.isfinite(totals).all():
        return None
    if (wide % 1 == 0).all():
        return "" if (totals == 1).all() else VOTES
    found = rows(lambda: [table])
    if found is None:
        return None
    return "" if found.exact else found.reason
