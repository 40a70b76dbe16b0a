"""The command that measures the accuracy and the calibration of predictions of any framework.

python -m ldl_jax.evaluate PREDICTIONS [PREDICTIONS ...] [--val FILE [--calibrator NAME]]
    [--ood FILE] [--human FILE] [--out DIR]

Prints a table for each file, and writes all figures to DIR/evaluation.json and a report with plots
to DIR/report.html. DIR is `evaluation` next to the first file unless given. `prediction_files` and
`predictions` describe which files can be read.
"""

import argparse
import sys
from pathlib import Path

from ldl_jax import config
from ldl_jax.cli import Once, Parser, folder, status
from ldl_jax.errors import Usage

RESULTS = "evaluation.json"
REPORT = "report.html"
ENDINGS = ("png", "svg")  # file types of plots
CALIBRATOR = "safe_temperature"  # the default


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = Parser(
        prog="python -m ldl_jax.evaluate",
        description="Measure stored predictions: .npz, .npy, .csv.",
    )
    command.add_argument(
        "predictions", nargs="+", help="files with logits or probabilities, and labels"
    )
    command.add_argument(
        "--labels",
        metavar="FILE",
        action=Once,
        help="file with the labels of all these predictions, instead of their own",
    )
    command.add_argument(
        "--val",
        metavar="FILE",
        action="append",
        default=[],
        help="predictions on other examples, to fit the calibrator on; "
        "once, or once for each file in the same order",
    )
    command.add_argument(
        "--calibrator",
        choices=config.plugs("calibrate"),
        default=CALIBRATOR,
        help="calibrator to fit on the predictions of --val, with its default options "
        f"(default: {CALIBRATOR})",
    )
    command.add_argument(
        "--ood",
        metavar="FILE",
        action="append",
        default=[],
        help="predictions on out-of-distribution examples, without labels; "
        "once, or once for each file in the same order",
    )
    command.add_argument(
        "--human",
        metavar="FILE",
        action=Once,
        help="votes or true distributions, one row for each example, looked up by the index of the "
        "predictions if they have one",
    )
    command.add_argument(
        "--kind",
        choices=("logits", "probabilities"),
        help="kind of the scores in all files (default: detected)",
    )
    command.add_argument(
        "--classes", metavar="FILE", help="text file with the names of the classes, one per line"
    )
    command.add_argument(
        "--out",
        metavar="DIR",
        help="folder for the results (default: `evaluation` next to the first file)",
    )
    command.add_argument("--title", default="Evaluation", help="title of the report")
    command.add_argument(
        "--figures",
        metavar="TYPES",
        default="",
        help="also write the plots as files: png, svg, or png,svg",
    )
    command.add_argument(
        "--seed",
        type=int,
        default=0,
        help="random seed of the bootstrap, the simulations and the samples",
    )
    return command


def evaluate(chosen: argparse.Namespace) -> list[Path]:
    """Measure the files of a command line, print the tables, write the results; returns the paths.

    Raises ValueError, before anything is written, if the input is invalid.
    """
    from ldl_jax import files
    from ldl_jax.evaluation import evaluation
    from ldl_jax.report import evaluation_plots, figure_tables, page

    # Check the options before opening any file.
    endings = _endings(chosen.figures)
    paths = _paths(chosen)
    out = folder(Path(chosen.out) if chosen.out else paths[0].parent / "evaluation")
    # Read and check all files before measuring any: that may take minutes.
    tests, further_inputs = _read(chosen, paths)
    evaluations = []
    for test, inputs in zip(tests, further_inputs, strict=True):
        evaluations.append(
            evaluation.measure(test, **inputs, calibrator=chosen.calibrator, seed=chosen.seed)
        )
    # Print the tables first: they survive even if the results cannot be written.
    for measured in evaluations:
        print(figure_tables.evaluation_text(measured), end="\n\n")
    report = page.page(evaluations, title=chosen.title)
    suites = [measured.to_json() for measured in evaluations]
    written = [
        files.write_json(out / RESULTS, {"seed": chosen.seed, "suites": suites}),
        files.write(out / REPORT, report),
    ]
    if endings:
        written += evaluation_plots.save(evaluations, out, endings)
    return written


def _paths(chosen: argparse.Namespace) -> list[Path]:
    """The files to measure. Raises Usage for invalid or inconsistent options."""
    paths = [Path(path) for path in chosen.predictions]
    for path in paths:
        if paths.count(path) > 1:
            raise Usage(f"{path} is given twice; give each file once")
    if chosen.seed < 0:
        raise Usage(f"--seed must be at least 0, got {chosen.seed}")
    if chosen.calibrator != CALIBRATOR and not chosen.val:
        raise Usage(f"--calibrator={chosen.calibrator} needs --val, the predictions to fit it on")
    return paths


def _read(chosen: argparse.Namespace, paths: list[Path]) -> tuple[list, list[dict]]:
    """The predictions of the files, and the further inputs of each: 'val', 'ood', 'human' or None."""
    from ldl_jax.evaluation import human, predictions

    def read_val(path):
        return predictions.read(path, kind=chosen.kind)

    def read_ood(path):
        return predictions.read(path, kind=chosen.kind, labelled=False)

    # Check the number of files before reading any.
    val_paths = _for_each("--val", chosen.val, paths)
    ood_paths = _for_each("--ood", chosen.ood, paths)
    unnamed = [predictions.read(path, labels=chosen.labels, kind=chosen.kind) for path in paths]
    tests = []
    for test, name in zip(unnamed, names(paths), strict=True):
        tests.append(_named(test, name, chosen.classes))
    vals = _read_each(val_paths, read_val)
    oods = _read_each(ood_paths, read_ood)
    further_inputs = []
    for test, val, ood in zip(tests, vals, oods, strict=True):
        table = human.read(chosen.human, test) if chosen.human else None
        further_inputs.append({"val": val, "ood": ood, "human": table})
    # Warn only now: if a file is invalid, its error is the only line on stderr.
    _warn_of_test(tests, val_paths, vals)
    return tests, further_inputs


def _endings(text: str) -> tuple[str, ...]:
    """The file types of --figures. Raises Usage for unknown ones."""
    endings = tuple(filter(None, text.split(",")))
    for ending in endings:
        if ending not in ENDINGS:
            raise Usage(f"--figures must be png, svg, or png,svg, got {ending!r}")
    return endings


def _for_each(flag: str, given: list[str], paths: list[Path]) -> list[Path | None]:
    """The flag's file for each of the paths; None for each if the flag is not given."""
    if not given:
        return [None] * len(paths)
    if len(given) == len(paths):
        return [Path(path) for path in given]
    if len(given) > 1:
        raise Usage(
            f"{flag} must be given once, or once for each of the {len(paths)} files, "
            f"got {len(given)} times"
        )
    # One file is right for several test sets of a network, and wrong for several networks.
    print(
        f"warning: {flag} {given[0]} is used for all {len(paths)} files, which is only right if "
        f"they are predictions of the same network. Otherwise give {flag} once for each file.",
        file=sys.stderr,
    )
    return [Path(given[0])] * len(paths)


def _read_each(paths: list[Path | None], read) -> list:
    """`read` of each path, or None; a path that is repeated is read once."""
    read_once = {path: read(path) for path in dict.fromkeys(paths) if path is not None}
    return [read_once.get(path) for path in paths]


def _named(test, name: str, file: str | None):
    """Predictions with their name, and with the class names of a text file if there is one."""
    if file is None:
        return test._replace(name=name)
    try:
        classes = tuple(Path(file).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"--classes {file} cannot be read ({reason})") from None
    if len(classes) != test.values.shape[1]:
        raise ValueError(
            f"--classes {file}: must have a line for each of the {test.values.shape[1]} classes of "
            f"{test.name}, got {len(classes)} lines"
        )
    return test._replace(name=name, classes=classes)


def names(paths: list[Path]) -> list[str]:
    """Names of the files: the shortest ends of their paths that are unique.

    Without the suffix, unless files differ only in that.
    """
    without_suffix = [path.with_suffix("").parts for path in paths]
    parts = without_suffix
    if len(set(without_suffix)) < len(set(paths)):
        parts = [path.parts for path in paths]
    depth = 1
    while len({part[-depth:] for part in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(part[-depth:]) for part in parts]


def _warn_of_test(tests: list, paths: list[Path | None], vals: list) -> None:
    """Warn if a calibrator would be fitted on predictions that are reported."""
    from ldl_jax.evaluation import predictions

    # A --val file that is used for all tests is compared with each test once.
    val_by_path = dict(zip(paths, vals, strict=True))
    val_by_path.pop(None, None)
    for path, val in val_by_path.items():
        for test in tests:
            if predictions.same(test, val):
                print(
                    f"warning: --val {path} holds the same predictions as {test.name}. A "
                    "calibrator fitted on the reported examples looks better than it is.",
                    file=sys.stderr,
                )


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status.

    0: done, 1: the results cannot be written, 2: the input is invalid.
    """

    def work():
        paths = evaluate(parser().parse_args(argv))
        for path in paths:
            print(f"wrote {path}")

    return status(work)


if __name__ == "__main__":
    sys.exit(main())
