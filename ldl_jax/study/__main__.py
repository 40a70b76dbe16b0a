"""The command that answers questions with many runs: a table of configs times seeds, and what it
decides.

python -m ldl_jax.study configs/studies/digits.py [--workdir=DIR] [--set FIELD=VALUE] [--jobs=N]
[--only=CELL[/NUMBER]]

Every finished run is kept as a result card in DIR/cards, and the same command goes on with what is
missing. The report is DIR/report.html, with results.json and results.csv beside it. --print gives
the command of each run, a line each, for a cluster's job array (a student's line does its teachers
first, or waits for who does them); --collect makes the report of what is there.
"""

import argparse
import shlex
import sys
from functools import partial
from pathlib import Path

from ldl_jax import files, workdir
from ldl_jax.cli import Parser, status
from ldl_jax.config.study import Planned, Study, load
from ldl_jax.errors import Usage
from ldl_jax.study import cards, directory, hypotheses, plan, runner, workers
from ldl_jax.study.progress import Progress


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = Parser(
        prog="python -m ldl_jax.study", description="Run a study's cells and answer its questions."
    )
    add = command.add_argument
    add("study", help="a file with get_study(), such as configs/studies/digits.py")
    add(
        "--workdir",
        metavar="DIR",
        help="where all of it lies; studies/<the study's name> unless given",
    )
    add(
        "--set",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        dest="fields",
        help="a config field of all cells, such as data.root=DIR",
    )
    add(
        "--only",
        metavar="CELL[/NUMBER]",
        help="these cells or runs (0: the first seed), by commas, and their teachers",
    )
    add("--jobs", type=int, default=1, metavar="N", help="processes side by side, each at one cell")
    add(
        "--print",
        action="store_true",
        dest="commands",
        help="print the command of each run, do nothing",
    )
    add("--no-report", action="store_true", help="do the runs and leave the report to --collect")
    add("--collect", action="store_true", help="make the report of the cards that are there")
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 done, 1 a run failed or results cannot be
    written, 2 bad input.
    """
    failures: list[str] = []
    try:
        code = status(lambda: failures.extend(work(parser().parse_args(argv))))
    except runner.Stopped:
        print("terminated: the same command goes on", file=sys.stderr)
        return 0
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return code or int(bool(failures))


def work(arguments: argparse.Namespace) -> list[str]:
    """Do what a command line asks for; returns a sentence for each run that failed."""
    if arguments.jobs < 1:
        raise Usage(f"--jobs is {arguments.jobs}; allowed are numbers from 1")
    path = Path(arguments.study)
    study = load(path)
    planned = plan.plan(study, path, _fields(arguments.fields))
    wanted = _wanted(arguments.only, planned)
    if arguments.commands:
        print("\n".join(shlex.join(_command(arguments, [one])) for one in wanted))
        return []

    folder = Path(arguments.workdir or f"studies/{path.stem}")
    directory.claim(folder, path, study, new=not arguments.collect)
    # All cards are read before anything runs: a damaged one, or one of another config, is told at
    # once.
    present = {one.key: cards.read(folder / directory.CARDS, one) for one in planned}
    failed = {} if arguments.collect else _run(arguments, wanted, present, folder)
    if not arguments.no_report:
        _report(study, path, planned, folder, _command(arguments))
    return [f"{name} failed: {reason}" for name, reason in failed.items()]


def _fields(texts: list[str]) -> dict[str, str]:
    """The fields of --set, each with the text of its value."""
    fields = {}
    for text in texts:
        field, equals, value = text.partition("=")
        if not equals:
            raise Usage(f"--set is {text!r}; allowed is FIELD=VALUE, as in data.root=DIR")
        fields[field.removeprefix("config.")] = value
    return fields


def _wanted(only: str | None, planned: list[Planned]) -> list[Planned]:
    """The runs that --only names, and those that teach them; all without it."""
    if only is None:
        return planned
    cells = dict.fromkeys(one.cell.name for one in planned)
    names = set(only.split(","))
    unknown = sorted(names - {*cells, *(one.name for one in planned)})
    if unknown:
        raise Usage(
            f"--only names {unknown[0]!r}; allowed are {', '.join(cells)}, and CELL/NUMBER, 0 for its first seed"
        )
    keys = {one.key for one in planned if {one.cell.name, one.name} & names}
    # Teachers come before those they teach, so from the end on each run's teachers are still to
    # come.
    for one in reversed(planned):
        if one.key in keys:
            keys |= set(one.needs)
    return [one for one in planned if one.key in keys]


def _command(arguments: argparse.Namespace, runs: list[Planned] | None = None) -> list[str]:
    """The command of these runs, or of the whole study with its report."""
    command = ["python", "-m", "ldl_jax.study", arguments.study]
    if arguments.workdir is not None:
        command.append(f"--workdir={arguments.workdir}")
    for field in arguments.fields:
        command += ["--set", field]
    if runs is not None:
        command += [f"--only={','.join(one.name for one in runs)}", "--no-report"]
    return command


def _run(
    arguments: argparse.Namespace,
    wanted: list[Planned],
    present: dict[tuple[str, int], cards.Card | None],
    folder: Path,
) -> dict[str, str]:
    """Do the runs that have no card yet; returns what failed."""
    todo = [one for one in wanted if present[one.key] is None]
    _check_teachers(todo, present, folder)
    seconds = {
        one.key: present[one.key].facts["seconds"] for one in wanted if present[one.key] is not None
    }
    progress = Progress(wanted, seconds, arguments.jobs)
    if seconds:
        progress.say(f"{len(seconds)} of {len(wanted)} runs are there")
    try:
        return _execute(arguments, wanted, todo, folder, progress)
    finally:
        progress.close()


def _check_teachers(
    todo: list[Planned], present: dict[tuple[str, int], cards.Card | None], folder: Path
) -> None:
    """Teachers that are not trained now have their weights. Raises ValueError."""
    for one in todo:
        for cell, place in one.needs:
            weights = directory.of_run(folder, cell, place) / workdir.WEIGHTS
            if present[cell, place] is not None and not weights.is_file():
                raise ValueError(
                    f"{one.name} needs the weights of {cell}/{place}, which has a result card but no {weights}; bring "
                    "them back, or remove the card"
                )


def _execute(
    arguments: argparse.Namespace,
    wanted: list[Planned],
    todo: list[Planned],
    folder: Path,
    progress: Progress,
) -> dict[str, str]:
    """Do the runs, in this process or in others; returns what failed."""
    from ldl_jax.training import devices

    if arguments.jobs > 1:
        start = workers.processes(todo, folder, arguments.jobs, partial(_interpreted, arguments))
        return runner.execute(todo, progress, arguments.jobs, start)

    if todo:
        devices.prepare(todo[0].config)
    here = workers.ThisProcess(folder, progress.say)
    if not workers.is_worker():
        return runner.execute(todo, progress, 1, lambda slot, cell: here)

    # The process that started this one names the runs, and tries again those that fail.
    workers.bind()
    requests = iter(sys.stdin.readline, "")
    answer = partial(print, "", sep="\n", file=sys.stdout, flush=True)  # on a line of its own
    workers.answer_requests(wanted, here, requests, answer)
    return {}


def _interpreted(arguments: argparse.Namespace, runs: list[Planned]) -> list[str]:
    """The command of these runs with the interpreter that runs this one."""
    return [sys.executable, *_command(arguments, runs)[1:]]


def _report(
    study: Study, path: Path, planned: list[Planned], folder: Path, command: list[str]
) -> None:
    """Write results.json, results.csv and report.html of the cards that are there, and print the
    answers.
    """
    from ldl_jax.study import page, tables

    present: hypotheses.Cards = {}
    for one in planned:
        card = cards.read(folder / directory.CARDS, one)
        if card is not None:
            present.setdefault(one.cell.name, {})[one.place] = card
    if not present:
        print("no run is finished yet")
        return
    results = {
        "study": path.stem,
        "title": study.title,
        "about": study.about,
        "cells": tables.rows(study, present),
        "findings": hypotheses.answers(study, present),
        "comparisons": hypotheses.explored(study, present),
    }
    written = [
        files.write_json(folder / "results.json", results),
        files.write(folder / "results.csv", tables.numbers(results)),
        files.write(
            folder / "report.html", page.page(study, results, present, shlex.join(command))
        ),
    ]
    print(tables.text(results), end="\n\n")
    print("\n".join(f"wrote {file}" for file in written))


if __name__ == "__main__":
    sys.exit(main())
