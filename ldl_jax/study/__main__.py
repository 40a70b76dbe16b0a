"""The `study` command: train a table of configs with several seeds each, and test hypotheses on it.

python -m ldl_jax.study configs/studies/digits.py [--workdir=DIR] [--set FIELD=VALUE] [--jobs=N]
[--only=CELL[/NUMBER]]

Every finished run has a result card in DIR/cards; repeating the command does the runs that are
missing. The report is DIR/report.html, with results.json and results.csv next to it. --print prints
the command of each run, one per line, for a cluster's job array (the command of a student trains
its teachers first, or waits for the process that does). --collect makes the report from the cards
that exist.
"""

import argparse
import shlex
import sys
from functools import partial
from pathlib import Path

from ldl_jax import escape, files, signals
from ldl_jax.cli import LOWER_BATCH, TRUST, Once, Parser, set_fields, status
from ldl_jax.config.study import Planned, Study, load, locate
from ldl_jax.errors import Usage, complain, say
from ldl_jax.study import cards, directory, hypotheses, plan, runner, workers
from ldl_jax.study.progress import Progress
from ldl_jax.workdir import finished


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    command = Parser(
        prog="python -m ldl_jax.study",
        description="Do the runs of a study and report whether they support its findings.",
    )
    add = command.add_argument
    add(
        "study",
        nargs="?",
        help="file that defines get_study(), such as configs/studies/digits.py, or the name of one "
        "that comes with ldl_jax, such as digits",
    )
    add("--config", metavar="STUDY", action=Once, help="another way to name the study")
    add(
        "--workdir",
        metavar="DIR",
        help="directory of the study (default: studies/NAME, NAME being that of the study's file)",
    )
    add(
        "--set",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        dest="fields",
        help="config field to set in all cells, such as data.root=DIR; may be repeated",
    )
    add(
        "--only",
        metavar="CELL[/NUMBER]",
        help="cells or runs to do, separated by commas (0: the first seed), with their teachers",
    )
    add(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="number of parallel processes, each working on one cell at a time (default: 1)",
    )
    add(
        "--print",
        action="store_true",
        dest="commands",
        help="print the command of each run, one per line, and exit",
    )
    add("--trust", action="store_true", help=TRUST)
    add("--no-report", action="store_true", help="do the runs only; make the report with --collect")
    add(
        "--collect",
        action="store_true",
        help="make the report from the runs that have finished, without starting any",
    )
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 done, 1 a run failed or results cannot be
    written, 2 bad input. After SIGTERM or SIGHUP 0, and 130 after Ctrl-C.
    """
    failures: list[str] = []

    def resumable():
        try:
            failures.extend(work(parser().parse_args(argv)))
        except signals.Interrupted as stop:
            advice = "run the same command again to continue"
            raise signals.Interrupted(stop.number, advice, saved=True) from None

    code = status(resumable, memory=LOWER_BATCH)
    for failure in failures:
        complain(f"error: {failure}")
    return code or int(bool(failures))


def work(arguments: argparse.Namespace) -> list[str]:
    """Do what a command line asks for; returns a sentence for each failed run."""
    if arguments.jobs < 1:
        raise Usage(f"--jobs must be at least 1, got {arguments.jobs}")
    arguments.study = _one_study(arguments)
    path = locate(arguments.study)
    # Commands of other processes are made of these, so they get the expanded paths.
    arguments.study = str(path)
    if arguments.workdir is not None:
        arguments.workdir = str(files.home(arguments.workdir))
    study = load(path)
    planned = plan.plan(study, path, set_fields(arguments.fields), trust=arguments.trust)
    selected = _selected(arguments.only, planned)
    if arguments.commands:
        for run in selected:
            say(shlex.join(_command(arguments, [run])))
        return []

    folder = Path(arguments.workdir or f"studies/{path.stem}")
    directory.claim(folder, path, study, new=not arguments.collect)
    # All cards are read before any run starts, so that a damaged one, or one of another config, is
    # reported at once and not after hours.
    present = {run.key: cards.read(folder / directory.CARDS, run) for run in planned}
    failed = {} if arguments.collect else _run(arguments, selected, present, folder)
    if not arguments.no_report:
        _report(study, path, planned, folder, _command(arguments))
    return [f"{name} failed: {reason}" for name, reason in failed.items()]


def _one_study(arguments: argparse.Namespace) -> str:
    """The study that a command line names, as a word or by --config."""
    given = [name for name in (arguments.study, arguments.config) if name is not None]
    if len(given) != 1:
        raise Usage(
            f"the command must name one study, such as configs/studies/digits.py; got {len(given)}"
        )
    return given[0]


def _selected(only: str | None, planned: list[Planned]) -> list[Planned]:
    """The runs that --only names, with their teachers; all runs if it is None."""
    if only is None:
        return planned
    names = set(only.split(","))
    cells: dict[str, None] = {}  # in the order of the study, for the message
    selected = set()
    unknown = set(names)
    for run in planned:
        cells[run.cell.name] = None
        unknown -= {run.cell.name, run.name}
        if run.cell.name in names or run.name in names:
            selected.add(run.key)
    if unknown:
        raise Usage(
            f"--only must name cells or runs (CELL/NUMBER, from 0) of this study, got "
            f"{min(unknown)!r}; its cells are {', '.join(cells)}"
        )

    # Teachers come before their students, so in reverse order each run's teachers are added before
    # they are looked at themselves.
    for run in reversed(planned):
        if run.key in selected:
            selected |= set(run.needs)
    return [run for run in planned if run.key in selected]


def _command(arguments: argparse.Namespace, runs: list[Planned] | None = None) -> list[str]:
    """The command line that does these runs, or all of the study with its report."""
    command = ["python", "-m", "ldl_jax.study", arguments.study]
    if arguments.workdir is not None:
        command.append(f"--workdir={arguments.workdir}")
    for field in arguments.fields:
        command += ["--set", field]
    if arguments.trust:
        command.append("--trust")
    if runs is not None:
        command += [f"--only={','.join(run.name for run in runs)}", "--no-report"]
    return command


def _run(
    arguments: argparse.Namespace,
    selected: list[Planned],
    present: dict[tuple[str, int], cards.Card | None],
    folder: Path,
) -> dict[str, str]:
    """Do the selected runs that have no card yet; returns failed run -> reason."""
    todo = []
    seconds = {}  # of the finished runs, from which the time left is estimated
    for run in selected:
        card = present[run.key]
        if card is None:
            todo.append(run)
        else:
            seconds[run.key] = card.facts["seconds"]
    # Better now than after the hours that the other runs take.
    _check_teachers(todo, present, folder)
    progress = Progress(selected, seconds, arguments.jobs)
    if seconds:
        progress.say(f"{len(seconds)} of {len(selected)} runs have already finished")
    try:
        return _execute(arguments, selected, todo, folder, progress)
    finally:
        progress.close()


def _check_teachers(
    todo: list[Planned], present: dict[tuple[str, int], cards.Card | None], folder: Path
) -> None:
    """Raise ValueError if a teacher has a card, and so is not trained again, but no weights."""
    for run in todo:
        for cell, index in run.needs:
            fault = finished.fault(directory.of_run(folder, cell, index))
            if present[cell, index] is not None and fault is not None:
                raise ValueError(
                    f"{run.name} needs its teacher {cell}/{index}, which has a result card, but "
                    f"{fault}; restore it, or remove the card to train the teacher again"
                )


def _execute(
    arguments: argparse.Namespace,
    selected: list[Planned],
    todo: list[Planned],
    folder: Path,
    progress: Progress,
) -> dict[str, str]:
    """Do the runs, in this process or in child processes; returns failed run -> reason."""
    from ldl_jax.training import devices

    if arguments.jobs > 1:
        start = workers.processes(todo, folder, arguments.jobs, partial(_child_command, arguments))
        return runner.execute(todo, progress, arguments.jobs, start)

    if todo:
        devices.prepare(todo[0].config)
    worker = workers.ThisProcess(folder, progress.say, trust=arguments.trust)
    if not workers.is_worker():
        return runner.execute(todo, progress, 1, lambda slot, cell: worker)

    # This is a child process: its parent names the runs, and repeats those that fail. Each answer
    # starts on a line of its own, since training may have left an unfinished one on stdout.
    workers.bind()
    # Unbuffered, because the end of the process does not wait for a thread that reads.
    pipe = open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)  # noqa: SIM115
    requests = workers.requests(pipe, workers.end_orphan)
    answer = partial(print, "", sep="\n", file=sys.stdout, flush=True)
    workers.answer_requests(selected, worker, requests, answer)
    return {}


def _child_command(arguments: argparse.Namespace, runs: list[Planned]) -> list[str]:
    """The command line of a child process, with the interpreter of this one."""
    return [sys.executable, *_command(arguments, runs)[1:]]


def _report(
    study: Study, path: Path, planned: list[Planned], folder: Path, command: list[str]
) -> None:
    """Write results.json, results.csv and report.html from the cards that exist, and print the
    tables.
    """
    from ldl_jax.study import page, tables

    # Read again, since the runs of this command and of other processes have added cards.
    present: hypotheses.Cards = {}
    for run in planned:
        card = cards.read(folder / directory.CARDS, run)
        if card is not None:
            present.setdefault(run.cell.name, {})[run.place] = card
    if not present:
        say("no run has finished yet")
        return

    results = {
        "study": path.stem,
        "title": study.title,
        "about": study.about,
        "cells": tables.rows(study, present),
        "findings": hypotheses.answers(study, present),
        "comparisons": hypotheses.explored(study, present),
    }
    report = page.page(study, results, present, shlex.join(command))
    # Print the tables first: they survive even if the results cannot be written.
    say(tables.text(results), end="\n\n")
    # Other processes may collect at the same time, each in a folder of its own.
    staging = finished.staging_name()
    with finished.replacing(folder, last="results.json", name=staging) as new:
        written = [
            files.write_json(new / "results.json", results),
            files.write(new / "results.csv", tables.numbers(results)),
            files.write(new / "report.html", report),
        ]
    for file in written:
        say(escape.line(f"wrote {folder / file.name}"))


if __name__ == "__main__":
    sys.exit(main())
