"""The command that compares finished runs, grouping the seeds of each config, and predictions.

python -m ldl_jax.compare RUN [RUN ...] [--baseline RUN] [--out DIR]

A RUN is the directory of a finished run, or a file of predictions of any framework for the same
test images, as `evaluate` reads it.

Prints mean ± standard deviation over seeds, and the difference of each group to the baseline with
two intervals, over seeds and over the test images; raw, and recalibrated at the temperature that
each run fitted on its holdout. Writes the same to DIR as comparison.csv, .md, .tex and .json; DIR
is `comparison` next to the first run unless given.
"""

import argparse
import json
import sys
from pathlib import Path

from ldl_jax import escape, files
from ldl_jax.cli import Parser, add_columns, class_names, folder, status, writable
from ldl_jax.errors import Failed, say
from ldl_jax.evaluation import runs
from ldl_jax.evaluation.comparison import compare
from ldl_jax.evaluation.prediction_files import ENDINGS
from ldl_jax.report import figure_tables, tables

NAME = "comparison"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = Parser(
        prog="python -m ldl_jax.compare",
        description="Compare finished runs, grouping the seeds of each config, and files of "
        "predictions.",
    )
    command.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="directories of finished runs, with any number of seeds for each config, or .npz, "
        ".npy and .csv files of predictions for the same test images",
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
    command.add_argument(
        "--labels", metavar="FILE", help="file with the labels of all files, instead of their own"
    )
    add_columns(command)
    command.add_argument("--seed", type=int, default=0, help="random seed of the bootstrap")
    return command


def write(chosen: argparse.Namespace) -> list[Path]:
    """Compare the runs of a command line, print the tables, write the results; returns the paths."""
    # Check everything that can be wrong before the bootstrap, which takes a while.
    paths = [files.home(path) for path in dict.fromkeys(chosen.runs)]
    groups = runs.groups(_read(chosen, paths))
    wanted = files.home(chosen.baseline) if chosen.baseline else paths[0]
    baseline = _baseline(groups, wanted, paths)
    out = folder(chosen.out, paths[0].parent / NAME)
    can_write = writable(out)
    results = compare(groups, baseline, seed=chosen.seed)
    shown = figure_tables.comparison(results)
    notes = figure_tables.comparison_notes(results)
    say(tables.as_text(*shown, notes=notes), end="\n\n")
    if not can_write:
        raise Failed("")
    # The tables are rounded for readers; CSV and JSON have all digits.
    texts = {
        "csv": tables.as_csv(figure_tables.comparison_numbers(results)),
        "md": tables.as_markdown(*shown, notes=notes),
        "tex": tables.as_latex(*shown, notes=notes),
        "json": json.dumps(results, indent=2) + "\n",
    }
    return [files.write(out / f"{NAME}.{ending}", text) for ending, text in texts.items()]


def _read(chosen: argparse.Namespace, paths: list[Path]) -> list[runs.Run]:
    """The runs and files of a command line."""
    options = {
        "labels": chosen.labels,
        "kind": chosen.kind,
        "classes": class_names(chosen.classes),
        "label_column": chosen.label_column,
    }
    entries = []
    for path in paths:
        if path.suffix.lower() in ENDINGS and not path.is_dir():
            entries.append(runs.read_file(path, **options))
        else:
            entries.append(runs.read(path))
    return entries


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
            say(escape.line(f"wrote {path}"))

    return status(work)


if __name__ == "__main__":
    sys.exit(main())
