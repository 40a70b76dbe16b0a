"""Loading finished runs as networks: for predictions, and as frozen teachers of other runs."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from ldl_jax import files
from ldl_jax.calibrate import FittedCalibrator
from ldl_jax.calibrate import base as calibrators
from ldl_jax.config import trust as trusted
from ldl_jax.config.options import options_of
from ldl_jax.config.trust import ASK, Consent
from ldl_jax.contract import PyTree
from ldl_jax.errors import one_line
from ldl_jax.evaluation import class_names
from ldl_jax.evaluation.model import Model
from ldl_jax.models.spec import make_network, read_spec, spec_dtype
from ldl_jax.workdir import (
    BEST,
    CALIBRATION,
    CONFIG,
    NETWORK,
    SUMMARY,
    WEIGHTS,
    finished,
    read_config,
    read_json,
    read_starts,
    read_weights,
)


def load(path, *, best: bool = False, trust: bool = False) -> Model:
    """A finished run as a model: `model.predict_proba(images)`, `model.logits(images)`.

    It can be unpacked into `apply, variables`: apply(variables, image) -> Outputs, in evaluation
    mode; image: u8[B, H, W, C], or float in [0, 1]; `Outputs.logits` is f32[B, K]. The weights are those
    the run was measured with (`eval.weights`), after the last step; with `best`, those with the
    lowest NLL on the held-out images. Raises ValueError if the run is missing or unfinished, if it
    has no best weights because it held nothing out, or if its network or calibrator is a module that
    is not part of the package, unless you trained the run, or `trust` it to run that module.

    >>> import numpy as np
    >>> import ldl_jax as ldl
    >>> model = ldl.load("runs/two-greys")  # the run of the example of `train`
    >>> model
    Model(2 classes, images 8x8x1, safe_temperature fitted)
    >>> model.logits(np.zeros((5, 8, 8, 1), np.uint8)).shape
    (5, 2)
    """
    return load_model(path, Consent(trust), best=best)


def load_model(path, consent: Consent, *, best: bool = False) -> Model:
    """`load`, with the user's consent to the modules that the run names."""
    path = files.home(path)
    spec, variables, _ = load_weights(path, consent=consent)
    if best:
        variables = read_best(path)
    # Both need consent: ask before anything of either is run.
    calibrator = load_calibrator(path, consent)
    network = _fitting_network(path, spec, variables)
    dtype = spec_dtype(spec)

    def apply(variables, image):
        image = jnp.asarray(image, dtype) / 255 if image.dtype == np.uint8 else image
        return network(variables, image, train=False)[0]

    if calibrator is not None:
        check_calibrator(path / CALIBRATION, calibrator, spec["num_classes"])
    return Model(apply, variables, spec, calibrator, shorter_side(path))


def load_calibrator(path, consent: Consent = ASK) -> FittedCalibrator | None:
    """The calibrator that a run fitted on its holdout; None if it has none. Raises ValueError if it
    is a module without consent.
    """
    file = Path(path) / CALIBRATION
    if not file.is_file():
        return None
    fitted = FittedCalibrator(*calibrators.load(file))
    trusted.confirm(file, *trusted.calibrator(fitted.name, fitted.options), consent)
    return fitted


def shorter_side(path) -> int:
    """The length that a run's evaluation resizes the shorter side of images to; 0: it does not."""
    c = read_config(Path(path))
    streamed = c is not None and not c.data.resident
    options = options_of(c.data, c.data.name) if streamed else {}
    shorter = options.get("eval_resize", 0)
    return shorter if isinstance(shorter, int) else 0


def turns_by_exif(path) -> bool:
    """Whether a run turned images as the orientation in their EXIF metadata says."""
    c = read_config(Path(path))
    return c is not None and options_of(c.data, c.data.name).get("exif", False) is True


class Teacher(NamedTuple):
    """A frozen network."""

    apply: Callable  # (variables, image[B, H, W, C]) -> Outputs, in evaluation mode
    variables: PyTree
    digest: str  # SHA-256 of the weights' file
    # The network spec; None if it is not known.
    spec: dict[str, Any] | None = None
    note: str = ""  # what a user should know, in one sentence


def load_teacher(path, spec: dict, made_from: str = "", consent: Consent = ASK) -> Teacher:
    """A finished run as a frozen network.

    spec: the student's network spec. made_from: arguments of the command that trains the run, shown
    if the run is missing. consent: to a module as its network. Logits are in the order of the
    student's classes. Raises ValueError if the run does not fit the student's spec.
    """
    own, variables, digest = load_weights(path, made_from, consent=consent)
    for field, what in (("num_classes", "classes"), ("shape", "image shape")):
        if own[field] != spec[field]:
            raise ValueError(
                f"config.teachers: {path} must have the student's {what}, {spec[field]}, "
                f"got {own[field]}"
            )
    order = class_names.order(own["classes"], spec["classes"])
    if order is None:
        names = class_names.difference(own["classes"], spec["classes"])
        raise ValueError(f"config.teachers: {path} must have the student's classes, {names}")
    in_order = order == sorted(order)
    network = _fitting_network(files.home(path), own, variables)

    def apply(variables, image):
        outputs = network(variables, image, train=False)[0]
        if in_order:
            return outputs
        return outputs._replace(logits=outputs.logits[..., np.asarray(order)])

    note = ""
    if not in_order:
        note = (
            f"config.teachers: {path} has the student's classes in another order, so its logits are "
            f"reordered by class name (its class {order[0]}, {own['classes'][order[0]]!r}, is the "
            "student's class 0)"
        )
    return Teacher(apply=apply, variables=variables, digest=digest, spec=own, note=note)


def weights_alone(workdir, weights: str) -> tuple[PyTree, int]:
    """(variables, step) of a run without a checkpoint: a finished run, or imported weights (step 0).

    weights: 'raw' or 'ema', as in `eval.weights`. Raises ValueError if the run has no weights, or
    if a finished run stored the other kind.
    """
    workdir = Path(workdir)
    if not (workdir / WEIGHTS).is_file():
        raise ValueError(f"--workdir {workdir} has no checkpoint yet; train there first")
    variables, notes = read_weights(workdir / WEIGHTS)
    # Imported weights are of no kind; a finished run says in its summary which kind it stored.
    if notes.get("step") and (workdir / SUMMARY).is_file():
        stored = read_json(workdir / SUMMARY).get("weights")
        if stored != weights:
            raise ValueError(
                f"config.eval.weights must be {stored!r}, since --workdir {workdir} has no "
                f"checkpoint and its {WEIGHTS} holds those weights, got {weights!r}"
            )
    return variables, notes.get("step", 0)


def load_weights(path, made_from: str = "", *, consent: Consent = ASK) -> tuple[dict, PyTree, str]:
    """(spec, variables, SHA-256 of the weights' file) of a finished run.

    Raises ValueError if the network is a module without consent, if the run is missing or
    unfinished, or if its weights are not those of its summary. The message gives the command that
    trains or finishes it: the one that last started it, or one with the arguments `made_from`.
    """
    path = files.home(path)
    weights = path / WEIGHTS
    if not (weights.is_file() and (path / NETWORK).is_file()):
        state = "is not finished" if (path / CONFIG).is_file() else "is not a run directory"
        arguments = _last_arguments(path) or f"{made_from or '--config=CONFIG'} --workdir={path}"
        raise ValueError(
            f"{path} {state}: it has no {WEIGHTS}; train it with python -m ldl_jax.main {arguments}"
        )
    if fault := finished.fault(path):
        raise ValueError(fault)
    spec = read_spec(path / NETWORK)
    trusted.confirm(path / NETWORK, spec, trusted.network(spec), consent)
    return spec, read_weights(weights)[0], files.sha256(weights)


def _fitting_network(path: Path, spec: dict, variables: PyTree) -> Callable:
    """The `apply` of a run's network. Raises ValueError if the spec and the weights do not fit.

    Nothing is computed or allocated: a run of others may claim a network of any size.
    """
    try:
        init, apply = make_network(spec)
        image = jax.ShapeDtypeStruct((1, *spec["shape"]), spec_dtype(spec))
        # With the weights first: this ends at the first layer that they lack, however deep the
        # network is said to be.
        reason = ""
        if _has_idle_leaves(lambda *given: apply(*given, train=False)[0], variables, image):
            wanted = jax.eval_shape(init, jax.random.key(0))
            reason = _first_difference(_shapes(wanted), _shapes(variables))
    except ValueError as error:
        raise ValueError(f"{path / NETWORK}: {one_line(error, 300)}") from None
    except Exception as error:  # flax and jax have many kinds
        reason = one_line(error, 300)
    if reason:
        raise ValueError(f"{path}: {NETWORK} does not fit {WEIGHTS} ({reason})")
    return apply


def _has_idle_leaves(function: Callable, variables: PyTree, image) -> bool:
    """Whether a function reads only some of its variables; raises whatever tracing it raises."""
    jaxpr = jax.make_jaxpr(function)(variables, image).jaxpr
    used = set()
    for equation in jaxpr.eqns:
        used |= set(map(id, equation.invars))
    leaves = jaxpr.invars[: len(jax.tree.leaves(variables))]
    return not used.issuperset(map(id, leaves))


def _shapes(variables: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = traverse_util.flatten_dict(variables, sep="/")
    return {name: leaf.shape for name, leaf in leaves.items()}


def _first_difference(wanted: dict, given: dict) -> str:
    for name in wanted | given:
        if wanted.get(name) != given.get(name):
            return f"{name} must be {wanted.get(name)}, got {given.get(name)}"
    return ""


def check_calibrator(file: Path, calibrator: FittedCalibrator, num_classes: int) -> None:
    """Raise ValueError if a calibrator cannot be applied to a network's logits."""
    try:
        with np.errstate(all="ignore"):
            probs = calibrator(np.zeros((2, num_classes)))
        reason = "" if np.isfinite(probs).all() else "its probabilities are not finite"
    except Exception as error:  # parameters of others may be anything
        reason = f"{type(error).__name__}: {one_line(error, 200)}"
    if reason:
        raise ValueError(f"{file} cannot be applied to {num_classes} classes ({reason})")


def read_best(path) -> PyTree:
    """The variables with the run's lowest NLL on its held-out images.

    Raises ValueError if the run held none out.
    """
    best = Path(path) / BEST
    if not best.is_file():
        raise ValueError(
            f"{path} has no {BEST}; only runs with config.data.holdout above 0 keep their best weights"
        )
    return read_weights(best)[0]


def _last_arguments(path: Path) -> str:
    """Arguments of the command that last started a run; '' if they are not known."""
    try:
        command = read_starts(path)[-1]["command"]
        return shlex.join(command[1:]) if command[0].endswith("main.py") else ""
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return ""
