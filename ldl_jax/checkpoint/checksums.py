"""What a checkpoint must hold: the checksums of its files, and the layout of its state.

Without checksums, a byte flipped on disk would be restored unnoticed.
"""

from pathlib import Path

import jax

from ldl_jax import files
from ldl_jax.contract import PyTree
from ldl_jax.errors import warn
from ldl_jax.files import reading


def layout(state: PyTree) -> dict[str, list]:
    """{name: [shape, dtype]} of a state's leaves: {'params/model/fc/bias': [[10], 'float32'], ...}."""
    leaves = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        leaves[name] = [list(leaf.shape), str(leaf.dtype)]
    return leaves


def check_layout(checkpoint: Path, saved: dict[str, list], expected: dict[str, list]) -> None:
    """Raise ValueError if a checkpoint has the layout of another model."""
    for name in [*expected, *saved]:
        if saved.get(name) != expected.get(name):
            raise ValueError(
                f"{checkpoint} was saved by a different model: {name} is {_text(saved.get(name))} "
                f"there and {_text(expected.get(name))} in this config; use the config and the version of ldl_jax "
                "that saved it, or pass another --workdir"
            )


def _text(leaf: list | None) -> str:
    """A leaf of a layout as text, such as 'float32[8]'."""
    if leaf is None:
        return "absent"
    shape, dtype = leaf
    return f"{dtype}{shape}"


class Checksums:
    """The checksums of the checkpoints in `folder`: folder/<step>.sha256 for each folder/<step>.

    A JSON file: {path within the checkpoint: SHA-256 of that file}.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, step: int) -> Path:
        """The file with the checksums of a checkpoint."""
        return self.folder / f"{step}.sha256"

    def write(self, step: int) -> None:
        """Write the checksums of a checkpoint and delete those of removed checkpoints.

        If they cannot be written, only a warning is printed.
        """
        root = self.folder / str(step)
        try:
            sums = {}
            for path in sorted(root.rglob("*")):
                if path.is_file():
                    sums[str(path.relative_to(root))] = files.sha256(path)
            files.write_json(self.path(step), sums)
            # orbax removes old checkpoints by itself, and does not know these files.
            for old in self.folder.glob("*.sha256"):
                if not (self.folder / old.stem).exists():
                    old.unlink(missing_ok=True)
        except OSError as error:
            warn(
                f"{self.path(step)} cannot be written ({error.strerror}); the next save tries again"
            )

    def write_missing(self, steps: list[int]) -> None:
        """Write the checksums of those checkpoints that have none."""
        for step in steps:
            if not self.path(step).exists():
                self.write(step)

    def fault(self, step: int) -> str | None:
        """What is wrong with the files of a checkpoint; None if they match their checksums.

        A checkpoint without checksums passes. Raises OSError if a file cannot be read.
        """
        root = self.folder / str(step)
        # A process killed between the two writes leaves a complete checkpoint without checksums.
        if not self.path(step).exists():
            return None
        try:
            sums = reading.read_block(self.path(step), "checksums")
        except ValueError as error:
            return str(error)
        for name, expected in sums.items():
            if not (root / name).is_file():
                return f"{root / name} is missing"
            if files.sha256(root / name) != expected:
                return f"{root / name} does not match its SHA-256 checksum"
        return None
