"""The command that measures how good and how well calibrated predictions are, of any framework.

python -m ldl_jax.evaluate PREDICTIONS [PREDICTIONS ...] [--val FILE] [--ood FILE] [--human FILE] [--out DIR]

A table for each file is printed, and all figures are written to DIR/evaluation.json; DIR is `evaluation` beside the
first file unless given. What is read and how is told in `stored` and `predictions`.
"""

import argparse
import sys
from pathlib import Path

RESULTS = "evaluation.json"


class Usage(Exception):
    """The command line is not understood."""


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Usage(f"{message}; --help shows what is allowed")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = _Parser(
        prog="python -m ldl_jax.evaluate",
        allow_abbrev=False,
        description="Measure stored predictions: .npz, .npy, .csv.",
    )
    made.add_argument("predictions", nargs="+", help="files with logits or probabilities, and labels")
    made.add_argument("--labels", metavar="FILE", help="the labels of all these files, instead of their own")
    made.add_argument("--val", metavar="FILE", help="predictions on other examples, to fit a temperature on")
    made.add_argument("--ood", metavar="FILE", help="predictions on examples of no class, to tell from the others")
    made.add_argument("--human", metavar="FILE", help="votes or true distributions, a row for each example")
    made.add_argument("--kind", choices=("logits", "probabilities"), help="what the scores of all files are")
    made.add_argument("--out", metavar="DIR", help="folder of the results; `evaluation` beside the first file")
    made.add_argument("--seed", type=int, default=0, help="of what is simulated and drawn")
    return made


def evaluate(chosen: argparse.Namespace) -> str:
    """Measure the files of a command line, print their tables, write the results; returns the path of these.

    Raises ValueError in one sentence before anything is written.
    """
    from ldl_jax import files, predictions, suite, votes
    from ldl_jax.report import suite_table

    paths = [Path(path) for path in chosen.predictions]
    read = [predictions.read(path, labels=chosen.labels, kind=chosen.kind) for path in paths]
    named = [given._replace(name=name) for given, name in zip(read, names(paths), strict=True)]
    val = predictions.read(chosen.val, kind=chosen.kind) if chosen.val else None
    ood = predictions.read(chosen.ood, kind=chosen.kind, labelled=False) if chosen.ood else None
    humans = [votes.read(chosen.human, given) if chosen.human else None for given in named]
    for path in paths:
        if chosen.val and same_content(path, chosen.val):
            print(
                f"warning: {chosen.val} is the same as {path}; fitted on what is reported, a temperature flatters",
                file=sys.stderr,
            )
    found = [
        suite.measure(given, val=val, ood=ood, human=human, seed=chosen.seed)
        for given, human in zip(named, humans, strict=True)
    ]
    for one in found:
        print(suite_table.table(one), end="\n\n")
    out = Path(chosen.out) if chosen.out else paths[0].parent / "evaluation"
    return files.write_json(out / RESULTS, {"seed": chosen.seed, "suites": found})


def names(paths: list[Path]) -> list[str]:
    """What each file is called: its name without the ending, after as many folders as tell it from the others."""
    parts = [path.with_suffix("").parts for path in paths]
    depth = 1
    while len({part[-depth:] for part in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(part[-depth:]) for part in parts]


def same_content(one, other) -> bool:
    """Whether two files hold the same bytes."""
    from ldl_jax import files

    one, other = Path(one), Path(other)
    return one.stat().st_size == other.stat().st_size and files.sha256(one) == files.sha256(other)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 done, 1 the results cannot be written, 2 the input is not right."""
    try:
        chosen = parser().parse_args(argv)
        print(f"wrote {evaluate(chosen)}")
    except (Usage, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
