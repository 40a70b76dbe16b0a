"""Checkpoints: saved while training goes on, checked byte by byte before they are used; the only
user of orbax.
"""

import contextlib
import logging
import os
import re
import shutil
import sys
import threading
from functools import partial
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import FixedIntervalPolicy, LatestN

from ldl_jax import mesh
from ldl_jax.checksums import Checksums
from ldl_jax.contract import PyTree
from ldl_jax.errors import warn


def layout(state: PyTree) -> dict[str, list]:
    """Name, shape and type of every leaf of a state: {'params/model/fc/bias': [[10], 'float32'],
    ...}.
    """
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): [list(leaf.shape), str(leaf.dtype)]
        for path, leaf in leaves
    }


def saved_steps(folder) -> list[int]:
    """Steps of the complete checkpoints in a folder, in rising order; none where it is not there.

    Raises ValueError where the folder cannot be read: what cannot be seen is not taken for nothing.
    """
    try:
        return sorted(
            int(path.name)
            for path in Path(folder).iterdir()
            if path.name.isdigit() and path.is_dir()
        )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ValueError(f"{folder} cannot be read: {error.strerror or error}") from None


def disk_fault(error: BaseException | None) -> str | None:
    """What the system said, as 'No space left on device', where an error comes from a disk; None
    for all others.

    orbax hands on what its threads and its libraries raise: an OSError, or a number of the system
    in a text.
    """
    while error is not None:
        if isinstance(error, OSError):
            return error.strerror or str(error)
        number = re.search(r"os_error_code='(\d+)'", str(error))
        if number:
            return os.strerror(int(number[1]))
        error = error.__cause__ or error.__context__
    return None


def _not_of_the_disk(record: logging.LogRecord) -> bool:
    """Whether a log message is let through: the traceback of what `Checkpoints` warns of is not."""
    return not (record.exc_info and disk_fault(record.exc_info[1]))


def _print_unraisable(before, caught) -> None:
    """Hand an error of a library's thread on, but for writers that outlive the save that failed."""
    if not (caught.exc_type is RuntimeError and str(caught.exc_value) == "Event loop is closed"):
        before(caught)


def _quieten() -> None:
    """Keep orbax's threads from printing tracebacks of a full disk; a second call does nothing."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_not_of_the_disk)
    if getattr(sys.unraisablehook, "func", None) is not _print_unraisable:
        sys.unraisablehook = partial(_print_unraisable, sys.unraisablehook)


def _first(fault: str | None) -> str | None:
    """The first fault that a process has found, told to all; None where none has."""
    return next(filter(None, mesh.tell(fault or "")), None)


class _Damaged(Exception):
    """A checkpoint is not what was written; said on all processes."""


class Checkpoints:
    """The checkpoints of a run below `folder`: the latest `keep` of those at multiples of
    `every_steps`.

    A checkpoint is folder/<step>, whole or not there; its `Checksums` are written as soon as it is
    complete. One that cannot be written is told in a warning and removed, those before it stay, and
    the next that is due is tried. To keep the tracebacks of orbax's threads out, it filters the
    loggers 'absl' and 'asyncio' and wraps `sys.unraisablehook`.
    """

    def __init__(self, folder, *, every_steps: int, keep: int):
        _quieten()
        self.folder = Path(folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._checksums = Checksums(self.folder)
        self._options = ocp.CheckpointManagerOptions(
            save_decision_policy=FixedIntervalPolicy(every_steps),
            preservation_policy=LatestN(keep),
            cleanup_tmp_directories=True,
        )
        self._manager = None  # made after the damaged ones are out of its sight
        self._pending = None  # step that is being written, or waits for its checksums
        self._hashing = None  # thread
        self._saved = None  # the latest step that was restored or saved

    def restore(self, abstract: PyTree, warn) -> tuple[PyTree, dict] | None:
        """The newest checkpoint that is whole, as (state, notes), placed as `abstract` says; None
        where there is none.

        One that is damaged is set aside as folder/damaged-<step>; `warn` is called with a sentence
        that names the file. Raises ValueError where all that there were are damaged, since
        beginning anew would overwrite the log, or where one is of another model, naming the first
        leaf that differs; OSError where one whose checksums match cannot be read: all stay as they
        are, since the next start may read it.
        """
        while (step := mesh.from_main(max(self.steps(), default=-1))) >= 0:
            try:
                summed = self._check(step)
                meta = self._read(step, summed, notes=ocp.args.JsonRestore()).notes
                if not (isinstance(meta, dict) and {"layout", "notes"} <= set(meta)):
                    raise _Damaged("its notes are not a checkpoint's")
                self._check_layout(step, meta["layout"], layout(abstract))
                state = self._read(step, summed, state=ocp.args.StandardRestore(abstract)).state
            except _Damaged as fault:
                self._manager = None  # it has seen the one that is set aside
                mesh.on_main(lambda step=step, fault=fault: self._set_aside(step, fault, warn))
                continue
            if mesh.is_main() and not summed:  # its process was killed before it had any
                self._checksums.write(step)
            self._saved = step
            return state, meta["notes"]
        damaged = sorted(str(path) for path in self.folder.glob("damaged-*"))
        if damaged:
            raise ValueError(
                f"{self.folder} has no whole checkpoint, only {', '.join(damaged)}; to begin anew, remove them or take "
                "another --workdir"
            )
        return None

    def _check(self, step) -> bool:
        """Whether a checkpoint has checksums. Raises _Damaged where its files do not match them."""
        fault = unread = None
        try:
            fault = self._checksums.fault(step) if mesh.is_main() else None
        except OSError as error:
            unread = f"{self.folder / str(step)} cannot be read ({error}); the checkpoints are left as they are"
        if unread := _first(unread):
            raise OSError(unread)
        if fault := _first(fault):
            raise _Damaged(fault)
        return bool(mesh.from_main(int(self._checksums.path(step).exists())))

    def _read(self, step, summed, **parts):
        """These parts of a checkpoint. Where they cannot be read, raises _Damaged if it has no
        checksums, else OSError.

        Files that match their checksums are whole: what went wrong, such as memory that ran out,
        lies elsewhere.
        """
        found = fault = cause = None
        try:
            found = self._ready().restore(step, args=ocp.args.Composite(**parts))
        except Exception as error:  # orbax raises whatever its readers do
            self._manager, cause = None, error
            said = next(iter(str(error).splitlines()), "")[:300]
            fault = f"cannot be read ({type(error).__name__}{said and ': '}{said})"
        if (fault := _first(fault)) is None:
            return found
        if not summed:
            raise _Damaged(f"it {fault}")
        raise OSError(
            f"checkpoint {self.folder / str(step)} {fault}, though its files are whole: all checksums match; the "
            "checkpoints are left as they are"
        ) from cause

    def _set_aside(self, step, fault, warn):
        aside, number = self.folder / f"damaged-{step}", 0
        while aside.exists():
            number += 1
            aside = self.folder / f"damaged-{step}-{number}"
        (self.folder / str(step)).rename(aside)
        self._checksums.path(step).unlink(missing_ok=True)
        warn(
            f"checkpoint {step} is damaged: {fault}; it is set aside as {aside}, and the one before is looked for"
        )

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints on disk, in rising order."""
        return saved_steps(self.folder)

    def due(self, step: int) -> bool:
        """Whether a save at this step would write."""
        return self._ready().should_save(step)

    def save(self, step: int, state: PyTree, notes: dict, *, force: bool = False) -> None:
        """Write the state and notes (JSON values) of this step in the background, where one is due
        or forced.
        """
        self.poll()
        if step == self._saved or not (force or self.due(step)):
            return
        self._finish()
        meta = {"notes": notes, "layout": layout(state)}
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), notes=ocp.args.JsonSave(meta))
        fault = _first(self._probe(step) if mesh.is_main() else None)
        if fault is not None:
            self._tell(step, fault)
            return
        self._sweep()
        with self._tried(step):
            if self._ready().save(step, args=args, force=force):
                self._saved = step
                self._pending = step if mesh.is_main() else None

    def poll(self) -> None:
        """Begin the checksums of a checkpoint that has become complete; costs next to nothing,
        called each step.
        """
        if self._pending is None or self._hashing or self._manager.is_saving_in_progress():
            return
        step, self._pending = self._pending, None
        with self._tried(step):
            self._manager.wait_until_finished()  # it has finished: this raises what went wrong
            self._hashing = threading.Thread(target=self._write_all_sums)
            self._hashing.start()

    def confirm(self, step: int) -> None:
        """Wait until all is written. Raises OSError where the checkpoint of this step could not be."""
        self._finish()
        if not mesh.from_main(int(step in self.steps())):
            raise OSError(f"the checkpoint of step {step} is not there: it could not be written")

    def close(self) -> None:
        """Wait until all is written."""
        self._finish()
        if self._manager is not None:
            self._manager.close()

    def _probe(self, step) -> str | None:
        """What is wrong with the folder where it takes nothing, found out before orbax's threads
        begin.
        """
        probe = self.folder / f"{step}.tmp"
        try:
            probe.mkdir()
            probe.rmdir()
        except OSError as error:
            return error.strerror or str(error)
        return None

    def _sweep(self):
        """Remove what a failed save left, whose writers may have gone on for a while; called while
        nothing is saved.
        """
        for path in self.folder.glob("*.orbax-checkpoint-tmp*") if mesh.is_main() else ():
            shutil.rmtree(path, ignore_errors=True)

    def _tell(self, step, reason):
        if mesh.is_main():
            warn(
                f"checkpoint {step} cannot be written ({reason}); the run goes on, and the next save tries again"
            )

    @contextlib.contextmanager
    def _tried(self, step):
        """Warn where the disk fails, remove what is half-written, and begin anew with a manager
        that knows of nothing.

        A checkpoint gets its name when it is complete, and older ones are removed after that.
        Raises OSError where there are several processes: each may have another part of the fault,
        and the next save would wait for all.
        """
        try:
            yield
        except Exception as error:  # orbax raises whatever its writers do
            reason = disk_fault(error)
            if reason is None:
                raise
            if mesh.processes() > 1:
                raise OSError(f"checkpoint {step} cannot be written ({reason})") from error
            self._manager = self._pending = self._saved = None
            self._sweep()
            if step not in self.steps():
                self._tell(step, reason)

    def _ready(self):
        if self._manager is None:
            self._manager = ocp.CheckpointManager(self.folder, options=self._options)
        return self._manager

    def _finish(self):
        if self._manager is not None:
            with self._tried(self._saved):
                self._manager.wait_until_finished()
        self.poll()
        if self._hashing:
            self._hashing.join()
            self._hashing = None

    def _write_all_sums(self):
        """Checksums of all checkpoints that have none: of the new one, and of those where writing
        them failed.
        """
        self._sweep()
        self._checksums.write_missing(self.steps())

    def _check_layout(self, step, there, here) -> None:
        """Raise ValueError where the state is of another model."""
        for name in [*here, *there]:
            if there.get(name) != here.get(name):
                was, now = (
                    f"{x[1]}{x[0]}" if x else "absent" for x in (there.get(name), here.get(name))
                )
                raise ValueError(
                    f"{self.folder / str(step)} is of another model: {name} is {was} there and {now} in this config; "
                    "allowed are the config and the version of ldl_jax that it was made with, or another --workdir"
                )
