"""The start of a run: whether its directory is free or holds this very run, and on how many threads."""

import os
from pathlib import Path
from typing import IO

from ml_collections import ConfigDict

from ldl_jax import config, mesh, workdir
from ldl_jax.contract import PyTree
from ldl_jax.errors import Failed
from ldl_jax.workdir import finished

EXTENDABLE = ("train.epochs", "train.max_steps")
AT_START = (workdir.CONFIG, workdir.NETWORK, workdir.VERSIONS)  # written then, and not again


class Deleted(Failed):
    """The directory of a run was deleted or moved while the run trained."""


def check(
    directory, c: ConfigDict, spec: dict, inputs: dict[str, str], *, extend: bool, saved: bool
) -> None:
    """Check that `directory` is free or holds this very run; writes nothing.

    inputs: {'<field> = <path>': SHA-256} of what the run reads (images, teachers, labels, tables).
    extend: allow the run to be longer than before. saved: whether there is a checkpoint. Raises
    ValueError if the directory holds a run with a different config (naming the fields), imported
    weights, or a finished run without checkpoints.
    """
    directory = Path(directory)
    before = workdir.read_config(directory)
    if before is None:
        if saved:
            raise ValueError(
                f"--workdir {directory} has checkpoints but no {workdir.CONFIG}, so the run that "
                "they belong to is not known; delete them, or pass another --workdir"
            )
        return
    if workdir.is_imported(directory):
        raise ValueError(
            f"--workdir {directory} holds imported weights; pass another --workdir to train"
        )
    _check_config(directory, before, c, extend=extend)
    workdir.check_data(directory, spec, inputs)
    # Without a checkpoint, the run would start again from step 0 and overwrite the weights.
    weights = directory / workdir.WEIGHTS
    if not saved and weights.is_file():
        step = workdir.read_weights(weights)[1]["step"]
        state = f"holds a run that finished at step {step} and"
        if not finished.is_finished(directory):
            state = f"holds the weights of a run that reached step {step}, but whose results are incomplete; it"
        raise ValueError(
            f"--workdir {directory} {state} has no checkpoints left; evaluate it with --mode=eval, "
            "or pass another --workdir"
        )


def _check_config(directory, before: ConfigDict, c: ConfigDict, *, extend: bool) -> None:
    """Raise ValueError if the config of a run is a different one; with `extend` it may be longer."""
    changed = config.differences(before, c)
    durations = {name: values for name, values in changed.items() if name in EXTENDABLE}
    if extend:
        for name, (was, now) in durations.items():
            if was is not None and now is not None and now < was:
                raise ValueError(
                    f"--extend can only make a run longer: config.{name} was {was}, got {now}"
                )
            del changed[name]
    if changed:
        # Suggest --extend only if it was not passed already.
        way_out = "--extend to make the run longer, or " if durations and not extend else ""
        raise ValueError(
            f"--workdir {directory} already holds a run with a different config: "
            f"{workdir.sentence(config.telling(changed))}; pass {way_out}--workdir="
            f"{config.beside(directory, changed)} to start a new run"
        )


def write_imported(
    directory: Path, c: ConfigDict, spec: dict, variables: PyTree, origin: dict[str, str]
) -> None:
    """Make `directory` a run of imported weights, as a whole or not at all.

    origin: what is known of where they come from. Raises ValueError if another process uses the
    directory, and OSError if it cannot be written.
    """
    # The config comes last: a directory without one counts as free.
    with (
        workdir.locked(directory),
        finished.replacing(directory, last=workdir.CONFIG) as new,
    ):
        workdir.save_weights(new / workdir.WEIGHTS, variables, step=0)
        digests = finished.digests(new, [workdir.WEIGHTS])
        imported = spec | {"imported": {**origin, finished.DIGESTS: digests}}
        workdir.claim(new, c, imported, {}, total=0)


def check_free(directory: Path) -> None:
    """Complete an import whose process was killed; raise ValueError if the directory holds a run."""
    is_begun = any(directory.glob(f"{finished.STAGING}*"))
    if is_begun and not (directory / workdir.CONFIG).exists():
        with workdir.locked(directory):
            finished.complete(directory, last=workdir.CONFIG)
    for name in (workdir.CONFIG, workdir.WEIGHTS):
        if (directory / name).exists():
            raise ValueError(
                f"{directory} already holds a run ({name}). Pass another --workdir to import one."
            )


def check_present(directory: Path, lock: IO | None) -> None:
    """Raise Deleted, on all processes, if a run directory is not what it was at the start.

    lock: the open lock file on process 0, None on the others.
    """
    fault = mesh.tell(_missing(directory, lock) if lock is not None else "")[0]
    if fault:
        raise Deleted(
            f"--workdir {directory} was deleted or moved during training ({fault} is missing), and "
            "the log of the run with it; run the same command again to start from step 0"
        )


def _missing(directory: Path, lock: IO) -> str:
    """The first file of the start that is no longer in a run directory, or ''."""
    try:
        name = workdir.LOCK
        # Another run may have started in a new directory of the same name.
        if not os.path.samestat(os.fstat(lock.fileno()), os.stat(directory / name)):
            return name
        for name in AT_START:
            os.stat(directory / name)
    except (FileNotFoundError, NotADirectoryError):
        return name
    except OSError:
        # Only what is certainly gone ends a run: a network file system may recover.
        pass
    return ""


def thread_note(starts: list[dict], step: int) -> str:
    """What to say if a run resumes at `step` on another number of CPU threads; else ''.

    starts: those recorded in the run's directory, this one last. Older versions, and other backends,
    recorded no number.
    """
    counts = [start.get("threads") for start in starts[-2:]]
    if not step or len(counts) < 2 or None in counts or counts[0] == counts[1]:
        return ""
    return (
        f"resuming with {counts[1]} CPU threads after {counts[0]}: XLA divides sums among them, so "
        "results agree with those of an uninterrupted run up to rounding, but not bitwise"
    )
