"""Finished runs as networks: to predict with, and as frozen teachers of other runs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ldl_jax import workdir
from ldl_jax.contract import PyTree
from ldl_jax.models.spec import make_network, spec_dtype


def load(path, *, best: bool = False) -> tuple[Callable, PyTree]:
    """A finished run as (apply, variables): apply(variables, image) -> Outputs, in evaluation mode.

    image: u8[B, H, W, C], or float in [0, 1]; `Outputs.logits` is f32[B, K]. The weights are those the run was
    measured with (`eval.weights`), after the last step; with `best`, those of the lowest NLL on the held-out images.
    Raises ValueError where the run is missing or unfinished, or has no best weights, since it held nothing out.
    """
    spec, variables, _ = workdir.load_weights(path)
    if best:
        variables = workdir.read_best(path)
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
    spec: dict[str, Any] | None = None  # what its network is made from; None where that is not known


def load_teacher(path, spec: dict, made_from: str = "") -> Teacher:
    """A finished run as a frozen network. Raises ValueError where it does not fit the student's spec.

    made_from: the arguments of the command that makes the run, for the sentence that says it is missing.
    """
    own, variables, digest = workdir.load_weights(path, made_from)
    for field, what in (("num_classes", "classes"), ("shape", "image shape")):
        if own[field] != spec[field]:
            raise ValueError(
                f"config.teachers: {path} has {what} {own[field]}; allowed is the student's, {spec[field]}"
            )
    network = make_network(own)[1]

    def apply(variables, image):
        return network(variables, image, train=False)[0]

    return Teacher(apply=apply, variables=variables, digest=digest, spec=own)
