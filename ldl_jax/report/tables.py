"""Tables, and their rendering as text for a terminal, CSV, Markdown and LaTeX.

`html.table` renders the same tables on a page. Cells and notes are text, which `escape` makes
harmless in each format.
"""

import csv
import io
from collections.abc import Iterable
from typing import NamedTuple

from ldl_jax import escape

# Text, a number (for CSV), or None for an empty cell. Further lines of a text are details.
Cell = str | float | None


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
        parts.append("\n".join([*_aligned(table), *map(escape.line, table.notes)]))
    if notes := [*map(escape.line, notes)]:
        parts.append("\n".join(notes))
    return "\n\n".join(parts)


def _aligned(table: Table) -> list[str]:
    """Lines of equal width, with a rule above and below the head and each group."""
    # Blocks of rows between rules: the head, then the groups that have any.
    blocks = [[[*map(escape.line, table.head)]]]
    for group in table.groups:
        rows = [[escape.line(_text(cell)) for cell in row] for row in group.rows]
        if group.heading:
            rows.insert(0, [escape.line(f"[{group.heading}]"), *[""] * (len(table.head) - 1)])
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
    for row in [table.head, *table.rows()]:
        # Numbers keep all their digits, and an absent value stays empty.
        writer.writerow([escape.csv(cell) if isinstance(cell, str) else cell for cell in row])
    return out.getvalue()


def as_markdown(*tables: Table, notes: Iterable[str] = ()) -> str:
    """Tables in GitHub's Markdown, with a newline at the end; each note is a paragraph."""
    parts = []
    for table in tables:
        numbers = len(table.head) - 1  # all columns but the first are aligned right
        lines = [_markdown_row(table.head), f"| --- |{' --: |' * numbers}"]
        for group in table.groups:
            if group.heading:
                lines.append(f"| **{escape.markdown(group.heading)}** |" + " |" * numbers)
            lines += map(_markdown_row, group.rows)
        parts += ["\n".join(lines), *map(escape.markdown_paragraph, table.notes)]
    return "\n\n".join([*parts, *map(escape.markdown_paragraph, notes)]) + "\n"


def _markdown_row(cells: Iterable[Cell]) -> str:
    return "| " + " | ".join(escape.markdown(_text(cell)) for cell in cells) + " |"


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
                heading = rf"\textit{{{escape.latex(group.heading)}}}"
                lines.append(rf"\multicolumn{{{columns}}}{{l}}{{{heading}}} \\")
            lines += map(_latex_row, group.rows)
        lines += [r"\bottomrule", r"\end{tabular}"]
        parts += ["\n".join(lines), *map(_latex_comment, table.notes)]
    return "\n\n".join([*parts, *map(_latex_comment, notes)]) + "\n"


def _latex_comment(note: str) -> str:
    return f"% {escape.line(note)}"


def _latex_row(cells: Iterable[Cell]) -> str:
    return " & ".join(escape.latex(_text(cell)) for cell in cells) + r" \\"


def _text(cell: Cell) -> str:
    return "" if cell is None else str(cell)
