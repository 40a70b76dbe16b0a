"""Text of any origin made harmless, with a function for each format that it is written to.

Class names, notes and paths may come from files and runs of others, so nothing in them may act as
markup, as a formula, or as a command to a terminal.
"""

import contextlib
import html as _html
import re

# Characters that act on a terminal or are invisible: controls (C0 except tab and newline, DEL, C1),
# directions of text, other separators of lines, and invisible ones. Joiners, which emoji and some
# scripts need, stay.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)
# Halves of surrogate pairs, except those that stand for bytes of a name that is not UTF-8.
_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
# With these a spreadsheet begins a formula, also after spaces, or after the separator of cells that
# it uses in some countries.
_FORMULA = re.compile("(^|[;\n])(?=\\s*[=+\\-@＝＋－＠])")
_SPECIAL_IN_MARKDOWN = re.compile(r"[\\|<*`\[~&$]|(?<![^\W_])_|_(?![^\W_])")
# The beginning of a heading, quotation, list or rule.
_BLOCK_OF_MARKDOWN = re.compile(r"^(\d+(?=[.)](?:\s|$))|(?=[#>+=-]))")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    **{character: "\\" + character for character in "&%$#_{}"},
}
_SPECIAL_IN_LATEX = re.compile("[" + re.escape("".join(_LATEX)) + "]")


def terminal(text: object) -> str:
    """Text of one or more lines for a terminal or a log: control characters as `\\x1b`.

    Bytes of file names that are not UTF-8 are shown as in `\\xc4.png`.
    """
    shown = _SURROGATE.sub(_code, str(text))
    shown = shown.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return _CONTROL.sub(_code, shown)


def line(text: object) -> str:
    """Text as a single line for a terminal; its lines are joined by spaces."""
    return terminal(" ".join(str(text).splitlines())).replace("\t", r"\x09")


def csv(text: object) -> str:
    """A cell of a CSV that no spreadsheet takes for a formula; numbers stay as they are.

    A quote is put before the characters with which formulas begin (OWASP, 'CSV injection'). Lines
    are kept, which a writer of CSV has to quote.
    """
    shown = terminal(text).replace("\t", r"\x09")
    try:
        float(shown)
    except ValueError:
        return _FORMULA.sub(r"\1'", shown)
    return shown


def markdown(text: object) -> str:
    """Text within a line or a table cell of GitHub's Markdown."""
    return _SPECIAL_IN_MARKDOWN.sub(r"\\\g<0>", line(text))


def markdown_paragraph(text: object) -> str:
    """A paragraph of Markdown: as `markdown`, and no heading, quotation, list or rule."""
    return _BLOCK_OF_MARKDOWN.sub(r"\1\\", markdown(text).strip())


def latex(text: object) -> str:
    """Text of LaTeX, such as a cell of a table."""
    shown = _SPECIAL_IN_LATEX.sub(lambda match: _LATEX[match[0]], line(text))
    # After a rule or the end of a row, LaTeX would read [ and * as an option.
    return f"{{{shown[0]}}}{shown[1:]}" if shown.startswith(("[", "*")) else shown


def html(text: object) -> str:
    """Text of HTML, also within an attribute; lines are kept."""
    shown = str(text)
    # In an ASCII locale, Python takes an argument in UTF-8 for single bytes. A ? for what UTF-8
    # cannot encode is left to the page, so that names stay as they are.
    with contextlib.suppress(UnicodeError):
        shown = shown.encode(errors="surrogateescape").decode()
    return _html.escape(_CONTROL.sub(_code, shown))


def _code(match: re.Match) -> str:
    """A character as Python writes it: \\x1b, \\u202e or \\U000e0001."""
    number = ord(match[0])
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
