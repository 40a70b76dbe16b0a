"""Checkpoints: saved in the background, verified before use. The only module that uses orbax."""

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import FixedIntervalPolicy, LatestN

from ldl_jax import mesh
from ldl_jax.checkpoint import large
from ldl_jax.checkpoint.checksums import Checksums, check_layout, layout
from ldl_jax.contract import PyTree
from ldl_jax.errors import disk_fault, silence_disk_tracebacks, warn


def saved_steps(folder) -> list[int]:
    """Steps of the complete checkpoints in a folder, in rising order; [] if there is no folder.

    Raises ValueError if the folder cannot be read.
    """
    try:
        paths = list(Path(folder).iterdir())
        return sorted(int(path.name) for path in paths if path.name.isdigit() and path.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        # Reporting no checkpoints here would make the run start again and overwrite them.
        raise ValueError(f"{folder} cannot be read: {error.strerror or error}") from None


def _first(fault: str | None) -> str | None:
    """The first fault of any process, on all processes; None if there is none."""
    return next(filter(None, mesh.tell(fault or "")), None)


class _Damaged(Exception):
    """A checkpoint is not what was written. Raised on all processes alike."""


class Checkpoints:
    """The checkpoints of a run in `folder`: the latest `keep`, saved at multiples of `every_steps`.

    folder/<step> is a complete checkpoint; its `Checksums` follow. If a save fails, the run is only
    warned: earlier checkpoints stay, and the next save is tried, in a new folder if somebody deleted
    this one. To keep tracebacks of orbax's
    threads out of the output, the class filters the loggers 'absl' and 'asyncio' and wraps
    `sys.unraisablehook`.
    """

    def __init__(self, folder, *, every_steps: int, keep: int):
        silence_disk_tracebacks()
        self.folder = Path(folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._inode = self._find_inode()
        self._checksums = Checksums(self.folder)
        self._options = ocp.CheckpointManagerOptions(
            save_decision_policy=FixedIntervalPolicy(every_steps),
            preservation_policy=LatestN(keep),
            cleanup_tmp_directories=True,
        )
        self._manager = None  # created late, so that it never sees damaged checkpoints
        self._pending = None  # step that is being written, or waits for its checksums
        self._hashing = None  # thread
        self._saved = None  # the latest step that was restored or saved

    def restore(
        self, abstract: PyTree, warn, *, unused: Callable[[dict], Sequence[str]] = lambda notes: ()
    ) -> tuple[PyTree, dict] | None:
        """The latest intact checkpoint as (state, notes), or None if there is no checkpoint.

        abstract: shapes, types and shardings of the state. unused: names of the state's fields that
        are not needed, given the notes; their leaves become `...`. A damaged checkpoint is moved to
        folder/damaged-<step>, and `warn` called with a sentence that names the file. Raises
        ValueError if all checkpoints are damaged, or if one has the layout of another model, naming
        the first leaf that differs; OSError if one cannot be read although its checksums match.
        """
        while (step := mesh.from_main(max(self.steps(), default=-1))) >= 0:
            try:
                has_checksums = self._check(step)
                meta = self._read(step, has_checksums, self._notes)
                if not (isinstance(meta, dict) and {"layout", "notes"} <= set(meta)):
                    raise _Damaged("its notes are not those of a checkpoint")
                # Compare the layout first: orbax's own message about a shape names no leaf.
                check_layout(self.folder / str(step), meta["layout"], layout(abstract))
                used = large.without(abstract, unused(meta["notes"]))
                state = self._read(step, has_checksums, partial(self._state, used))
            except _Damaged as fault:
                # The manager has listed this checkpoint already; the next one will not.
                self._manager = None
                mesh.on_main(lambda step=step, fault=fault: self._set_aside(step, fault, warn))
                continue
            # The run was killed between the checkpoint and its checksums: write them now.
            if mesh.is_main() and not has_checksums:
                self._checksums.write(step)
            self._saved = step
            return state, meta["notes"]
        # Starting again from step 0 would overwrite the logs, so leave that to the user.
        damaged = sorted(str(path) for path in self.folder.glob("damaged-*"))
        if damaged:
            raise ValueError(
                f"{self.folder} has no intact checkpoint, only {', '.join(damaged)}; delete them to start over, or "
                "pass another --workdir"
            )
        return None

    def _check(self, step) -> bool:
        """Whether a checkpoint has checksums. Raises _Damaged if its files do not match them."""
        fault = None
        unreadable = None
        try:
            fault = self._checksums.fault(step) if mesh.is_main() else None
        except OSError as error:
            unreadable = (
                f"{self.folder / str(step)} cannot be read ({error}); no checkpoint was changed"
            )
        # Process 0 alone reads the files, but all must raise, or the others would wait for it.
        if unreadable := _first(unreadable):
            raise OSError(unreadable)
        if fault := _first(fault):
            raise _Damaged(fault)
        return bool(mesh.from_main(int(self._checksums.path(step).exists())))

    def _notes(self, step):
        arguments = ocp.args.Composite(notes=ocp.args.JsonRestore())
        return self._ready().restore(step, args=arguments).notes

    def _state(self, abstract, step):
        """The state of a checkpoint; leaves that are `...` stay as they are."""
        # orbax holds an array twice, in the memory of the host and on the device, which on a CPU
        # are the same memory. It leaves out placeholders.
        small = jax.tree.map(lambda x: ocp.PLACEHOLDER if large.is_large(x) else x, abstract)
        options = ocp.checkpoint_utils.construct_restore_args(small)
        arguments = ocp.args.Composite(state=ocp.args.PyTreeRestore(small, restore_args=options))
        restored = self._ready().restore(step, args=arguments).state
        read = partial(large.large_or, self.folder / str(step) / "state")
        return jax.tree_util.tree_map_with_path(read, abstract, restored)

    def _read(self, step, has_checksums, read):
        """Call read(step) on a checkpoint. If it fails, raises OSError, or _Damaged without checksums.

        The files match their checksums if there are any, so a failure has another cause, such as
        too little memory.
        """
        restored = None
        fault = None
        cause = None
        try:
            restored = read(step)
        except Exception as error:  # orbax raises whatever its readers do
            self._manager = None
            cause = error
            message = next(iter(str(error).splitlines()), "")[:300]
            fault = f"cannot be read ({type(error).__name__}{message and ': '}{message})"
        # All processes return or raise together.
        if (fault := _first(fault)) is None:
            return restored
        if not has_checksums:
            raise _Damaged(f"it {fault}")
        raise OSError(
            f"checkpoint {self.folder / str(step)} {fault}, although all its checksums match; no checkpoint was changed"
        ) from cause

    def _set_aside(self, step, fault, warn):
        """Move a damaged checkpoint out of the way, to a name that is not taken yet."""
        aside = self.folder / f"damaged-{step}"
        number = 0
        while aside.exists():
            number += 1
            aside = self.folder / f"damaged-{step}-{number}"
        (self.folder / str(step)).rename(aside)
        self._checksums.path(step).unlink(missing_ok=True)
        warn(
            f"checkpoint {step} is damaged: {fault}; it was moved to {aside}, and the previous checkpoint is used"
        )

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints on disk, in rising order."""
        return saved_steps(self.folder)

    def due(self, step: int) -> bool:
        """Whether `save` would write a checkpoint at this step."""
        return self._ready().should_save(step)

    def save(self, step: int, state: PyTree, notes: dict, *, force: bool = False) -> None:
        """Write the state and notes (JSON values) in the background, if a save is due or forced."""
        self.poll()
        if step == self._saved or not (force or self.due(step)):
            return
        # At most one save at a time: the next one waits for the one before.
        self._finish()
        if mesh.from_main(int(self._is_deleted())):
            self._start_over(step)
        meta = {"notes": notes, "layout": layout(state)}
        args = ocp.args.Composite(state=large.save_arguments(state), notes=ocp.args.JsonSave(meta))
        fault = _first(self._probe(step) if mesh.is_main() else None)
        if fault is not None:
            self._warn_not_written(step, fault)
            return
        self._delete_partial_saves()
        with self._tolerate_disk_faults(step):
            if self._ready().save(step, args=args, force=force):
                self._saved = step
                self._pending = step if mesh.is_main() else None
                # On a CPU, orbax writes the state's own arrays: until it has finished, a step would
                # have to copy them.
                if jax.default_backend() == "cpu" and any(
                    map(large.is_large, jax.tree.leaves(state))
                ):
                    # The function of orbax that waits would warn that it took long.
                    while self._manager.is_saving_in_progress():
                        time.sleep(0.01)

    def poll(self) -> None:
        """Start the checksums of a checkpoint once it is complete; cheap enough for every step."""
        if self._pending is None or self._hashing or self._manager.is_saving_in_progress():
            return
        step = self._pending
        self._pending = None
        with self._tolerate_disk_faults(step):
            # The save has finished; this call raises what went wrong in it, if anything.
            self._manager.wait_until_finished()
            # Hash in a thread: reading a large checkpoint takes longer than a step.
            self._hashing = threading.Thread(target=self._write_checksums)
            self._hashing.start()

    def confirm(self, step: int) -> None:
        """Wait for pending writes. Raises OSError if the checkpoint of this step was not written."""
        self._finish()
        if not mesh.from_main(int(step in self.steps())):
            raise OSError(f"the checkpoint of step {step} could not be written")

    def close(self) -> None:
        """Wait for pending writes and release the folder."""
        self._finish()
        if self._manager is not None:
            self._manager.close()

    def _find_inode(self) -> int | None:
        """The number by which the file system knows the folder; None if there is no folder."""
        return self.folder.stat().st_ino if self.folder.is_dir() else None

    def _is_deleted(self) -> bool:
        """Whether the folder was deleted; writers that were still at work may have made another."""
        return self._find_inode() != self._inode

    def _start_over(self, step) -> None:
        """Continue in a new folder."""
        if mesh.is_main():
            warn(f"{self.folder} was deleted during training; checkpoint {step} starts a new one")
            # Without parents: a run whose directory was deleted ends. Other faults are `_probe`'s.
            with contextlib.suppress(OSError):
                self.folder.mkdir(exist_ok=True)
        mesh.tell("")  # a barrier, so that all processes see the new folder
        self._inode = self._find_inode()
        # The manager knows of checkpoints that no longer exist.
        self._manager = None
        self._saved = None

    def _probe(self, step) -> str | None:
        """Why the folder cannot be written to, or None; asked before orbax starts its threads."""
        probe = self.folder / f"{step}.tmp"
        try:
            probe.mkdir()
            probe.rmdir()
        except OSError as error:
            return error.strerror or str(error)
        return None

    def _delete_partial_saves(self):
        """Delete what failed saves left behind. Must not be called during a save."""
        if mesh.is_main():
            for path in self.folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(path, ignore_errors=True)

    def _warn_not_written(self, step, reason):
        if mesh.is_main():
            warn(
                f"checkpoint {step} cannot be written ({reason}); training continues, and the next save tries again"
            )

    @contextlib.contextmanager
    def _tolerate_disk_faults(self, step):
        """Turn a disk error into a warning, delete the partial save, and drop the manager.

        Raises OSError if there are several processes, because they may disagree about what failed
        while the next save would wait for all of them.
        """
        try:
            yield
        except Exception as error:  # orbax raises whatever its writers do
            reason = disk_fault(error)
            if reason is None and self._is_deleted():
                reason = "its folder was deleted"
            if reason is None:
                raise
            if mesh.processes() > 1:
                raise OSError(f"checkpoint {step} cannot be written ({reason})") from error
            # A new manager reads the folder again and does not know of the failed save.
            self._manager = None
            self._pending = None
            self._saved = None
            self._delete_partial_saves()
            # A checkpoint gets its final name once complete; then only the deletion of older
            # ones has failed.
            if step not in self.steps():
                self._warn_not_written(step, reason)

    def _ready(self):
        if self._manager is None:
            self._manager = ocp.CheckpointManager(self.folder, options=self._options)
        return self._manager

    def _finish(self):
        if self._manager is not None:
            with self._tolerate_disk_faults(self._saved):
                self._manager.wait_until_finished()
        self.poll()
        if self._hashing:
            self._hashing.join()
            self._hashing = None

    def _write_checksums(self):
        """Write the checksums of the new checkpoint, and of older ones for which that failed."""
        self._delete_partial_saves()
        self._checksums.write_missing(self.steps())
