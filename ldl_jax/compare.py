"""The command that lays finished runs side by side, the seeds of a config together.

python -m ldl_jax.compare RUN [RUN ...] [--baseline RUN] [--out DIR]

Printed are mean ± standard deviation over seeds, and each group's difference to the baseline with
two intervals: over seeds, and over the test images; raw, and after the temperature that each run
fitted on its holdout. The same is written to DIR as comparison.csv, .md, .tex and .json; DIR is
`comparison` beside the first run unless given.
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
    made = Parser(
        prog="python -m ldl_jax.compare",
        description="Lay finished runs side by side, seeds together.",
    )
    made.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="directories of finished runs, any number of seeds each",
    )
    made.add_argument(
        "--baseline", metavar="RUN", help="what the others are compared with: this run's group"
    )
    made.add_argument(
        "--out", metavar="DIR", help=f"folder of the results; `{NAME}` beside the first run"
    )
    made.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    return made


def write(chosen: argparse.Namespace) -> list[Path]:
    """Compare the runs of a command line, print the tables, write the results; returns what was
    written.
    """
    paths = [Path(path) for path in dict.fromkeys(chosen.runs)]
    groups = runs.groups([runs.read(path) for path in paths])
    baseline = _baseline(groups, Path(chosen.baseline) if chosen.baseline else paths[0], paths)
    out = folder(Path(chosen.out) if chosen.out else paths[0].parent / NAME)
    results = compare(groups, baseline, seed=chosen.seed)
    shown = figure_tables.comparison(results)
    notes = figure_tables.comparison_notes(results)
    print(tables.as_text(*shown, notes=notes), end="\n\n")
    texts = {
        "csv": tables.as_csv(figure_tables.comparison_numbers(results)),
        "md": tables.as_markdown(*shown, notes=notes),
        "tex": tables.as_latex(*shown, notes=notes),
    }
    texts["json"] = json.dumps(results, indent=2) + "\n"
    return [files.write(out / f"{NAME}.{ending}", text) for ending, text in texts.items()]


def _baseline(groups: list[runs.Group], wanted: Path, paths: list[Path]) -> int:
    """The number of the group that a run belongs to."""
    for number, group in enumerate(groups):
        if wanted in [run.path for run in group.runs]:
            return number
    raise ValueError(
        f"--baseline {wanted} is none of the runs; allowed is one of {', '.join(map(str, paths))}"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 done, 1 the results cannot be written, 2 the
    input is not right.
    """
    return status(
        lambda: print("\n".join(f"wrote {path}" for path in write(parser().parse_args(argv))))
    )


if __name__ == "__main__":
    sys.exit(main())
