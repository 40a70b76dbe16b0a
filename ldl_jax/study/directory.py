"""A study's directory: the names in it, and which study it belongs to."""

import json
from datetime import UTC, datetime
from pathlib import Path

from ldl_jax import files
from ldl_jax.config.study import Study

RUNS, CARDS, LOGS, LOCKS = "runs", "cards", "logs", ".locks"
MARK = "study.json"  # which study it is, and its hypotheses, written down before the runs


def of_run(folder, cell: str, place: int) -> Path:
    """Where the run of a cell and a place among its seeds lies in a study's directory."""
    return Path(folder) / RUNS / f"{cell}-{place}"


def claim(folder: Path, path: Path, study: Study, *, new: bool) -> None:
    """Make `folder` this study's, its hypotheses written down. Raises ValueError where it is
    another one's.
    """
    mark = folder / MARK
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--workdir {folder} is a file; allowed is a directory")
    if mark.exists():
        _check_mark(folder, path, study)
    elif not new:
        raise ValueError(f"--workdir {folder} holds no study; --collect is for one that was begun")
    elif folder.is_dir() and any(not file.name.startswith(".") for file in folder.iterdir()):
        raise ValueError(
            f"--workdir {folder} holds other files and no study; allowed is a new or empty directory"
        )
    else:
        files.write_json(mark, _mark(path, study))


def _mark(path: Path, study: Study) -> dict:
    """What is written down of a study before its runs: its findings but for the claim in words, and
    their seeds.
    """
    asked_of = {cell for finding in study.findings for cell in (finding.better, finding.than)}
    return {
        "study": path.stem,
        "title": study.title,
        "began": f"{datetime.now(UTC):%Y-%m-%d}",
        "findings": [list(finding[:-1]) for finding in study.findings],
        "seeds": {cell.name: cell.seeds for cell in study.cells if cell.name in asked_of},
    }


def _check_mark(folder: Path, path: Path, study: Study) -> None:
    """Raise ValueError where another study was begun in `folder`, or its findings changed after the
    first result.
    """
    file, mark = folder / MARK, _mark(path, study)
    findings, seeds = mark["findings"], mark["seeds"]
    try:
        before = json.loads(file.read_text())
        name, findings_before, seeds_before = (
            before["study"],
            before["findings"],
            before.get("seeds", seeds),
        )
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file} cannot be read; it was changed since a study wrote it") from None
    if name != path.stem:
        raise ValueError(
            f"--workdir {folder} holds the study {name!r}; allowed for {path.stem!r} is another one"
        )
    changed = (findings_before, seeds_before) != (findings, seeds)
    if changed and any((folder / CARDS).glob("*.json")):
        raise ValueError(
            f"--workdir {folder} has results, and its findings were {_sentence(findings_before, seeds_before)}; the "
            f"study's are now {_sentence(findings, seeds)}, and allowed are those written down before the runs"
        )
    # Without a result yet findings may change. A mark of before seeds were written down gets them.
    if changed or "seeds" not in before:
        files.write_json(file, {**mark, "began": before.get("began", mark["began"])})


def _sentence(findings: list, seeds: dict[str, int]) -> str:
    claims = [
        f"{better} has {direction} {metric} than {than} ({seeds.get(better)} and {seeds.get(than)} seeds)"
        for _, better, than, metric, direction in findings
    ]
    return ", ".join(claims) or "none"
