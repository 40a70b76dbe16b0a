"""Finished runs read back: what each was, what it said of the test images, and which differ in
their seed alone.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ldl_jax import config, workdir
from ldl_jax.calibrate import base as calibrators
from ldl_jax.evaluation import predictions
from ldl_jax.evaluation.bootstrap import Answers
from ldl_jax.evaluation.fitting import divided
from ldl_jax.evaluation.passes import Reduced, reduce
from ldl_jax.evaluation.predictions import Predictions


class Run(NamedTuple):
    """A finished run."""

    path: Path
    config: ConfigDict
    # all that its numbers depend on, but for the seed, as JSON: equal for runs of one group
    settings: str
    test: Predictions
    temperature: float | None  # fitted on its holdout
    at_bound: bool = False  # whether that is a bound of the search: no temperature is best


class Group(NamedTuple):
    """Runs that differ in their seed alone."""

    name: str  # the fields in which it differs from the other groups
    runs: tuple[Run, ...]  # by rising seed


def read(path) -> Run:
    """A run directory. Raises ValueError naming what is missing or damaged."""
    path = Path(path)
    run_config = workdir.read_config(path)
    if run_config is None:
        raise ValueError(
            f"{path} is no run directory: it has no {workdir.CONFIG}; allowed are those of ldl_jax.main"
        )
    if not workdir.is_measured(path):
        raise ValueError(
            f"{path} is not finished: it has no {workdir.SUMMARY} and predictions; train it to its end"
        )
    temperature, at_bound = None, False
    if (path / workdir.CALIBRATION).is_file():
        name, _, params = calibrators.load(path / workdir.CALIBRATION)
        if name == "temperature":
            temperature, at_bound = params["temperature"], params["at_bound"]
    test = predictions.read(workdir.predictions_file(path))._replace(name=path.name)
    return Run(path, run_config, settings(run_config), test, temperature, at_bound)


def settings(run_config: ConfigDict) -> str:
    """All fields in use that a run's numbers depend on, but for the seed, as JSON.

    Teachers count by their own settings where they are there to be read, else by their paths:
    groups whose every run had a teacher of its own seed stay together.
    """
    used = config.decisive(run_config)
    used["teachers"] = [_teacher(path) for path in run_config.teachers]
    return json.dumps(
        {name: value for name, value in used.items() if name != "seed"}, sort_keys=True
    )


def _teacher(path: str):
    try:
        run_config = workdir.read_config(path)
    except ValueError:
        run_config = None
    return path if run_config is None else json.loads(settings(run_config))


def groups(runs: list[Run]) -> list[Group]:
    """The runs by their settings, in the order in which they came; each named by what tells it from
    the others.

    Raises ValueError where a directory or a seed comes twice in a group, or the runs were measured
    on other images.
    """
    by_settings: dict[str, list[Run]] = {}
    for run in runs:
        by_settings.setdefault(run.settings, []).append(run)
    for members in by_settings.values():
        seeds = [run.config.seed for run in members]
        twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
        if twice is not None:
            same = " and ".join(str(run.path) for run in members if run.config.seed == twice)
            raise ValueError(
                f"{same} are runs of one config and one seed, {twice}; allowed is one run of each seed"
            )
    _check_images(runs)
    names = _names(list(by_settings))
    return [
        Group(name, tuple(sorted(members, key=lambda run: run.config.seed)))
        for name, members in zip(names, by_settings.values(), strict=True)
    ]


def _check_images(runs: list[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        same = (
            run.test.values.shape == first.test.values.shape
            and (run.test.label == first.test.label).all()
        )
        if not same or not np.array_equal(run.test.index, first.test.index):
            raise ValueError(
                f"{run.path} was measured on {_images(run)} and {first.path} on {_images(first)}; allowed are runs "
                "measured on the same images"
            )


def _images(run: Run) -> str:
    count, classes = run.test.values.shape
    return f"{count:,} images of {classes} classes ({run.config.data.name})"


def _names(all_settings: list[str]) -> list[str]:
    """The fields in which settings differ, as text; 'all' where there is nothing to tell apart."""
    parsed = [json.loads(text) for text in all_settings]
    fields = list(dict.fromkeys(name for own in parsed for name in own))
    differ = [
        name for name in fields if len({json.dumps(own[name]) for own in parsed if name in own}) > 1
    ]
    return [
        ", ".join(f"{_short(name, fields)}={_value(own[name])}" for name in differ if name in own)
        or "all"
        for own in parsed
    ]


def _short(name: str, fields: list[str]) -> str:
    """A field without its blocks where that names no other one; `labels` for `labels.name`."""
    if name.endswith((".name", ".names")):
        return name.rpartition(".")[0]
    last = name.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in fields) == 1 else name


def _value(value) -> str:
    if isinstance(value, list):
        return "+".join(map(_value, value)) or "none"
    if isinstance(value, dict):  # a teacher's settings
        return str(value.get("model.name"))
    return f"{value:g}" if isinstance(value, float) else str(value)


def reduced(run: Run, *, scaled: bool) -> Reduced:
    """One number a test image, of the logits as they are, or divided by the run's temperature."""
    return reduce(run.test, divided(run.temperature) if scaled else None)


def answers(columns: Reduced) -> Answers:
    """What intervals and differences of a run are made from: accuracy, NLL and Brier score beside
    the confidence.
    """
    means = {"accuracy": columns.correct, "nll": columns.nll, "brier": columns.brier}
    return Answers(columns.confidence, columns.correct, means)
