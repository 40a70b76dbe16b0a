"""Finished runs: whether a directory holds one, and how results replace earlier ones as a whole."""

import contextlib
import os
import re
import secrets
import shlex
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from ldl_jax import files, workdir

DIGESTS = "digests"  # in summary.json: {name of a file: digest of its contents}
STAGING = ".results"  # folder of results that are complete but not in place yet
PART = ".part"  # ending of its name before they are complete
GONE = ".gone"  # ending of an empty file in it: the result of this name is to be deleted
# The files that digests are taken of.
TIED = re.compile(rf"{re.escape(workdir.WEIGHTS)}|{workdir.NETWORK}|{workdir.PREDICTIONS}/\w+\.npz")
# Results that not every evaluation writes; those of an earlier one would contradict the others.
OPTIONAL = (workdir.CALIBRATION, workdir.EVALUATION, workdir.REPORT)


def is_finished(directory) -> bool:
    """Whether a directory holds a finished run: see `fault`."""
    return fault(directory) is None and (Path(directory) / workdir.SUMMARY).is_file()


def is_measured(directory) -> bool:
    """Whether a directory holds a run, finished or not, whose predictions belong to its summary."""
    return measured_fault(directory) is None


def fault(directory) -> str | None:
    """Why the network of a directory cannot be used, with what to do about it; None if it can.

    It can if the run is finished: weights and network are those that its summary was made of.
    Imported weights need no summary, nor do weights that were copied without the rest of their run.
    The comparison takes milliseconds, whatever the size of the weights: see `digest`. Summaries of
    older versions have no digests and pass.
    """
    directory = Path(directory)
    for name in (workdir.WEIGHTS, workdir.NETWORK):
        if not (directory / name).is_file():
            return _never_finished(directory, name)
    has_summary = (directory / workdir.SUMMARY).is_file()
    if not has_summary and not (directory / workdir.CONFIG).is_file():
        return None
    if not has_summary and not workdir.is_imported(directory):
        return _incomplete(directory, f"it has weights but no {workdir.SUMMARY}")
    try:
        recorded = _recorded(directory, workdir.SUMMARY if has_summary else workdir.NETWORK)
    except ValueError:
        return _incomplete(directory, f"its {workdir.SUMMARY} is damaged")
    if recorded is None:
        return None
    if workdir.WEIGHTS not in recorded:
        return (
            f"{directory} is not finished: its {workdir.SUMMARY} was made before its last step. "
            "Continue the run until it ends."
        )
    return _changed(directory, recorded)


def measured_fault(directory) -> str | None:
    """Why the predictions of a run cannot be used, with what to do about it; None if they can."""
    directory = Path(directory)
    predictions = workdir.predictions_file(directory)
    if not ((directory / workdir.SUMMARY).is_file() and predictions.is_file()):
        reason = f"it has no {workdir.SUMMARY} or no predictions"
        if (directory / workdir.WEIGHTS).is_file():
            return _incomplete(directory, reason)
        return f"{directory} is not finished: {reason}. Continue the run until it ends."
    try:
        recorded = _recorded(directory, workdir.SUMMARY)
    except ValueError:
        return _incomplete(directory, f"its {workdir.SUMMARY} is damaged")
    return _changed(directory, recorded or {})


def _recorded(directory: Path, name: str) -> dict[str, str] | None:
    """{name of a file: digest} of a summary, or of the network of imported weights.

    None if they were written by a version without digests. Raises ValueError if they are damaged.
    """
    content = workdir.read_json(directory / name)
    if name == workdir.NETWORK:
        content = content["imported"]
    recorded = content.get(DIGESTS) if isinstance(content, dict) else ""
    if not isinstance(recorded, dict | None):
        raise ValueError(f"{directory / name} has no valid digests")
    return recorded


def _never_finished(directory: Path, name: str) -> str:
    """The sentence for a directory without weights or network, without the command that trains."""
    is_run = (directory / workdir.CONFIG).is_file()
    state = "is not finished" if is_run else "is not a run directory"
    return f"{directory} {state}: it has no {name}"


def _incomplete(directory: Path, reason: str) -> str:
    """The sentence for results that are not whole, with what makes them so."""
    way_out = f"run python -m ldl_jax.main --workdir={shlex.quote(str(directory))} --mode=eval"
    try:
        c = workdir.read_config(directory)
        if c is not None and c.data.name == "in_memory":
            way_out = "call ldl_jax.train again with the same arrays"
    except ValueError:
        pass
    return (
        f"{directory} is not finished: {reason}, as after a process that was killed; to complete "
        f"it, {way_out}"
    )


def _changed(directory: Path, recorded: dict[str, str]) -> str | None:
    """The sentence for the first file that is not the one the digests were taken of; else None."""
    for name, expected in recorded.items():
        path = directory / name
        # The summary may be anybody's, so it leads to no file elsewhere. Predictions may be deleted
        # to save space: the network remains what it is.
        if TIED.fullmatch(name) and path.is_file() and digest(path) != expected:
            return _incomplete(
                directory, f"its {name} is not the one that {workdir.SUMMARY} was made of"
            )
    return None


def digest(path) -> str:
    """SHA-256 of a file's contents; of an .npz, of the names, sizes and checksums of its arrays.

    These stand at the end of an .npz, so that one of any size takes a few reads. The arrays are
    compared with their checksums whenever they are read. '' for an .npz that is damaged.
    """
    path = Path(path)
    if path.suffix != ".npz":
        return files.sha256(path)
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = [[info.filename, info.file_size, info.CRC] for info in archive.infolist()]
    except files.UNREADABLE:
        return ""
    return files.digest(arrays)


def digests(directory, names: Iterable[str]) -> dict[str, str]:
    """{name: digest} of files of a directory. Raises OSError if one is missing."""
    return {name: digest(Path(directory) / name) for name in names}


@contextlib.contextmanager
def replacing(
    folder, *, last: str = workdir.SUMMARY, optional: Iterable[str] = (), name: str = STAGING
) -> Iterator[Path]:
    """Yield an empty folder for new results, which replace those in `folder` when the block ends.

    They replace them as a whole. `last`, the file that says that the others are complete, is deleted
    first and comes last; in between lie renames only. If the block raises, the earlier results stay.
    If the process is killed amid the renames, `last` is missing, and `complete` does the rest.
    optional: names of earlier results to delete unless they are written anew. name: of the new
    folder, which is in `folder`. Raises OSError with the final path of the file that cannot be
    written.
    """
    folder = Path(folder)
    staging = folder / name
    unfinished = folder / (name + PART)
    _discard(staging)
    _discard(unfinished)
    # Without parents: results of a directory that was deleted must not make it again.
    unfinished.mkdir()
    try:
        yield unfinished
        for result in optional:
            if (folder / result).exists() and not (unfinished / result).exists():
                (unfinished / (result + GONE)).touch()
        # From here on, `complete` can do the rest.
        os.replace(unfinished, staging)
        _put_in_place(staging, folder, last)
        _discard(staging)
    except OSError as error:
        raise _with_final_path(error, (unfinished, staging), folder) from error
    finally:
        _discard(unfinished)


def complete(folder, *, last: str = workdir.SUMMARY) -> None:
    """Finish a replacement whose process was killed amid the renames, if there is one.

    The folder must be locked. Results of a process that was killed before them are deleted. Raises
    ValueError if the folder cannot be written.
    """
    staging = Path(folder) / STAGING
    try:
        if staging.is_dir() and not staging.is_symlink():
            _put_in_place(staging, Path(folder), last)
        _discard(staging)
        _discard(Path(folder) / (STAGING + PART))
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"--workdir {folder} cannot be written: {reason}") from None


def staging_name() -> str:
    """A name for the folder of `replacing`, for folders that no process has locked."""
    return f"{STAGING}-{secrets.token_hex(4)}"


def _put_in_place(staging: Path, folder: Path, last: str) -> None:
    """Move results to their folder: `last` away, the others, `last`. It can be repeated."""
    # Without it in the new ones, it is in place already: the process was killed after that.
    if not (staging / last).is_file():
        return
    (folder / last).unlink(missing_ok=True)
    for root, _, names in os.walk(staging):
        target = folder / Path(root).relative_to(staging)
        # A link in place of a folder would take the results elsewhere.
        if target != folder and target.is_symlink():
            target.unlink()
        target.mkdir(exist_ok=True)
        for name in sorted(names):
            if name.endswith(GONE):
                (target / name.removesuffix(GONE)).unlink(missing_ok=True)
            elif Path(root, name) != staging / last:
                os.replace(Path(root, name), target / name)
    os.replace(staging / last, folder / last)


def _discard(staging: Path) -> None:
    if staging.is_symlink():
        staging.unlink()
    elif staging.exists():
        shutil.rmtree(staging)


def _with_final_path(error: OSError, parts: tuple[Path, ...], folder: Path) -> OSError:
    """The same error with the path that a user knows, instead of one in a folder of `parts`."""
    path = Path(error.filename or folder)
    for part in parts:
        if path.is_relative_to(part):
            path = folder / path.relative_to(part)
    return OSError(error.errno, error.strerror or str(error), str(path))
