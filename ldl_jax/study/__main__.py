"""The command that answers questions with many runs: a table of configs times seeds, and what it decides.

python -m ldl_jax.study configs/studies/digits.py [--workdir=DIR] [--set FIELD=VALUE] [--jobs=N] [--only=CELL[/NUMBER]]

Every finished run is kept as a result card in DIR/cards, and the same command goes on with what is missing. The report
is DIR/report.html, with results.json and results.csv beside it. --print gives the command of each run, a line each, for
a cluster's job array (a student's line does its teachers first, or waits for who does them); --collect makes the report
of what is there.
"""

import argparse
import json
import shlex
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from ldl_jax import files
from ldl_jax.cli import Parser, status
from ldl_jax.config import study as cells
from ldl_jax.config.study import Planned, Study
from ldl_jax.errors import Usage
from ldl_jax.study import cards, runner, workers
from ldl_jax.study import hypotheses as verdict

MARK = "study.json"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = Parser(prog="python -m ldl_jax.study", description="Run a study's cells and answer its questions.")
    made.add_argument("study", help="a file with get_study(), such as configs/studies/digits.py")
    made.add_argument("--workdir", metavar="DIR", help="where all of it lies; studies/<the study's name> unless given")
    made.add_argument("--set", metavar="FIELD=VALUE", action="append", default=[], dest="fields",
                      help="a config field of all cells, such as data.root=DIR")  # fmt: skip
    made.add_argument("--only", metavar="CELL[/NUMBER]",
                      help="these cells or runs (0: the first seed), by commas, and their teachers")  # fmt: skip
    made.add_argument("--jobs", type=int, default=1, metavar="N", help="processes side by side, each at one cell")
    made.add_argument("--print", action="store_true", dest="commands", help="print the command of each run, do nothing")
    made.add_argument("--no-report", action="store_true", help="do the runs and leave the report to --collect")
    made.add_argument("--collect", action="store_true", help="make the report of the cards that are there")
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 done, 1 a run failed or results cannot be written, 2 bad input."""
    failed: list[str] = []
    try:
        code = status(lambda: failed.extend(study(parser().parse_args(argv))))
    except runner.Stopped:
        print("terminated: the same command goes on", file=sys.stderr)
        return 0
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    return code or int(bool(failed))


def study(chosen: argparse.Namespace) -> list[str]:
    """Do what a command line asks for; returns a sentence for each run that failed."""
    from ldl_jax.study import plan as planning

    if chosen.jobs < 1:
        raise Usage(f"--jobs is {chosen.jobs}; allowed are numbers from 1")
    path = Path(chosen.study)
    asked = cells.load(path)
    planned = planning.plan(asked, path, _fields(chosen.fields))
    wanted = _chosen(chosen.only, planned)
    if chosen.commands:
        print("\n".join(shlex.join(_words(chosen, one)) for one in wanted))
        return []
    workdir = Path(chosen.workdir or f"studies/{path.stem}")
    _claim(workdir, path, asked, new=not chosen.collect)
    there = {one.key: cards.read(workdir / runner.CARDS, one) for one in planned}
    failed = {} if chosen.collect else _run(chosen, wanted, there, workdir)
    if not chosen.no_report:
        _report(asked, path, planned, workdir, _command(chosen))
    return [f"{name} failed: {reason}" for name, reason in failed.items()]


def _fields(given: list[str]) -> dict[str, str]:
    found = {}
    for text in given:
        field, equals, value = text.partition("=")
        if not equals:
            raise Usage(f"--set is {text!r}; allowed is FIELD=VALUE, as in data.root=DIR")
        found[field.removeprefix("config.")] = value
    return found


def _chosen(only: str | None, planned: list[Planned]) -> list[Planned]:
    """The runs that --only names, and those that teach them; all without it."""
    if only is None:
        return planned
    names = {one.cell.name for one in planned} | {runner.name(one) for one in planned}
    wanted = set(only.split(","))
    wrong = sorted(wanted - names)
    if wrong:
        cells_there = dict.fromkeys(one.cell.name for one in planned)
        raise Usage(
            f"--only names {wrong[0]!r}; allowed are {', '.join(cells_there)}, and CELL/NUMBER, 0 for its first seed"
        )
    keys = {one.key for one in planned if {one.cell.name, runner.name(one)} & wanted}
    for one in reversed(planned):  # teachers come before those they teach
        if one.key in keys:
            keys |= set(one.needs)
    return [one for one in planned if one.key in keys]


def _words(chosen: argparse.Namespace, *some: Planned) -> list[str]:
    """The command of these runs."""
    return [*_command(chosen), f"--only={','.join(map(runner.name, some))}", "--no-report"]


def _command(chosen: argparse.Namespace) -> list[str]:
    """The command of the whole study."""
    workdir = [] if chosen.workdir is None else [f"--workdir={chosen.workdir}"]
    fields = [word for field in chosen.fields for word in ("--set", field)]
    return ["python", "-m", "ldl_jax.study", chosen.study, *workdir, *fields]


def _claim(workdir: Path, path: Path, asked: Study, *, new: bool) -> None:
    """Make `workdir` this study's, its hypotheses written down. Raises ValueError where it is another one's."""
    file = workdir / MARK
    asks = [list(finding[:-1]) for finding in asked.findings]  # all but the claim in words
    asked_of = {name for finding in asked.findings for name in (finding.better, finding.than)}
    seeds = {cell.name: cell.seeds for cell in asked.cells if cell.name in asked_of}
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    mine = {"study": path.stem, "title": asked.title, "began": today, "findings": asks, "seeds": seeds}
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f"--workdir {workdir} is a file; allowed is a directory")
    if file.exists():
        try:
            there = json.loads(file.read_text())
            name, before, planned = there["study"], there["findings"], there.get("seeds", seeds)
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{file} cannot be read; it was changed since a study wrote it") from None
        if name != path.stem:
            raise ValueError(f"--workdir {workdir} holds the study {name!r}; allowed for {path.stem!r} is another one")
        if (before, planned) != (asks, seeds) and any((workdir / runner.CARDS).glob("*.json")):
            raise ValueError(
                f"--workdir {workdir} has results, and its findings were {_said(before, planned)}; the study's are now "
                f"{_said(asks, seeds)}, and allowed are those written down before the runs"
            )
        if before != asks or there.get("seeds") != seeds:
            files.write_json(file, {**mine, "began": there.get("began", today)})
    elif not new:
        raise ValueError(f"--workdir {workdir} holds no study; --collect is for one that was begun")
    elif workdir.is_dir() and any(not one.name.startswith(".") for one in workdir.iterdir()):
        raise ValueError(f"--workdir {workdir} holds other files and no study; allowed is a new or empty directory")
    else:
        files.write_json(file, mine)


def _said(findings: list, seeds: dict[str, int]) -> str:
    asked = [
        f"{better} has {direction} {metric} than {than} ({seeds.get(better)} and {seeds.get(than)} seeds)"
        for _, better, than, metric, direction in findings
    ]
    return ", ".join(asked) or "none"


def _run(chosen: argparse.Namespace, wanted: list[Planned], there: dict, workdir: Path) -> dict[str, str]:
    """Do the runs that have no card yet; returns what failed."""
    from ldl_jax import main as program

    todo = [one for one in wanted if there[one.key] is None]
    for one in todo:
        for key in one.needs:
            if there[key] is not None and not (runner.directory(workdir, key) / "model.npz").is_file():
                raise ValueError(
                    f"{runner.name(one)} needs the weights of {key[0]}/{key[1]}, which has a result card but no "
                    f"{runner.directory(workdir, key) / 'model.npz'}; bring them back, or remove the card"
                )
    done = {one.key: there[one.key].facts["seconds"] for one in wanted if there[one.key] is not None}
    progress = runner.Progress(wanted, done, chosen.jobs)
    if done:
        progress.say(f"{len(done)} of {len(wanted)} runs are there")
    try:
        if chosen.jobs == 1:
            for one in todo[:1]:
                program.prepare(one.config)
            if runner.is_worker():
                workers.bind()
                lines = iter(sys.stdin.readline, "")
                answer = partial(print, "", sep="\n", file=sys.stdout, flush=True)  # on a line of its own
                return runner.asked(wanted, workdir, progress, lines, answer)
            return runner.in_turn(todo, workdir, progress)
        command = lambda some: [sys.executable, *_words(chosen, *some)[1:]]  # noqa: E731
        return workers.side_by_side(todo, workdir, progress, chosen.jobs, command)
    finally:
        progress.close()


def _report(asked: Study, path: Path, planned: list[Planned], workdir: Path, words: list[str]) -> None:
    """Write results.json, results.csv and report.html of the cards that are there, and print the answers."""
    from ldl_jax.study import page, tables

    found: verdict.Cards = {}
    for one in planned:
        card = cards.read(workdir / runner.CARDS, one)
        if card is not None:
            found.setdefault(one.cell.name, {})[one.place] = card
    if not found:
        print("no run is finished yet")
        return
    results = {
        "study": path.stem, "title": asked.title, "about": asked.about, "cells": tables.rows(asked, found),
        "findings": verdict.answers(asked, found), "comparisons": verdict.explored(asked, found),
    }  # fmt: skip
    written = [
        files.write_json(workdir / "results.json", results),
        files.write(workdir / "results.csv", tables.numbers(results)),
        files.write(workdir / "report.html", page.page(asked, results, found, shlex.join(words))),
    ]
    print(tables.text(results), end="\n\n")
    print("\n".join(f"wrote {file}" for file in written))


if __name__ == "__main__":
    sys.exit(main())
