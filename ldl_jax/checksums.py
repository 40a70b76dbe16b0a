"""Checksums of checkpoints: a flipped byte on a disk would be restored unnoticed."""

import json
from pathlib import Path

from ldl_jax import files
from ldl_jax.errors import warn


class Checksums:
    """The checksums of the checkpoints below `folder`: folder/<step>.sha256 for each folder/<step>.

    A file holds the SHA-256 of every file of its checkpoint, by its path in it, as JSON.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, step: int) -> Path:
        """The file with the checksums of a checkpoint."""
        return self.folder / f"{step}.sha256"

    def write(self, step: int) -> None:
        """Write those of a checkpoint, and remove those of checkpoints that are gone; warns where
        it cannot.
        """
        root = self.folder / str(step)
        try:
            sums = {}
            for path in sorted(root.rglob("*")):
                if path.is_file():
                    sums[str(path.relative_to(root))] = files.sha256(path)
            files.write_json(self.path(step), sums)
            for old in self.folder.glob("*.sha256"):
                if not (self.folder / old.stem).exists():
                    old.unlink(missing_ok=True)
        except OSError as error:
            warn(
                f"{self.path(step)} cannot be written ({error.strerror}); the next save tries again"
            )

    def write_missing(self, steps: list[int]) -> None:
        """Write those of the checkpoints that have none."""
        for step in steps:
            if not self.path(step).exists():
                self.write(step)

    def fault(self, step: int) -> str | None:
        """What is wrong with a checkpoint's files; None where nothing is. Raises OSError where one
        cannot be read.

        Without checksums (its process was killed in the moment between) it is taken as it is: it is
        complete.
        """
        root = self.folder / str(step)
        if not self.path(step).exists():
            return None
        try:
            sums = json.loads(self.path(step).read_text())
        except ValueError:
            return f"{self.path(step)} is not JSON"
        for name, expected in sums.items():
            if not (root / name).is_file():
                return f"{root / name} is missing"
            if files.sha256(root / name) != expected:
                return f"{root / name} has another SHA-256 than when it was written"
        return None
