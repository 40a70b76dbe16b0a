"""The command that measures how good and how well calibrated predictions are, of any framework.

python -m ldl_jax.evaluate PREDICTIONS [PREDICTIONS ...] [--val FILE [--calibrator NAME]] [--ood
FILE] [--human FILE]
    [--out DIR]

A table for each file is printed; all figures are written to DIR/evaluation.json, and with their
pictures to DIR/report.html. DIR is `evaluation` beside the first file unless given. What is read
and how is told in `prediction_files` and `predictions`.
"""

import argparse
import sys
from pathlib import Path

from ldl_jax import config
from ldl_jax.cli import Once, Parser, folder, status
from ldl_jax.errors import Usage

RESULTS, REPORT = "evaluation.json", "report.html"
ENDINGS = ("png", "svg")  # of pictures
CALIBRATOR = "temperature"  # the default


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = Parser(
        prog="python -m ldl_jax.evaluate",
        description="Measure stored predictions: .npz, .npy, .csv.",
    )
    made.add_argument(
        "predictions", nargs="+", help="files with logits or probabilities, and labels"
    )
    made.add_argument(
        "--labels",
        metavar="FILE",
        action=Once,
        help="the labels of all these files, instead of their own",
    )
    made.add_argument(
        "--val", metavar="FILE", action="append", default=[],
        help="predictions on other examples, to fit a temperature on; given once for each file, in their order",
    )  # fmt: skip
    made.add_argument(
        "--calibrator", choices=config.plugs("calibrate"), default=CALIBRATOR,
        help="what is fitted on the predictions of --val, with its default options; temperature unless given",
    )  # fmt: skip
    made.add_argument(
        "--ood", metavar="FILE", action="append", default=[],
        help="predictions on examples of no class, to tell from the others; given once for each file",
    )  # fmt: skip
    made.add_argument(
        "--human", metavar="FILE", action=Once,
        help="votes or true distributions, a row for each example, by the predictions' index where they have one",
    )  # fmt: skip
    made.add_argument(
        "--kind", choices=("logits", "probabilities"), help="what the scores of all files are"
    )
    made.add_argument(
        "--classes", metavar="FILE", help="text file with the names of the classes, a line for each"
    )
    made.add_argument(
        "--out", metavar="DIR", help="folder of the results; `evaluation` beside the first file"
    )
    made.add_argument("--title", default="Evaluation", help="of the report")
    made.add_argument(
        "--figures",
        metavar="ENDINGS",
        default="",
        help="write the pictures too: png, svg, or png,svg",
    )
    made.add_argument("--seed", type=int, default=0, help="of what is simulated and drawn")
    return made


def evaluate(chosen: argparse.Namespace) -> list[Path]:
    """Measure the files of a command line, print their tables, write the results; returns what was
    written.

    Raises ValueError in one sentence before anything is written.
    """
    from ldl_jax import files
    from ldl_jax.evaluation import evaluation
    from ldl_jax.report import evaluation_plots, figure_tables, page

    # What is asked for, checked before a file is opened.
    endings = _endings(chosen.figures)
    paths = _paths(chosen)
    out = folder(Path(chosen.out) if chosen.out else paths[0].parent / "evaluation")
    # All files are read and checked before anything is measured.
    tests, beside = _read(chosen, paths)
    evaluations = [
        evaluation.measure(test, **given, calibrator=chosen.calibrator, seed=chosen.seed)
        for test, given in zip(tests, beside, strict=True)
    ]
    # The table of each, then the files.
    for measured in evaluations:
        print(figure_tables.evaluation_text(measured), end="\n\n")
    report = page.page(evaluations, title=chosen.title)
    suites = [measured.to_json() for measured in evaluations]
    return [
        files.write_json(out / RESULTS, {"seed": chosen.seed, "suites": suites}),
        files.write(out / REPORT, report),
        *(evaluation_plots.save(evaluations, out, endings) if endings else []),
    ]


def _paths(chosen: argparse.Namespace) -> list[Path]:
    """The files to measure. Raises Usage where options do not go together."""
    paths = [Path(path) for path in chosen.predictions]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise Usage(f"{twice} is given twice; allowed is each file once")
    if chosen.seed < 0:
        raise Usage(f"--seed is {chosen.seed}; allowed are numbers from 0")
    if chosen.calibrator != CALIBRATOR and not chosen.val:
        raise Usage(
            f"--calibrator={chosen.calibrator} is fitted on the predictions of --val, which is not given"
        )
    return paths


def _read(chosen: argparse.Namespace, paths: list[Path]) -> tuple[list, list[dict]]:
    """The predictions of the files, and what stands beside each: 'val', 'ood' and 'human', or None."""
    from ldl_jax.evaluation import human, predictions

    val_paths, ood_paths = (
        _for_each("--val", chosen.val, paths),
        _for_each("--ood", chosen.ood, paths),
    )
    tests = [predictions.read(path, labels=chosen.labels, kind=chosen.kind) for path in paths]
    tests = [
        _named(test, name, chosen.classes) for test, name in zip(tests, names(paths), strict=True)
    ]
    vals = _read_each(val_paths, lambda path: predictions.read(path, kind=chosen.kind))
    oods = _read_each(
        ood_paths, lambda path: predictions.read(path, kind=chosen.kind, labelled=False)
    )
    humans = [human.read(chosen.human, test) if chosen.human else None for test in tests]
    _warn_of_test(tests, val_paths, vals)
    beside = zip(vals, oods, humans, strict=True)
    return tests, [{"val": val, "ood": ood, "human": table} for val, ood, table in beside]


def _endings(text: str) -> tuple[str, ...]:
    endings = tuple(filter(None, text.split(",")))
    wrong = next((ending for ending in endings if ending not in ENDINGS), None)
    if wrong is not None:
        raise Usage(f"--figures names {wrong!r}; allowed are {', '.join(ENDINGS)}")
    return endings


def _for_each(flag: str, given: list[str], paths: list[Path]) -> list[Path | None]:
    """One file for each of the paths, or none for each."""
    if len(given) not in (0, 1, len(paths)):
        raise Usage(
            f"{flag} is given {len(given)} times for {len(paths)} files; allowed is once, or once for each"
        )
    if len(given) == 1 < len(paths):
        print(
            f"warning: {flag} {given[0]} is taken for all {len(paths)} files, which is right where one network made "
            f"them; give {flag} once for each file otherwise",
            file=sys.stderr,
        )
    return [Path(path) for path in given * (len(paths) if len(given) == 1 else 1)] or [None] * len(
        paths
    )


def _read_each(paths: list[Path | None], read) -> list:
    """What `read` makes of each path, of the same one once."""
    known = {path: read(path) for path in dict.fromkeys(paths) if path is not None}
    return [known.get(path) for path in paths]


def _named(given, name: str, file: str | None):
    """Predictions by their name, and their classes by those of a file of names, where there is one."""
    if file is None:
        return given._replace(name=name)
    try:
        classes = tuple(Path(file).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"--classes {file} cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from None
    if len(classes) != given.values.shape[1]:
        raise ValueError(
            f"--classes {file}: has {len(classes)} lines for scores of {given.values.shape[1]} classes ({given.name}); "
            "allowed is a name for each"
        )
    return given._replace(name=name, classes=classes)


def names(paths: list[Path]) -> list[str]:
    """What each file is called: its name, after as many folders as tell it from the others.

    Without the ending, where that leaves all apart.
    """
    short = [path.with_suffix("").parts for path in paths]
    parts = short if len(set(short)) == len(set(paths)) else [path.parts for path in paths]
    depth = 1
    while len({part[-depth:] for part in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(part[-depth:]) for part in parts]


def _warn_of_test(tests: list, paths: list[Path | None], vals: list) -> None:
    """Tell where predictions that a calibrator is fitted on are among those that are reported."""
    from ldl_jax.evaluation import predictions

    for path, val in {
        path: val for path, val in zip(paths, vals, strict=True) if path is not None
    }.items():
        for test in tests:
            if predictions.same(test, val):
                print(
                    f"warning: --val {path} holds the predictions of {test.name}; fitted on what is reported, a "
                    "temperature flatters",
                    file=sys.stderr,
                )


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 done, 1 the results cannot be written, 2 the
    input is not right.
    """
    return status(
        lambda: print("\n".join(f"wrote {path}" for path in evaluate(parser().parse_args(argv))))
    )


if __name__ == "__main__":
    sys.exit(main())
