"""The command that draws what label distributions did to the networks of finished runs.

python -m ldl_jax.analyse RUN [RUN ...] [--classes=A,B,C] [--examples=N] [--out=DIR]
    [--config=FILE] [--set FIELD=VALUE] [--trust]

Writes one page, DIR/analysis.html, with all runs side by side, and its numbers as
DIR/analysis.json; DIR is `analysis` next to the first run unless given. What is drawn against
epochs, and the label memory, must be recorded by the runs: `eval.train_examples` and
`eval.memory_examples`.
"""

import argparse
import ast
import sys
from pathlib import Path

from ldl_jax import config, escape, files
from ldl_jax.cli import TRUST, Once, Parser, class_names, folder, status
from ldl_jax.config.trust import Consent
from ldl_jax.errors import Usage, say

NAME = "analysis"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = Parser(
        prog="python -m ldl_jax.analyse",
        description="Draw what label distributions did to the networks of finished runs.",
    )
    add = command.add_argument
    add(
        "runs",
        nargs="+",
        metavar="RUN",
        help="directories of finished runs with the same test images",
    )
    add(
        "--classes",
        metavar="A,B,C",
        help="names of the three classes whose embeddings are drawn (default: those confused most)",
    )
    add(
        "--examples",
        type=int,
        default=2000,
        metavar="N",
        help="number of test and of training images to use at most (2000)",
    )
    add(
        "--pairs",
        type=int,
        default=200,
        metavar="N",
        help="number of pairs of test images to mix at most (200)",
    )
    add("--config", metavar="FILE", action=Once, help="config of runs without a config.json")
    add(
        "--set",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        dest="fields",
        help="config field to set for all runs, such as data.root=DIR or data.labels_file=FILE; may "
        "be repeated",
    )
    add(
        "--out",
        metavar="DIR",
        help=f"folder for the results (default: `{NAME}` next to the first run)",
    )
    add("--seed", type=int, default=0, help="random seed of the pairs of images")
    add("--trust", action="store_true", help=TRUST)
    return command


def write(chosen: argparse.Namespace) -> list[Path]:
    """Analyse the runs of a command line; returns the paths of the page and of its numbers."""
    for name in ("examples", "pairs"):
        if getattr(chosen, name) < 2:
            raise Usage(f"--{name} must be at least 2, got {getattr(chosen, name)}")
    if chosen.seed < 0:
        raise Usage(f"--seed must be at least 0, got {chosen.seed}")
    paths = [files.home(path) for path in chosen.runs]
    out = folder(chosen.out, paths[0].parent / NAME)
    fields = _fields(chosen.fields)
    c = None if chosen.config is None else config.read(chosen.config)
    # Import JAX only now, so that an invalid command line fails at once.
    from ldl_jax.analyse import page, runs

    found, teachers = runs.read(
        paths, count=chosen.examples, config=c, fields=fields, consent=Consent(chosen.trust)
    )
    three = _three(chosen.classes, found[0].network.spec["classes"])
    text, numbers = page.page(
        found, teachers, three=three, pairs=chosen.pairs, seed=chosen.seed, fields=fields
    )
    return [
        files.write(out / f"{NAME}.html", text),
        files.write_json(out / f"{NAME}.json", numbers),
    ]


def _fields(texts: list[str]) -> dict[str, object]:
    """{field: value} of --set FIELD=VALUE."""
    fields = {}
    for text in texts:
        field, equals, value = text.partition("=")
        if not field or not equals:
            raise Usage(f"--set must be FIELD=VALUE, got {text!r}")
        try:
            fields[field.removeprefix("config.")] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            fields[field.removeprefix("config.")] = value
    return fields


def _three(text: str | None, classes: list[str]) -> tuple[int, int, int] | None:
    """The numbers of the three classes of --classes; None without it."""
    if text is None:
        return None
    names = class_names(text)
    unknown = [name for name in names if name not in classes]
    if unknown or len(names) != 3:
        raise Usage(
            f"--classes must be three of the classes, {', '.join(classes[:10])}"
            f"{', ...' if len(classes) > 10 else ''}; got {text}"
        )
    first, second, third = (classes.index(name) for name in names)
    return first, second, third


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status.

    0: done, 1: the results cannot be written, 2: the input is invalid.
    """

    def work():
        for path in write(parser().parse_args(argv)):
            say(escape.line(f"wrote {path}"))

    return status(work)


if __name__ == "__main__":
    sys.exit(main())
