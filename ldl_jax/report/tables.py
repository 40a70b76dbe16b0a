"""One kind of table, and how it is written: as text for a terminal, CSV, Markdown and LaTeX.

`html.table` writes the same tables into a page. What is special in a format is escaped here, in one
place for each.
"""

import csv
import io
import re
from collections.abc import Iterable
from typing import NamedTuple

# text; a number, for CSV; None is empty. A text's lines after the first say more, in small
Cell = str | float | None

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    **{character: "\\" + character for character in "&%$#_{}"},
}
_SPECIAL_IN_LATEX = re.compile("[" + re.escape("".join(_LATEX)) + "]")
_SPECIAL_IN_MARKDOWN = re.compile(r"[\\|<*`]")


class Group(NamedTuple):
    """Rows that belong together: a rule sets them apart from the next group."""

    # as many cells each as the head has; for CSV alone, fewer where the last are empty
    rows: list[list[Cell]]
    heading: str = ""  # above the rows, across all columns


class Table(NamedTuple):
    """Rows of cells below a head; the first column is aligned left, the others right."""

    head: list[str]
    groups: list[Group]
    notes: tuple[str, ...] = ()  # lines right below the table

    def rows(self) -> list[list[Cell]]:
        """The rows of all groups."""
        return [row for group in self.groups for row in group.rows]


def simple(head: list[str], rows: list[list[Cell]]) -> Table:
    """A table of one group of rows."""
    return Table(head, [Group(rows)])


def as_text(*tables: Table, notes: Iterable[str] = ()) -> str:
    """Tables for a terminal, an empty line between them and before `notes`; no last newline."""
    parts = ["\n".join([*_aligned(table), *map(_one_line, table.notes)]) for table in tables]
    return "\n\n".join([*parts, *_last_part(notes)])


def _aligned(table: Table) -> list[str]:
    """Lines of equal width, a rule above and below the head and each group."""
    blocks = [[table.head], *(_with_heading(group, len(table.head)) for group in table.groups)]
    blocks = [[[_one_line(cell) for cell in row] for row in block] for block in blocks if block]
    columns = zip(*(row for block in blocks for row in block), strict=True)
    widths = [max(map(len, column)) for column in columns]
    rule = "-" * (sum(widths) + 3 * (len(widths) - 1))

    lines = [rule]
    for block in blocks:
        for label, *cells in block:
            right = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
            lines.append("   ".join([label.ljust(widths[0]), *right]))
        lines.append(rule)
    return lines


def _with_heading(group: Group, columns: int) -> list[list[Cell]]:
    heading = [f"[{group.heading}]", *[""] * (columns - 1)]
    return [heading, *group.rows] if group.heading else group.rows


def _last_part(notes: Iterable[str]) -> list[str]:
    lines = "\n".join(map(_one_line, notes))
    return [lines] if lines else []


def as_csv(table: Table) -> str:
    """A table as CSV; numbers are written in full, headings and notes are left out."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.head)
    writer.writerows(table.rows())
    return out.getvalue()


def as_markdown(*tables: Table, notes: Iterable[str] = ()) -> str:
    """Tables in GitHub's Markdown, with a newline at the end; each note is a paragraph."""
    parts = []
    for table in tables:
        others = len(table.head) - 1
        lines = [_markdown_row(table.head), _markdown_row(["---", *["--:"] * others])]
        for group in table.groups:
            if group.heading:
                lines.append(f"| **{_in_markdown(group.heading)}** |" + " |" * others)
            lines += [_markdown_row([_in_markdown(cell) for cell in row]) for row in group.rows]
        parts += ["\n".join(lines), *map(_one_line, table.notes)]
    return "\n\n".join([*parts, *map(_one_line, notes)]) + "\n"


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _in_markdown(cell: Cell) -> str:
    return _SPECIAL_IN_MARKDOWN.sub(r"\\\g<0>", _one_line(cell))


def as_latex(*tables: Table, notes: Iterable[str] = ()) -> str:
    """Tables as LaTeX tabulars with the rules of booktabs, notes as comments; a last newline."""
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
        parts += ["\n".join(lines), *(f"% {_one_line(note)}" for note in table.notes)]
    return "\n\n".join([*parts, *(f"% {_one_line(note)}" for note in notes)]) + "\n"


def _latex_row(cells: list[Cell]) -> str:
    return " & ".join(map(_in_latex, cells)) + r" \\"


def _in_latex(cell: Cell) -> str:
    escaped = _SPECIAL_IN_LATEX.sub(lambda match: _LATEX[match[0]], _one_line(cell))
    # after a rule or the end of a row, LaTeX would read these as an option
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped.startswith(("[", "*")) else escaped


def _one_line(cell: Cell) -> str:
    return "" if cell is None else " ".join(str(cell).splitlines())
