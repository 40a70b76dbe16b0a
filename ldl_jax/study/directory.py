"""A study's directory: the names of its files and folders, and which study it belongs to."""

from datetime import UTC, datetime
from pathlib import Path

from ldl_jax import files
from ldl_jax.config.study import Finding, Study
from ldl_jax.files import reading

RUNS = "runs"
CARDS = "cards"
LOGS = "logs"
LOCKS = ".locks"
MARK = "study.json"  # the study's name and findings, written before the first run


def of_run(folder, cell: str, index: int) -> Path:
    """The directory of a run in the study's directory `folder`.

    index: which of the cell's seeds, from 0.
    """
    return Path(folder) / RUNS / f"{cell}-{index}"


def claim(folder: Path, path: Path, study: Study, *, new: bool) -> None:
    """Assign `folder` to the study of the file `path`, and write down its findings.

    new: whether a study may start there. Raises ValueError if the directory holds another study or
    other files, or if the findings changed after the first result.
    """
    mark = folder / MARK
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--workdir must be a directory, but {folder} is a file")
    if mark.exists():
        _check_mark(folder, path, study)
    elif not new:
        raise ValueError(
            f"--workdir {folder} contains no study; run the command without --collect first"
        )
    elif folder.is_dir() and any(not file.name.startswith(".") for file in folder.iterdir()):
        raise ValueError(
            f"--workdir {folder} contains other files but no study; pass a new or empty directory"
        )
    else:
        files.write_json(mark, _mark(path, study))


def _mark(path: Path, study: Study) -> dict:
    """The contents of study.json: the findings without their claims in words, and the seeds of
    their cells.
    """
    findings = []
    compared_cells = set()
    for finding in study.findings:
        findings.append(_hypothesis(finding))
        compared_cells |= set(finding.cells)
    return {
        "study": path.stem,
        "title": study.title,
        "began": f"{datetime.now(UTC):%Y-%m-%d}",
        "findings": findings,
        "seeds": {cell.name: cell.seeds for cell in study.cells if cell.name in compared_cells},
    }


def _hypothesis(finding: Finding) -> list:
    """A finding as study.json has it: all that decides something, which its claim in words does not."""
    hypothesis: list = [finding.name, *finding.cells[:2], finding.metric, finding.direction]
    # Older files know neither groups nor second pairs.
    if finding.group or finding.minus:
        hypothesis += [finding.group, list(finding.minus)]
    return hypothesis


def _check_mark(folder: Path, path: Path, study: Study) -> None:
    """Raise ValueError if `folder` belongs to another study, or if the findings changed after the
    first result.
    """
    file = folder / MARK
    mark = _mark(path, study)
    try:
        stored = reading.read_json(file)
        stored_name = stored["study"]
        stored_findings = stored["findings"]
        # Older files have no seeds; those of today stand for them.
        stored_seeds = stored.get("seeds", mark["seeds"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file} cannot be read: it is damaged or was edited") from None
    if stored_name != path.stem:
        raise ValueError(
            f"--workdir {folder} holds the study {stored_name!r}; pass another directory for "
            f"{path.stem!r}"
        )

    # A hypothesis that is adapted to results it has seen would not be tested by them.
    changed = (stored_findings, stored_seeds) != (mark["findings"], mark["seeds"])
    if changed and any((folder / CARDS).glob("*.json")):
        raise ValueError(
            f"--workdir {folder} already has results, so the study's findings must not change: "
            f"they were {_described(stored_findings, stored_seeds)}, and are now "
            f"{_described(mark['findings'], mark['seeds'])}. Restore them, or pass another --workdir"
        )
    # Before the first result, findings may change. An older file gets its seeds here.
    if changed or "seeds" not in stored:
        files.write_json(file, {**mark, "began": stored.get("began", mark["began"])})


def _described(findings: list, seeds: dict[str, int]) -> str:
    claims = []
    for _, better, than, metric, direction, *further in findings:
        group, minus = further or ("", [])
        *counts, last = (str(seeds.get(cell)) for cell in (better, than, *minus))
        of_group = f", group {group}" if group else ""
        if minus:
            pairs = (
                f"{better} minus {than} has {direction} {metric} than {minus[0]} minus {minus[1]}"
            )
        else:
            pairs = f"{better} has {direction} {metric} than {than}"
        claims.append(f"{pairs} ({', '.join(counts)} and {last} seeds{of_group})")
    return ", ".join(claims) or "none"
