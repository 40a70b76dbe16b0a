"""The command that lays finished runs side by side, the seeds of a config together.

python -m ldl_jax.compare RUN [RUN ...] [--baseline RUN] [--out DIR]

Printed are mean ± standard deviation over seeds, and each group's difference to the baseline with two intervals: over
seeds, and over the test images; raw, and after the temperature that each run fitted on its holdout. The same is written
to DIR as comparison.csv, .md, .tex and .json; DIR is `comparison` beside the first run unless given.
"""

import argparse
import json
import sys
from pathlib import Path

from ldl_jax import files
from ldl_jax.cli import Parser, folder, status
from ldl_jax.evaluation import bootstrap as uncertainty
from ldl_jax.evaluation import runs
from ldl_jax.evaluation.runs import Group, Run
from ldl_jax.report import figure_tables, tables
from ldl_jax.report.result import STATES

FIGURES = {"raw": ("accuracy", "nll", "brier", "ece"), "scaled": ("nll", "brier", "ece")}  # T leaves accuracies alone
NAME = "comparison"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = Parser(prog="python -m ldl_jax.compare", description="Lay finished runs side by side, seeds together.")
    made.add_argument("runs", nargs="+", metavar="RUN", help="directories of finished runs, any number of seeds each")
    made.add_argument("--baseline", metavar="RUN", help="what the others are compared with: this run's group")
    made.add_argument("--out", metavar="DIR", help=f"folder of the results; `{NAME}` beside the first run")
    made.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    return made


def compare(found: list[Group], baseline: int = 0, *, seed: int = 0) -> dict:
    """Figures of groups over seeds, and their differences to the group at `baseline`; JSON can hold it.

    'groups': name, runs, 'at_bound' (how many have no best temperature), and by state ('raw', 'scaled', which is None
    unless every run has a temperature) and figure 'mean', 'std' (n - 1; None for one seed), 'n'. 'differences', one
    for each other group: the same of the group less the baseline, with 95 % intervals 'seeds' (Student's t of the
    differences where both have the same seeds, else Welch's; None for one seed) and 'images' (paired bootstrap of the
    same difference, with every run measured on the same resamples), and the bootstrap's 'p'.
    """
    measured = [{state: _measured(group, state == "scaled") for state in STATES} for group in found]
    groups = [
        {"name": group.name, "runs": [str(one.path) for one in group.runs],
         "at_bound": sum(one.at_bound for one in group.runs), **{s: _spreads(s, own[s]) for s in own}}
        for group, own in zip(found, measured, strict=True)
    ]  # fmt: skip
    differences = [
        {
            "name": group.name,
            **{s: _differences(s, seed, group, own[s], found[baseline], measured[baseline][s]) for s in own},
        }
        for place, (group, own) in enumerate(zip(found, measured, strict=True))
        if place != baseline
    ]
    return {"baseline": found[baseline].name, "seed": seed, "groups": groups, "differences": differences}


def _measured(group: Group, scaled: bool) -> list[tuple] | None:
    """(confidence, correct, columns whose means are figures) of each run; None where one has no temperature."""
    if scaled and any(one.temperature is None for one in group.runs):
        return None
    return [_side(one, scaled) for one in group.runs]


def _side(one: Run, scaled: bool) -> tuple:
    said = runs.reduced(one, scaled=scaled)
    return said.confidence, said.correct, {"accuracy": said.correct, "nll": said.nll, "brier": said.brier}


def _values(sides: list[tuple]) -> dict[str, list[float]]:
    found = [uncertainty.figures(*side) for side in sides]
    return {name: [one[name] for one in found] for name in found[0]}


def _spreads(state: str, sides: list[tuple] | None) -> dict | None:
    if sides is None:
        return None
    values = _values(sides)
    found = {name: uncertainty.over_seeds(values[name]) for name in FIGURES[state]}
    return {name: {"mean": x.mean, "std": x.std, "n": x.n} for name, x in found.items()}


def _differences(state: str, seed: int, group: Group, own, base: Group, there) -> dict | None:
    if own is None or there is None:
        return None
    values, before = _values(own), _values(there)
    same_seeds = _seeds(group) == _seeds(base)
    every = [(i, j) for i in range(len(own)) for j in range(len(there))]  # whose mean is that of the means' difference
    places = [(i, i) for i in range(len(own))] if same_seeds else every
    images = uncertainty.paired(seed, [(own[i], there[j]) for i, j in places])
    found = {}
    for name in FIGURES[state]:
        if same_seeds:
            spread = uncertainty.over_seeds([values[name][i] - before[name][j] for i, j in places])
            mean, std, interval = spread.mean, spread.std, spread.interval
        else:
            one, other = uncertainty.over_seeds(values[name]), uncertainty.over_seeds(before[name])
            mean, std, interval = one.mean - other.mean, None, uncertainty.unpaired(values[name], before[name])
        found[name] = {
            "mean": mean, "std": std, "n": min(len(own), len(there)), "seeds": interval,
            "images": images[name].interval, "p": images[name].p,
        }  # fmt: skip
    return found


def _seeds(group: Group) -> list[int]:
    return [one.config.seed for one in group.runs]


def write(chosen: argparse.Namespace) -> list[Path]:
    """Compare the runs of a command line, print the tables, write the results; returns what was written."""
    paths = [Path(path) for path in dict.fromkeys(chosen.runs)]
    found = runs.groups([runs.read(path) for path in paths])
    wanted = Path(chosen.baseline) if chosen.baseline else paths[0]
    places = [place for place, group in enumerate(found) if wanted in [one.path for one in group.runs]]
    if not places:
        raise ValueError(f"--baseline {wanted} is none of the runs; allowed is one of {', '.join(map(str, paths))}")
    out = folder(Path(chosen.out) if chosen.out else paths[0].parent / NAME)
    made = compare(found, places[0], seed=chosen.seed)
    shown, notes = figure_tables.comparison(made), figure_tables.comparison_notes(made)
    print(tables.as_text(*shown, notes=notes), end="\n\n")
    texts = {
        "csv": tables.as_csv(figure_tables.comparison_numbers(made)),
        "md": tables.as_markdown(*shown, notes=notes),
        "tex": tables.as_latex(*shown, notes=notes),
    }
    texts["json"] = json.dumps(made, indent=2) + "\n"
    return [files.write(out / f"{NAME}.{ending}", text) for ending, text in texts.items()]


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 done, 1 the results cannot be written, 2 the input is not right."""
    return status(lambda: print("\n".join(f"wrote {path}" for path in write(parser().parse_args(argv)))))


if __name__ == "__main__":
    sys.exit(main())
