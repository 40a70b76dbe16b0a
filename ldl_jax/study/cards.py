"""Result cards: what is kept of a study's finished run, small enough to be kept for good.

A card is <cell>-<place>.json (figures raw and at the run's temperature, bins, figures by epoch, how
it was made) and .npz (`COLUMNS` of each test image, for comparisons on the same images; to 11 bits,
since hundreds are kept).
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ldl_jax import files
from ldl_jax import workdir as run_directory
from ldl_jax.config.study import Planned
from ldl_jax.errors import UnreadableFile
from ldl_jax.evaluation import bootstrap, curves, evaluation, runs
from ldl_jax.evaluation.bootstrap import Answers
from ldl_jax.evaluation.passes import Reduced
from ldl_jax.report.result import STATES

FORMAT, VERSION = "ldl_jax.study.card", 1
COLUMNS = ("confidence", "correct", "nll", "brier")
LARGEST = np.finfo(np.float16).max  # of an image's NLL, as it is kept


class Card(NamedTuple):
    """What is kept of a finished run."""

    facts: dict  # see `make`
    columns: dict[str, dict[str, np.ndarray]]  # state -> column -> f16[N], 'correct' bool[N]

    def side(self, state: str) -> Answers | None:
        """What differences are made from; None where there is no such state."""
        if state not in self.columns:
            return None
        kept = {
            name: x if x.dtype == bool else x.astype(np.float64)
            for name, x in self.columns[state].items()
        }
        means = {"accuracy": kept["correct"], "nll": kept["nll"], "brier": kept["brier"]}
        return Answers(kept["confidence"], kept["correct"], means)


def paths(folder, planned: Planned) -> tuple[Path, Path]:
    """The two files of a run's card."""
    name = f"{planned.cell.name}-{planned.place}"
    return Path(folder) / f"{name}.json", Path(folder) / f"{name}.npz"


def make(planned: Planned, workdir, seconds: float) -> Card:
    """The card of the finished run in `workdir`, which took so many seconds.

    facts: cell, place, seed, identity, settings, seconds, images (their number), tested_on (digest
    of which), temperature (None without a holdout), at_bound (whether it is a bound of the search),
    'raw' and 'scaled' (None) with figures (fractions, nat), floor of the ECE and bins of the
    confidence, epochs (lists of epoch, accuracy, ece), and versions.
    """
    run = runs.read(workdir)
    columns, states = {}, dict.fromkeys(STATES)
    for state in STATES:
        scaled = state == "scaled"
        if not scaled or run.temperature is not None:
            reduced = runs.reduced(run, scaled=scaled)
            columns[state] = _kept(reduced)
            states[state] = _measured(reduced)
    head = {
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
    }
    return Card(
        {**head, **states, "epochs": _epochs(workdir), "versions": _versions(workdir)}, columns
    )


def _measured(reduced: Reduced) -> dict:
    """The figures of one state."""
    return {
        "figures": bootstrap.figures(*runs.answers(reduced)),
        "floor": evaluation.ece_floor(reduced)[0],
        "reliability": curves.reliability(reduced),
    }


def _kept(reduced: Reduced) -> dict[str, np.ndarray]:
    """COLUMNS of one state, in half precision."""
    columns = {
        name: np.minimum(getattr(reduced, name), LARGEST).astype(np.float16) for name in COLUMNS
    }
    return {**columns, "correct": reduced.correct.astype(bool)}


def _versions(workdir) -> dict:
    """Where the run's last start ran."""
    start = json.loads((Path(workdir) / run_directory.VERSIONS).read_text())["starts"][-1]
    return {
        name: start[name]
        for name in ("python", "packages", "backend", "device", "devices", "cores")
    }


def _digest(*columns: np.ndarray) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of integers, whatever type they are of."""
    made = hashlib.sha256()
    for column in columns:
        made.update(np.ascontiguousarray(column, "<i8").tobytes())
    return made.hexdigest()[:16]


def _epochs(workdir) -> dict[str, list[float]]:
    rows = [
        row
        for row in run_directory.read_log(Path(workdir) / run_directory.METRICS)
        if "test/accuracy" in row
    ]
    return {name: [row[field] for row in rows] for name, field in
            (("epoch", "epoch"), ("accuracy", "test/accuracy"), ("ece", "test/ece"))}  # fmt: skip


def write(folder, planned: Planned, card: Card) -> None:
    """Keep a card; the .json comes last, so that a card whose .json is there is whole."""
    facts, columns = paths(folder, planned)
    flat = {f"{state}/{name}": x for state, own in card.columns.items() for name, x in own.items()}
    files.write_with(columns, lambda path: np.savez_compressed(path, **flat))
    files.write_json(facts, {"format": FORMAT, "version": VERSION, **card.facts})


def read(folder, planned: Planned) -> Card | None:
    """The card of a run; None where there is none.

    Raises ValueError, naming the file, where it is damaged or of another version, and, naming the
    fields, where the cell has another config than it had.
    """
    path, columns = paths(folder, planned)
    if not path.is_file():
        return None
    facts = _facts(path)
    if facts["identity"] != planned.identity:
        raise ValueError(
            f"cell {planned.cell.name!r} was run with another config ({_changed(facts['settings'], planned)}); allowed "
            f"is the same, another --workdir, or without {path} and the run's directory, which makes it anew"
        )
    try:
        flat = files.read_npz(columns)
        found = {
            state: {name: flat[f"{state}/{name}"] for name in COLUMNS}
            for state in STATES
            if facts[state] is not None
        }
    except (UnreadableFile, KeyError) as error:
        reason = getattr(error, "reason", error)
        raise ValueError(
            f"{columns} cannot be read ({reason}); remove {path}, and the run is made again"
        ) from None
    return Card(facts, found)


def _facts(path: Path) -> dict:
    try:
        facts = json.loads(path.read_text())
        version = facts["version"]
        whole = {"identity", "settings", *STATES, "epochs", "seconds", "at_bound"} <= set(facts)
        if facts["format"] != FORMAT or not whole:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} is no whole result card; remove it, and the run is made again"
        ) from None
    if version != VERSION:
        raise ValueError(f"{path} is of version {version!r}; allowed is {VERSION}")
    return facts


def _changed(before: dict, planned: Planned) -> str:
    after = planned.settings
    differ = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return (
        run_directory.sentence({n: (before.get(n), after.get(n)) for n in differ})
        or "its teachers' configs differ"
    )
