"""Finished runs as they are analysed: their network, their data, and what they recorded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from ldl_jax import config as settings
from ldl_jax import files, workdir
from ldl_jax.config.trust import ASK, Consent
from ldl_jax.contract import PyTree
from ldl_jax.data.base import Dataset, Split
from ldl_jax.data.loading import positions
from ldl_jax.evaluation.load import load_model, load_weights
from ldl_jax.models.spec import head_axes, spec_dtype

BATCH = 250  # images that pass a network at once
CKA_EXAMPLES = 512
CKA_NUMBERS = 2**27  # of the maps of a stage of all these examples, in memory at once


class Head(NamedTuple):
    """The last layer: logits = embedding @ weights + bias."""

    weights: np.ndarray  # f64[D, K]
    bias: np.ndarray  # f64[K]


class Network(NamedTuple):
    """A finished run."""

    name: str
    path: Path
    config: ConfigDict | None  # None for a run that consists of its network alone
    spec: dict[str, Any]
    variables: PyTree
    step: Callable  # (variables, image f[B, H, W, C] in [0, 1]) -> Outputs, jitted
    head: Head | None  # None if the logits are no linear function of the embedding


class Examples(NamedTuple):
    """Images of a split."""

    images: np.ndarray  # u8[n, H, W, C]
    label: np.ndarray  # i64[n], published
    index: np.ndarray  # i64[n]: positions in the published order


class Passed(NamedTuple):
    """What a network makes of n images."""

    logits: np.ndarray  # f64[n, K]
    embedding: np.ndarray  # f64[n, D]
    stages: tuple[np.ndarray, ...] = ()  # [n, h, w, c] each, of the first images only


def read(path, name: str, config: ConfigDict | None = None, *, consent: Consent = ASK) -> Network:
    """A run by its directory. config: that of a run that has none. Raises ValueError if it is not
    finished, or if it names a module of others without consent.
    """
    path = files.home(path)
    spec, variables, _ = load_weights(path, consent=consent)
    if (path / workdir.CONFIG).is_file():
        # The analysis loads the data that the config names, so this asks for consent too.
        config = settings.read(path / workdir.CONFIG, trust=consent.everything)
    apply, _ = load_model(path, consent)
    return Network(name, path, config, spec, variables, jax.jit(apply), _head(spec, variables))


def _head(spec: dict[str, Any], variables: PyTree) -> Head | None:
    """The weights of the last layer, if it is one matrix and perhaps a bias."""
    leaves = traverse_util.flatten_dict(variables)
    weights = None
    bias = np.zeros(spec["num_classes"])
    for path, axes in head_axes(spec).items():
        leaf = np.asarray(leaves[path], np.float64)
        if leaf.ndim == 2 and axes == (1,) and weights is None:
            weights = leaf
        elif leaf.ndim == 1:
            bias = leaf
        else:
            return None
    return None if weights is None else Head(weights, bias)


def passed(network: Network, images: np.ndarray, *, stages: int = 0) -> Passed:
    """Logits and embeddings of images u8[n, H, W, C], or float in [0, 1]; with `stages`, the maps of
    that many images too.
    """
    dtype = spec_dtype(network.spec)
    logits = []
    embedding = []
    maps = []
    for first in range(0, len(images), BATCH):
        batch = images[first : first + BATCH]
        used = len(batch)
        # All batches have one shape and type, so that the network is compiled once.
        batch = np.pad(batch, ((0, BATCH - used), *[(0, 0)] * 3))
        batch = batch.astype(dtype) / 255 if batch.dtype == np.uint8 else batch.astype(dtype)
        outputs = network.step(network.variables, batch)
        logits.append(np.asarray(outputs.logits, np.float64)[:used])
        embedding.append(np.asarray(outputs.embedding, np.float64)[:used])
        if first < stages:
            kept = min(used, stages - first)
            maps.append([np.asarray(part[:kept], np.float32) for part in outputs.stages])
    joined = tuple(np.concatenate(parts) for parts in zip(*maps, strict=True))
    return Passed(np.concatenate(logits), np.concatenate(embedding), joined)


def is_linear(head: Head, output: Passed) -> bool:
    """Whether the logits are what the head makes of the embedding, up to rounding."""
    expected = output.embedding @ head.weights + head.bias
    scale = np.abs(output.logits).max()
    return bool(np.abs(expected - output.logits).max() <= 0.02 * scale)


def stage_examples(network: Network, available: int) -> int:
    """The number of images whose maps are compared: fewer if the maps are large."""
    image = jax.ShapeDtypeStruct((1, *network.spec["shape"]), spec_dtype(network.spec))
    outputs = jax.eval_shape(network.step, network.variables, image)
    largest = max((int(np.prod(part.shape)) for part in outputs.stages), default=1)
    return max(2, min(available, CKA_EXAMPLES, CKA_NUMBERS // largest))


def test_examples(settings: ConfigDict, dataset: Dataset, count: int) -> Examples:
    """At most `count` test images, evenly over the split."""
    return _examples(dataset.test, _evenly(positions(settings, dataset)[2], count))


def train_examples(settings: ConfigDict, dataset: Dataset, count: int) -> Examples:
    """At most `count` of the images that a run was trained on, evenly over the split."""
    return _examples(dataset.train, _evenly(positions(settings, dataset)[0], count))


def _evenly(index: np.ndarray, count: int) -> np.ndarray:
    if len(index) <= count:
        return index
    return index[np.linspace(0, len(index) - 1, count).round().astype(np.int64)]


def _examples(split: Split, index: np.ndarray) -> Examples:
    return Examples(*read_images(split, index), index)


def read_images(split: Split, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(images u8[n, H, W, C], labels i64[n]) of a split at positions i64[n]."""
    if split.images is not None:
        return np.asarray(split.images[index]), np.asarray(split.labels[index], np.int64)
    images = []
    labels = []
    batches = [(0, index[first : first + BATCH]) for first in range(0, len(index), BATCH)]
    for batch in split.stream(batches, None):
        images.append(np.asarray(batch["image"]))
        labels.append(np.asarray(batch["label"], np.int64))
    return np.concatenate(images), np.concatenate(labels)


class Snapshot(NamedTuple):
    """The label memory after some epochs."""

    epoch: float
    index: np.ndarray  # i64[n]: positions of the images in the published order
    rows: dict[str, np.ndarray]  # {entry: f64[n, K], or f64[K, K] by class}, NaN if not written


def snapshots(path) -> list[Snapshot]:
    """The snapshots of a run's label memory in order of the epoch; [] if it recorded none.

    Raises ValueError if a file is damaged.
    """
    from ldl_jax.analyse.memory import distributions

    found = []
    for file in sorted((Path(path) / workdir.MEMORY).glob("*.npz")):
        arrays = files.read_npz(file, "a snapshot of the label memory")
        rows = {}
        for name, array in arrays.items():
            if name.split("/")[-1] not in ("step", "epoch", "index", "label"):
                rows[name] = distributions(array)
        found.append(Snapshot(float(arrays["epoch"]), arrays["index"], rows))
    return sorted(found, key=lambda snapshot: snapshot.epoch)
