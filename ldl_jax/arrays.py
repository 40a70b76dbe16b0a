"""Arrays given by callers: numpy, jax, torch (CPU) or pandas in; checked numpy out.

Logits and probabilities are told apart by the keyword that the caller uses, because confusing them
is the most common mistake. Every check raises ValueError with one sentence that names the argument,
what it must be, and what was given.

Letters in shapes: N examples, K classes.
"""

from numbers import Real

import numpy as np

from ldl_jax import distributions
from ldl_jax.errors import warn
from ldl_jax.metrics.base import SUM_TOLERANCE

CHANNELS = (1, 2, 3, 4)  # of images


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
    found = distributions.rows(lambda: [array])
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
    found = distributions.rows(lambda: [array])
    if found is not None:
        if found.exact:
            return array, None
        return distributions.normalised(array), f"{name} were normalised: {found.reason}"
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
    """Votes or distributions f64[N, K], by `distributions.checked`; a note is printed as a warning."""
    array = as_numpy(values, name)
    if array.shape != (count, classes):
        raise ValueError(
            f"{name} must have shape [{count}, {classes}], a row of votes or probabilities for "
            f"each example; got {_described(array)}"
        )
    table, note = distributions.checked(array, name)
    # Votes are what is expected here, so only the rest is worth a line.
    if note and distributions.VOTES not in note:
        warn(note)
    return table


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
