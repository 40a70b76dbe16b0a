"""Arrays given by callers: numpy, jax, torch (CPU) or pandas in; checked numpy out.

Logits and probabilities are told apart by the keyword that the caller uses, because confusing them
is the most common mistake. Every check raises ValueError with one sentence that names the argument,
what it must be, and what was given.

Letters in shapes: N examples, K classes.
"""

from collections.abc import Callable, Iterable
from numbers import Real
from typing import NamedTuple

import numpy as np

from ldl_jax.errors import warn
from ldl_jax.metrics.base import SUM_TOLERANCE

# To which people round probabilities before they write them down; percentages have two fewer.
DECIMALS = (2, 3, 4, 5)
TOTALS = (1.0, 100.0)  # sums of probabilities and of percentages
HALVES = {"float16": 2.0**-10, "bfloat16": 2.0**-7}  # relative rounding, of softmax and value
VOTES = "whole-number votes"
CHANNELS = (1, 2, 3, 4)  # of images
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


def as_numpy(value, name: str) -> np.ndarray:
    """An array as numpy: torch tensors are detached, bfloat16 and long double become float32 and
    float64.

    Raises ValueError if `value` is on a device that numpy cannot read, or is no array of numbers.
    """
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach()
        if value.device.type != "cpu":
            raise ValueError(
                f"{name} must be on the CPU, got a tensor on {value.device}; pass {name}.cpu()"
            )
        # numpy has no bfloat16, and a float32 holds each of its values.
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    elif hasattr(value, "to_numpy"):
        value = value.to_numpy()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be an array of numbers; {error}") from None
    if array.dtype.name == "bfloat16":
        return array.astype(np.float32)
    if array.dtype == np.longdouble and np.longdouble != np.float64:
        return array.astype(np.float64)
    # Columns of pandas that may hold missing values become objects.
    if array.dtype == object and all(isinstance(item, Real) for item in array.flat):
        array = array.astype(np.float64)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be an array of numbers, got {_described(array)}")
    return array


def column_names(value) -> tuple[str, ...] | None:
    """The column names of a pandas DataFrame whose columns are named by text; None otherwise."""
    names = getattr(value, "columns", None)
    if names is None or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)


def checked_scores(values, name: str) -> np.ndarray:
    """Scores f[N, K], finite, of at least one example and two classes."""
    array = as_numpy(values, name)
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < 2:
        raise ValueError(
            f"{name} must have shape [N, K], a row for each example and a column for each of at "
            f"least two classes; got {_described(array)}"
        )
    if array.dtype.kind != "f":
        raise ValueError(
            f"{name} must be floating-point numbers, got {_described(array)}; class numbers are "
            "passed as labels"
        )
    bad = ~np.isfinite(array)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(f"{name} must be finite, got {array[row, column]} in row {row}")
    return array


def checked_logits(values, name: str = "logits") -> np.ndarray:
    """Logits f[N, K]. Raises ValueError also if they are probabilities."""
    array = checked_scores(values, name)
    found = rows(lambda: [array])
    if found is not None and found.total == 1:
        raise ValueError(
            f"{name} look like probabilities: all are in [0, 1] and each row sums to 1; pass them "
            f"as {name.replace('logits', 'probs')}"
        )
    if found is not None:
        raise ValueError(
            f"{name} look like percentages: each row sums to 100; pass {name} / 100 as "
            f"{name.replace('logits', 'probs')}"
        )
    return array


def checked_probs(values, name: str = "probs") -> tuple[np.ndarray, str | None]:
    """Probabilities f[N, K] whose rows sum to 1, and a note if they had to be normalised.

    Rows that sum to 1 within what their rounding explains (2 to 4 decimals, half precision) are
    normalised, as are percentages. Raises ValueError for other rows.
    """
    array = checked_scores(values, name)
    found = rows(lambda: [array])
    if found is not None:
        if found.exact:
            return array, None
        return normalised(array), f"{name} were normalised: {found.reason}"
    raise ValueError(_why_not(array, name))


def checked_images(values, name: str = "images") -> np.ndarray:
    """Images u8[N, H, W, C], of at least one image, channels last."""
    array = as_numpy(values, name)
    if array.ndim != 4 or not array.size:
        hint = f"; pass {name}[..., None] if they are grey" if array.ndim == 3 else ""
        raise ValueError(f"{name} must have shape [N, H, W, C], got {_described(array)}{hint}")
    if array.shape[1] in CHANNELS and array.shape[3] not in CHANNELS:
        raise ValueError(
            f"{name} must have shape [N, H, W, C], got {list(array.shape)}; they look "
            f"channels-first, pass {name}.transpose(0, 2, 3, 1)"
        )
    if array.dtype != np.uint8:
        lowest, highest = float(array.min()), float(array.max())
        hint = ""
        if lowest >= 0 and highest <= 1 and array.dtype.kind == "f":
            hint = f"; pass ({name} * 255).round().astype('uint8')"
        elif lowest >= 0 and 1 < highest <= 255:
            hint = f"; pass {name}.round().astype('uint8') if 255 is white"
        raise ValueError(
            f"{name} must be uint8 from 0 to 255, got {array.dtype.name} from {lowest:.4g} to "
            f"{highest:.4g}{hint}"
        )
    return array


def checked_labels(
    values, count: int, classes: int, name: str = "labels", *, of: str = "rows of scores"
) -> np.ndarray:
    """Class numbers i32[N], from 0 to K - 1. of: what there are `count` of, for messages."""
    array = as_numpy(values, name)
    if array.shape == (count, classes) and classes > 1:
        hint = f"; they look one-hot, pass {name}.argmax(1)" if _one_hot(array) else ""
        raise ValueError(f"{name} must have shape [{count}], got {_described(array)}{hint}")
    if array.shape == (count, 1):
        raise ValueError(
            f"{name} must have shape [{count}], got {_described(array)}; pass {name}[:, 0]"
        )
    if array.ndim != 1 or len(array) != count:
        hint = ""
        if array.shape == (classes,) and of != "images":
            hint = "; the scores look transposed, pass them with a row for each example"
        raise ValueError(
            f"{name} must have one class number for each of {count} {of}, got "
            f"{_described(array)}{hint}"
        )
    good = (array >= 0) & (array < classes) & (array % 1 == 0)
    if good.all():
        return array.astype(np.int32)
    if array.min() == 1 and array.max() == classes and (array % 1 == 0).all():
        raise ValueError(
            f"{name} must be from 0 to {classes - 1}, got 1 to {classes}: they count from 1; pass "
            f"{name} - 1"
        )
    row = int(np.argmin(good))
    raise ValueError(
        f"{name} must be whole numbers from 0 to {classes - 1} for {classes} classes, got "
        f"{array[row]:g} in row {row}"
    )


def checked_distributions(values, count: int, classes: int, name: str) -> np.ndarray:
    """Votes or distributions f64[N, K], by `distributions`; a note is printed as a warning."""
    array = as_numpy(values, name)
    if array.shape != (count, classes):
        raise ValueError(
            f"{name} must have shape [{count}, {classes}], a row of votes or probabilities for "
            f"each example; got {_described(array)}"
        )
    table, note = distributions(array, name)
    # Votes are what is expected here, so only the rest is worth a line.
    if note and VOTES not in note:
        warn(note)
    return table


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


def _why_not(array: np.ndarray, name: str) -> str:
    lowest, highest = float(array.min()), float(array.max())
    if lowest < -SUM_TOLERANCE or highest > 1 + SUM_TOLERANCE:
        return (
            f"{name} must be between 0 and 1, got {lowest:.4g} to {highest:.4g}; pass logits as "
            f"{name.replace('probs', 'logits')}"
        )
    sums = array.sum(1, dtype=np.float64)
    row = int(np.argmax(abs(sums - 1)))
    return (
        f"{name} must sum to 1 in each row, got {sums[row]:.6g} in row {row}, which rounding does "
        "not explain"
    )


def _one_hot(array: np.ndarray) -> bool:
    return bool(np.isin(array, (0, 1)).all() and (array.sum(1) == 1).all())


def _described(array: np.ndarray) -> str:
    return f"{array.dtype.name}{list(array.shape)}"


def distributions(
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
