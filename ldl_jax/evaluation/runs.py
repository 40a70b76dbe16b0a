"""Finished runs: their configs, their predictions on the test images, and groups by seed.

Files of predictions of any framework stand beside them, each as a run without a config.
"""

import itertools
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ldl_jax import config, files, workdir
from ldl_jax.calibrate import base as calibrators
from ldl_jax.calibrate import describe
from ldl_jax.evaluation import predictions
from ldl_jax.evaluation.bootstrap import Answers
from ldl_jax.evaluation.fitting import divided
from ldl_jax.evaluation.passes import Reduced, reduce
from ldl_jax.evaluation.predictions import Predictions
from ldl_jax.files import reading
from ldl_jax.workdir import finished


class Run(NamedTuple):
    """A finished run, or a file of predictions."""

    path: Path
    config: ConfigDict | None  # None for a file
    # All fields that its results depend on, except the seed, as JSON: equal within a group. Of a
    # file, its path.
    settings: str
    test: Predictions
    temperature: float | None  # fitted on its holdout; None if it has no holdout
    at_bound: bool = False  # whether that is a limit of the search: the holdout determines none


class Group(NamedTuple):
    """Runs that differ only in their seed."""

    name: str  # the fields in which the group differs from the other groups
    runs: tuple[Run, ...]  # by increasing seed


def read(path) -> Run:
    """Read a run directory. Raises ValueError naming the file that is missing or damaged."""
    path = files.home(path)
    run_config = workdir.read_config(path)
    if run_config is None:
        raise ValueError(f"{path} is not a run directory of ldl_jax: it has no {workdir.CONFIG}")
    if fault := finished.measured_fault(path):
        raise ValueError(fault)
    # Runs with another calibrator than temperature scaling are compared raw only.
    temperature = None
    at_bound = False
    if (path / workdir.CALIBRATION).is_file():
        name, _, params = calibrators.load(path / workdir.CALIBRATION)
        if describe.is_temperature(name):
            temperature = reading.item(
                path / workdir.CALIBRATION, "params.temperature", params.get("temperature"), float
            )
            at_bound = params.get("at_bound", False) is True
    test = predictions.read(workdir.predictions_file(path))._replace(name=path.name)
    return Run(path, run_config, settings(run_config), test, temperature, at_bound)


def read_file(path, **options) -> Run:
    """Read a file of predictions; options as in `predictions.read`, which raises ValueError."""
    test = predictions.read(path, **options)
    return Run(files.home(path), None, str(path), test, None)


def settings(run_config: ConfigDict) -> str:
    """All fields in use that a run's results depend on, except the seed, as JSON.

    Teachers are represented by their own settings if these can be read, else by their paths: runs
    that each had a teacher of their own seed stay in one group.
    """
    used = config.decisive(run_config)
    used["teachers"] = [_teacher(path) for path in run_config.teachers]
    used.pop("seed", None)
    return json.dumps(used, sort_keys=True)


def _teacher(path: str):
    """A teacher's settings, or its path if they cannot be read."""
    try:
        run_config = workdir.read_config(path)
    except ValueError:
        run_config = None
    return path if run_config is None else json.loads(settings(run_config))


def groups(runs: list[Run]) -> list[Group]:
    """Groups of runs with equal settings, in order of first appearance.

    Each is named by the fields in which it differs from the others; a file by its name. Raises ValueError if a group
    has two runs with the same seed, or if runs were measured on different images.
    """
    by_settings: dict[str, list[Run]] = {}
    for run in runs:
        by_settings.setdefault(run.settings, []).append(run)
    for members in by_settings.values():
        _check_seeds(members)
    _check_images(runs)
    of_runs = [key for key, members in by_settings.items() if members[0].config is not None]
    names = dict(zip(of_runs, _names(of_runs), strict=True))
    if len(of_runs) == 1 < len(by_settings):
        names[of_runs[0]] = _of_directories(by_settings[of_runs[0]])
    for key in by_settings:
        names.setdefault(key, _of_file(key, by_settings))
    named_groups = []
    for key, members in by_settings.items():
        if members[0].config is not None:
            members = sorted(members, key=lambda run: run.config.seed)
        named_groups.append(Group(names[key], tuple(members)))
    return named_groups


def _of_directories(members: list[Run]) -> str:
    """The name of the only runs among files."""
    more = f" and {len(members) - 1} more" if len(members) > 1 else ""
    return members[0].path.name + more


def _of_file(key: str, by_settings: dict[str, list[Run]]) -> str:
    """The name of a file, or its path if another one has the same name."""
    paths = [run.path for members in by_settings.values() for run in members]
    name = by_settings[key][0].path.name
    return name if sum(path.name == name for path in paths) == 1 else key


def _check_seeds(members: list[Run]) -> None:
    """Raise ValueError if two runs of a group have the same seed: they would count twice."""
    by_seed: dict[int | None, Run] = {}
    for run in members:
        if run.config is None and by_seed:
            raise ValueError(f"{run.path} is given twice; give each file once")
        seed = None if run.config is None else run.config.seed
        if seed in by_seed:
            raise ValueError(
                f"{by_seed[seed].path} and {run.path} have the same config and the same seed, "
                f"{seed}. Give only one of them."
            )
        by_seed[seed] = run


def _check_images(runs: list[Run]) -> None:
    """Raise ValueError unless all runs were measured on the same images."""
    first = runs[0]
    for run in runs[1:]:
        difference = _difference(run, first)
        if difference:
            raise ValueError(
                "runs must be measured on the same images to be compared: "
                f"{run.path} was measured on {_images(run)}, {first.path} on {_images(first)}"
                f"{difference}"
            )


def _difference(run: Run, other: Run) -> str | None:
    """What differs between the examples of two runs, beyond their numbers; None if nothing does."""
    test = run.test
    of_other = other.test
    if test.values.shape != of_other.values.shape:
        return "."
    if not np.array_equal(test.label, of_other.label):
        row = int(np.argmax(test.label != of_other.label))
        text = f": label {test.label[row]} and {of_other.label[row]} in row {row}"
        if _same_classes(test, of_other):
            text += "; their classes are in different orders, pass --classes=A,B,C"
        return text
    # A file need not have an index; labels in the same order are then what can be compared.
    without = run.config is None or other.config is None
    if without and (test.index is None or of_other.index is None):
        return None
    if not np.array_equal(test.index, of_other.index):
        return ", whose index is another one"
    return None


def _same_classes(test: Predictions, other: Predictions) -> bool:
    """Whether two sets of predictions name the same classes in different orders."""
    if test.classes is None or other.classes is None or test.classes == other.classes:
        return False
    return sorted(test.classes) == sorted(other.classes)


def _images(run: Run) -> str:
    count, classes = run.test.values.shape
    source = "" if run.config is None else f" ({run.config.data.name})"
    return f"{count:,} images of {classes} classes{source}"


def _names(all_settings: list[str]) -> list[str]:
    """For each settings, the fields in which they differ, as text; 'all' if there is no difference."""
    parsed = list(map(json.loads, all_settings))
    fields = list(dict.fromkeys(itertools.chain.from_iterable(parsed)))

    # A field that one lacks, such as an option of another method, differs only among the rest.
    differing = []
    for name in fields:
        values = {json.dumps(own[name]) for own in parsed if name in own}
        if len(values) > 1:
            differing.append(name)

    names = []
    for own in parsed:
        parts = []
        for name in differing:
            if name in own:
                parts.append(f"{_short(name, fields)}={_value(own[name])}")
        names.append(", ".join(parts) or "all")
    return names


def _short(name: str, fields: list[str]) -> str:
    """A field without its blocks if that is unambiguous; `labels` for `labels.name`."""
    if name.endswith((".name", ".names")):
        return name.rpartition(".")[0]
    last = name.rpartition(".")[2]
    same_ending = [field for field in fields if field.rpartition(".")[2] == last]
    return last if len(same_ending) == 1 else name


def _value(value) -> str:
    """A field's value as text."""
    if isinstance(value, list):
        return "+".join(map(_value, value)) or "none"
    # A teacher's settings: its network tells teachers apart best.
    if isinstance(value, dict):
        return str(value.get("model.name"))
    return f"{value:g}" if isinstance(value, float) else str(value)


def reduced(run: Run, *, scaled: bool) -> Reduced:
    """Per-image numbers of the test images, raw or, if `scaled`, at the run's temperature."""
    return reduce(run.test, divided(run.temperature) if scaled else None)


def answers(columns: Reduced) -> Answers:
    """The input of the bootstrap: accuracy, NLL and Brier score, and the confidence."""
    means = {"accuracy": columns.correct, "nll": columns.nll, "brier": columns.brier}
    return Answers(columns.confidence, columns.correct, means)
