"""The jitted programs of a run, and what they read on the devices."""

import json
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax

from ldl_jax import mesh
from ldl_jax.training import experiment as build
from ldl_jax.training import measure, steps
from ldl_jax.training import schedule as plans
from ldl_jax.training.experiment import Experiment


class Device(NamedTuple):
    """The jitted programs of a run and what they read."""

    step: Callable
    chunk: Callable
    evaluate: Callable
    report: Callable
    frozen: tuple
    train: dict
    test: dict


def make_programs(made: Experiment, compiled: dict | None = None) -> Device:
    """Compile-ready programs, with images, tables and frozen networks on the devices; see `train` for `compiled`."""
    everywhere, key = mesh.replicated(made.mesh), jax.random.key(made.config.seed)
    mark = _mark(made)
    programs = {} if compiled is None else compiled
    if mark not in programs:
        programs.clear()  # one at a time: others are rarely asked for again
        programs[mark] = _programs(made, everywhere)
    images = measure.device_data(made.dataset.train, key, made.mesh)
    same = made.dataset.test is made.dataset.train  # the folds of one split
    test = images if same else measure.device_data(made.dataset.test, key, made.mesh)
    return Device(*programs[mark], mesh.put_replicated(made.frozen, made.mesh), images, test)


def _mark(made: Experiment) -> str:
    """Equal for runs whose programs are the same, whatever their seeds and their teachers' weights are."""
    networks = json.dumps([made.teacher_specs, made.recipe.skip], sort_keys=True)
    return build.digest(made, but=("seed", "teachers")) + networks


def _programs(made: Experiment, everywhere) -> tuple[Callable, ...]:
    shardings = jax.tree.map(lambda leaf: leaf.sharding, plans.abstract_state(made))
    step = steps.make_train_step(made.recipe)
    jitted = partial(jax.jit, donate_argnums=0, out_shardings=(shardings, everywhere))
    evaluate = steps.make_eval_step(made.recipe.build.apply, made.metrics, made.recipe.dtype)
    return (
        jitted(step), jitted(steps.make_chunk(step)),
        jax.jit(evaluate, out_shardings=(everywhere, mesh.batch_sharding(made.mesh))),
        jax.jit(made.recipe.source.report, out_shardings=everywhere),
    )  # fmt: skip
