"""What is analysed: runs, their images, what their networks make of these, and their records."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ldl_jax import config as settings
from ldl_jax import files, workdir
from ldl_jax.analyse import networks
from ldl_jax.analyse.networks import Examples, Network, Passed, Snapshot
from ldl_jax.config.trust import ASK, Consent
from ldl_jax.data.base import Dataset
from ldl_jax.data.loading import make_dataset

MOST_TEACHERS = 4  # teachers that join the comparison of networks


class Run(NamedTuple):
    """A run with all that its analyses need."""

    network: Network
    dataset: Dataset
    examples: dict[str, Examples]  # of 'test' and 'train'
    passed: dict[str, Passed]  # the same splits through the network
    rows: list[dict]  # of metrics.jsonl
    snapshots: list[Snapshot]  # of the label memory

    @property
    def name(self) -> str:
        """The name that tells it from the others."""
        return self.network.name


def read(
    paths: Sequence,
    *,
    count: int,
    config: ConfigDict | None = None,
    fields: dict | None = None,
    consent: Consent = ASK,
) -> tuple[list[Run], list[tuple[Network, Passed]]]:
    """The runs, and their teachers as far as they can be read, each with its outputs on the test
    images of the first run.

    count: at most so many images of a split. config: that of runs that have none. fields: dotted
    field -> value, set in the configs of all runs, such as where the data lie. consent: to modules
    of others that the runs name. Raises ValueError if a run is not finished or its data cannot be
    read, or if runs have other classes or test images.
    """
    names = _names([files.home(path) for path in paths])
    found = []
    for path, name in zip(paths, names, strict=True):
        found.append(networks.read(path, name, config, consent=consent))
    _check_alike(found)
    datasets: dict[str, Dataset] = {}
    runs = []
    for network in found:
        c = _data_config(network, fields or {})
        key = json.dumps(settings.flatten(c.data), sort_keys=True)
        if key not in datasets:
            datasets[key] = make_dataset(c.data)
        runs.append(_run(network, c, datasets[key], count))
    _check_images(runs)
    return runs, _teachers(runs, consent)


def _names(paths: list[Path]) -> list[str]:
    """The last parts of the paths, or the paths if they do not differ in these."""
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"{path} is given twice; give each run once")
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else list(map(str, paths))


def _check_alike(found: list[Network]) -> None:
    """Raise ValueError unless all networks have the same classes and take the same images."""
    for network in found[1:]:
        for field in ("classes", "shape"):
            if network.spec[field] != found[0].spec[field]:
                raise ValueError(
                    f"runs must have the same {field} to be analysed side by side: {network.path} "
                    f"and {found[0].path} do not"
                )


def _data_config(network: Network, fields: dict) -> ConfigDict:
    """The config of a run, with fields set anew. Raises ValueError if it has none."""
    if network.config is None:
        raise ValueError(
            f"{network.path} has no {workdir.CONFIG}; pass --config=FILE with the config that says "
            "which data it was trained on"
        )
    c = network.config.copy_and_resolve_references()
    for field in settings.names_first(fields):
        settings.set_field(c, field, fields[field])
    return c


def _run(network: Network, c: ConfigDict, dataset: Dataset, count: int) -> Run:
    examples = {
        "test": networks.test_examples(c.data, dataset, count),
        "train": networks.train_examples(c.data, dataset, count),
    }
    stages = networks.stage_examples(network, len(examples["test"].label))
    passed = {
        "test": networks.passed(network, examples["test"].images, stages=stages),
        "train": networks.passed(network, examples["train"].images),
    }
    log = network.path / workdir.METRICS
    rows = workdir.read_log(log) if log.is_file() else []
    return Run(network, dataset, examples, passed, rows, networks.snapshots(network.path))


def _check_images(runs: list[Run]) -> None:
    """Raise ValueError unless all runs have the same test images."""
    first = runs[0].examples["test"]
    for run in runs[1:]:
        own = run.examples["test"]
        if own.label.shape != first.label.shape or not np.array_equal(own.images, first.images):
            raise ValueError(
                "runs must have the same test images to be analysed side by side: "
                f"{run.network.path} and {runs[0].network.path} do not"
            )


def _teachers(runs: list[Run], consent: Consent) -> list[tuple[Network, Passed]]:
    """The teachers of the runs that are not runs here themselves, with their outputs."""
    known = {run.network.path.resolve() for run in runs}
    images = runs[0].examples["test"].images
    found = []
    for run in runs:
        for path in () if run.network.config is None else run.network.config.teachers:
            place = files.home(path).resolve()
            if place in known or len(found) == MOST_TEACHERS:
                continue
            known.add(place)
            try:
                teacher = networks.read(
                    path, f"{Path(path).name}, teacher of {run.name}", consent=consent
                )
            except ValueError:  # it was deleted, or lies elsewhere
                continue
            if all(teacher.spec[name] == run.network.spec[name] for name in ("classes", "shape")):
                stages = networks.stage_examples(teacher, len(images))
                found.append((teacher, networks.passed(teacher, images, stages=stages)))
    return found
