"""Reading files that others wrote: only regular files, of a bounded size, and strict JSON."""

import errno
import json
import os
import stat
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from ldl_jax.errors import UnreadableFile, one_line

LARGEST = 2**27  # bytes of a JSON file; a matrix calibrator of 1,000 classes takes 2**25
LARGEST_LOG = 2**31  # bytes of a log, a line of which has about 300
DEEPEST = 32  # levels of a JSON value; those of a config have 4
NAMES = {
    dict: "a block of fields",
    list: "a list",
    str: "a string",
    int: "an integer",
    float: "a number",
}
KINDS = {
    stat.S_ISFIFO: "a FIFO",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


def check_file(path, most: int | None = None) -> None:
    """Check that a path is that of a regular file of at most `most` bytes, without opening it.

    Opening a FIFO would wait for another process, and a device may never end. Raises OSError whose
    `strerror` is the reason.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path))
    for is_kind, kind in KINDS.items():
        if is_kind(status.st_mode):
            raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))
    if most is not None and status.st_size > most:
        reason = f"it has {status.st_size:,} bytes, and at most {most:,} are read"
        raise OSError(errno.EFBIG, reason, str(path))


def entries(folder: Path) -> list[os.DirEntry]:
    """What is in a folder; nothing if it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []


def is_special(entry: os.DirEntry) -> bool:
    """Whether opening a file may never end. Listing tells, so only links are looked up."""
    # A link to nothing stays, to be reported as unreadable.
    is_broken = entry.is_symlink() and not os.path.exists(entry.path)
    return not (entry.is_file() or is_broken)


def read_text(path, noun: str, most: int = LARGEST) -> str:
    """The text of a UTF-8 file of at most `most` bytes.

    Raises UnreadableFile, calling the file `noun`.
    """
    try:
        check_file(path, most)
        return Path(path).read_bytes().decode()
    except UnicodeDecodeError as error:
        reason = f"it is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}"
        raise UnreadableFile(path, noun, reason) from None
    except OSError as error:
        raise UnreadableFile(path, noun, error.strerror or one_line(error)) from None
    except (ValueError, MemoryError) as error:  # a null character in the path
        raise UnreadableFile(path, noun, one_line(error)) from None


def read_json(path, noun: str = "JSON", *, finite: bool = True) -> Any:
    """The value of a JSON file, by `parse`. Raises UnreadableFile, calling the file `noun`."""
    text = read_text(path, noun)
    try:
        return parse(text, finite=finite)
    except ValueError as error:
        raise UnreadableFile(path, noun, one_line(error)) from None


def read_block(path, noun: str = "JSON", *, finite: bool = True) -> dict[str, Any]:
    """The object of a JSON file; see `read_json`. Raises ValueError also for another value."""
    return item(path, "its content", read_json(path, noun, finite=finite), dict)


def item(path, name: str, value: Any, kind: type) -> Any:
    """Return a JSON value if it is of a kind: dict, list, str, int or float (also an int).

    Raises ValueError naming the file and the value.
    """
    kinds = (int, float) if kind is float else kind
    # A bool is an int in Python.
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise ValueError(f"{path}: {name} must be {NAMES[kind]}, got {shown(value)}")
    return value


def items(path, name: str, values: Any, kind: type) -> list:
    """Return a JSON value if it is a list of a kind of values; see `item`."""
    for number, value in enumerate(item(path, name, values, list)):
        item(path, f"{name}[{number}]", value, kind)
    return values


def shown(value: Any) -> str:
    """A JSON value as text, cut to a length that a message can have."""
    # Python does not print integers of thousands of digits.
    if isinstance(value, int) and abs(value) >= 2**64:
        return "an integer of more than 64 bits"
    if isinstance(value, dict | list) and value:
        return f"{NAMES[type(value)]} of length {len(value)}"
    return repr(value)[:60]


def log_row(line: str) -> dict[str, float | None] | None:
    """The row of numbers of a line of a log, with its step; None if the line is no such row."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return None
    return row if all(map(_is_number, row.values())) else None


def _is_number(value: Any) -> bool:
    # Comparing an int of any length with a float is exact, and NaN compares as false.
    return value is None or (isinstance(value, int | float) and abs(value) <= sys.float_info.max)


def parse(text: str, *, finite: bool = True) -> Any:
    """The value of a JSON text, whose objects have no key twice, and which is at most DEEPEST deep.

    finite: refuse NaN and infinity, also as the value of 1e999. Raises ValueError in one sentence.
    """
    number = _finite if finite else float
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_float=number, parse_constant=number
        )
    except RecursionError:
        raise ValueError(f"it is more than {DEEPEST} levels deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not valid JSON: {one_line(error)}") from None
    _check(value)
    return value


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise ValueError(f"its numbers must be finite, got {text[:40]}")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        key, count = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"it has the key {key[:40]!r} {count} times")
    return value


def _check(value: Any) -> None:
    """Raise ValueError if a value is too deep, or has a text that cannot be written as UTF-8."""
    level = [value]
    for _ in range(DEEPEST):
        below = []
        for item in level:
            if isinstance(item, dict):
                below += [*item, *item.values()]
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str):
                _check_text(item)
        level = below
        if not level:
            return
    raise ValueError(f"it is more than {DEEPEST} levels deep")


def _check_text(text: str) -> None:
    """Raise ValueError for halves of a character, except bytes of a file's name that is not UTF-8."""
    try:
        text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise ValueError(f"its text {text[:40]!r} is not valid Unicode") from None
