"""Tables of figures: of a run's splits, of an evaluation, and of a comparison of runs."""

import itertools
import math

from ldl_jax import escape
from ldl_jax.calibrate import describe
from ldl_jax.metrics.base import Shown, shown
from ldl_jax.report.conclusion import conclusions
from ldl_jax.report.recorded import Recorded
from ldl_jax.report.result import STATE_NAMES, STATES, Evaluation, Figure
from ldl_jax.report.tables import Cell, Group, Table, as_text, simple

MISSING = "-"
RUN_NOTE = "noise floor: the ECE that a perfectly calibrated model with these confidences scores on this many images"
EVALUATION_NOTE = (
    "interval: 95 %, by the bootstrap over examples; floor: the ECE of a perfectly calibrated "
    "model with these confidences on this many examples"
)
COMPARISON_NOTES = (
    "mean ± standard deviation over n seeds; recalibrated: at the temperature that each run fitted on its holdout",
    "differences: 95 % intervals, over seeds (Student's t) and over test images (paired bootstrap, for these "
    "temperatures)",
    "noise floor: the ECE that a perfectly calibrated model with these confidences scores on this many images",
    "better, worse: than the baseline, where the intervals exclude 0; without a word, chance may explain the "
    "difference",
)
FLOOR = "ece_floor"
_INTERVALS = ("seeds_low", "seeds_high", "images_low", "images_high")
COMPARISON_COLUMNS = ["what", "group", "state", "figure", "mean", "std", "n", *_INTERVALS]
COMPARISON_COLUMNS += ["floor", "verdict"]


def title(name: str, state: str = "raw") -> str:
    """The title of a figure, with its unit and state; an unknown figure keeps its name."""
    return how(name).title + STATES[state]


def how(name: str) -> Shown:
    """How a figure is shown, with a default for figures that no metric defines."""
    return shown().get(name) or Shown(name, "", 4, "other", 0, "")


def number(name: str, value: float | None, missing: str = MISSING) -> str:
    """A figure's value as text, in the unit of its title, such as percent."""
    return missing if value is None else f"{how(name).factor * value:.{how(name).digits}f}"


def signed(name: str, value: float) -> str:
    """A difference as text, with its sign."""
    return f"{how(name).factor * value:+.{how(name).digits}f}"


def interval(name: str, ends, missing: str = "") -> str:
    """A figure's interval as text."""
    return missing if ends is None else f"{number(name, ends[0])} to {number(name, ends[1])}"


def signed_interval(name: str, ends, missing: str = MISSING) -> str:
    """A difference's interval as text, with signs."""
    return missing if ends is None else f"{signed(name, ends[0])} to {signed(name, ends[1])}"


def at_bound(name: str, count: int, of: int) -> str:
    """The note that in `count` of `of` runs the holdout does not determine a temperature."""
    reason = "so no temperature can be estimated from the holdout"
    return f"{name}: in {count} of {of} runs the fitted temperature hit a limit of the search, {reason}"


def summary(summary: dict) -> Table:
    """The scores of a run's summary.json: its splits, and what is recalibrated, as columns."""
    columns = dict(summary["splits"])
    for split, scores in summary["scaled"].items():
        columns[f"{split} recalibrated"] = scores
    return splits(columns)


def beside(summary: dict, recorded: Recorded) -> Table:
    """A run's figures on the test images beside those recorded of other runs."""
    own = {"raw": summary["splits"]["test"], "scaled": summary["scaled"].get("test", {})}
    rows = []
    for state, figures in recorded.figures.items():
        for name, (mean, std) in figures.items():
            spread = "" if std is None else f" ± {number(name, std)}"
            value = number(name, own[state].get(name))
            rows.append([title(name, state), value, f"{number(name, mean)}{spread}"])
    runs = "one run" if recorded.runs == 1 else f"{recorded.runs} runs"
    return simple(["test", "this run", f"{recorded.name}, {runs}"], rows)


def splits(columns: dict[str, dict[str, float]]) -> Table:
    """Figures of one network: metrics as rows, splits ('test', 'holdout') as columns.

    columns: for each split, fractions (accuracy, top5, ece, mce), NLL in nat, Brier score, and `n`,
    the number of images. Unknown metrics come last, with 4 significant digits.
    """
    names = list(dict.fromkeys(itertools.chain.from_iterable(columns.values())))
    known = Group([])
    for name in shown():
        if name in names:
            cells = [number(name, values.get(name)) for values in columns.values()]
            known.rows.append([title(name), *cells])
    counts = Group([])
    unknown = Group([])
    for name in names:
        numbers = [values.get(name) for values in columns.values()]
        if name == "n":
            counts.rows.append(["images", *map(_count, numbers)])
        elif name not in shown():
            unknown.rows.append([name, *map(_significant, numbers)])
    groups = [group for group in (counts, known, unknown) if group.rows]
    notes = (RUN_NOTE,) if "ece_floor" in names else ()
    return Table(["", *columns], groups, notes)


def _count(value: float | None) -> str:
    return MISSING if value is None or not math.isfinite(value) else f"{round(value):,}"


def _significant(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4g}"


def evaluation_text(evaluation: Evaluation) -> str:
    """All figures of an evaluation for the terminal, with what was read and how."""
    examples = f"{evaluation.examples:,} examples, {evaluation.classes} classes"
    lines = [escape.line(f"{evaluation.name}: {examples}; {evaluation.understood}")]
    if evaluation.temperature:
        lines.append(escape.line(fitted_temperature(evaluation.temperature)))
    lines += [f"{state}: {found}" for state, found in conclusions(evaluation).items()]
    table = figures(evaluation)._replace(notes=(EVALUATION_NOTE, *evaluation.notes))
    return "\n".join([*lines, as_text(table)])


def fitted_temperature(fit: dict) -> str:
    """An evaluation's temperature: its value, interval, calibrator and what it was fitted on."""
    # The plain calibrator is not named in its evaluations, as before there were others.
    name = f"{fit['calibrator']} " if "calibrator" in fit else ""
    source = f"{name}fitted on {fit['name']} ({fit['examples']:,} examples)"
    return f"{describe.temperature(fit)}, {source}"


def figures(evaluation: Evaluation, missing: str = "") -> Table:
    """All figures of an evaluation by groups: value, interval and noise floor in each state."""
    states = evaluation.states()
    groups: dict[str, Group] = {}
    for name, figure in evaluation.raw.figures.items():
        row = [title(name)]
        for state in states.values():
            row += _figure(name, state.figures.get(name), missing)
        groups.setdefault(figure.group, Group([], figure.group)).rows.append(row)
    head = [""]
    for state in states:
        head += [STATE_NAMES[state], "95 % interval", "floor"]
    return Table(head, list(groups.values()))


def _figure(name: str, figure: Figure | None, missing: str) -> list[str]:
    """The cells of a figure in one state: value, interval and floor."""
    if figure is None:
        return [missing, "", ""]
    value, floor = number(name, figure.value, missing), number(name, figure.floor, "")
    return [value, interval(name, figure.interval), floor]


def comparison(compared: dict) -> list[Table]:
    """The groups' figures and the differences to the baseline, of `comparison.compare`'s result."""
    # The columns are what any group has: without a calibrator, a group has raw figures only.
    groups = compared["groups"]
    columns = {}
    for group in groups:
        for state, name, _ in _spreads(group):
            columns[state, name] = title(name, state)
            if name == "ece":
                columns[state, FLOOR] = "floor %"
    rows = []
    for group in groups:
        cells = [_spread(group, state, name) for state, name in columns]
        rows.append([group["name"], _seeds(group), *cells])
    tables = [simple(["", "n", *columns.values()], rows)]

    if compared["differences"]:
        baseline = compared["baseline"]
        head = [f"minus {baseline}", "figure", "difference", "over seeds", "over images", ""]
        rows = []
        for group in compared["differences"]:
            rows += _differences(group)
        tables.append(simple(head, rows))
    return tables


def comparison_notes(compared: dict) -> list[str]:
    """What a reader of a comparison must know."""
    notes = list(COMPARISON_NOTES)
    for group in compared["groups"]:
        if group["at_bound"]:
            notes.append(at_bound(group["name"], group["at_bound"], len(group["runs"])))
    return notes


def comparison_numbers(compared: dict) -> Table:
    """All numbers of a comparison, one row for each group, state and figure; fractions and nat."""
    rows: list[list[Cell]] = []
    for group in compared["groups"]:
        for state, name, value in _spreads(group):
            numbers = [value["mean"], value["std"], value["n"]]
            floor = [*[None] * len(_INTERVALS), value["floor"]] if "floor" in value else []
            rows.append(["value", group["name"], state, name, *numbers, *floor])
    for group in compared["differences"]:
        for state, name, value in _spreads(group):
            ends = [*(value["seeds"] or (None, None)), *(value["images"] or (None, None))]
            numbers = [value["mean"], value["std"], value["n"], *ends]
            rows.append(
                ["difference", group["name"], state, name, *numbers, None, value["verdict"]]
            )
    return simple(COMPARISON_COLUMNS, rows)


def _spreads(group: dict):
    """(state, figure, its spread) for all figures of a group."""
    for state in STATES:
        for name, value in (group[state] or {}).items():
            yield state, name, value


def _seeds(group: dict) -> str:
    return str(next(iter(group["raw"].values()))["n"])


def _spread(group: dict, state: str, name: str) -> str:
    """A figure of a group as text: mean ± standard deviation."""
    value = (group[state] or {}).get("ece" if name == FLOOR else name)
    if value is None:
        return MISSING
    if name == FLOOR:
        return number(name, value["floor"])
    deviation = "" if value["std"] is None else f" ± {number(name, value['std'])}"
    return number(name, value["mean"]) + deviation


def _differences(group: dict) -> list[list[Cell]]:
    """The rows of a group's differences to the baseline."""
    rows = []
    for state, name, value in _spreads(group):
        over_seeds = signed_interval(name, value["seeds"])
        over_images = signed_interval(name, value["images"])
        difference = signed(name, value["mean"])
        cells = [difference, over_seeds, over_images, value["verdict"] or ""]
        rows.append([group["name"], title(name, state), *cells])
    return rows
