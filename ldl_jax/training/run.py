"""Training from Python: the function that notebooks and other programs call, and its result."""

import signal
from collections.abc import Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ldl_jax import config as settings
from ldl_jax import escape
from ldl_jax.cli import expand_homes
from ldl_jax.config.trust import ASK, Consent, consent_to
from ldl_jax.data import in_memory
from ldl_jax.data.loading import prepared
from ldl_jax.errors import say
from ldl_jax.evaluation.load import load_model
from ldl_jax.evaluation.model import Model
from ldl_jax.report import figure_tables, html, tables
from ldl_jax.signals import Interrupted
from ldl_jax.training import devices as platform
from ldl_jax.training import loop
from ldl_jax.workdir import read_config


class Run:
    """A run that was trained from Python: its directory, its summary and its network.

    `workdir` is the directory; `summary` the contents of summary.json, {} if the run was terminated
    before its end. It shows as a table of the figures.
    """

    def __init__(self, workdir: Path, summary: dict[str, Any], consent: Consent = ASK):
        self.workdir = workdir
        self.summary = summary
        self._consent = consent  # to modules that the run names

    @property
    def finished(self) -> bool:
        """Whether the run has reached its last step."""
        return bool(self.summary.get("finished"))

    @cached_property
    def model(self) -> Model:
        """The network, as `ldl_jax.load` returns it. Raises ValueError if the run is unfinished."""
        return load_model(self.workdir, self._consent)

    def __repr__(self) -> str:
        if not self.summary:
            return f"{self._title()}\nterminated before its end; train again to resume"
        return f"{self._title()}\n{tables.as_text(figure_tables.summary(self.summary))}"

    def _repr_html_(self) -> str:
        """The same table for a notebook."""
        if not self.summary:
            return html.text(repr(self))
        table = figure_tables.summary(self.summary)
        return html.heading(self._title()) + html.table(table)

    def _title(self) -> str:
        if not self.summary:
            return escape.line(f"Run {self.workdir}")
        summary = self.summary
        length = f"{summary['step']} steps ({summary['epochs']:g} epochs)"
        names = f"{summary['data']}, labels {summary['labels']}"
        return escape.line(f"Run {self.workdir}: {names}, {length}")


def train(
    config: str | PathLike | ConfigDict,
    *,
    workdir: str | PathLike | None = None,
    overrides: Mapping[str, Any] | None = None,
    data: Sequence[Any] | None = None,
    classes: Sequence[str] | None = None,
    extend: bool = False,
    devices: Sequence[Any] | None = None,
    trust: bool = False,
) -> Run:
    """Train a config, or resume the run in `workdir`: what `python -m ldl_jax.main` does.

    config: the name of a config that comes with the package ('digits_online'), the path of a .py
    config or of a run's config.json, or a ConfigDict. workdir: by default that of the command,
    runs/<config's name>-seed<seed>. overrides: dotted field -> value, such as {'train.epochs': 5}.
    data: (images, labels, test_images, test_labels) instead of the config's data set, with images
    u8[N, H, W, C] and class numbers [N]; numpy, jax, torch and pandas arrays are accepted. classes:
    the names of the classes of `data`. extend: allow an existing run to become longer. devices: of
    jax.devices(), by default all. trust: run the modules that run directories name (a config.json,
    teachers) and that are not part of the package, although you have not trained those runs.

    The same call resumes a run that was interrupted; with other arrays, or another config, it is
    refused. Ctrl-C, or a notebook's button to stop, saves a checkpoint and raises KeyboardInterrupt,
    so that the cells below do not run; SIGTERM and SIGHUP save one and return a run that is not
    `finished`; a second Ctrl-C ends the process. Afterwards, handlers of signals are as before. In
    another thread than the main one, signals are left to the caller. Raises ValueError if the
    config, the data or the directory do not fit, `ldl_jax.training.loop.NonFinite` if the loss is
    not finite, and OSError if results cannot be written.

    >>> import numpy as np
    >>> import ldl_jax as ldl
    >>> labels = np.arange(64) % 2
    >>> images = np.full((64, 8, 8, 1), 50, np.uint8) + 100 * labels[:, None, None, None]
    >>> images = images.astype(np.uint8)
    >>> run = ldl.train(
    ...     "digits_online",
    ...     workdir="runs/two-greys",
    ...     data=(images, labels, images, labels),
    ...     overrides={"data.batch_size": 32, "data.holdout": 16, "train.max_steps": 1},
    ... )  # doctest: +ELLIPSIS
    cpu, ...
    >>> run.finished, run.model.predict_proba(images[0]).shape
    (True, (2,))
    """
    values = {name.removeprefix("config."): value for name, value in (overrides or {}).items()}
    consent = consent_to(_plugs(values), trust=trust)
    before = _config(config, values, in_memory=data is not None, trust=trust)
    c = _overridden(before, values, in_memory=data is not None)
    expand_homes(c)
    if data is None and classes is not None:
        raise ValueError("classes must be given with data=, whose classes they name")
    settings.check(c)
    directory = _directory(workdir, config, c, extend=extend)
    stored = read_config(directory)
    note = settings.scale_boundaries(c, before, values, stored, extend=extend)
    if note:
        say(note)
    dataset = None
    if data is not None:
        dataset = prepared(in_memory.dataset(data, classes), c.data)
    platform.prepare(c)
    try:
        summary = loop.train(
            c, directory, extend=extend, devices=devices, dataset=dataset, consent=consent
        )
    except Interrupted as stop:
        if stop.number == signal.SIGINT:
            raise
        summary = {}
    return Run(directory, summary, consent.to(c))


def _plugs(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the fields that name plugs."""
    return {field: value for field, value in values.items() if field in settings.NAMES}


def _config(
    config: str | PathLike | ConfigDict, values: Mapping[str, Any], *, in_memory: bool, trust: bool
) -> ConfigDict:
    """A copy of the config before its overrides `values`, of arrays in memory if `in_memory`."""
    named = {"given": _plugs(values), "trust": trust}
    # The caller's config stays as it is.
    is_config = isinstance(config, ConfigDict)
    c = config.copy_and_resolve_references() if is_config else settings.read(config, **named)
    if in_memory:
        c.data.name = "in_memory"
        c.data.root = ""
    return c


def _overridden(before: ConfigDict, values: Mapping[str, Any], *, in_memory: bool) -> ConfigDict:
    """A copy of a config with other values of these fields. Raises ValueError if a field does not
    exist or fit.
    """
    c = before.copy_and_resolve_references()
    for field in settings.names_first(values):
        if in_memory and field in ("data.name", "data.root"):
            raise ValueError(f"config.{field} must not be set with data=, which replaces it")
        settings.set_field(c, field, _plain(values[field]))
    return c


def _plain(value: Any) -> Any:
    """A value as config fields take it: no numpy numbers, no paths."""
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, PathLike) else value


def _directory(workdir, config, c: ConfigDict, *, extend: bool) -> Path:
    """The run directory. Raises ValueError if a ConfigDict, which has no name, comes without."""
    if workdir is not None:
        return Path(workdir).expanduser()
    if isinstance(config, ConfigDict):
        raise ValueError("workdir must be given with a ConfigDict, which has no file to name it")
    return settings.run_directory(str(config), c, extend=extend)
