"""Reading files that others wrote: only regular files, of a bounded size, and strict JSON."""

import errno
import json
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from ldl_jax.errors import UnreadableFile, one_line

LARGEST = 2**27  # bytes of a JSON file; a matrix calibrator of 1,000 classes takes 2**25
LARGEST_LOG = 2**31  # bytes of a log, a line of which has about 300
DEEPEST = 32  # levels of a JSON value; those of a config have 4
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


def read_json(path, noun: str = "JSON") -> Any:
    """The value of a JSON file. Raises UnreadableFile, calling the file `noun`, as `parse` does."""
    text = read_text(path, noun)
    try:
        return parse(text)
    except ValueError as error:
        raise UnreadableFile(path, noun, one_line(error)) from None


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
