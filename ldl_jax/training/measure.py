"""Measuring a network on a split: every example once, sums added up on the way, fetched once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from ldl_jax import mesh as meshes
from ldl_jax.contract import PyTree
from ldl_jax.data import order
from ldl_jax.data.base import Split
from ldl_jax.metrics.base import Metric

SLOW_SECONDS = 5  # an evaluation that takes longer shows a bar of its own, in a terminal


class Measured(NamedTuple):
    """What a network scores on a split, and what it said."""

    scores: dict[str, float]  # n, accuracy, nll, ...: see the files of ldl_jax/metrics
    sums: dict[str, Any]  # of each metric, numpy
    predictions: dict[str, np.ndarray] | None  # logits f32[n, K], label i32[n], index i32[n], in rising order of index


def device_data(split: Split, key, mesh) -> PyTree:
    """What the steps read beside the batch: the seed's key, tables and, of a resident split, images and labels."""
    data = {"key": key, "given": split.given}
    if split.images is not None:
        data |= {"images": split.images, "labels": split.labels}
    if split.mask is not None:
        data["mask"] = split.mask
    return meshes.put_replicated(data, mesh)


def measure(
    eval_step: Callable, variables: PyTree, data: PyTree, split: Split, positions: np.ndarray, *,
    metrics: dict[str, Metric], mesh, batch_size: int, keep: bool = False,
) -> Measured:  # fmt: skip
    """Scores of a network on the examples at `positions` of a split, and with `keep` its predictions.

    eval_step: jitted, of `steps.make_eval_step`; batch_size is rounded up to a multiple of the devices. Raises
    ValueError where none of the images can be read.
    """
    batch_size = -(-min(batch_size, len(positions)) // mesh.size) * mesh.size
    mine = meshes.local_slice(batch_size, mesh)
    padded = list(order.padded_batches(positions, batch_size))
    feed = ({"index": index[mine], "mask": mask[mine]} for index, mask in padded)
    if split.stream is not None:
        images = split.stream(((0, index[mine]) for index, _ in padded), None)
        feed = ({**part, "mask": part["mask"] * batch["mask"]} for part, batch in zip(images, feed, strict=True))
    sums, said = [], []
    for batch in tqdm(feed, "evaluating", len(padded), unit="batch", leave=False, delay=SLOW_SECONDS, disable=None):
        part, predictions = eval_step(variables, data, meshes.to_global(batch, mesh))
        if sums:
            jax.block_until_ready(sums[-1])  # at most two dispatches in flight
        sums.append(part)
        if keep:
            said.append(meshes.fetch(predictions, mesh))
    total = jax.tree.map(lambda *parts: np.sum(parts, axis=0, dtype=np.float64), *jax.device_get(sums))
    if any(part.get("n") == 0 for part in total.values()):
        raise ValueError(f"of {len(positions)} images to be measured none can be read (config.data.on_error='skip')")
    scores = {}
    for name, metric in metrics.items():
        scores |= {key: float(value) for key, value in metric.value(total[name]).items()}
    return Measured(scores, total, _whole(said) if keep else None)


def _whole(said):
    """The batches' predictions joined, without padding and without images that could not be read."""
    joined = {name: np.concatenate([part[name] for part in said]) for name in said[0]}
    good = joined.pop("mask") > 0
    return {name: values[good] for name, values in joined.items()}
