"""A calibrator: probabilities mended after training, by a few parameters fitted on examples with
labels.

It is fitted on a validation split, never on the examples whose figures are reported: measured where
it was fitted, any calibrator looks better than it is, and those with many parameters most of all.

Letters in shapes: N examples, K classes. Logits may be an array [N, K], memory-mapped or not, or a
list of such arrays (or whatever can be read from its beginning more than once), in the order of the
labels: they are read in chunks.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from ldl_jax import files

FORMAT, VERSION = "ldl_jax.calibrate", 1
ELEMENTS = 2**19  # of a chunk, 4 MB in float64: what a processor's cache holds is read once
# of a logit's magnitude; its square is still a number in float64
LARGEST = float(np.finfo(np.float32).max)
FLOOR = 1e-7  # under a calibrated probability, before rows are made to sum to 1: no logarithm of 0


class Calibrator(NamedTuple):
    """A way to fit and to apply parameters; both raise ValueError for what is not logits or labels."""

    fit: Callable  # (logits f[N, K], label i[N]) -> params, a flat dict of numbers and numpy arrays
    # (params, logits f[N, K]) -> log-probabilities f64[N, K]; rows do not depend on one another
    apply: Callable


def _parts(logits) -> Iterator[np.ndarray]:
    """The arrays [n, K] that the logits consist of, each checked for its type and rank."""
    if isinstance(logits, Iterator):
        raise ValueError(
            "logits is an iterator, which is read once; allowed are arrays and lists of arrays"
        )
    whole = hasattr(logits, "ndim") or not hasattr(logits, "__iter__")
    for number, part in enumerate([logits] if whole else logits):
        name = "logits" if whole else f"logits[{number}]"
        kind = getattr(part, "dtype", np.dtype(object))
        if kind.kind not in "fiu" and kind.name != "bfloat16":
            raise ValueError(f"{name} is of type {kind.name}; allowed are arrays of real numbers")
        if part.ndim != 2 or part.shape[1] < 2:
            raise ValueError(
                f"{name} has the shape {part.shape}; allowed are [N, K] with at least 2 classes"
            )
        yield part


def _rows(logits, rows: int) -> Iterator[np.ndarray]:
    """At most `rows` rows at a time as numpy arrays, float32 or float64; a chunk lies within one of
    the parts.
    """
    for part in _parts(logits):
        for first in range(0, len(part), rows):
            values = np.asarray(part[first : first + rows])
            yield values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)


def _numbers(values: np.ndarray, classes: int | None) -> None:
    if classes is not None and values.shape[1] != classes:
        raise ValueError(f"logits has {values.shape[1]} classes; allowed are {classes} throughout")
    if not (np.abs(values) <= LARGEST).all():  # a NaN is not
        raise ValueError(
            f"logits holds a NaN, or numbers beyond {LARGEST:.2g}; allowed are finite numbers"
        )


def checked(logits, label) -> tuple[np.ndarray, int]:
    """The labels as i32[N] and the number of classes. Raises ValueError where logits and labels do
    not fit.
    """
    label = np.asarray(label)
    if label.ndim != 1 or label.dtype.kind not in "iu" or not len(label):
        raise ValueError(
            f"label is {label.dtype.name}{list(label.shape)}; allowed are whole numbers [N], N from 1"
        )
    classes, count = None, 0
    for values in _rows(logits, 4096):
        _numbers(values, classes)
        classes, count = values.shape[1], count + len(values)
    if count != len(label):
        raise ValueError(
            f"logits has {count} rows and label {len(label)}; allowed are as many of both"
        )
    if label.min() < 0 or label.max() >= classes:
        raise ValueError(
            f"label holds {label.min()} to {label.max()}; allowed are 0 to {classes - 1}"
        )
    return label.astype(np.int32), classes


def checked_rows(logits, classes: int | None = None) -> np.ndarray:
    """The logits of one array in float64, [N, K]. Raises ValueError for other than finite numbers
    of K classes.
    """
    values = np.concatenate(
        [part.astype(np.float64) for part in _parts(logits)] or [np.zeros((0, classes or 2))]
    )
    _numbers(values, classes)
    return values


def log_probs(logits: np.ndarray) -> np.ndarray:
    """log softmax in float64: f64[N, K]."""
    return log_softmax(logits, axis=1)


def floored(values: np.ndarray) -> np.ndarray:
    """Logarithms of one-vs-rest probabilities f64[N, K], each at least FLOOR, after rows were
    divided by their sums.
    """
    values = np.maximum(values, FLOOR)
    return np.log(values / values.sum(axis=1, keepdims=True))


def same(logits):
    """The logits as they are, where others take features of them."""
    return logits


@contextmanager
def float64():
    """Compute in float64 whatever the settings are: on a GPU where that is JAX's default, else on
    the CPU.
    """
    where = None if jax.default_backend() == "gpu" else "cpu"  # TPUs have no float64
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend=where)[0]):
        yield


def total(function: Callable, arguments: tuple, logits, label: np.ndarray, classes: int):
    """Sums over all examples of function(*arguments, logits f[n, K], label i32[n], weight f64[n])
    -> pytree of sums.

    The function is jitted; every chunk has the same shape, for which rows of weight 0 stand behind
    the last ones.
    """
    rows = min(len(label), max(1, ELEMENTS // classes))
    sums, ahead, first = None, None, 0
    for values in _rows(logits, rows):
        count = len(values)
        short = rows - count
        own = np.pad(label[first : first + count], (0, short))
        weight = np.pad(np.ones(count), (0, short))
        if short:
            values = np.pad(values, ((0, short), (0, 0)))
        terms = function(*arguments, values, own, weight)
        # one chunk is computed, one waited for
        sums, ahead, first = _added(sums, ahead), terms, first + count
    return _added(sums, ahead)


def _added(sums, terms):
    """Both as numpy arrays, added up; None is nothing yet."""
    if sums is None or terms is None:
        return sums if terms is None else jax.tree.map(np.asarray, terms)
    return jax.tree.map(lambda a, b: a + np.asarray(b), sums, terms)


@partial(jax.jit, static_argnames="scores")
def _nll(params, logits, label, weight, *, scores):
    """The NLL of softmax(scores(params, logits)), summed over examples, and its gradient."""

    def loss(params):
        log_p = jax.nn.log_softmax(scores(params, logits.astype(jnp.float64)), axis=1)
        return -jnp.sum(weight * jnp.take_along_axis(log_p, label[:, None], axis=1)[:, 0])

    return jax.value_and_grad(loss)(params)


@partial(jax.jit, static_argnames="penalty")
def _penalised(params, strengths, *, penalty):
    return jax.value_and_grad(penalty)(params, *strengths)


@partial(jax.jit, static_argnames="features")
def _spread(logits, label, weight, *, features):
    values = features(logits.astype(jnp.float64))
    probs = jax.nn.softmax(values, axis=1)
    doubt = weight[:, None] * probs * (1 - probs)
    return doubt.T @ values**2, doubt.sum(axis=0)


def curvature(
    features: Callable, logits, label: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Second derivatives of the mean NLL in every weight f64[K, K] and bias f64[K] of a linear map,
    at the identity.
    """
    with float64():
        weight, bias = total(partial(_spread, features=features), (), logits, label, classes)
    return weight / len(label), bias / len(label)


def minimise(
    scores, penalty, start: dict, curved: dict, strengths: tuple, logits, label, max_steps: int
) -> dict:
    """Parameters that minimise the mean NLL of softmax(scores(params, logits)) plus penalty(params,
    *strengths).

    By L-BFGS in float64, from `start`, arrays where the penalty is 0: so the NLL never ends above
    that of the start. `curved` are the second derivatives in each number, roughly: numbers are
    measured by them, without which a strong penalty ends the search early. `converged` is added:
    whether every slope, so measured, is at most 1e-6. label is as `checked` gives it; scores and
    penalty are functions of a module, compiled once for each shape.
    """
    classes = len(start["bias"])
    unit = np.concatenate([value.ravel() for value in curved.values()])
    unit = 1 / np.sqrt(np.maximum(unit, 1e-4 * unit.max() + 1e-12))

    def params(flat):
        parts = np.split(flat * unit, np.cumsum([value.size for value in start.values()])[:-1])
        return {
            name: part.reshape(value.shape)
            for (name, value), part in zip(start.items(), parts, strict=True)
        }

    def objective(flat):
        own = params(flat)
        loss, slope = total(partial(_nll, scores=scores), (own,), logits, label, classes)
        more, added = _penalised(own, strengths, penalty=penalty)
        slopes = [np.ravel(slope[name] / len(label) + np.asarray(added[name])) for name in start]
        return float(loss) / len(label) + float(more), np.concatenate(slopes) * unit

    options = {"maxiter": max_steps, "maxfun": 2 * max_steps, "ftol": 0, "gtol": 1e-6}
    with float64():
        flat = np.concatenate([value.ravel() for value in start.values()]) / unit
        result = minimize(objective, flat, jac=True, method="L-BFGS-B", options=options)
    return {**params(result.x), "converged": bool(np.abs(result.jac).max() <= 1e-6)}


def fit_linear(
    scores, features, off_diagonal: float, intercept: float, logits, label, max_steps: int
) -> dict:
    """weight f64[K, K] and bias f64[K] of scores(params, logits), linear(params, features(logits)),
    from the identity.

    With off-diagonal and intercept regularisation (ODIR, Kull et al. 2019, section 3): off_diagonal
    times the mean square of the weights between classes, plus intercept times that of the biases,
    are added to the NLL.
    """
    label, classes = checked(logits, label)
    weight, bias = curvature(features, logits, label, classes)
    between = 2 * off_diagonal / (classes * (classes - 1)) * (1 - np.eye(classes))
    curved = {"weight": weight + between, "bias": bias + 2 * intercept / classes}
    start = {"weight": np.eye(classes), "bias": np.zeros(classes)}
    return minimise(
        scores, _odir, start, curved, (off_diagonal, intercept), logits, label, max_steps
    )


def linear(params: dict, values):
    """weight @ row + bias for every row: [N, K] from [N, K]."""
    return values @ params["weight"].T + params["bias"]


def _odir(params: dict, off_diagonal, intercept):
    weight, bias = params["weight"], params["bias"]
    between = weight * (1 - np.eye(len(bias)))
    return (
        off_diagonal * (between**2).sum() / (len(bias) * (len(bias) - 1))
        + intercept * (bias**2).mean()
    )


def number(name: str, value, lowest: float) -> None:
    """Raise ValueError where an option is not a finite number from `lowest`, and whole where that
    is an int.
    """
    whole = isinstance(lowest, int)
    fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not fits or not lowest <= value <= LARGEST:
        raise ValueError(
            f"calibrate.{name} is {value!r}; allowed are {'whole ' * whole}numbers from {lowest}"
        )


def save(path, name: str, options: dict, params: dict) -> Path:
    """Write a calibrator's name, its options and its fitted parameters as JSON; numbers are kept to
    the last bit.
    """
    written = {
        key: {
            "dtype": value.dtype.name,
            "shape": list(value.shape),
            "values": value.ravel().tolist(),
        }
        if isinstance(value, np.ndarray)
        else value
        for key, value in params.items()
    }
    content = {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        "options": dict(options),
        "params": written,
    }
    return files.write(
        path, json.dumps({**content, "sha256": files.digest(content)}, allow_nan=False) + "\n"
    )


def load(path) -> tuple[str, dict, dict]:
    """The (name, options, params) that `save` wrote.

    Raises ValueError for a file of another kind or version, and for one that was changed since it
    was written.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(
            f"{path} is no calibrator's file; allowed are those that ldl_jax wrote whole"
        )
    if content.get("version") != VERSION:
        raise ValueError(f"{path} is of version {content.get('version')!r}; allowed is {VERSION}")
    if content.pop("sha256", None) != files.digest(content):
        raise ValueError(
            f"{path} is damaged: its content is not what was written; fit the calibrator again"
        )
    params = {
        key: np.array(value["values"], value["dtype"]).reshape(value["shape"])
        if isinstance(value, dict)
        else value
        for key, value in content["params"].items()
    }
    return content["name"], content["options"], params
