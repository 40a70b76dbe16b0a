"""Tables, and their rendering as text for a terminal, CSV, Markdown and LaTeX.

`html.table` renders the same tables on a page. Special characters of each format are escaped here.
"""

import csv
import io
import re
from collections.abc import Iterable
from typing import NamedTuple

# Text, a number (for CSV), or None for an empty cell. Further lines of a text are details.
Cell = str | float | None

# Special character -> its LaTeX.
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    **{character: "\\" + character for character in "&%$#_{}"},
}
_SPECIAL_IN_LATEX = re.compile("[" + re.escape("".join(_LATEX)) + "]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_SPECIAL_IN_MARKDOWN = re.compile(r"[\\|<*`]")


class Group(NamedTuple):
    """Rows that belong together, separated from the next group by a rule."""

    # As many cells in each row as in the head; tables for CSV may leave out empty last cells.
    rows: list[list[Cell]]
    heading: str = ""  # above the rows, across all columns


class Table(NamedTuple):
    """A head and groups of rows; the first column is aligned left, the others right."""

    head: list[str]
    groups: list[Group]
    notes: tuple[str, ...] = ()  # lines directly below the table

    def rows(self) -> list[list[Cell]]:
        """The rows of all groups."""
        return [row for group in self.groups for row in group.rows]


def simple(head: list[str], rows: list[list[Cell]]) -> Table:
    """A table of one group of rows."""
    return Table(head, [Group(rows)])


def as_text(*tables: Table, notes: Iterable[str] = ()) -> str:
    """Tables for a terminal, with an empty line between them and before `notes`; no last newline."""
    parts = []
    for table in tables:
        parts.append("\n".join([*_aligned(table), *map(_one_line, table.notes)]))
    if notes := [*map(_one_line, notes)]:
        parts.append("\n".join(notes))
    return "\n\n".join(parts)


def _aligned(table: Table) -> list[str]:
    """Lines of equal width, with a rule above and below the head and each group."""
    # Blocks of rows between rules: the head, then the groups that have any.
    blocks = [[table.head]]
    for group in table.groups:
        rows = [[_one_line(cell) for cell in row] for row in group.rows]
        if group.heading:
            rows.insert(0, [_one_line(f"[{group.heading}]"), *[""] * (len(table.head) - 1)])
        if rows:
            blocks.append(rows)

    widths = [0] * len(table.head)
    for block in blocks:
        for row in block:
            widths = [max(width, len(cell)) for width, cell in zip(widths, row, strict=True)]
    rule = "-" * (sum(widths) + 3 * (len(widths) - 1))

    lines = [rule]
    for block in blocks:
        for label, *cells in block:
            padded = map(str.rjust, cells, widths[1:])
            lines.append("   ".join([label.ljust(widths[0]), *padded]))
        lines.append(rule)
    return lines


def as_csv(table: Table) -> str:
    """A table as CSV, with all digits of numbers, without headings and notes."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.head)
    writer.writerows(table.rows())
    return out.getvalue()


def spreadsheet(text: str) -> str:
    """A text as a cell of a CSV that no spreadsheet takes for a formula; numbers stay as they are.

    A quote is put before the characters with which formulas begin (OWASP, 'CSV injection').
    """
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.startswith(_FORMULA) else text
    return text


def as_markdown(*tables: Table, notes: Iterable[str] = ()) -> str:
    """Tables in GitHub's Markdown, with a newline at the end; each note is a paragraph."""
    parts = []
    for table in tables:
        numbers = len(table.head) - 1  # all columns but the first are aligned right
        lines = [_markdown_row(table.head), _markdown_row(["---", *["--:"] * numbers])]
        for group in table.groups:
            if group.heading:
                lines.append(f"| **{_in_markdown(group.heading)}** |" + " |" * numbers)
            for row in group.rows:
                lines.append(_markdown_row(map(_in_markdown, row)))
        parts += ["\n".join(lines), *map(_one_line, table.notes)]
    return "\n\n".join([*parts, *map(_one_line, notes)]) + "\n"


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _in_markdown(cell: Cell) -> str:
    return _SPECIAL_IN_MARKDOWN.sub(r"\\\g<0>", _one_line(cell))


def as_latex(*tables: Table, notes: Iterable[str] = ()) -> str:
    """Tables as LaTeX tabulars with booktabs rules, notes as comments; ends with a newline."""
    parts = []
    for table in tables:
        columns = len(table.head)
        lines = [rf"\begin{{tabular}}{{l{'r' * (columns - 1)}}}", r"\toprule"]
        lines.append(_latex_row(table.head))
        for group in table.groups:
            lines.append(r"\midrule")
            if group.heading:
                heading = rf"\textit{{{_in_latex(group.heading)}}}"
                lines.append(rf"\multicolumn{{{columns}}}{{l}}{{{heading}}} \\")
            lines += map(_latex_row, group.rows)
        lines += [r"\bottomrule", r"\end{tabular}"]
        parts += ["\n".join(lines), *map(_latex_comment, table.notes)]
    return "\n\n".join([*parts, *map(_latex_comment, notes)]) + "\n"


def _latex_comment(note: str) -> str:
    return f"% {_one_line(note)}"


def _latex_row(cells: list[Cell]) -> str:
    return " & ".join(map(_in_latex, cells)) + r" \\"


def _in_latex(cell: Cell) -> str:
    escaped = _SPECIAL_IN_LATEX.sub(lambda match: _LATEX[match[0]], _one_line(cell))
    # After a rule or the end of a row, LaTeX would read [ and * as an option.
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped.startswith(("[", "*")) else escaped


def _one_line(cell: Cell) -> str:
    """A cell as text on one line."""
    return "" if cell is None else " ".join(str(cell).splitlines())
