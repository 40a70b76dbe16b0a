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

from ldl_jax import config, escape, files
from ldl_jax.cli import Once, Parser, add_columns, class_names, folder, status, writable
from ldl_jax.errors import Failed, Usage, say, warn

ENDINGS = ("png", "svg")  # file types of plots
CALIBRATOR = "safe_temperature"  # the default


class _Calibrators(tuple):
    """The names that --calibrator takes: those listed, and dotted ones."""

    __slots__ = ()

    def __contains__(self, name) -> bool:
        return super().__contains__(name) or "." in name


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
    _add_plugs(command)
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
    add_columns(command)
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


def _add_plugs(command: argparse.ArgumentParser) -> None:
    """Add the flags that name calibrators and metrics, which may be of the user's own."""
    command.add_argument(
        "--calibrator",
        choices=_Calibrators(config.plugs("calibrate")),
        default=CALIBRATOR,
        help="calibrator to fit on the predictions of --val, with its default options; PACKAGE.MODULE "
        f"for one of your own (default: {CALIBRATOR})",
    )
    command.add_argument(
        "--metrics",
        metavar="MODULE",
        action="append",
        default=[],
        help="metric of your own, PACKAGE.MODULE; once for each",
    )


def evaluate(chosen: argparse.Namespace) -> list[Path]:
    """Measure the files of a command line, print the tables, write the results; returns the paths.

    Raises ValueError, before anything is written, if the input is invalid.
    """
    from ldl_jax.evaluation import evaluation, from_arrays
    from ldl_jax.report import evaluation_plots

    # Check the options before opening any file.
    endings = _endings(chosen.figures)
    paths = _paths(chosen)
    out = folder(chosen.out, paths[0].parent / "evaluation")
    # Read and check all files before measuring any: that may take minutes.
    tests, further_inputs = _read(chosen, paths)
    chosen_metrics = evaluation.own_metrics(chosen.metrics)
    can_write = writable(out)
    fits = _fits([inputs["val"] for inputs in further_inputs], chosen.calibrator)
    results = []
    for test, inputs, fitted in zip(tests, further_inputs, fits, strict=True):
        measured = evaluation.measure(
            test, **inputs, fitted=fitted, seed=chosen.seed, metrics=chosen_metrics
        )
        results.append(from_arrays.Result(*measured))
    # Print the tables first: they survive even if the results cannot be written.
    for result in results:
        say(result, end="\n\n")
    if not can_write:
        raise Failed("")
    written = from_arrays.save(results, out, title=chosen.title)
    if endings:
        written += evaluation_plots.save(results, out, endings)
    return written


def _fits(vals: list, calibrator: str) -> list:
    """The calibrator fitted on each of the predictions, or None; on repeated ones it is fitted
    once.
    """
    from ldl_jax.evaluation import fitting

    fitted = {}
    for val in vals:
        if val is not None and id(val) not in fitted:
            fitted[id(val)] = fitting.fit(val, calibrator)
    return [fitted.get(id(val)) for val in vals]


def _paths(chosen: argparse.Namespace) -> list[Path]:
    """The files to measure. Raises Usage for invalid or inconsistent options."""
    paths = [files.home(path) for path in chosen.predictions]
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

    options = {
        "kind": chosen.kind,
        "classes": class_names(chosen.classes),
        "label_column": chosen.label_column,
    }

    def read_val(path):
        return predictions.read(path, **options)

    def read_ood(path):
        return predictions.read(path, **options, labelled=False)

    # Check the number of files before reading any.
    val_paths = _for_each("--val", chosen.val, paths)
    ood_paths = _for_each("--ood", chosen.ood, paths)
    tests = []
    for path, name in zip(paths, names(paths), strict=True):
        test = predictions.read(path, labels=chosen.labels, **options)
        tests.append(test._replace(name=name))
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
        return [files.home(path) for path in given]
    if len(given) > 1:
        raise Usage(
            f"{flag} must be given once, or once for each of the {len(paths)} files, "
            f"got {len(given)} times"
        )
    # One file is right for several test sets of a network, and wrong for several networks.
    warn(
        f"{flag} {given[0]} is used for all {len(paths)} files, which is only right if "
        f"they are predictions of the same network. Otherwise give {flag} once for each file."
    )
    return [files.home(given[0])] * len(paths)


def _read_each(paths: list[Path | None], read) -> list:
    """`read` of each path, or None; a path that is repeated is read once."""
    read_once = {path: read(path) for path in dict.fromkeys(paths) if path is not None}
    return [read_once.get(path) for path in paths]


def names(paths: list[Path]) -> list[str]:
    """Names of the files: the shortest ends of their paths that are unique.

    Without the suffix, unless files differ only in that.
    """
    without_suffix = [(*path.parts[:-1], path.stem) for path in paths]
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
                warn(
                    f"--val {path} holds the same predictions as {test.name}. A "
                    "calibrator fitted on the reported examples looks better than it is."
                )


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status.

    0: done, 1: the results cannot be written, 2: the input is invalid.
    """

    def work():
        paths = evaluate(parser().parse_args(argv))
        for path in paths:
            say(escape.line(f"wrote {path}"))

    return status(work)


if __name__ == "__main__":
    sys.exit(main())
