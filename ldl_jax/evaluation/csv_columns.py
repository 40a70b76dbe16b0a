"""Which columns of a .csv are classes, which one holds the labels, and which are neither.

A column too many would be a class too many, and a column too few would move the labels of all
classes after it. So names decide only where they are certain; otherwise the values do (classes are
the columns whose rows sum to 1), and what remains doubtful is refused in a sentence that names the
column.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ldl_jax import distributions
from ldl_jax.evaluation.csv_table import Table

LABELS = ("label", "labels", "target", "targets", "y_true", "true_label")
# Used if there is none of LABELS.
MORE_LABELS = (
    *("true_labels", "label_true", "gt", "gt_label", "ground_truth", "groundtruth", "true_class"),
    *("class_label", "label_id", "class_id", "class_idx", "class_index", "ytrue", "y_test"),
    *("gold_label", "actual_label"),
)
# Names of labels that a class may have as well: labels only if they hold no fractions.
_PERHAPS_LABELS = (
    "class",
    "y",
    "true",
    "truth",
    "actual",
    "gold",
    "category",
    "gt_label",
    "answer",
)
# No class has such a name: of row numbers and ids, and of results.
_IDS = re.compile(
    r"|unnamed:?_?\d+(_level_\d+)?|level_\d+|index|idx|id|uid|uuid|\w+_(id|idx|index)"
)
_RESULTS = re.compile(
    r"confidence|conf|correct|is_correct|(max|top1?)_prob(ability)?|sample_weight"
    r"|y_?(pred|hat)|(predicted|predictions?|preds?)(_?(labels?|class(es)?|y|name|target))?"
    r"|(class|label)_pred(icted|iction)?"
)
_FILES = re.compile(r"(\w*_)?(file|filename|file_?name|image|img|path|file_?path|url|uri|hash|md5)")
# Columns beside those of the classes, with names that a class could have.
_DOUBTFUL = re.compile(
    r"(cv_?)?folds?|k_?fold|splits?|partition|subset|phase|stage|seed|run|trial|epochs?|steps?|iter"
    r"|iterations?|batch|(\w+_)?loss|nll|ce|cross_entropy|(log_?)?likelihood|brier|ece|errors?|err"
    r"|acc|accuracy|hit|match|result|outputs?|entropy|uncertainty|variance|margin|temperature|rank"
    r"|top_?\d|time|timestamp|date|duration|weights?|group|domain|dataset|source|device|difficulty"
    r"|(y_?)?(scores?|prob|proba|probs|probability)|max|argmax|names?|keys?|rows?|nr|num|number|n"
    r"|count|votes?|pos|position|offset|width|height|size"
)
_SCORES = re.compile(r"(p|prob|proba|probs|probability|logits?|scores?|softmax)[ _.:(\[-]+.")
NUMBERED = re.compile(r"(.*?)(\d+)(\D*)")
_FLAG = "pass --classes=A,B,C with the columns of the classes"


class Options(NamedTuple):
    """What a caller says about the columns of files, instead of leaving it to be found."""

    kind: str | None = None  # 'logits' or 'probabilities'
    classes: tuple[str, ...] | None = None  # columns of the classes, in this order
    label_column: str | None = None  # name of the labels


class Chosen(NamedTuple):
    """The columns in use."""

    classes: list[int]
    names: tuple[str, ...]  # of the classes
    label: int | None
    notes: tuple[str, ...] = ()


def plain(name: str) -> str:
    """A column's name in lower case, with underscores for what separates words."""
    return re.sub(r"[\s.-]+", "_", name.strip().lower())


def never_a_class(name: str) -> bool:
    """Whether a column of this name holds row numbers, ids or results, and no labels."""
    if plain(name) in MORE_LABELS:
        return False
    return bool(_IDS.fullmatch(plain(name)) or _RESULTS.fullmatch(plain(name)))


def choose(path, table: Table, options: Options, *, own_labels: bool) -> Chosen:
    """The columns of classes and labels of a table with a header.

    own_labels: whether the labels are to be read from this table. Raises ValueError that names the
    doubtful column and the option to pass.
    """
    names = table.names
    label = _named_label(path, names, options.label_column, required=own_labels)
    known = [column for column, name in enumerate(names) if plain(name) in (*LABELS, *MORE_LABELS)]
    strong = [column for column in known if plain(names[column]) in LABELS] or known
    if label is None and own_labels and len(strong) > 1:
        raise ValueError(
            f"{path}: must have one column of labels, got {listed(names[i] for i in strong)}; pass "
            "--label-column=NAME"
        )
    if label is None and strong:
        label = strong[0]
    if options.classes and any(_columns_named(table, name) for name in options.classes):
        columns = [_column_of(path, table, name) for name in options.classes]
        if label is None:
            label = _perhaps_label(table, columns)
        return Chosen(columns, tuple(names[column] for column in columns), label)
    candidates = [column for column in table.numeric if column not in (label, *known)]
    if label is None:
        label = _perhaps_label(table, candidates)
        candidates = [column for column in candidates if column != label]
    candidates, counting = without_row_numbers(table, candidates)
    classes = weighed(path, table, candidates, options.kind)
    left_out = [*counting, *(column for column in candidates if column not in classes)]
    if not classes:
        raise ValueError(f"{path}: has no column of scores, got columns {listed(names)}; {_FLAG}")
    # Names that are those of no column replace the names of the columns.
    if options.classes and len(options.classes) != len(classes):
        _column_of(path, table, options.classes[0])
    class_names = options.classes or tuple(names[column] for column in classes)
    note = f"not used: {listed(names[column] for column in left_out)}"
    return Chosen(classes, class_names, label, (note,) if left_out else ())


def label_of(path, table: Table, name: str | None) -> int:
    """The column of labels in a file of labels: the only one, or one named so.

    Raises ValueError if there is none, or several.
    """
    names = table.names or []
    given = _named_label(path, names, name, required=True)
    if given is not None:
        return given
    present = sorted([*table.numeric, *table.texts])
    if len(present) == 1:
        return present[0]
    for usual in (LABELS, MORE_LABELS, _PERHAPS_LABELS):
        columns = [column for column, name in enumerate(names) if plain(name) in usual]
        if len(columns) == 1:
            return columns[0]
    raise ValueError(
        f"{path}: must have one column, or one named {listed(LABELS)}, got {len(present)} columns; "
        "pass --label-column=NAME"
    )


def without_row_numbers(table: Table, columns: list[int]) -> tuple[list[int], list[int]]:
    """(the columns, those among them that count the rows from 0 or 1), unless those are all."""
    values = table.columns(columns)
    counting = []
    if len(values) > 2 and len(columns) > 1:
        steps = (np.diff(values[:3], axis=0) == 1).all(0) & np.isin(values[0], (0, 1))
        for column in np.flatnonzero(steps):
            if (np.diff(values[:, column]) == 1).all():
                counting.append(columns[column])
    return [column for column in columns if column not in counting], counting


def listed(names: Iterable[str]) -> str:
    """Names separated by commas, at most 20 of them."""
    names = list(names)
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return (", ".join(map(str, names[:20])) or "nothing") + more


def _named_label(
    path, names: list[str] | None, wanted: str | None, *, required: bool
) -> int | None:
    """The column that --label-column names. Raises ValueError if it is required and missing."""
    if wanted is None:
        return None
    for same in (str, plain):
        columns = [i for i, name in enumerate(names or ()) if same(name) == same(wanted)]
        if columns:
            return columns[0]
    if not required:
        return None
    raise ValueError(
        f"{path}: --label-column must be one of its columns, {listed(names or ())}, got {wanted!r}"
    )


def _column_of(path, table: Table, wanted: str) -> int:
    """The column of numbers that --classes names, perhaps as in 'p(cat)' or 'prob_cat'."""
    columns = _columns_named(table, wanted)
    if len(columns) == 1:
        return columns[0]
    raise ValueError(
        f"{path}: --classes must name columns of numbers, got {wanted!r}; its columns are "
        f"{listed(table.names)}"
    )


def _columns_named(table: Table, wanted: str) -> list[int]:
    for same in (str.strip, bare):
        columns = [c for c in table.numeric if same(table.names[c]) == same(wanted)]
        if columns:
            return columns
    return []


def bare(name: str) -> str:
    """A class of a column such as 'p(cat)', 'prob_cat' or 'cat'."""
    match = _SCORES.match(name.strip().lower())
    return name.strip()[match.end() - 1 :].rstrip(")]") if match else name.strip()


def _perhaps_label(table: Table, candidates: list[int]) -> int | None:
    """The column with a name that labels and classes may have, if it holds no fractions."""
    for column, name in enumerate(table.names):
        if plain(name) not in _PERHAPS_LABELS:
            continue
        if column in table.texts:
            return column
        others = [other for other in candidates if other != column]
        whole = column in table.numeric and _whole(table, [column]).all()
        if whole and not _whole(table, others).all():
            return column
    return None


def _whole(table: Table, columns: list[int]) -> np.ndarray:
    """Whether each column holds whole numbers alone, bool[n]."""
    return (table.columns(columns) % 1 == 0).all(0)


def weighed(path, table: Table, columns: list[int], kind: str | None) -> list[int]:
    """Those of the candidates that are classes.

    Raises ValueError naming a column that can be neither taken for a class nor left out.
    """

    def rows(of: list[int]) -> bool:
        return len(of) > 1 and distributions.rows(lambda: [table.columns(of)]) is not None

    odd = _odd(table.names, columns)
    rest = [column for column in columns if column not in odd]
    if kind != "logits":
        # Of odd columns that are all 0 or 1 nothing can be said by a sum.
        if odd and rows(rest) and (_whole(table, odd).all() or not rows(columns)):
            return rest
        if rows(columns):
            return columns
        if odd and len(rest) == 1:
            return rest
        _check_removal(path, table, columns, rows)
    if len(columns) > 1:
        _check_logits(path, table, columns, odd, kind)
    return columns


def _odd(names: list[str], columns: list[int]) -> list[int]:
    """Columns with names that are seldom those of classes, or unlike those of the others."""
    odd = [c for c in columns if _DOUBTFUL.fullmatch(plain(names[c])) or _is_file(names[c])]
    scores = [column for column in columns if _SCORES.match(names[column].lower())]
    numbered = [column for column in columns if NUMBERED.fullmatch(names[column])]
    for alike in (scores, numbered):
        if len(alike) < 2 or len(alike) == len(columns):
            continue
        if alike is scores or _are_numbered(names[column] for column in alike):
            odd += [column for column in columns if column not in (*alike, *odd)]
    return [] if len(odd) == len(columns) else odd


def _are_numbered(names: Iterable[str]) -> bool:
    """Whether names are the same text around the numbers 0 to n - 1, or 1 to n."""
    matches = [NUMBERED.fullmatch(name) for name in names]
    numbers = sorted(int(match[2]) for match in matches)
    same = len({(match[1], match[3]) for match in matches}) == 1
    return same and numbers in (list(range(len(numbers))), list(range(1, len(numbers) + 1)))


def _is_file(name: str) -> bool:
    return bool(_FILES.fullmatch(plain(name)))


def _check_removal(path, table: Table, columns: list[int], rows) -> None:
    """Raise ValueError if the rows are distributions without some of the columns."""
    values = table.columns(columns)
    outside = ((values < 0) | (values > 1)).any(0)
    inside = [column for column, out in zip(columns, outside, strict=True) if not out]
    without = [column for column in columns if column not in inside]
    if not (without and rows(inside)):
        total = values.sum(1, dtype=np.float64)
        for goal in (1.0, 100.0):
            # The column whose removal brings the sums closest to the goal.
            errors = [abs(total - column - goal).max() for column in values.T]
            without = [columns[int(np.argmin(errors))]] if columns else []
            if rows([column for column in columns if column not in without]):
                break
        else:
            return
    names = listed(repr(table.names[column]) for column in without)
    raise ValueError(
        f"{path}: the rows of its columns sum to 1 or 100 without {names}, so that is probably no "
        f"class; {_FLAG}"
    )


def _check_logits(path, table: Table, columns: list[int], odd: list[int], kind) -> None:
    """Raise ValueError if one of the columns is unlike the logits of a class."""
    doubt = f"is probably no class; {_FLAG}"
    if odd:
        raise ValueError(f"{path}: column {table.names[odd[0]]!r} {doubt}")
    whole = _whole(table, columns)
    values = table.columns(columns)
    if whole.all():
        if kind is None and len(values) > 2:
            raise ValueError(
                f"{path}: all scores are whole numbers, and rows do not sum to 1; if they are "
                "logits, pass --kind=logits"
            )
        return
    largest = abs(values).max(0)
    for number, column in enumerate(columns):
        others = np.delete(np.arange(len(columns)), number)
        # A class that is never likely, such as a masked one, adds nothing.
        if values[:, number].max() < values[:, others].min():
            continue
        far = np.median(abs(values[:, number])) > 10 * largest[others].max()
        if far or (whole[number] and len(values) > 2):
            what = "is far out of the range of the others" if far else "holds whole numbers alone"
            raise ValueError(f"{path}: column {table.names[column]!r} {what}, and {doubt}")
