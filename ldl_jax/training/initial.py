"""Initial weights from another run (`model.init_from`): what is taken over, and what is drawn anew."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from ldl_jax.config.trust import ASK, Consent
from ldl_jax.contract import PyTree
from ldl_jax.data.base import Dataset
from ldl_jax.data.loading import statistics
from ldl_jax.evaluation import class_names
from ldl_jax.evaluation.load import load_weights
from ldl_jax.models.spec import head_axes, make_network

FIELD = "model.init_from"


class Source(NamedTuple):
    """The run that a network starts from."""

    path: str  # as the config names it
    spec: dict[str, Any]  # its network spec
    variables: PyTree
    digest: str  # SHA-256 of the weights' file


def load(settings: ConfigDict, consent: Consent = ASK) -> Source | None:
    """The run of `config.model.init_from`; None without one.

    Raises ValueError if it is unfinished, or if its network is a module without consent.
    """
    if not settings.init_from:
        return None
    try:
        path = Path(settings.init_from).expanduser()
        return Source(settings.init_from, *load_weights(path, consent=consent))
    except ValueError as error:
        raise ValueError(f"config.{FIELD}: {error}") from None


def normalisation(settings: ConfigDict, dataset: Dataset, source: Source | None) -> tuple:
    """(mean, std) of the pixels: `config.model`'s; those that the weights were trained with; or the
    data set's.

    Raises ValueError if there is not one per channel.
    """
    if source is None:
        return statistics(settings, dataset)
    channels = source.spec["shape"][2]
    if channels != dataset.train.shape[2]:
        raise ValueError(
            f"config.{FIELD}: {source.path} was trained on images with {channels} channels, but the "
            f"data set's have {dataset.train.shape[2]}"
        )
    known = dataset._replace(mean=tuple(source.spec["mean"]), std=tuple(source.spec["std"]))
    return statistics(settings, known)


def fit(source: Source, spec: dict) -> tuple[PyTree, tuple[str, ...]]:
    """(variables to start from, notes): a source's weights for the network of `spec`.

    The head is left out if the classes differ, and its columns are reordered if only their order
    does. Raises ValueError, naming the first leaf with both shapes, if another leaf differs.
    """
    notes = [f"{FIELD}: weights and statistics start from {source.path}", *_pixels(source, spec)]
    head = head_axes(spec)
    order, note = _order(source, spec)
    notes.append(f"{FIELD}: {note}")
    theirs = traverse_util.flatten_dict(source.variables)
    init, _ = make_network(spec)
    abstract = traverse_util.flatten_dict(jax.eval_shape(init, jax.random.key(0)))
    leaves = {}
    # Parameters before statistics: they say more about the network.
    for path in sorted(abstract, key=lambda path: (path[0] != "params", path)):
        leaf = abstract[path]
        value = theirs.pop(path, None)
        if path in head:
            if order is None:
                continue
            value = _reordered(value, head[path], order)
        leaves[path] = _checked(source, path, value, leaf)
    # What is left over shows another network as well.
    for path, value in theirs.items():
        if path not in head:
            raise ValueError(
                f"config.{FIELD}: {source.path} must have the network of the config, but its "
                f"{_name(path)} {list(value.shape)} is not in that network"
            )
    return traverse_util.unflatten_dict(leaves), tuple(notes)


def _pixels(source: Source, spec: dict) -> list[str]:
    """A note on the normalisation of the pixels."""
    numbers = f"mean {_rounded(spec['mean'])} and std {_rounded(spec['std'])}"
    if all(spec[name] == source.spec[name] for name in ("mean", "std")):
        return [f"{FIELD}: pixels are normalised as the weights saw them, by {numbers}"]
    return [
        f"{FIELD}: pixels are normalised by config.model's {numbers}, not as the weights saw them"
    ]


def _rounded(values: list[float]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def _order(source: Source, spec: dict) -> tuple[list[int] | None, str]:
    """(position in the source of each class, or None to draw the head anew; what to say)."""
    theirs = source.spec["classes"]
    own = spec["classes"]
    if len(theirs) != len(own):
        return None, f"the head is drawn anew, since {len(theirs)} classes become {len(own)}"
    order = class_names.order(theirs, own)
    if order is None:
        names = class_names.difference(theirs, own)
        return None, f"the head is drawn anew, since its classes are others: {names}"
    if order == sorted(order):
        same = theirs == own
        reason = (
            "its classes are the same" if same else "numbers for names leave their order as it is"
        )
        return order, f"the head is kept, since {reason}"
    return order, "the head is kept, and its columns are reordered by class name"


def _reordered(value: np.ndarray | None, axes: tuple[int, ...], order: list[int]):
    for axis in axes:
        # Another length is reported by `_checked`.
        if value is not None and axis < value.ndim and value.shape[axis] == len(order):
            value = np.take(value, order, axis)
    return value


def _checked(source: Source, path: tuple[str, ...], value, leaf) -> np.ndarray:
    """The value of a leaf, in the type of the network's own. Raises ValueError if it does not fit."""
    shape = list(leaf.shape)
    place = (
        f"config.{FIELD}: {source.path} must have the network of the config, but its {_name(path)}"
    )
    if value is None:
        raise ValueError(f"{place} is missing, which is {shape} there")
    if value.shape != leaf.shape:
        raise ValueError(f"{place} is {list(value.shape)}, not {shape}")
    if not np.isfinite(value).all():
        raise ValueError(f"{place} has values that are not finite")
    return value.astype(leaf.dtype)


def _name(path: tuple[str, ...]) -> str:
    return "/".join(path)
