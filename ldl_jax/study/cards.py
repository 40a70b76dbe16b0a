"""Result cards: what is kept of a study's finished run, small enough to be kept for good.

A card is <cell>-<place>.json (figures raw and at the run's temperature, bins, figures by epoch, how it was made) and
.npz (`COLUMNS` of each test image, for comparisons on the same images; to 11 bits, since hundreds are kept).
"""

import hashlib
import json
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from ldl_jax import files
from ldl_jax import workdir as run
from ldl_jax.config.study import Planned
from ldl_jax.evaluation import bootstrap as uncertainty
from ldl_jax.evaluation import curves, runs
from ldl_jax.report.result import STATES
from ldl_jax.training import log as logs

FORMAT, VERSION = "ldl_jax.study.card", 1
COLUMNS = ("confidence", "correct", "nll", "brier")
LARGEST = np.finfo(np.float16).max  # of an image's NLL, as it is kept


class Card(NamedTuple):
    """What is kept of a finished run."""

    facts: dict  # see `make`
    columns: dict[str, dict[str, np.ndarray]]  # state -> column -> f16[N], 'correct' bool[N]

    def side(self, state: str) -> tuple | None:
        """(confidence, correct, means) as `scores.uncertainty` takes them; None where there is no such state."""
        if state not in self.columns:
            return None
        own = {name: x if x.dtype == bool else x.astype(np.float64) for name, x in self.columns[state].items()}
        means = {"accuracy": own["correct"], "nll": own["nll"], "brier": own["brier"]}
        return own["confidence"], own["correct"], means


def paths(folder, planned: Planned) -> tuple[Path, Path]:
    """The two files of a run's card."""
    name = f"{planned.cell.name}-{planned.place}"
    return Path(folder) / f"{name}.json", Path(folder) / f"{name}.npz"


def make(planned: Planned, workdir, seconds: float) -> Card:
    """The card of the finished run in `workdir`, which took so many seconds.

    facts: cell, place, seed, identity, settings, seconds, images (their number), tested_on (digest of which),
    temperature (None without a holdout), at_bound (whether it is a bound of the search), 'raw' and 'scaled' (None) with
    figures (fractions, nat), floor of the ECE and bins of the confidence, epochs (lists of epoch, accuracy, ece), and
    versions.
    """
    one = runs.read(workdir)
    columns, facts = {}, {}
    for state in STATES:
        scaled = state == "scaled"
        if scaled and one.temperature is None:
            facts[state] = None
            continue
        reduced = runs.reduced(one, scaled=scaled)
        own = {name: getattr(reduced, name) for name in COLUMNS}
        columns[state] = {
            name: x.astype(bool) if name == "correct" else np.minimum(x, LARGEST).astype(np.float16)
            for name, x in own.items()
        }
        means = {"accuracy": reduced.correct, "nll": reduced.nll, "brier": reduced.brier}
        floor, _ = uncertainty.noise_floor(jax.random.key(0), reduced.confidence)
        facts[state] = {
            "figures": uncertainty.figures(reduced.confidence, reduced.correct, means), "floor": floor,
            "reliability": curves.reliability(reduced),
        }  # fmt: skip
    ran = json.loads((Path(workdir) / run.VERSIONS).read_text())["starts"][-1]
    head = {
        "cell": planned.cell.name, "place": planned.place, "seed": planned.config.seed, "identity": planned.identity,
        "settings": planned.settings, "seconds": round(seconds, 1), "images": len(one.test.label),
        "tested_on": _digest(one.test.index, one.test.label), "temperature": one.temperature, "at_bound": one.at_bound,
    }  # fmt: skip
    ran = {name: ran[name] for name in ("python", "packages", "backend", "device", "devices", "cores")}
    return Card({**head, **facts, "epochs": _epochs(workdir), "versions": ran}, columns)


def _digest(*columns: np.ndarray) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of integers, whatever type they are of."""
    made = hashlib.sha256()
    for column in columns:
        made.update(np.ascontiguousarray(column, "<i8").tobytes())
    return made.hexdigest()[:16]


def _epochs(workdir) -> dict[str, list[float]]:
    rows = [row for row in logs.read(Path(workdir) / logs.METRICS) if "test/accuracy" in row]
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

    Raises ValueError, naming the file, where it is damaged or of another version, and, naming the fields, where the
    cell has another config than it had.
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
        with np.load(columns, allow_pickle=False) as file:
            flat = {name: file[name] for name in file.files}
        found = {
            state: {name: flat[f"{state}/{name}"] for name in COLUMNS} for state in STATES if facts[state] is not None
        }
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{columns} cannot be read ({error}); remove {path}, and the run is made again") from None
    return Card(facts, found)


def _facts(path: Path) -> dict:
    try:
        facts = json.loads(path.read_text())
        version = facts["version"]
        whole = {"identity", "settings", *STATES, "epochs", "seconds", "at_bound"} <= set(facts)
        if facts["format"] != FORMAT or not whole:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is no whole result card; remove it, and the run is made again") from None
    if version != VERSION:
        raise ValueError(f"{path} is of version {version!r}; allowed is {VERSION}")
    return facts


def _changed(before: dict, planned: Planned) -> str:
    after = planned.settings
    differ = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return run.sentence({n: (before.get(n), after.get(n)) for n in differ}) or "its teachers' configs differ"
