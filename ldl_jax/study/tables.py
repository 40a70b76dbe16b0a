"""A study's results as tables: findings, cells and other comparisons, as text and as CSV."""

from ldl_jax.config.study import METRICS, Study
from ldl_jax.evaluation import bootstrap
from ldl_jax.report.figure_tables import at_bound, how, number, signed, signed_interval, title
from ldl_jax.report.result import STATES
from ldl_jax.report.tables import Cell, Group, Table, as_csv, as_text, simple
from ldl_jax.study.cards import Card

# Accuracy is the same in both states, since a temperature keeps the order of the logits.
COLUMNS = [("raw", name) for name in METRICS] + [("scaled", name) for name in METRICS[1:]]
# The NLL after recalibration, and what recalibration removes: the raw NLL less the refinement.
PARTS = ("refinement", "calibration")
# Columns that belong to no state: (entry of the row, figure) -> head.
FURTHER = {
    ("parts", "calibration"): "NLL calibration part",
    ("train", "accuracy"): "training accuracy %",
    ("holdout", "nll"): "holdout NLL (recalibrated)",
}
STATE_NAMES = {"raw": "raw", "scaled": "recalibrated"}  # state -> its name for readers
CSV = [
    "what",
    "name",
    "than",
    "state",
    "figure",
    "mean",
    "std",
    "n",
    "low",
    "high",
    "images_low",
    "images_high",
    "p",
    "less_floors",
    "less_floors_p",
    "holm",
    "verdict",
]
MISSING = "–"
# direction of a finding -> how the metric must change, beside the change of the second pair
MORE = {"lower": "falls more (or rises less)", "higher": "rises more (or falls less)"}


def rows(study: Study, cards: dict[str, dict[int, Card]]) -> list[dict]:
    """The metrics of each cell that has results, over its seeds.

    For each state: metric -> mean and std (with n - 1; None for one seed), or None if a run has no
    temperature. parts: the same for the two parts of the NLL, see PARTS. train: the same for the
    accuracy on training images; None if a run has not recorded it. holdout: for the recalibrated NLL on
    the holdout; not there if a run has not recorded it. n: number of finished seeds;
    seeds: number planned; seconds: mean over the runs; at_bound: number of runs whose temperature
    is a limit of the search.
    """
    rows = []
    for cell in study.cells:
        if not cards.get(cell.name):
            continue
        facts = [card.facts for card in cards[cell.name].values()]
        row = {
            "cell": cell.name,
            "n": len(facts),
            "seeds": cell.seeds,
            "published": dict(cell.published),
            "at_bound": sum(fact["at_bound"] for fact in facts),
            "seconds": sum(fact["seconds"] for fact in facts) / len(facts),
        }
        # If one run has no temperature, there is no mean over the seeds.
        for state in STATES:
            results = [fact[state] for fact in facts]
            row[state] = None if None in results else _measured(results)
        row["parts"] = None if row["scaled"] is None else _parts(facts)
        accuracies = [fact.get("train_accuracy") for fact in facts]
        row["train"] = None if None in accuracies else _over_seeds({"accuracy": accuracies})
        holdout = [fact.get("holdout_nll") for fact in facts]
        if None not in holdout:
            row["holdout"] = _over_seeds({"nll": holdout})
        rows.append(row)
    return rows


def _measured(results: list[dict]) -> dict:
    """Mean and std over seeds of each metric and of the ECE's noise floor."""
    values = {}
    for name in METRICS:
        values[name] = [result["figures"][name] for result in results]
    values["floor"] = [result["floor"] for result in results]
    return _over_seeds(values)


def _parts(facts: list[dict]) -> dict:
    """Mean and std over seeds of the two parts of the NLL."""
    values: dict[str, list[float]] = {name: [] for name in PARTS}
    for fact in facts:
        refinement = fact["scaled"]["figures"]["nll"]
        values["refinement"].append(refinement)
        values["calibration"].append(fact["raw"]["figures"]["nll"] - refinement)
    return _over_seeds(values)


def _over_seeds(values: dict[str, list[float]]) -> dict[str, dict]:
    """Mean and std of each figure, from its values for the seeds."""
    over_seeds = {}
    for name, value_of_seed in values.items():
        spread = bootstrap.over_seeds(value_of_seed)
        over_seeds[name] = {"mean": spread.mean, "std": spread.std}
    return over_seeds


def numbers(results: dict) -> str:
    """All results as CSV; values are fractions, those of the NLL in nat.

    One line for each cell, finding or comparison, in each state and metric.
    """
    lines: list[list[Cell]] = []
    for row in results["cells"]:
        for state in STATES:
            for name, value in (row[state] or {}).items():
                spread = [value["mean"], value["std"], row["n"]]
                lines.append(["cell", row["cell"], None, state, name, *spread])
        for prefix, values in (
            ("nll", row["parts"]),
            ("train", row["train"]),
            ("holdout", row.get("holdout")),
        ):
            for name, value in (values or {}).items():
                spread = [value["mean"], value["std"], row["n"]]
                lines.append(["cell", row["cell"], None, None, f"{prefix}_{name}", *spread])
    for what in ("findings", "comparisons"):
        for comparison in results[what]:
            for state in STATES:
                if comparison[state] is not None:
                    lines.append(_numbers_of(what.removesuffix("s"), comparison, state))
    head = [*CSV, "group"] if has_groups(results) else CSV
    return as_csv(simple(head, lines))


def has_groups(results: dict) -> bool:
    """Whether the findings form more groups than one without a name."""
    return any(finding["group"] for finding in results["findings"])


def _numbers_of(what: str, comparison: dict, state: str) -> list[Cell]:
    """A line of CSV: a finding or another comparison, in one state."""
    difference = comparison[state]
    better, than = comparison["better"], comparison["than"]
    if comparison.get("minus"):
        to, start = comparison["minus"]
        better, than = f"{better} minus {than}", f"{to} minus {start}"
    line: list[Cell] = [what, better, than, state, comparison["metric"]]
    line += [difference["mean"], difference["std"], difference["n"]]
    # One seed has no interval over seeds.
    line += difference["seeds"] or (None, None)
    line += difference["images"] or (None, None)
    line.append(difference["p"])
    # Only the ECE has noise floors, and only findings have a correction and a verdict.
    excess = difference["excess"] or {}
    line += [excess.get("mean"), excess.get("p")]
    line += [difference.get("holm"), difference.get("verdict")]
    # Studies without groups have no such column.
    return [*line, comparison["group"]] if comparison.get("group") else line


def text(results: dict) -> str:
    """The answers in words, the tables of the findings and of the cells, for the terminal."""
    tables = [table for table in (answers(results), cells(results)) if table.rows()]
    lines = [" ".join(answer(finding, results)) for finding in results["findings"]]
    return "\n\n".join(filter(None, ["\n".join(lines), as_text(*tables, notes=notes(results))]))


def notes(results: dict) -> list[str]:
    """Notes on cells with runs whose temperature is a limit of the search."""
    notes = []
    for row in results["cells"]:
        if row["at_bound"]:
            notes.append(at_bound(row["cell"], row["at_bound"], row["n"]))
    return notes


def cells(results: dict) -> Table:
    """The metrics of the cells over seeds, with published values next to them."""
    rows = results["cells"]
    head = ["", "n"]
    # A state that no cell has would be a block of empty columns.
    columns = []
    for state, name in COLUMNS:
        if any(row[state] for row in rows):
            columns.append((state, name))
            head.append(title(name, state))
    further = [key for key in FURTHER if any(row.get(key[0]) for row in rows)]
    head += [FURTHER[key] for key in further]
    published: dict[str, None] = {}
    for row in rows:
        published |= dict.fromkeys(row["published"])
    head += [f"published {title(name)}" for name in published]

    lines = []
    for row in rows:
        line = [row["cell"], _count(row["n"], row["seeds"])]
        for state, name in columns:
            line.append(_spread(row[state], name))
        for entry, name in further:
            line.append(_spread(row.get(entry), name))
        for name in published:
            line.append(number(name, row["published"].get(name), MISSING))
        lines.append(line)
    return simple(head, lines)


def _count(n: int, of: int) -> str:
    return str(n) if n == of else f"{n} of {of}"


def _spread(values: dict | None, name: str) -> str:
    """Mean, standard deviation and, for the ECE, noise floor, each on a line of its own."""
    if values is None:
        return MISSING
    lines = [number(name, values[name]["mean"])]
    if values[name]["std"] is not None:
        lines.append(f"± {number(name, values[name]['std'])}")
    if name == "ece":
        lines.append(f"floor {number(name, values['floor']['mean'])}")
    return "\n".join(lines)


def answer(finding: dict, results: dict) -> tuple[str, str]:
    """(verdict, hypothesis) of a finding as two sentences, for the raw predictions.

    The second one adds the verdict for recalibrated predictions if it is another.
    """
    verdict, cells = _verdict(finding, "raw", results)
    recalibrated, _ = _verdict(finding, "scaled", results)
    found = f"{verdict} ({cells})" if cells else verdict
    hypothesis = _hypothesis(finding)
    if recalibrated != verdict:
        hypothesis += f" (recalibrated: {recalibrated})"
    return f"{found.capitalize()}.", f"{hypothesis}."


def _hypothesis(finding: dict) -> str:
    """The claim of a finding in the names of its cells."""
    label = how(finding["metric"]).label
    better, than = finding["better"], finding["than"]
    if finding["minus"]:
        to, start = finding["minus"]
        change = MORE[finding["direction"]]
        return (
            f"{finding['name']}: {label} {change} from {than} to {better} than from {start} to {to}"
        )
    return f"{finding['name']}: {better} has {finding['direction']} {label} than {than}"


def _verdict(finding: dict, state: str, results: dict) -> tuple[str, str]:
    """(verdict, cells that are missing) of a finding in one state.

    Stored verdicts are 'undecided' also while runs are missing; a reader must know which it is.
    """
    difference = finding[state]
    if difference is None and finding["raw"] is not None:
        return "no temperature", ""
    rows = {row["cell"]: row for row in results["cells"]}
    compared = (finding["better"], finding["than"], *finding["minus"])
    missing = [name for name in compared if name not in rows]
    if missing:
        return "not run", " and ".join(missing)
    if difference is None or difference["n"] < difference["of"]:
        counts = []
        for name in compared:
            if rows[name]["n"] < rows[name]["seeds"]:
                counts.append(f"{name}: {_count(rows[name]['n'], rows[name]['seeds'])} seeds")
        return "not finished", ", ".join(counts)
    return difference["verdict"], ""


def answers(results: dict) -> Table:
    """The findings: verdict and difference with its intervals, in both states."""
    head = ["verdict", "", "difference", "over seeds", "over images"]
    head += ["minus noise floors", "p", "n"]
    groups: dict[str, Group] = {}
    for finding in results["findings"]:
        group = groups.setdefault(finding["group"], Group([], finding["group"]))
        # The hypothesis stands below the first of its verdicts alone.
        for state, state_name in STATE_NAMES.items():
            verdict, cells = _verdict(finding, state, results)
            first = f"{verdict} ({cells})" if cells else verdict
            if state == "raw":
                first += f"\n{_hypothesis(finding)}"
            group.rows.append([first, state_name, *_answer(finding, state)])
    return Table(head, list(groups.values()))


def _answer(finding: dict, state: str) -> list[str]:
    """The columns of a finding in one state, from its difference on."""
    difference = finding[state]
    if difference is None:
        return [MISSING] * 6
    metric = finding["metric"]
    excess = difference["excess"]
    less_floors = MISSING
    if excess is not None:
        ends = signed_interval("ece", excess["seeds"], MISSING)
        less_floors = f"{signed('ece', excess['mean'])} ({ends})"
    return [
        signed(metric, difference["mean"]),
        signed_interval(metric, difference["seeds"], MISSING),
        signed_interval(metric, difference["images"], MISSING),
        less_floors,
        _p(difference["holm"]),
        _count(difference["n"], difference["of"]),
    ]


def comparisons(results: dict) -> Table:
    """The other comparisons: differences with their intervals, without a verdict."""
    head = ["", "metric", "difference", "over seeds", "p", "over images", "n"]
    lines = []
    for comparison in results["comparisons"]:
        pair = f"{comparison['better']} minus {comparison['than']}"
        metric = comparison["metric"]
        for state in STATES:
            if comparison[state] is not None and (state, metric) in COLUMNS:
                lines.append([pair, *_difference(metric, state, comparison[state])])
    return simple(head, lines)


def _difference(metric: str, state: str, difference: dict) -> list[str]:
    """The columns of another comparison, from its metric on."""
    return [
        title(metric, state),
        signed(metric, difference["mean"]),
        signed_interval(metric, difference["seeds"], MISSING),
        _p(difference["p"]),
        signed_interval(metric, difference["images"], MISSING),
        str(difference["n"]),
    ]


def _p(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2g}"
