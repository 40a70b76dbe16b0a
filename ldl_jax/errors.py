"""How faults are told: warnings, one-line reasons, and the exceptions that more than one part of
the package knows.
"""

import contextlib
import sys


class Usage(Exception):
    """The command line is not understood."""


class Failed(Exception):
    """A command that was understood has failed; its text is the reason.

    status: the exit status, 1 unless given.
    """

    def __init__(self, reason: object, status: int = 1):
        super().__init__(str(reason))
        self.status = status


class Busy(ValueError):
    """Another process works on a run's directory."""


class Unreadable(Exception):
    """An example that cannot be read; its text is the reason."""


class UnreadableFile(ValueError):
    """A file that cannot be read as what it should be.

    reason: why, without the file's name.
    """

    def __init__(self, path, noun: str, reason: str):
        super().__init__(f"{path}: cannot be read as {noun} ({reason})")
        self.reason = reason


def warn(text: str) -> None:
    """Print a warning on stderr, and go on where the file behind it lies on a disk that is full."""
    with contextlib.suppress(OSError):
        print(f"warning: {text}", file=sys.stderr, flush=True)


def one_line(error: BaseException, most: int | None = None) -> str:
    """An error's text without line breaks, at most `most` characters of it; its type where it has
    no text.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if most is None else text[:most]
