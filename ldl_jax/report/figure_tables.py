"""The tables of figures: of a run's splits, of an evaluation, and of runs side by side."""

import math
from functools import partial

from ldl_jax.metrics.base import Shown, shown
from ldl_jax.report.result import STATES, Evaluation, Figure
from ldl_jax.report.tables import Cell, Group, Table, as_text, simple

MISSING = "-"
RUN_NOTE = "noise floor: the ECE that a perfectly calibrated model with these confidences scores on this many images"
EVALUATION_NOTE = (
    "interval: 95 %, by the bootstrap over examples; floor: the ECE of a perfectly calibrated "
    "model with these confidences on this many examples"
)
COMPARISON_NOTES = (
    "mean ± standard deviation over n seeds; 'at T': after the temperature that each run fitted on its holdout",
    "differences: 95 % intervals, over seeds (Student's t) and over test images (paired bootstrap, T as given)",
)
COMPARISON_COLUMNS = [
    "what", "group", "state", "figure", "mean", "std", "n", "seeds_low", "seeds_high", "images_low", "images_high",
]  # fmt: skip


def title(name: str, state: str = "raw") -> str:
    """What a figure is called, with its unit; one that no metric of ours has keeps its name."""
    return how(name).title + STATES[state]


def how(name: str) -> Shown:
    """How a figure is shown, also one that no metric of ours has."""
    return shown().get(name) or Shown(name, "", 4, "other", 0, "")


def number(name: str, value: float | None, missing: str = MISSING) -> str:
    """A figure's value in the unit of its title, such as percent."""
    return missing if value is None else f"{how(name).factor * value:.{how(name).digits}f}"


def signed(name: str, value: float) -> str:
    """A difference of a figure, with its sign."""
    return f"{how(name).factor * value:+.{how(name).digits}f}"


def interval(name: str, ends, missing: str = "") -> str:
    """The two ends of a figure's interval."""
    return missing if ends is None else f"{number(name, ends[0])} to {number(name, ends[1])}"


def signed_interval(name: str, ends, missing: str = MISSING) -> str:
    """The two ends of a difference's interval, with their signs."""
    return missing if ends is None else f"{signed(name, ends[0])} to {signed(name, ends[1])}"


def at_bound(name: str, count: int, of: int) -> str:
    """The sentence that `count` of a row's runs have no best temperature."""
    bound = "T is a bound of the search, as no temperature is best on the holdout"
    return f"{name}: in {count} of {of} runs {bound}"


def splits(columns: dict[str, dict[str, float]]) -> Table:
    """The scores of one network: metrics as rows, splits ('test', 'holdout') as columns.

    `columns` holds fractions (accuracy, top5, ece, mce), NLL in nats, Brier, and `n`, the number of
    images; metrics that are not known come last, with 4 significant digits.
    """
    names = list(dict.fromkeys(name for values in columns.values() for name in values))
    known = [name for name in shown() if name in names]
    unknown = [name for name in names if name != "n" and name not in known]

    def row(label, name, written):
        return [label, *(written(values.get(name)) for values in columns.values())]

    groups = [
        Group([row("images", "n", _count)] if "n" in names else []),
        Group([row(title(name), name, partial(number, name)) for name in known]),
        Group([row(name, name, _significant) for name in unknown]),
    ]
    notes = (RUN_NOTE,) if "ece_floor" in names else ()
    return Table(["", *columns], [group for group in groups if group.rows], notes)


def _count(value: float | None) -> str:
    return MISSING if value is None or not math.isfinite(value) else f"{round(value):,}"


def _significant(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4g}"


def evaluation_text(evaluation: Evaluation) -> str:
    """All figures of an evaluation for the terminal, below what was read and how."""
    examples = f"{evaluation.examples:,} examples, {evaluation.classes} classes"
    lines = [f"{evaluation.name}: {examples}; {evaluation.understood}"]
    fit = evaluation.temperature
    if fit:
        source = f"{fit['name']} ({fit['examples']:,} examples)"
        lines.append(f"temperature {fit['temperature']:.4g}, fitted on {source}")
    table = figures(evaluation)._replace(notes=(EVALUATION_NOTE, *evaluation.notes))
    return "\n".join([*lines, as_text(table)])


def figures(evaluation: Evaluation, missing: str = "") -> Table:
    """All figures of an evaluation by groups: value, interval and noise floor of each state."""
    states = evaluation.states()
    groups: dict[str, Group] = {}
    for name, figure in evaluation.raw.figures.items():
        row = [title(name)]
        for state in states.values():
            row += _figure(name, state.figures.get(name), missing)
        groups.setdefault(figure.group, Group([], figure.group)).rows.append(row)
    head = [column for state in states for column in (state, "95 % interval", "floor")]
    return Table(["", *head], list(groups.values()))


def _figure(name: str, figure: Figure | None, missing: str) -> list[str]:
    if figure is None:
        return [missing, "", ""]
    value, floor = number(name, figure.value, missing), number(name, figure.floor, "")
    return [value, interval(name, figure.interval), floor]


def comparison(compared: dict) -> list[Table]:
    """Of what `compare.compare` gives: the groups' figures, and the differences to the baseline."""
    groups, baseline = compared["groups"], compared["baseline"]
    found = ((state, name) for group in groups for state, name, _ in _spreads(group))
    columns = list(dict.fromkeys(found))
    head = ["", "n", *(title(name, state) for state, name in columns)]
    rows = []
    for group in groups:
        rows.append(
            [group["name"], _seeds(group), *(_spread(group, *column) for column in columns)]
        )
    tables = [simple(head, rows)]
    if compared["differences"]:
        head = [f"less {baseline}", "figure", "difference", "over seeds", "over images"]
        rows = [row for group in compared["differences"] for row in _differences(group)]
        tables.append(simple(head, rows))
    return tables


def comparison_notes(compared: dict) -> list[str]:
    """What a reader of a comparison has to know."""
    notes = list(COMPARISON_NOTES)
    for group in compared["groups"]:
        if group["at_bound"]:
            notes.append(at_bound(group["name"], group["at_bound"], len(group["runs"])))
    return notes


def comparison_numbers(compared: dict) -> Table:
    """All numbers of a comparison, a row for each group, state and figure; fractions, nat."""
    rows: list[list[Cell]] = []
    for group in compared["groups"]:
        for state, name, value in _spreads(group):
            numbers = [value["mean"], value["std"], value["n"]]
            rows.append(["value", group["name"], state, name, *numbers])
    for group in compared["differences"]:
        for state, name, value in _spreads(group):
            ends = [*(value["seeds"] or (None, None)), *(value["images"] or (None, None))]
            numbers = [value["mean"], value["std"], value["n"], *ends]
            rows.append(["difference", group["name"], state, name, *numbers])
    return simple(COMPARISON_COLUMNS, rows)


def _spreads(group: dict):
    """(state, figure, its spread) of all that a group has."""
    for state in STATES:
        for name, value in (group[state] or {}).items():
            yield state, name, value


def _seeds(group: dict) -> str:
    return str(next(iter(group["raw"].values()))["n"])


def _spread(group: dict, state: str, name: str) -> str:
    value = (group[state] or {}).get(name)
    if value is None:
        return MISSING
    deviation = "" if value["std"] is None else f" ± {number(name, value['std'])}"
    return number(name, value["mean"]) + deviation


def _differences(group: dict):
    for state, name, value in _spreads(group):
        ends = [signed_interval(name, value[over]) for over in ("seeds", "images")]
        yield [group["name"], title(name, state), signed(name, value["mean"]), *ends]
