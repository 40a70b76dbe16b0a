"""Messages, one-line reasons, and the exceptions that several parts of the package share."""

import contextlib
import errno
import logging
import os
import re
import sys
from functools import partial

from ldl_jax import escape

# JAX's messages for memory that ran out.
MEMORY = re.compile(r"RESOURCE_EXHAUSTED.*(memory|alloc|reserve)|CUDA_ERROR_OUT_OF_MEMORY", re.I)
# Beginnings of what libraries say of a file that was deleted while they wrote it.
VANISHED = ("NOT_FOUND", "No ArrayMetadata found", "Checkpoint directory does not exist")


class Usage(Exception):
    """The command line is invalid."""


class Failed(Exception):
    """A valid command failed; the text of the exception is the reason, '' if it was printed before.

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


def say(text: object, stream=None, *, end: str = "\n", flush: bool = False) -> None:
    """Print lines of any origin on stdout or another stream, without control characters.

    What the stream cannot show, as in an ASCII locale, is escaped.
    """
    stream = sys.stdout if stream is None else stream
    encoding = getattr(stream, "encoding", None) or "utf-8"
    shown = escape.terminal(text).encode(encoding, "backslashreplace").decode(encoding)
    print(shown, file=stream, end=end, flush=flush)


def warn(text: object) -> None:
    """Print a warning of one line on stderr. Never raises: stderr may be a file on a full disk."""
    complain(f"warning: {text}")


def complain(text: object) -> None:
    """Print a line on stderr. Never raises."""
    with contextlib.suppress(OSError):
        say(escape.line(text), sys.stderr, flush=True)


def escape_unencodable() -> None:
    """Make stdout and stderr escape what they cannot encode, instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        # In a notebook, stdout is not a text file.
        if hasattr(stream, "reconfigure"):
            # This writes out what was printed before, which a closed pipe refuses.
            with contextlib.suppress(OSError):
                stream.reconfigure(errors="backslashreplace")


def flush_output() -> bool:
    """Write out what was printed; returns False if the reader of stdout has closed it.

    Raises OSError if stdout is a file that cannot be written. What a stream cannot take is dropped,
    since it would be tried again at exit, which prints an error.
    """
    # Without a terminal, the streams may be None.
    if sys.stderr is not None:
        try:
            sys.stderr.flush()
        except OSError:
            _close(sys.stderr)
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError as error:
            _close(sys.stdout)
            if not isinstance(error, BrokenPipeError):
                raise
            return False
    return True


def _close(stream) -> None:
    """Redirect stdout or stderr to the null device."""
    # In a notebook, stdout is not a file and has no descriptor.
    with contextlib.suppress(OSError, ValueError):
        null_device = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_device, stream.fileno())
        os.close(null_device)


def one_line(error: BaseException, most: int | None = None) -> str:
    """The text of an error without line breaks, cut to `most` characters.

    If the error has no text, the name of its type.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if most is None else text[:most]


def out_of_memory(error: BaseException) -> str | None:
    """What an error says about memory that ran out, in one line; None for all other errors."""
    text = one_line(error)
    if isinstance(error, MemoryError):
        return f"out of memory on this machine ({text[:200]})"
    # Named, not imported: commands that need no JAX would wait for it.
    if type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError") and MEMORY.search(text):
        return f"out of memory on a device ({text[:200]})"
    return None


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
