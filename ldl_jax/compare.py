"""The command that compares finished runs, grouping the seeds of each config.

python -m ldl_jax.compare RUN [RUN ...] [--baseline RUN] [--out DIR]

Prints mean ± standard deviation over seeds, and the difference of each group to the baseline with
two intervals, over seeds and over the test images; raw, and recalibrated at the temperature that
each run fitted on its holdout. Writes the same to DIR as comparison.csv, .md, .tex and .json; DIR
is `comparison` next to the first run unless given.
"""

import argparse
import json
import sys
from pathlib import Path

from ldl_jax import files
from ldl_jax.cli import Parser, folder, status
from ldl_jax.evaluation import runs
from ldl_jax.evaluation.comparison import compare
from ldl_jax.report import figure_tables, tables

NAME = "comparison"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = Parser(
        prog="python -m ldl_jax.compare",
        description="Compare finished runs, grouping the seeds of each config.",
    )
    command.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="directories of finished runs, with any number of seeds for each config",
    )
    command.add_argument(
        "--baseline",
        metavar="RUN",
        help="run whose group the others are compared with (default: the first run)",
    )
    command.add_argument(
        "--out",
        metavar="DIR",
        help=f"folder for the results (default: `{NAME}` next to the first run)",
    )
    command.add_argument("--seed", type=int, default=0, help="random seed of the bootstrap")
    return command


def write(chosen: argparse.Namespace) -> list[Path]:
    """Compare the runs of a command line, print the tables, write the results; returns the paths."""
    # Check everything that can be wrong before the bootstrap, which takes a while.
    paths = [Path(path) for path in dict.fromkeys(chosen.runs)]
    groups = runs.groups([runs.read(path) for path in paths])
    baseline = _baseline(groups, Path(chosen.baseline) if chosen.baseline else paths[0], paths)
    out = folder(Path(chosen.out) if chosen.out else paths[0].parent / NAME)
    results = compare(groups, baseline, seed=chosen.seed)
    shown = figure_tables.comparison(results)
    notes = figure_tables.comparison_notes(results)
    print(tables.as_text(*shown, notes=notes), end="\n\n")
    # The tables are rounded for readers; CSV and JSON have all digits.
    texts = {
        "csv": tables.as_csv(figure_tables.comparison_numbers(results)),
        "md": tables.as_markdown(*shown, notes=notes),
        "tex": tables.as_latex(*shown, notes=notes),
        "json": json.dumps(results, indent=2) + "\n",
    }
    return [files.write(out / f"{NAME}.{ending}", text) for ending, text in texts.items()]


def _baseline(groups: list[runs.Group], wanted: Path, paths: list[Path]) -> int:
    """The position of the group that the run `wanted` belongs to. Raises ValueError if none does."""
    for number, group in enumerate(groups):
        if wanted in [run.path for run in group.runs]:
            return number
    raise ValueError(f"--baseline must be one of {', '.join(map(str, paths))}, got {wanted}")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status.

    0: done, 1: the results cannot be written, 2: the input is invalid.
    """

    def work():
        paths = write(parser().parse_args(argv))
        for path in paths:
            print(f"wrote {path}")

    return status(work)


if __name__ == "__main__":
    sys.exit(main())
