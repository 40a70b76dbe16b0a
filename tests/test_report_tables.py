"""Tables of results: one kind of table in each format, and the tables of a run's and an
evaluation's figures.
"""

import csv
import json
import math

import pytest

from ldl_jax.metrics.base import GROUPS, shown
from ldl_jax.report import figure_tables
from ldl_jax.report.result import Evaluation, Figure, State
from ldl_jax.report.tables import Group, Table, as_csv, as_latex, as_markdown, as_text, simple

TABLE = Table(
    ["", "a", "b"],
    [Group([["x", "1.0", None]]), Group([["long", "2", "30.5"]], "group")],
    ("a note",),
)


def test_a_table_as_text_has_columns_of_one_width_and_rules_between_groups():
    assert as_text(TABLE) == "\n".join([
        "--------------------",
        "            a      b",
        "--------------------",
        "x         1.0       ",
        "--------------------",
        "[group]             ",
        "long        2   30.5",
        "--------------------",
        "a note",
    ])  # fmt: skip


def test_tables_and_the_notes_of_all_stand_apart():
    two = as_text(simple(["a"], [["1"]]), simple(["b"], [["2"]]), notes=["of both", "and more"])
    assert two == "-\na\n-\n1\n-\n\n-\nb\n-\n2\n-\n\nof both\nand more"
    assert as_text(simple(["a"], [["1"]]), notes=[]) == "-\na\n-\n1\n-"


def test_a_table_as_csv_has_numbers_in_full():
    rows = [['x, "y"\nz', 1 / 3, None, 2]]
    text = as_csv(simple(["name", "mean", "std", "n"], rows))
    assert list(csv.reader(text.splitlines(keepends=True)))[1] == [
        'x, "y"\nz',
        repr(1 / 3),
        "",
        "2",
    ]


def test_a_table_as_markdown():
    assert as_markdown(TABLE, notes=["of all"]) == "\n".join([
        "|  | a | b |",
        "| --- | --: | --: |",
        "| x | 1.0 |  |",
        "| **group** | | |",
        "| long | 2 | 30.5 |",
        "",
        "a note",
        "",
        "of all",
        "",
    ])  # fmt: skip


def test_a_table_as_latex():
    assert as_latex(TABLE, notes=["of all"]) == "\n".join([
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r" & a & b \\",
        r"\midrule",
        r"x & 1.0 &  \\",
        r"\midrule",
        r"\multicolumn{3}{l}{\textit{group}} \\",
        r"long & 2 & 30.5 \\",
        r"\bottomrule",
        r"\end{tabular}",
        "",
        "% a note",
        "",
        "% of all",
        "",
    ])  # fmt: skip


NASTY = "a_b|c\\d\n~e^f & 5 % $x$ #1 {y} ± −2 <i> *z* `"


def test_what_a_format_reads_otherwise_is_escaped():
    table = simple(["", "n"], [[NASTY, "1"], ["[b]", "2"], ["*", "3"]])
    latex = as_latex(table, notes=["two\nlines"]).splitlines()
    assert latex[4] == (
        r"a\_b|c\textbackslash{}d \textasciitilde{}e\textasciicircum{}f \& 5 \% \$x\$ \#1 \{y\} "
        r"$\pm$ $-$2 <i> *z* ` & 1 \\"
    )
    assert latex[5:7] == [r"{[}b] & 2 \\", r"{*} & 3 \\"]
    assert latex[-1] == "% two lines"
    markdown = as_markdown(table).splitlines()
    assert markdown[2] == r"| a_b\|c\\d \~e^f \& 5 % \$x\$ #1 {y} ± −2 \<i> \*z\* \` | 1 |"
    assert [len(line) for line in as_text(table).splitlines()] == [len(NASTY) + 4] * 7


def test_a_table_has_metrics_as_rows_and_splits_as_columns():
    test = {
        "n": 10000,
        "accuracy": 0.91234,
        "top5": 0.999,
        "nll": 0.34567,
        "ece": 0.0425,
        "odd": 12.34567,
    }
    columns = {
        "test": {**test, "ece_floor": 0.0079},
        "holdout": {"n": 500, "accuracy": 0.5, "mce": 0.25},
    }
    text = as_text(figure_tables.splits(columns))
    assert text == "\n".join([
        "------------------------------------",
        "                      test   holdout",
        "------------------------------------",
        "images              10,000       500",
        "------------------------------------",
        "accuracy %           91.23     50.00",
        "top-5 %              99.90         -",
        "NLL                 0.3457         -",
        "ECE %                 4.25         -",
        "ECE noise floor %     0.79         -",
        "MCE %                    -     25.00",
        "------------------------------------",
        "odd                  12.35         -",
        "------------------------------------",
        "noise floor: the ECE that a perfectly calibrated model with these confidences scores on this many images",
    ])  # fmt: skip


def test_a_table_shows_nan_and_a_column_with_its_own_floor():
    lines = as_text(
        figure_tables.splits({"test": {"n": math.nan, "accuracy": math.nan, "ece_floor": 0.01}})
    ).splitlines()
    assert {" ".join(line.split()) for line in lines} >= {
        "images -",
        "accuracy % nan",
        "ECE noise floor % 1.00",
    }
    assert all(line.isascii() for line in lines)
    assert "noise floor" not in as_text(figure_tables.splits({"test": {"accuracy": 0.5}}))


def test_metrics_are_shown_in_one_order():
    columns = {"test": dict.fromkeys(reversed(list(shown())), 0.5)}
    assert [row[0] for row in figure_tables.splits(columns).rows()] == [
        how.title for how in shown().values()
    ]
    assert [how.group for how in shown().values()] == sorted(
        (how.group for how in shown().values()), key=GROUPS.index
    )


def evaluation(**changed):
    figures = {
        "accuracy": Figure(0.5, (0.4, 0.6), None, "accuracy"),
        "ece": Figure(0.0815, (0.05, 0.1), 0.0123, "calibration"),
        "error_auroc": Figure(None, None, None, "knowing when it is wrong"),
        "own": Figure(3.0),
    }
    scaled = State({name: figures[name] for name in ("accuracy", "ece")}, {})
    fit = {
        "name": "val",
        "examples": 1000,
        "temperature": 1.5,
        "low": 0.1,
        "high": 10,
        "at_bound": False,
    }
    whole = Evaluation(
        "one", 1234, 4, ("a", "b", "c", "d"), "logits", "logits by name", 0, ("a note",), fit,
        State(figures, {"reliability": {"count": [1.0], "confidence": [0.5], "correct": [1.0]}}), scaled,
    )  # fmt: skip
    return whole._replace(**changed)


def test_all_figures_of_an_evaluation_as_text():
    lines = figure_tables.evaluation_text(evaluation()).splitlines()
    assert lines[:2] == [
        "one: 1,234 examples, 4 classes; logits by name", "temperature 1.5, fitted on val (1,000 examples)"
    ]  # fmt: skip
    words = [" ".join(line.split()) for line in lines]
    assert "raw 95 % interval floor recalibrated 95 % interval floor" in words
    assert "accuracy % 50.00 40.00 to 60.00 50.00 40.00 to 60.00" in words
    assert "ECE % 8.15 5.00 to 10.00 1.23 8.15 5.00 to 10.00 1.23" in words
    assert {"AUROC of errors %", "own 3.0000", "[other]", "[calibration]"} <= set(words)
    assert words[-1] == "a note"
    raw = figure_tables.evaluation_text(evaluation(temperature=None, scaled=None))
    assert "recalibrated" not in raw
    assert "temperature" not in raw


@pytest.mark.parametrize(
    "changed", [{}, {"scaled": None, "temperature": None, "class_names": None}]
)
def test_an_evaluation_is_read_back_from_its_json(changed):
    whole = evaluation(**changed)
    assert Evaluation.from_json(json.loads(json.dumps(whole.to_json()))) == whole
