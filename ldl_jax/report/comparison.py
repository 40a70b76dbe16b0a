"""Runs side by side: the same tables for the terminal, as CSV, as Markdown and as LaTeX."""

import csv
import io
import re

from ldl_jax.report.table import KNOWN, align, at_bound

STATES = {"raw": "", "scaled": " at T"}  # state -> what it adds to a figure's name
NOTES = (
    "mean ± standard deviation over n seeds; 'at T': after the temperature that each run fitted on its holdout",
    "differences: 95 % intervals, over seeds (Student's t) and over test images (paired bootstrap, T as given)",
)
_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$",
    **{c: "\\" + c for c in "&%$#_{}"},
}  # fmt: skip


def text(found: dict) -> str:
    """The two tables of `compare.compare` in plain text."""
    return "\n\n".join(["\n".join(align([[head], rows])) for head, rows in tables(found)] + ["\n".join(_notes(found))])


def markdown(found: dict) -> str:
    """The two tables in Markdown."""
    parts = []
    for head, rows in tables(found):
        lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
        parts.append("\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines))
    return "\n\n".join([*parts, *_notes(found)]) + "\n"


def latex(found: dict) -> str:
    """The two tables as LaTeX tabulars with the rules of the package booktabs."""
    parts = []
    for head, rows in tables(found):
        lines = [" & ".join(map(_escaped, line)) + r" \\" for line in [head, *rows]]
        begin, end = rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\end{tabular}"
        parts.append("\n".join([begin, r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule", end]))
    return "\n\n".join([*parts, *(f"% {note}" for note in _notes(found))]) + "\n"


def _notes(found: dict) -> list[str]:
    groups = [group for group in found["groups"] if group["at_bound"]]
    return [*NOTES, *(at_bound(group["name"], group["at_bound"], len(group["runs"])) for group in groups)]


def numbers(found: dict) -> str:
    """All numbers as CSV, a line for each group, state and figure; fractions, nat."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["what", "group", "state", "figure", "mean", "std", "n",
                     "seeds_low", "seeds_high", "images_low", "images_high"])  # fmt: skip
    for group in found["groups"]:
        for state, name, value in _each(group):
            writer.writerow(["value", group["name"], state, name, value["mean"], _or(value["std"]), value["n"]])
    for group in found["differences"]:
        for state, name, value in _each(group):
            ends = [*(value["seeds"] or ("", "")), *(value["images"] or ("", ""))]
            writer.writerow(
                ["difference", group["name"], state, name, value["mean"], _or(value["std"]), value["n"], *ends]
            )
    return out.getvalue()


def tables(found: dict) -> list[tuple[list[str], list[list[str]]]]:
    """(head, rows) of the groups' figures and, where there are several groups, of their differences to the first."""
    columns = list(dict.fromkeys((state, name) for group in found["groups"] for state, name, _ in _each(group)))
    head = ["", "n", *(KNOWN[name][0] + STATES[state] for state, name in columns)]
    rows = [
        [group["name"], _seeds(group), *(_value(group, *column) for column in columns)] for group in found["groups"]
    ]
    made = [(head, rows)]
    if found["differences"]:
        title = f"less {found['baseline']}"
        rows = [_difference(group["name"], *figure) for group in found["differences"] for figure in _each(group)]
        made.append(([title, "figure", "difference", "over seeds", "over images"], rows))
    return made


def _each(group):
    for state in STATES:
        for name, value in (group[state] or {}).items():
            yield state, name, value


def _seeds(group) -> str:
    return str(next(iter(group["raw"].values()))["n"])


def _value(group, state, name) -> str:
    value = (group[state] or {}).get(name)
    if value is None:
        return "-"
    _, factor, digits = KNOWN[name]
    spread = "" if value["std"] is None else f" ± {factor * value['std']:.{digits}f}"
    return f"{factor * value['mean']:.{digits}f}{spread}"


def _difference(group, state, name, value) -> list[str]:
    label, factor, digits = KNOWN[name]

    def between(ends):
        return "-" if ends is None else f"{factor * ends[0]:+.{digits}f} to {factor * ends[1]:+.{digits}f}"

    mean = f"{factor * value['mean']:+.{digits}f}"
    return [group, label + STATES[state], mean, between(value["seeds"]), between(value["images"])]


def _or(value):
    return "" if value is None else value


def _escaped(cell: str) -> str:
    return re.sub(r"[\\~^±−&%$#_{}]", lambda found: _LATEX[found[0]], cell)
