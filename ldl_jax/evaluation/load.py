"""Finished runs as networks: to predict with, and as frozen teachers of other runs."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ldl_jax import files
from ldl_jax.contract import PyTree
from ldl_jax.models.spec import make_network, spec_dtype
from ldl_jax.workdir import (
    BEST,
    CONFIG,
    NETWORK,
    SUMMARY,
    VERSIONS,
    WEIGHTS,
    is_finished,
    read_json,
    read_weights,
)


def load(path, *, best: bool = False) -> tuple[Callable, PyTree]:
    """A finished run as (apply, variables): apply(variables, image) -> Outputs, in evaluation mode.

    image: u8[B, H, W, C], or float in [0, 1]; `Outputs.logits` is f32[B, K]. The weights are those
    the run was measured with (`eval.weights`), after the last step; with `best`, those of the
    lowest NLL on the held-out images. Raises ValueError where the run is missing or unfinished, or
    has no best weights, since it held nothing out.
    """
    spec, variables, _ = load_weights(path)
    if best:
        variables = read_best(path)
    network, kind = make_network(spec)[1], spec_dtype(spec)

    def apply(variables, image):
        image = jnp.asarray(image, kind) / 255 if image.dtype == np.uint8 else image
        return network(variables, image, train=False)[0]

    return apply, variables


class Teacher(NamedTuple):
    """A frozen network."""

    apply: Callable  # (variables, image[B, H, W, C]) -> Outputs, in evaluation mode
    variables: PyTree
    digest: str  # SHA-256 of the weights' file
    # what its network is made from; None where that is not known
    spec: dict[str, Any] | None = None


def load_teacher(path, spec: dict, made_from: str = "") -> Teacher:
    """A finished run as a frozen network. Raises ValueError where it does not fit the student's
    spec.

    made_from: the arguments of the command that makes the run, for the sentence that says it is
    missing.
    """
    own, variables, digest = load_weights(path, made_from)
    for field, what in (("num_classes", "classes"), ("shape", "image shape")):
        if own[field] != spec[field]:
            raise ValueError(
                f"config.teachers: {path} has {what} {own[field]}; allowed is the student's, {spec[field]}"
            )
    network = make_network(own)[1]

    def apply(variables, image):
        return network(variables, image, train=False)[0]

    return Teacher(apply=apply, variables=variables, digest=digest, spec=own)


def weights_alone(workdir, weights: str) -> tuple[PyTree, int]:
    """(variables, step) of a run without a checkpoint: a finished one, or imported weights, which
    are at step 0.

    Raises ValueError where there are none, or where a finished run's are not what `eval.weights`
    now names.
    """
    workdir = Path(workdir)
    if not (workdir / WEIGHTS).is_file():
        raise ValueError(f"--workdir {workdir} has no checkpoint yet; train there first")
    variables, notes = read_weights(workdir / WEIGHTS)
    held = (
        read_json(workdir / SUMMARY)["weights"]
        if notes["step"] and is_finished(workdir)
        else weights
    )
    if held != weights:
        raise ValueError(
            f"config.eval.weights is {weights!r}; --workdir {workdir} has no checkpoint, and allowed is what its "
            f"{WEIGHTS} holds, {held!r}"
        )
    return variables, notes["step"]


def load_weights(path, made_from: str = "") -> tuple[dict, PyTree, str]:
    """(spec, variables, SHA-256 of the weights' file) of a finished run.

    Raises ValueError where the run is missing or unfinished, with the command that makes or
    finishes it: that of its last start, or one with the arguments `made_from`.
    """
    path = Path(path)
    weights = path / WEIGHTS
    if not (weights.is_file() and (path / NETWORK).is_file()):
        state = "is not finished" if (path / CONFIG).is_file() else "is no run directory"
        arguments = _last_arguments(path) or f"{made_from or '--config=CONFIG'} --workdir={path}"
        raise ValueError(
            f"{path} {state}: it has no {WEIGHTS}; make it with python -m ldl_jax.main {arguments}"
        )
    return read_json(path / NETWORK), read_weights(weights)[0], files.sha256(weights)


def read_best(path) -> PyTree:
    """The variables of a run's lowest NLL on its held-out images. Raises ValueError where it held
    none out.
    """
    best = Path(path) / BEST
    if not best.is_file():
        raise ValueError(f"{path} has no {BEST}, which runs with config.data.holdout above 0 keep")
    return read_weights(best)[0]


def _last_arguments(path: Path) -> str:
    """The arguments of the command that last worked on a run directory; '' where that is not known."""
    try:
        command = read_json(path / VERSIONS)["starts"][-1]["command"]
    except (ValueError, KeyError, IndexError):
        return ""
    return shlex.join(command[1:]) if command and command[0].endswith("main.py") else ""
