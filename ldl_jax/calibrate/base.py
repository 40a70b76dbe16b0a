"""Calibrators: corrections of a trained network's probabilities, fitted on labelled examples.

Fit a calibrator on a validation split, never on the examples whose figures are reported: measured
where it was fitted, any calibrator looks better than it is, most of all one with many parameters.

Letters in shapes: N examples, K classes. Logits may be an array [N, K], memory-mapped or not, or a
list of such arrays (or any iterable that can be read repeatedly), in the order of the labels; they
are read in chunks.
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
from ldl_jax.config.options import called
from ldl_jax.files import reading

FORMAT = "ldl_jax.calibrate"
VERSION = 1
ELEMENTS = 2**19  # numbers in a chunk, 4 MB in float64: fits a processor's cache
LARGEST = float(np.finfo(np.float32).max)  # largest magnitude of a logit; its square is finite
FLOOR = 1e-7  # smallest calibrated probability before rows are normalised; avoids log(0)


class Calibrator(NamedTuple):
    """Functions that fit and apply parameters; both raise ValueError for invalid inputs."""

    fit: Callable  # (logits f[N, K], label i[N]) -> params, a flat dict of numbers and numpy arrays
    # (params, logits f[N, K]) -> log-probabilities f64[N, K]; rows are independent.
    apply: Callable


def fitted_params(name: str, method: Calibrator, logits, label) -> dict:
    """The parameters that a calibrator fits. Raises ValueError if those of a calibrator of the user's
    own are no dict of numbers and numpy arrays, which could not be stored.
    """
    if "." not in name:
        return method.fit(logits, label)
    params = called(f"{name}: fit()", method.fit, logits, label)
    values = params.values() if isinstance(params, dict) else [None]
    if not all(isinstance(value, bool | int | float | np.ndarray) for value in values):
        raise ValueError(f"{name}: fit() must return a dict of numbers and numpy arrays")
    return params


def _parts(logits) -> Iterator[np.ndarray]:
    """The arrays [n, K] that the logits consist of, each checked for its type and rank."""
    # Fitting reads the logits many times, so an iterator would be empty the second time.
    if isinstance(logits, Iterator):
        raise ValueError(
            "logits must be an array or a list of arrays, got an iterator, which can be read once"
        )
    whole = hasattr(logits, "ndim") or not hasattr(logits, "__iter__")
    for number, part in enumerate([logits] if whole else logits):
        name = "logits" if whole else f"logits[{number}]"
        dtype = getattr(part, "dtype", np.dtype(object))
        if dtype.kind not in "fiu" and dtype.name != "bfloat16":
            raise ValueError(f"{name} must be an array of real numbers, got {dtype.name}")
        if part.ndim != 2 or part.shape[1] < 2:
            raise ValueError(
                f"{name} must have shape [N, K] with at least 2 classes, got {part.shape}"
            )
        yield part


def chunks(logits, rows: int) -> Iterator[np.ndarray]:
    """Chunks of at most `rows` rows as float32 or float64 arrays; none spans two of the parts."""
    for part in _parts(logits):
        for first in range(0, len(part), rows):
            values = np.asarray(part[first : first + rows])
            yield values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)


def _check_values(values: np.ndarray, classes: int | None) -> None:
    if classes is not None and values.shape[1] != classes:
        raise ValueError(f"logits must have {classes} classes, got {values.shape[1]} classes")
    # Comparisons with NaN are False, so a NaN is refused too.
    if not (np.abs(values) <= LARGEST).all():
        raise ValueError(f"logits must be finite, got NaN or numbers beyond {LARGEST:.2g}")


def checked(logits, label) -> tuple[np.ndarray, int]:
    """The labels as i32[N] and the number of classes. Raises ValueError if they do not match."""
    label = np.asarray(label)
    if label.ndim != 1 or label.dtype.kind not in "iu" or not len(label):
        raise ValueError(
            "label must hold whole numbers of shape [N] with N at least 1, "
            f"got {label.dtype.name}{list(label.shape)}"
        )
    classes = None
    count = 0
    for values in chunks(logits, 4096):
        _check_values(values, classes)
        classes = values.shape[1]
        count += len(values)
    if count != len(label):
        raise ValueError(
            f"logits and label must have the same length, got {count} and {len(label)}"
        )
    if label.min() < 0 or label.max() >= classes:
        raise ValueError(
            f"label must be between 0 and {classes - 1}, got {label.min()} to {label.max()}"
        )
    return label.astype(np.int32), classes


def checked_rows(logits, classes: int | None = None) -> np.ndarray:
    """Logits as one array f64[N, K]. Raises ValueError unless they are finite, with K classes."""
    parts = [part.astype(np.float64) for part in _parts(logits)]
    values = np.concatenate(parts or [np.zeros((0, classes or 2))])
    _check_values(values, classes)
    return values


def log_probs(logits: np.ndarray) -> np.ndarray:
    """log softmax in float64: f64[N, K]."""
    return log_softmax(logits, axis=1)


def floored(values: np.ndarray) -> np.ndarray:
    """Log-probabilities of one-vs-rest values f64[N, K], raised to FLOOR and then normalised."""
    values = np.maximum(values, FLOOR)
    return np.log(values / values.sum(axis=1, keepdims=True))


def same(logits):
    """The logits themselves, for calibrators that use no other features."""
    return logits


@contextmanager
def float64():
    """Compute in float64 whatever the settings: on the GPU if that is JAX's default, else the CPU."""
    # TPUs have no float64.
    backend = None if jax.default_backend() == "gpu" else "cpu"
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend=backend)[0]):
        yield


def total(function: Callable, arguments: tuple, logits, label: np.ndarray, classes: int):
    """Sums over all examples of the pytrees that a jitted function returns for chunks.

    Calls function(*arguments, logits f[n, K], label i32[n], weight f64[n]). All chunks have the
    same shape: the last is padded with rows of weight 0.
    """
    rows = min(len(label), max(1, ELEMENTS // classes))
    sums = None
    pending = None
    first = 0
    for values in chunks(logits, rows):
        count = len(values)
        missing = rows - count
        own = np.pad(label[first : first + count], (0, missing))
        weight = np.pad(np.ones(count), (0, missing))
        if missing:
            values = np.pad(values, ((0, missing), (0, 0)))
        terms = function(*arguments, values, own, weight)
        # Wait for the previous chunk only now, so that this one is being computed meanwhile.
        sums = _added(sums, pending)
        pending = terms
        first += count
    return _added(sums, pending)


def _added(sums, terms):
    """Two pytrees added up as numpy arrays; None counts as 0."""
    if terms is None:
        return sums
    if sums is None:
        return jax.tree.map(np.asarray, terms)
    return jax.tree.map(lambda total, term: total + np.asarray(term), sums, terms)


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
    """Second derivatives of the mean NLL by each weight f64[K, K] and bias f64[K] of a linear map.

    At the identity; features: of the logits.
    """
    with float64():
        weight, bias = total(partial(_spread, features=features), (), logits, label, classes)
    return weight / len(label), bias / len(label)


def minimise(
    scores, penalty, start: dict, curved: dict, strengths: tuple, logits, label, max_steps: int
) -> dict:
    """Minimise the mean NLL of softmax(scores(params, logits)) plus penalty(params, *strengths).

    L-BFGS in float64 from `start`, where the penalty is 0, so the NLL never ends above that of the
    start. curved: approximate second derivatives by each parameter, which scale the parameters;
    without them a strong penalty ends the search early. Returns the parameters and `converged`:
    whether all scaled gradients are at most 1e-6. label is as returned by `checked`; scores and
    penalty must be module-level functions, so that they are compiled once for each shape.
    """
    classes = len(start["bias"])
    curvatures = np.concatenate([value.ravel() for value in curved.values()])
    # The floor keeps parameters that hardly matter from getting huge units.
    unit = 1 / np.sqrt(np.maximum(curvatures, 1e-4 * curvatures.max() + 1e-12))
    ends = np.cumsum([value.size for value in start.values()])

    def params(flat):
        parts = np.split(flat * unit, ends[:-1])
        named = zip(start.items(), parts, strict=True)
        return {name: part.reshape(value.shape) for (name, value), part in named}

    def objective(flat):
        own = params(flat)
        nll, nll_slope = total(partial(_nll, scores=scores), (own,), logits, label, classes)
        penalty_value, penalty_slope = _penalised(own, strengths, penalty=penalty)
        slopes = []
        for name in start:
            slope = nll_slope[name] / len(label) + np.asarray(penalty_slope[name])
            slopes.append(np.ravel(slope))
        return float(nll) / len(label) + float(penalty_value), np.concatenate(slopes) * unit

    options = {"maxiter": max_steps, "maxfun": 2 * max_steps, "ftol": 0, "gtol": 1e-6}
    with float64():
        flat = np.concatenate([value.ravel() for value in start.values()]) / unit
        result = minimize(objective, flat, jac=True, method="L-BFGS-B", options=options)
    return {**params(result.x), "converged": bool(np.abs(result.jac).max() <= 1e-6)}


def fit_linear(
    scores, features, off_diagonal: float, intercept: float, logits, label, max_steps: int
) -> dict:
    """Fit weight f64[K, K] and bias f64[K] of linear(params, features(logits)), from the identity.

    scores(params, logits) is that map. With off-diagonal and intercept regularisation (ODIR, Kull
    et al. 2019, section 3): the NLL plus off_diagonal times the mean square of the off-diagonal
    weights, plus intercept times the mean square of the biases.
    """
    label, classes = checked(logits, label)
    weight, bias = curvature(features, logits, label, classes)
    # The penalty is quadratic: its second derivatives are known.
    between = 2 * off_diagonal / (classes * (classes - 1)) * (1 - np.eye(classes))
    curved = {"weight": weight + between, "bias": bias + 2 * intercept / classes}
    start = {"weight": np.eye(classes), "bias": np.zeros(classes)}
    strengths = (off_diagonal, intercept)
    return minimise(scores, _odir, start, curved, strengths, logits, label, max_steps)


def linear(params: dict, values):
    """weight @ row + bias for every row: [N, K] from [N, K]."""
    return values @ params["weight"].T + params["bias"]


def _odir(params: dict, off_diagonal, intercept):
    weight = params["weight"]
    bias = params["bias"]
    classes = len(bias)
    between = weight * (1 - np.eye(classes))
    between_penalty = off_diagonal * (between**2).sum() / (classes * (classes - 1))
    return between_penalty + intercept * (bias**2).mean()


def number(name: str, value, lowest: float) -> None:
    """Raise ValueError unless an option is a finite number of at least `lowest`, an int if that is."""
    whole = isinstance(lowest, int)
    fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not fits or not lowest <= value <= LARGEST:
        kind = "whole" if whole else "finite"
        raise ValueError(
            f"calibrate.{name} must be a {kind} number of at least {lowest}, got {value!r}"
        )


def save(path, name: str, options: dict, params: dict) -> Path:
    """Write a calibrator's name, options and fitted parameters as JSON, exact to the last bit."""
    written = {}
    for key, value in params.items():
        if isinstance(value, np.ndarray):
            values = value.ravel().tolist()
            value = {"dtype": value.dtype.name, "shape": list(value.shape), "values": values}
        written[key] = value
    content = {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        "options": dict(options),
        "params": written,
    }
    content["sha256"] = files.digest(content)
    return files.write(path, json.dumps(content, allow_nan=False) + "\n")


def load(path) -> tuple[str, dict, dict]:
    """The (name, options, params) that `save` wrote.

    Raises ValueError for files of another format or version, and for damaged files.
    """
    try:
        content = reading.read_block(path)
        reason = "" if content.get("format") == FORMAT else f"it has no format {FORMAT!r}"
    except ValueError as error:
        reason = getattr(error, "reason", "it is no block of fields")
    if reason:
        raise ValueError(
            f"{path} is not a complete calibrator file of ldl_jax ({reason}); fit the calibrator again"
        )
    if content.get("version") != VERSION:
        version = reading.shown(content.get("version"))
        raise ValueError(f"{path} is not readable: its version must be {VERSION}, got {version}")
    if content.pop("sha256", None) != files.digest(content):
        raise ValueError(
            f"{path} is damaged: its checksum does not match; fit the calibrator again"
        )
    # The checksum is no seal: whoever writes another calibrator computes another one.
    name = reading.item(path, "name", content.get("name"), str)
    options = reading.item(path, "options", content.get("options"), dict)
    params = reading.item(path, "params", content.get("params"), dict)
    for key, value in params.items():
        if isinstance(value, dict | list):
            params[key] = files.read_array(path, f"params.{key}", value)
    return name, options, params
