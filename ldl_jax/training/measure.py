"""Evaluation of a network on a split: every example once, metrics as sums over batches."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from ldl_jax.contract import PyTree
from ldl_jax.data import order
from ldl_jax.data.base import Split
from ldl_jax.mesh import fetch, local_slice, to_global
from ldl_jax.metrics.base import Metric
from ldl_jax.training.experiment import Experiment
from ldl_jax.training.programs import Programs

SLOW_SECONDS = 5  # in a terminal, an evaluation that takes longer shows a progress bar


class Measured(NamedTuple):
    """The scores of a network on a split, and its predictions."""

    scores: dict[str, float]  # n, accuracy, nll, ...: see the files of ldl_jax/metrics
    sums: dict[str, Any]  # {metric: its sums over the split}, numpy
    # logits f32[n, K], label i32[n], index i32[n], in rising order of index
    predictions: dict[str, np.ndarray] | None


def measure_splits(
    experiment: Experiment, programs: Programs, variables: PyTree, *, keep: bool
) -> dict[str, Measured]:
    """Evaluate a network on the splits of a run: 'test' and, if there is one, 'holdout'.

    keep: also return the predictions. Raises ValueError as `measure_split` does.
    """
    splits = {"test": (programs.test, experiment.dataset.test, experiment.test)}
    # The holdout is part of the training split, whose images are on the devices already.
    if len(experiment.holdout):
        splits["holdout"] = (programs.train, experiment.dataset.train, experiment.holdout)
    measured = {}
    for name, (data, split, positions) in splits.items():
        measured[name] = measure_split(
            programs.evaluate,
            variables,
            data,
            split,
            positions,
            metrics=experiment.metrics,
            mesh=experiment.mesh,
            batch_size=experiment.config.data.eval_batch_size,
            keep=keep,
        )
    return measured


def measure_split(
    eval_step: Callable,
    variables: PyTree,
    data: PyTree,
    split: Split,
    positions: np.ndarray,
    *,
    metrics: dict[str, Metric],
    mesh: Mesh,
    batch_size: int,
    keep: bool = False,
) -> Measured:
    """Scores of a network on the examples at `positions` of a split; with `keep`, its predictions.

    eval_step: the jitted `steps.make_eval_step`. batch_size is rounded up to a multiple of the
    devices. Raises ValueError if none of the images can be read.
    """
    # The last batch is padded and masked, so that one compiled program serves all batches.
    batch_size = -(-min(batch_size, len(positions)) // mesh.size) * mesh.size
    padded = list(order.padded_batches(positions, batch_size))
    batches = _host_batches(split, padded, local_slice(batch_size, mesh))
    bar = tqdm(
        batches,
        "evaluating",
        len(padded),
        unit="batch",
        leave=False,
        delay=SLOW_SECONDS,
        disable=None,
    )
    sums = []
    predictions = []
    for batch in bar:
        batch_sums, batch_predictions = eval_step(variables, data, to_global(batch, mesh))
        # At most two dispatches in flight, or their inputs would fill the memory.
        if sums:
            jax.block_until_ready(sums[-1])
        sums.append(batch_sums)
        if keep:
            predictions.append(fetch(batch_predictions, mesh))

    # Fetch the sums once, and add them up in float64: float32 loses digits over many batches.
    fetched = jax.device_get(sums)
    total = jax.tree.map(lambda *parts: np.sum(parts, axis=0, dtype=np.float64), *fetched)
    if any(isinstance(part, dict) and part.get("n") == 0 for part in total.values()):
        raise ValueError(
            f"none of the {len(positions)} images to evaluate can be read (config.data.on_error is 'skip')"
        )
    scores = {}
    for name, metric in metrics.items():
        for score, value in metric.value(total[name]).items():
            scores[score] = float(value)
    return Measured(scores, total, _join(predictions) if keep else None)


def _host_batches(split: Split, padded, mine: slice) -> Iterator[dict[str, np.ndarray]]:
    """This process's part of each padded batch: index and mask, and images of a streamed split."""
    if split.stream is None:
        for index, mask in padded:
            yield {"index": index[mine], "mask": mask[mine]}
    else:
        images = split.stream(((0, index[mine]) for index, _ in padded), None)
        for part, (_, mask) in zip(images, padded, strict=True):
            yield {**part, "mask": part["mask"] * mask[mine]}


def _join(batches: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Join the predictions of all batches, without padding and images that could not be read."""
    joined = {}
    for name in batches[0]:
        joined[name] = np.concatenate([batch[name] for batch in batches])
    is_valid = joined.pop("mask") > 0
    return {name: values[is_valid] for name, values in joined.items()}
