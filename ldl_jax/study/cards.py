"""Result cards: the results of a study's finished run, small enough to be kept for good.

A card is two files. <cell>-<index>.json has the metrics of the raw and of the recalibrated
predictions, the bins of the confidence, metrics by epoch, and how the run was made.
<cell>-<index>.npz has `COLUMNS` for each test image, for comparisons on the same images, in half
precision, since a study keeps hundreds of them.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ldl_jax import files
from ldl_jax import workdir as run_directory
from ldl_jax.config.study import Planned
from ldl_jax.errors import UnreadableFile
from ldl_jax.evaluation import bootstrap, curves, evaluation, predictions, runs
from ldl_jax.evaluation.bootstrap import Answers
from ldl_jax.evaluation.passes import Reduced
from ldl_jax.files import reading
from ldl_jax.report.result import STATES

FORMAT, VERSION = "ldl_jax.study.card", 1
COLUMNS = ("confidence", "correct", "nll", "brier")
LARGEST = np.finfo(np.float16).max  # upper limit of stored values, such as an image's NLL
# keys that a card's .json must have besides its format and version
NEEDED = {"identity", "settings", *STATES, "epochs", "seconds", "at_bound"}


class Card(NamedTuple):
    """The results of a finished run."""

    facts: dict  # see `make`
    columns: dict[str, dict[str, np.ndarray]]  # state -> column -> f16[N], 'correct' bool[N]

    def side(self, state: str) -> Answers | None:
        """The per-image columns of a state, for differences; None if the card lacks the state."""
        if state not in self.columns:
            return None
        stored = self.columns[state]
        correct = stored["correct"]
        # Sums over images need more than the half precision in which they are stored.
        nll = stored["nll"].astype(np.float64)
        brier = stored["brier"].astype(np.float64)
        confidence = stored["confidence"].astype(np.float64)
        return Answers(confidence, correct, {"accuracy": correct, "nll": nll, "brier": brier})


def paths(folder, planned: Planned) -> tuple[Path, Path]:
    """The two files of a run's card, .json and .npz."""
    name = f"{planned.cell.name}-{planned.place}"
    return Path(folder) / f"{name}.json", Path(folder) / f"{name}.npz"


def make(planned: Planned, workdir, seconds: float) -> Card:
    """The card of the finished run in the directory `workdir`, which took `seconds`.

    facts: cell, place (index of the seed), seed, identity, settings, seconds, images (number of
    test images), tested_on (digest of which they are), temperature (None without a holdout),
    at_bound (whether the temperature is a limit of the search), epochs (lists of epoch, accuracy,
    ece), versions, and for each state, 'raw' and 'scaled' (None without a temperature): figures
    (metrics; fractions, nat), floor (noise floor of the ECE) and reliability (bins of the
    confidence). train_accuracy: accuracy on training images at the last evaluation; only if the run
    has recorded it. holdout_nll: NLL on the holdout, recalibrated with the temperature that was
    fitted on it; only if there is one. It serves to choose among settings, which the test images
    must not.
    """
    run = runs.read(workdir)
    columns = {}
    states = dict.fromkeys(STATES)
    for state in STATES:
        scaled = state == "scaled"
        # Without a holdout there is nothing to fit a temperature on.
        if scaled and run.temperature is None:
            continue
        reduced = runs.reduced(run, scaled=scaled)
        columns[state] = _stored(reduced)
        states[state] = _measured(reduced)
    facts = {
        "cell": planned.cell.name,
        "place": planned.place,
        "seed": planned.config.seed,
        "identity": planned.identity,
        "settings": planned.settings,
        "seconds": round(seconds, 1),
        "images": len(run.test.label),
        "tested_on": _digest(run.test.index, run.test.label),
        "temperature": run.temperature,
        "at_bound": run.at_bound,
        **states,
        "epochs": _epochs(workdir),
        "versions": _versions(workdir),
    }
    train_accuracy = _train_accuracy(workdir)
    if train_accuracy is not None:
        facts["train_accuracy"] = train_accuracy
    if run.temperature is not None:
        facts["holdout_nll"] = _holdout_nll(run)
    return Card(facts, columns)


def _holdout_nll(run: runs.Run) -> float | None:
    """The NLL on the holdout at the run's temperature; None if its predictions are not there."""
    file = run_directory.predictions_file(run.path, "holdout")
    if not file.is_file():
        return None
    holdout = runs.reduced(run._replace(test=predictions.read(file)), scaled=True)
    return float(holdout.nll.mean())


def _measured(reduced: Reduced) -> dict:
    """The metrics of one state."""
    return {
        "figures": bootstrap.figures(*runs.answers(reduced)),
        "floor": evaluation.ece_floor(reduced)[0],
        "reliability": curves.reliability(reduced),
    }


def _stored(reduced: Reduced) -> dict[str, np.ndarray]:
    """COLUMNS of one state, as they are stored: f16[N], 'correct' bool[N]."""
    columns = {}
    for name in COLUMNS:
        values = getattr(reduced, name)
        # The NLL of a sure mistake can exceed half precision, and would become infinite.
        columns[name] = np.minimum(values, LARGEST).astype(np.float16)
    columns["correct"] = reduced.correct.astype(bool)
    return columns


def _versions(workdir) -> dict:
    """The software and hardware of the run's last start, and the CPU threads of all its starts."""
    starts = run_directory.read_starts(workdir)
    names = ("python", "packages", "backend", "device", "devices", "cores")
    versions = {name: starts[-1][name] for name in names}
    # Older versions recorded no threads, and other backends have none.
    counts = dict.fromkeys(start.get("threads") for start in starts)
    versions["threads"] = [count for count in counts if count is not None]
    return versions


def thread_note(runs: Iterable[Card]) -> str:
    """What to say of the runs of a cell if not all had the same number of CPU threads; else ''."""
    counts = set()
    for card in runs:
        counts.update(card.facts["versions"].get("threads", ()))
    if len(counts) < 2:
        return ""
    return (
        f"its runs had {' and '.join(map(str, sorted(counts)))} CPU threads; XLA's results differ "
        "in the last bits between such numbers"
    )


def _digest(*columns: np.ndarray) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of integers, independent of their dtype."""
    sha256 = hashlib.sha256()
    for column in columns:
        sha256.update(np.ascontiguousarray(column, "<i8").tobytes())
    return sha256.hexdigest()[:16]


def _epochs(workdir) -> dict[str, list[float]]:
    """Epoch, accuracy and ECE of each evaluation on the test images during training."""
    epochs: dict[str, list[float]] = {"epoch": [], "accuracy": [], "ece": []}
    for row in run_directory.read_log(Path(workdir) / run_directory.METRICS):
        # The other rows log training steps.
        if "test/accuracy" in row:
            epochs["epoch"].append(row["epoch"])
            epochs["accuracy"].append(row["test/accuracy"])
            epochs["ece"].append(row["test/ece"])
    return epochs


def _train_accuracy(workdir) -> float | None:
    """The accuracy on training images at the last evaluation; None if it was not recorded."""
    accuracy = None
    for row in run_directory.read_log(Path(workdir) / run_directory.METRICS):
        accuracy = row.get("train/accuracy", accuracy)
    return accuracy


def write(folder, planned: Planned, card: Card) -> None:
    """Write a card."""
    facts_path, columns_path = paths(folder, planned)
    arrays = {}
    for state, columns in card.columns.items():
        for name, values in columns.items():
            arrays[f"{state}/{name}"] = values
    # The .json comes last: if it exists, the card is complete.
    files.write_with(columns_path, lambda path: np.savez_compressed(path, **arrays))
    files.write_json(facts_path, {"format": FORMAT, "version": VERSION, **card.facts})


def read(folder, planned: Planned) -> Card | None:
    """The card of a run; None if it has none.

    Raises ValueError, naming the file, if the card is damaged or has another version, and, naming
    the fields, if the cell's config has changed.
    """
    facts_path, columns_path = paths(folder, planned)
    if not facts_path.is_file():
        return None
    facts = _facts(facts_path)
    # Results of another config must not be mixed with those of this one.
    if facts["identity"] != planned.identity:
        raise ValueError(
            f"cell {planned.cell.name!r} was run with another config "
            f"({_changed(facts['settings'], planned)}). Restore the config, pass another --workdir, "
            f"or remove {facts_path} and the run's directory to do the run again"
        )
    try:
        arrays = files.read_npz(columns_path)
        columns = {}
        for state in STATES:
            if facts[state] is not None:
                columns[state] = {name: arrays[f"{state}/{name}"] for name in COLUMNS}
    except (UnreadableFile, KeyError) as error:
        reason = getattr(error, "reason", error)
        raise ValueError(
            f"{columns_path} cannot be read ({reason}); remove {facts_path} to have the card made "
            "again"
        ) from None
    return Card(facts, columns)


def _facts(path: Path) -> dict:
    """The facts of a card's .json file. Raises ValueError if it is damaged or of another version."""
    try:
        facts = reading.read_json(path, finite=False)
        version = facts["version"]
        if facts["format"] != FORMAT or not set(facts) >= NEEDED:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} is not a complete result card; remove it to have the card made again"
        ) from None
    if version != VERSION:
        raise ValueError(f"{path} must have version {VERSION}, got {version!r}")
    return facts


def _changed(before: dict, planned: Planned) -> str:
    """The settings of a run that differ from those on its card, as text."""
    changes = {}
    for name in {**before, **planned.settings}:
        old = before.get(name)
        new = planned.settings.get(name)
        if old != new:
            changes[name] = (old, new)
    # The identity also covers the teachers, whose settings are not on the card.
    return run_directory.sentence(changes) or "its teachers' configs differ"
