"""The config and study files that come with the package, found by name from any folder."""

import difflib
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
FOLDER = "configs"
STUDIES = "studies"  # the folder in it that holds studies


def folder() -> Path:
    """The folder of the configs that come with the package."""
    # A wheel holds them inside the package, a clone beside it.
    inside = PACKAGE / FOLDER
    return inside if inside.is_dir() else PACKAGE.parent / FOLDER


def shipped(subfolder: str = "") -> dict[str, Path]:
    """{name: file} of the configs that come with the package; of its studies with `STUDIES`."""
    return {path.stem: path for path in sorted((folder() / subfolder).glob("*.py"))}


def find(name: str, subfolder: str = "") -> Path | None:
    """The file that a name stands for: a path that exists, or else a shipped file; None if there is
    neither.
    """
    path = Path(name).expanduser()
    return path if path.is_file() else named(name, subfolder)


def named(name: str, subfolder: str = "") -> Path | None:
    """The shipped file NAME, NAME.py or configs/NAME.py; of a study also studies/NAME; or None."""
    parts = Path(name).parts
    for prefix in (FOLDER, subfolder):
        if len(parts) > 1 and parts[0] == prefix:
            parts = parts[1:]
    if len(parts) != 1:
        return None
    return shipped(subfolder).get(parts[0].removesuffix(".py"))


def suggestion(name: str, subfolder: str = "") -> str:
    """The end of the sentence about a file that does not exist: the shipped files, or those whose
    names are similar.
    """
    noun = STUDIES if subfolder else FOLDER
    known = shipped(subfolder)
    near = difflib.get_close_matches(Path(name).stem, known, 3)
    similar = "similar " if near else ""
    return f"{similar}{noun} that come with ldl_jax: {', '.join(near or known)}"
