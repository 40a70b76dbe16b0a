"""Warnings, one-line reasons, and the exceptions that several parts of the package share."""

import contextlib
import errno
import os
import re
import sys

# Beginnings of what libraries say of a file that was deleted while they wrote it.
VANISHED = ("NOT_FOUND", "No ArrayMetadata found", "Checkpoint directory does not exist")


class Usage(Exception):
    """The command line is invalid."""


class Failed(Exception):
    """A valid command failed; the text of the exception is the reason.

    status: exit status of the command, 1 by default.
    """

    def __init__(self, reason: object, status: int = 1):
        super().__init__(str(reason))
        self.status = status


class Busy(ValueError):
    """Another process is using a run directory."""


class Unreadable(Exception):
    """An example cannot be read; the text of the exception is the reason."""


class UnreadableFile(ValueError):
    """A file cannot be read as what it should be.

    reason: why, without the name of the file.
    """

    def __init__(self, path, noun: str, reason: str):
        super().__init__(f"{path}: cannot be read as {noun} ({reason})")
        self.reason = reason


def warn(text: str) -> None:
    """Print a warning on stderr. Never raises: stderr may be a file on a full disk."""
    with contextlib.suppress(OSError):
        print(f"warning: {printable(text)}", file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Text in which bytes of file names that are not UTF-8 are escaped, as in `\\xc4.png`."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def one_line(error: BaseException, most: int | None = None) -> str:
    """The text of an error without line breaks, cut to `most` characters.

    If the error has no text, the name of its type.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if most is None else text[:most]


def disk_fault(error: BaseException | None) -> str | None:
    """The system's message, such as 'No space left on device', if an error comes from a disk.

    None for all other errors.
    """
    # orbax passes on what its threads and libraries raise: an OSError somewhere in the chain of
    # causes, or the system's error number within a text, or a text alone.
    while error is not None:
        if isinstance(error, OSError):
            return error.strerror or str(error)
        if str(error).startswith(VANISHED):
            return os.strerror(errno.ENOENT)
        number = re.search(r"os_error_code='(\d+)'", str(error))
        if number:
            return os.strerror(int(number[1]))
        error = error.__cause__ or error.__context__
    return None
