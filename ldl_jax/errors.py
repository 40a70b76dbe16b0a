"""Warnings, one-line reasons, and the exceptions that several parts of the package share."""

import contextlib
import logging
import os
import re
import sys
from functools import partial


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
    # causes, or the system's error number within a text.
    while error is not None:
        if isinstance(error, OSError):
            return error.strerror or str(error)
        number = re.search(r"os_error_code='(\d+)'", str(error))
        if number:
            return os.strerror(int(number[1]))
        error = error.__cause__ or error.__context__
    return None


def _is_not_disk_fault(record: logging.LogRecord) -> bool:
    """Logging filter that drops tracebacks of disk errors, which callers warn about."""
    return not (record.exc_info and disk_fault(record.exc_info[1]))


def _print_unraisable(before, caught) -> None:
    """Call the previous hook, except for orbax's writers that outlive a failed save."""
    if not (caught.exc_type is RuntimeError and str(caught.exc_value) == "Event loop is closed"):
        before(caught)


def silence_disk_tracebacks() -> None:
    """Keep orbax's threads from printing tracebacks of a full disk; a second call does nothing."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_not_disk_fault)
    if getattr(sys.unraisablehook, "func", None) is not _print_unraisable:
        sys.unraisablehook = partial(_print_unraisable, sys.unraisablehook)
