"""A disk that fails, as it looks through the libraries that write to it: what it said, and what they need not print."""

import logging
import os
import re
import sys
from functools import partial


def disk_fault(error: BaseException | None) -> str | None:
    """What the system said, as 'No space left on device', where an error comes from a disk; None for all others.

    orbax hands on what its threads and its libraries raise: an OSError, or a number of the system in a text.
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
    """Whether a message of orbax's is let through: the traceback of what is told as a warning here is not."""
    return not (record.exc_info and disk_fault(record.exc_info[1]))


def _hook(before, caught):
    """What is printed of an error in a thread of a library's, but for writers that outlive the save that failed."""
    if not (caught.exc_type is RuntimeError and str(caught.exc_value) == "Event loop is closed"):
        before(caught)


for _name in ("absl", "asyncio"):
    logging.getLogger(_name).addFilter(_not_of_the_disk)
sys.unraisablehook = partial(_hook, sys.unraisablehook)
