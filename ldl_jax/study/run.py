"""One run of a study, trained in this process, and its result card."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from ldl_jax import config, files, workdir
from ldl_jax.config.study import Planned
from ldl_jax.files import reading
from ldl_jax.study import cards, directory
from ldl_jax.workdir import finished


def train(planned: Planned, folder, compiled: dict, *, trust: bool = False) -> cards.Card:
    """Train a run in this process and write its card; its output goes to a log file.

    The runs of its teachers must be finished. folder: the study's directory. compiled: cache of
    compiled programs, which the caller keeps between runs. trust: run modules that run directories
    name, whoever trained them. If the run is already finished, only its card is made. Raises Busy if
    another process works on the run, and signals.Interrupted if a signal ended it.
    """
    folder = Path(folder)
    run_folder = directory.of_run(folder, *planned.key)
    # This lock is held until the card is written, longer than the run's own: no other process may
    # start the run again in between.
    with workdir.locked(folder / directory.LOCKS / run_folder.name):
        # Another process may have made the card since the caller looked.
        card = cards.read(folder / directory.CARDS, planned)
        if card is not None:
            return card
        if not _is_finished(planned, folder, run_folder):
            _train(planned, folder, run_folder, compiled, trust)
        card = cards.make(planned, run_folder, _spent(run_folder))
        cards.write(folder / directory.CARDS, planned, card)
        # The final weights are in model.npz as well, and nothing resumes a finished run.
        shutil.rmtree(run_folder / workdir.CHECKPOINTS, ignore_errors=True)
        return card


def _is_finished(planned: Planned, folder: Path, run_folder: Path) -> bool:
    """Whether a directory holds this run, finished, with the config and the teachers of today."""
    if not (finished.is_finished(run_folder) and finished.is_measured(run_folder)):
        return False

    # A teacher that was trained again has other weights: its student has to learn from those.
    # So have the weights that the network starts from.
    inputs = workdir.read_starts(run_folder)[-1]["inputs"]
    recorded = []
    for name, digest in inputs.items():
        if name.startswith(("teachers[", "model.init_from")):
            recorded.append(digest)
    # In the order in which a run records them.
    sources = [directory.of_run(folder, *key) for key in planned.needs]
    if planned.config.model.init_from:
        sources.insert(0, Path(planned.config.model.init_from).expanduser())
    present = []
    for source in sources:
        if (source / workdir.WEIGHTS).is_file():
            present.append(files.sha256(source / workdir.WEIGHTS))
    if recorded != present:
        return False
    return not config.differences(workdir.read_config(run_folder), planned.config)


def _train(planned: Planned, folder: Path, run_folder: Path, compiled: dict, trust: bool) -> None:
    """Train or resume a run."""
    from ldl_jax import checkpoint
    from ldl_jax.training import loop, remeasure

    consent = config.Consent(trust, planned.names)
    settings = planned.config.copy_and_resolve_references()
    settings.teachers = tuple(str(directory.of_run(folder, *key)) for key in planned.needs)
    log = folder / directory.LOGS / f"{run_folder.name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    text = {"encoding": "utf-8", "errors": "backslashreplace"}
    with (
        open(log, "a", opener=files.no_link, **text) as out,
        redirect_stdout(out),
        redirect_stderr(out),
        _timed(run_folder),
    ):
        checkpoints = run_folder / workdir.CHECKPOINTS
        # A run with weights but no checkpoints was trained to its end: only results are missing.
        is_trained = (run_folder / workdir.WEIGHTS).is_file()
        if is_trained and not checkpoint.saved_steps(checkpoints):
            remeasure.measure_again(settings, run_folder, consent=consent)
        else:
            loop.train(settings, run_folder, compiled=compiled, consent=consent)


@contextmanager
def _timed(run_folder: Path) -> Iterator[None]:
    """Add the seconds of this attempt to those that the run has taken so far."""
    began = time.perf_counter()
    try:
        yield
    finally:
        # Without a config the attempt failed before the run's directory was set up.
        if (run_folder / workdir.CONFIG).is_file():
            seconds = _spent(run_folder) + time.perf_counter() - began
            files.write(run_folder / workdir.SPENT, f"{seconds:.1f}\n")


def _spent(run_folder: Path) -> float:
    """The seconds that a run has taken so far, over all attempts."""
    file = run_folder / workdir.SPENT
    if not file.is_file():
        return 0.0
    try:
        return float(reading.read_text(file, "seconds"))
    except ValueError:
        raise ValueError(f"{file} must hold a number of seconds; remove it") from None
