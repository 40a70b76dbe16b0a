"""One run of a study, trained in this process, and its card."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from ldl_jax import config, files, workdir
from ldl_jax.config.study import Planned
from ldl_jax.study import cards, directory
from ldl_jax.study.runner import Stopped


def train(planned: Planned, folder, compiled: dict) -> cards.Card:
    """Train a run in this process, its output into a log file, and keep its card; teachers must be
    there.

    folder: the study's directory. compiled: programs, kept between calls. Of a run that is finished
    already, its card alone is made. Raises Busy where another process is at it, and Stopped where
    SIGTERM ended it.
    """
    folder = Path(folder)
    here = directory.of_run(folder, *planned.key)
    # Held until the card is there, longer than the run's own lock: no other process begins the run
    # anew.
    with workdir.locked(folder / directory.LOCKS / here.name):
        # Another process may have made the card since the caller looked.
        card = cards.read(folder / directory.CARDS, planned)
        if card is not None:
            return card
        if not _is_finished(planned, folder, here):
            _train(planned, folder, here, compiled)
        card = cards.make(planned, here, _spent(here))
        cards.write(folder / directory.CARDS, planned, card)
        # The weights are in model.npz as well, and nothing goes on from here.
        shutil.rmtree(here / workdir.CHECKPOINTS, ignore_errors=True)
        return card


def _is_finished(planned: Planned, folder: Path, here: Path) -> bool:
    """Whether a directory holds this very run to its end, learned from the teachers that are there
    now.
    """
    if not (workdir.is_finished(here) and workdir.is_measured(here)):
        return False
    inputs = json.loads((here / workdir.VERSIONS).read_text())["starts"][-1]["inputs"]
    digests_then = [digest for name, digest in inputs.items() if name.startswith("teachers[")]
    weights = [directory.of_run(folder, *key) / workdir.WEIGHTS for key in planned.needs]
    digests_now = [files.sha256(path) for path in weights if path.is_file()]
    if digests_then != digests_now:
        return False
    return not config.differences(workdir.read_config(here), planned.config)


def _train(planned: Planned, folder: Path, here: Path, compiled: dict) -> None:
    from ldl_jax import checkpoint
    from ldl_jax.training import loop, remeasure

    settings = planned.config.copy_and_resolve_references()
    settings.teachers = tuple(str(directory.of_run(folder, *key)) for key in planned.needs)
    log = folder / directory.LOGS / f"{planned.cell.name}-{planned.place}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as out, redirect_stdout(out), redirect_stderr(out), _timed(here):
        if workdir.is_finished(here) and not checkpoint.saved_steps(here / workdir.CHECKPOINTS):
            summary = remeasure.measure_again(settings, here)  # only its predictions are gone
        else:
            summary = loop.train(settings, here, compiled=compiled)
    if summary is None:
        raise Stopped


@contextmanager
def _timed(here: Path) -> Iterator[None]:
    """Add the seconds of an attempt to those of the run, for its card."""
    began = time.perf_counter()
    try:
        yield
    finally:
        if (here / workdir.CONFIG).is_file():
            seconds = _spent(here) + time.perf_counter() - began
            files.write(here / workdir.SPENT, f"{seconds:.1f}\n")


def _spent(here: Path) -> float:
    file = here / workdir.SPENT
    return float(file.read_text()) if file.is_file() else 0.0
