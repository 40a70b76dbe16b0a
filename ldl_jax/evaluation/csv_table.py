"""Reading .csv files: the columns of numbers, and those of text.

Fields are separated by commas, semicolons or tabs; with the latter two, decimals may be written
with a comma. The encoding is UTF-8, or UTF-16 with a byte order mark.
"""

import codecs
import csv
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

from ldl_jax.errors import UnreadableFile, one_line
from ldl_jax.files.reading import check_file

LINES = 4096  # lines read at a time
_SAMPLE = 20  # lines that decide which columns hold numbers
_DELIMITERS = ",;\t"
_WHOLE = re.compile(r"[+-]?\d+")
_FRACTION = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")

Numbered = tuple[int, str]  # a line and its number in the file, from 1


class Table(NamedTuple):
    """The contents of a .csv."""

    names: list[str] | None  # of all columns; None without a header
    numeric: list[int]  # the columns of numbers that were read
    numbers: np.ndarray  # f32[N, len(numeric)]
    texts: dict[int, list[str]]  # column of text -> its N fields

    def column(self, number: int) -> np.ndarray:
        """The numbers f32[N], or the text, of a column that was read."""
        if number in self.texts:
            return np.array(self.texts[number], np.str_)
        return self.numbers[:, self.numeric.index(number)]

    def columns(self, numbers: list[int]) -> np.ndarray:
        """The numbers f32[N, n] of several columns."""
        return self.numbers[:, [self.numeric.index(number) for number in numbers]]

    def name(self, number: int) -> str:
        """What a column is called in messages."""
        return f"column {number + 1}" if self.names is None else repr(self.names[number])


class _Form(NamedTuple):
    """How the lines of a file are read."""

    delimiter: str
    width: int  # fields in each line
    numeric: list[int]  # columns to read as numbers
    texts: list[int]  # columns to read as text


def read(path, leave_out: Callable[[str], bool] = lambda name: False) -> Table:
    """The table of a .csv file.

    leave_out: says of a column's name, in lower case, whether not to read it. Raises ValueError
    naming the file and, if a line does not fit the first ones, the line.
    """
    try:
        with open(path, newline="", encoding=_encoding(path)) as file:
            lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
            return _read(path, lines, leave_out)
    except (OSError, csv.Error, UnicodeError) as error:
        raise UnreadableFile(path, ".csv", one_line(error)) from None


def _encoding(path) -> str:
    check_file(path)
    with open(path, "rb") as file:
        mark = file.read(2)
    return "utf-16" if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _read(path, lines: Iterator[Numbered], leave_out: Callable[[str], bool]) -> Table:
    sample = list(islice(lines, _SAMPLE + 1))
    if not sample:
        raise ValueError(f"{path}: no rows of numbers; the file must have at least one example")
    delimiter = _delimiter(sample[1:2] or sample)
    rows = [_fields(line, delimiter) for _, line in sample]
    names = rows[0] if _is_header(path, rows, delimiter) else None
    pending = sample if names is None else sample[1:]
    if not pending:
        raise ValueError(f"{path}: no rows of numbers; the file must have at least one example")
    form = _form(rows[len(sample) - len(pending) :], names, delimiter, len(rows[0]), leave_out)
    texts: dict[int, list[str]] = {column: [] for column in form.texts}
    tables = []
    pending += list(islice(lines, LINES - len(pending)))
    # Read in batches: the text of a large file takes several times the memory of its numbers.
    while pending:
        tables.append(_numbers(path, pending, form, texts))
        pending = list(islice(lines, LINES))
    return Table(names, form.numeric, np.concatenate(tables), texts)


def _delimiter(lines: list[Numbered]) -> str:
    """The separator between whose fields most are numbers; a comma if none is better."""

    def fit(mark: str) -> tuple[float, int]:
        kinds = _numbers_in(_fields(lines[0][1], mark), mark)
        return sum(kinds) / len(kinds), len(kinds)

    return max(_DELIMITERS, key=fit)


def _numbers_in(fields: list[str], delimiter: str) -> list[bool]:
    return [_is_number(field, delimiter) for field in fields]


def _is_header(path, rows: list[list[str]], delimiter: str) -> bool:
    """Whether the first row names the columns. Raises ValueError if it cannot be told."""
    first = rows[0]
    kinds = _numbers_in(first, delimiter)
    if all(kinds):
        # A DataFrame of an array writes 0, 1, 2, ... as the names of its columns.
        counted = first in ([str(i + start) for i in range(len(first))] for start in (0, 1))
        return counted and len(rows) > 1 and not all(map(_WHOLE.fullmatch, rows[1]))
    decimal = first if delimiter == "," else [field.replace(",", ".") for field in first]
    fractions = [field for field in decimal if _FRACTION.fullmatch(field)]
    if len(fractions) > 1 and len(rows) > 1 and kinds == _numbers_in(rows[1], delimiter):
        raise ValueError(
            f"{path}: has no header, since line 1 is a row like the others, and a column of text; "
            "add a header with a name for each column"
        )
    return True


def _form(rows, names, delimiter: str, width: int, leave_out) -> _Form:
    """Which columns hold numbers and which text, of the first rows."""
    numeric = []
    texts = []
    for column in range(width):
        if names is not None and leave_out(names[column].lower()):
            continue
        fields = [row[column] for row in rows if len(row) == width and row[column]]
        # A column of blanks counts as numbers, so that the first blank is reported.
        is_text = bool(fields) and not any(_numbers_in(fields, delimiter))
        (texts if is_text and names is not None else numeric).append(column)
    return _Form(delimiter, width, numeric, texts)


def _numbers(path, batch: list[Numbered], form: _Form, texts: dict[int, list[str]]) -> np.ndarray:
    """The columns of numbers of a batch of lines, f32[n, columns]; the others go to `texts`."""
    lines = [line for _, line in batch]
    columns = form.numeric if len(form.numeric) < form.width else None
    try:
        # With `usecols`, loadtxt does not check the number of fields.
        if columns is not None:
            _add_texts(lines, form, texts)
        if columns == []:
            return np.empty((len(lines), 0), np.float32)
        if form.delimiter != ",":
            lines = [line.replace(",", ".") for line in lines]
        options = {"delimiter": form.delimiter, "quotechar": '"', "usecols": columns}
        table = np.loadtxt(lines, comments=None, ndmin=2, **options)
        if table.shape != (len(lines), len(form.numeric)):
            raise ValueError
    except ValueError:
        raise ValueError(_bad_row(path, batch, form)) from None
    # An overflow to infinity is reported later, by the checks of the values.
    with np.errstate(over="ignore"):
        return table.astype(np.float32)


def _add_texts(lines: list[str], form: _Form, texts: dict[int, list[str]]) -> None:
    """Append the fields of the columns of text. Raises ValueError if a line has another width."""
    for line in lines:
        fields = _fields(line, form.delimiter)
        if len(fields) != form.width:
            raise ValueError
        for column, values in texts.items():
            values.append(fields[column])


def _bad_row(path, batch: list[Numbered], form: _Form) -> str:
    """The message about the first line that is not a row of numbers."""
    for number, line in batch:
        fields = _fields(line, form.delimiter)
        if len(fields) != form.width:
            return (
                f"{path}, line {number}: expected {form.width} fields, as in the first line, got "
                f"{len(fields)}"
            )
        for column in form.numeric:
            if not _is_number(fields[column], form.delimiter):
                return (
                    f"{path}, line {number}: column {column + 1} must be a number, got "
                    f"{fields[column][:40]!r}"
                )
    return f"{path}, lines {batch[0][0]} to {batch[-1][0]}: expected numbers separated by commas"


def _fields(line: str, delimiter: str) -> list[str]:
    return [field.strip() for field in next(csv.reader([line], delimiter=delimiter), [])]


def _is_number(text: str, delimiter: str) -> bool:
    try:
        float(text if delimiter == "," else text.replace(",", "."))
    except ValueError:
        return False
    return True
