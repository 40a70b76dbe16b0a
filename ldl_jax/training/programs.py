"""The jitted programs of a run, and the data on the devices that they read."""

import json
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from ldl_jax.contract import PyTree
from ldl_jax.data.base import Split
from ldl_jax.mesh import batch_sharding, put_replicated, replicated
from ldl_jax.training import steps
from ldl_jax.training.experiment import Experiment, digest, own_metrics
from ldl_jax.training.schedule import abstract_state


class Programs(NamedTuple):
    """The jitted programs of a run and the data that they read; see `training.steps`."""

    step: Callable  # (state, frozen, train, batch) -> (state, scalars)
    chunk: Callable  # the same for batches stacked on a new first axis
    evaluate: Callable  # (variables, train or test, batch) -> (sums, predictions)
    report: Callable  # (label state, auxiliary state) -> scalars by name
    frozen: tuple[PyTree, ...]  # the teachers' variables
    train: PyTree  # the training split, see `device_data`
    test: PyTree  # the test split


def make_programs(experiment: Experiment, compiled: dict | None = None) -> Programs:
    """Jitted programs, with images, tables and frozen networks on the devices.

    compiled: cache of programs between calls, see `train`.
    """
    cache = {} if compiled is None else compiled
    mark = _mark(experiment)
    if mark not in cache:
        # Keep the programs of one run only: those of an earlier one are rarely needed again.
        cache.clear()
        cache[mark] = _jitted(experiment)
    dataset = experiment.dataset
    mesh = experiment.mesh
    key = jax.random.key(experiment.config.seed)
    train = device_data(dataset.train, key, mesh)
    # The folds of a cross-validation are parts of one split, which is sent once.
    is_same = dataset.test is dataset.train
    return Programs(
        **cache[mark],
        frozen=put_replicated(experiment.frozen, mesh),
        train=train,
        test=train if is_same else device_data(dataset.test, key, mesh),
    )


def device_data(split: Split, key, mesh: Mesh) -> PyTree:
    """The data that a step reads beside the batch, replicated over the devices.

    The seed's key and fixed tables; for a resident split also its images and labels.
    """
    data = {"key": key, "given": split.given}
    if split.images is not None:
        data |= {"images": split.images, "labels": split.labels}
    if split.mask is not None:
        data["mask"] = split.mask
    return put_replicated(data, mesh)


def _mark(experiment: Experiment) -> str:
    """A key that is equal for runs with the same programs.

    Seeds and teachers' weights do not count: both are inputs of the programs.
    """
    metrics = own_metrics(experiment.config)
    networks = json.dumps(
        [experiment.teacher_specs, experiment.recipe.skip, metrics], sort_keys=True
    )
    return digest(experiment, but=("seed", "teachers")) + networks


def _report(recipe: steps.Recipe, labels: PyTree, auxiliary: PyTree) -> dict[str, jax.Array]:
    """What the plugs report about their states, by the names under which it is logged."""
    scalars = {}
    for name, value in recipe.source.report(labels).items():
        scalars[f"labels/{name}"] = value
    for plug, part in recipe.auxiliaries.items():
        for name, value in part.report(auxiliary[plug]).items():
            scalars[f"auxiliary/{plug}/{name}"] = value
    return scalars


def _jitted(experiment: Experiment) -> dict[str, Callable]:
    """The programs, by their field names in `Programs`."""
    recipe = experiment.recipe
    everywhere = replicated(experiment.mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(experiment))
    step = steps.make_train_step(recipe)
    evaluate = steps.make_eval_step(recipe.build.apply, experiment.metrics, recipe.dtype)
    # Donating the state lets the new one take its memory.
    train_jit = partial(jax.jit, donate_argnums=0, out_shardings=(shardings, everywhere))
    return {
        "step": train_jit(step),
        "chunk": train_jit(steps.make_chunk(step)),
        "evaluate": jax.jit(evaluate, out_shardings=(everywhere, batch_sharding(experiment.mesh))),
        "report": jax.jit(partial(_report, recipe), out_shardings=everywhere),
    }
