"""A study's results as tables: answers, cells and other comparisons; as text and as CSV."""

from ldl_jax.config.study import METRICS, Study
from ldl_jax.evaluation import bootstrap
from ldl_jax.report.figure_tables import at_bound, number, signed, signed_interval, title
from ldl_jax.report.result import STATES
from ldl_jax.report.tables import Cell, Table, as_csv, as_text, simple
from ldl_jax.study.cards import Card

COLUMNS = [*(("raw", name) for name in METRICS), *(("scaled", name) for name in METRICS[1:])]
CSV = [
    "what", "name", "than", "state", "figure", "mean", "std", "n", "low", "high", "images_low", "images_high", "p",
    "less_floors", "less_floors_p", "holm", "verdict",
]  # fmt: skip
MISSING = "–"


def rows(study: Study, cards: dict[str, dict[int, Card]]) -> list[dict]:
    """For each cell with results: its figures over seeds, by state.

    Of each figure the mean and the std (n - 1; None for one seed); n, seeds: how many are there and
    planned.
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
        for state in STATES:
            results = [fact[state] for fact in facts]
            row[state] = None if None in results else _over_seeds(results)
        rows.append(row)
    return rows


def _over_seeds(results: list[dict]) -> dict:
    values = {name: [result["figures"][name] for result in results] for name in METRICS}
    values["floor"] = [result["floor"] for result in results]
    spreads = {name: bootstrap.over_seeds(numbers) for name, numbers in values.items()}
    return {name: {"mean": spread.mean, "std": spread.std} for name, spread in spreads.items()}


def numbers(results: dict) -> str:
    """All of it as CSV, a line for each cell or comparison, state and figure; fractions, nat."""
    lines: list[list[Cell]] = []
    for row in results["cells"]:
        for state in STATES:
            for name, value in (row[state] or {}).items():
                spread = [value["mean"], value["std"], row["n"]]
                lines.append(["cell", row["cell"], None, state, name, *spread])
    for what in ("findings", "comparisons"):
        for asked in results[what]:
            for state in STATES:
                if asked[state] is not None:
                    lines.append(_numbers_of(what.removesuffix("s"), asked, state))
    return as_csv(simple(CSV, lines))


def _numbers_of(what: str, asked: dict, state: str) -> list[Cell]:
    """A line of CSV: a finding or another comparison, in one state."""
    difference = asked[state]
    line = [what, asked["better"], asked["than"], state, asked["metric"]]
    line += [difference[name] for name in ("mean", "std", "n")]
    for over in ("seeds", "images"):
        line += difference[over] or (None, None)
    line.append(difference["p"])
    line += [(difference["excess"] or {}).get(name) for name in ("mean", "p")]
    return line + [difference.get(name) for name in ("holm", "verdict")]


def text(results: dict) -> str:
    """The answers and the table for the terminal."""
    tables = [answers(results), cells(results)]
    return as_text(*(table for table in tables if table.rows()), notes=notes(results))


def notes(results: dict) -> list[str]:
    """What a reader has to know of some of the cells."""
    rows = [row for row in results["cells"] if row["at_bound"]]
    return [at_bound(row["cell"], row["at_bound"], row["n"]) for row in rows]


def cells(results: dict) -> Table:
    """The cells' figures over seeds, with what was published."""
    states = [state for state in STATES if any(row[state] for row in results["cells"])]
    columns = [(state, name) for state, name in COLUMNS if state in states]
    published = list(dict.fromkeys(name for row in results["cells"] for name in row["published"]))
    head = ["", "n", *(title(name, state) for state, name in columns)]
    head += [f"published {title(name)}" for name in published]
    lines = []
    for row in results["cells"]:
        figures = [_spread(row[state], name) for state, name in columns]
        theirs = [number(name, row["published"].get(name), MISSING) for name in published]
        lines.append([row["cell"], _count(row["n"], row["seeds"]), *figures, *theirs])
    return simple(head, lines)


def _count(n: int, of: int) -> str:
    return str(n) if n == of else f"{n} of {of}"


def _spread(values: dict | None, name: str) -> str:
    """Mean, standard deviation and, of the ECE, its noise floor, a line each."""
    if values is None:
        return MISSING
    lines = [number(name, values[name]["mean"])]
    if values[name]["std"] is not None:
        lines.append(f"± {number(name, values[name]['std'])}")
    if name == "ece":
        lines.append(f"floor {number(name, values['floor']['mean'])}")
    return "\n".join(lines)


def answers(results: dict) -> Table:
    """What each finding's difference is, and what it decides."""
    head = ["finding", "", "verdict", "difference", "over seeds", "over images", "less floors"]
    head += ["p", "n"]
    lines = []
    for finding in results["findings"]:
        wanted = f"{finding['direction']} {title(finding['metric'])}"
        question = f"{finding['name']}: {wanted}, {finding['better']} than {finding['than']}"
        lines.append([question, "raw", *_answer(finding, "raw")])
        lines.append(["", "at T", *_answer(finding, "scaled")])
    return simple(head, lines)


def _answer(finding: dict, state: str) -> list[str]:
    """The cells of an answer from its verdict on."""
    difference = finding[state]
    if difference is None:
        # without a temperature there is a raw difference; without runs there is none
        return ["no temperature" if finding["raw"] else "undecided", *[MISSING] * 6]
    metric, excess = finding["metric"], difference["excess"]
    less = MISSING
    if excess is not None:
        ends = signed_interval("ece", excess["seeds"], MISSING)
        less = f"{signed('ece', excess['mean'])} ({ends})"
    return [
        difference["verdict"],
        signed(metric, difference["mean"]),
        signed_interval(metric, difference["seeds"], MISSING),
        signed_interval(metric, difference["images"], MISSING),
        less,
        _p(difference["holm"]),
        _count(difference["n"], difference["of"]),
    ]


def comparisons(results: dict) -> Table:
    """The other comparisons' differences, which decide nothing."""
    head = ["", "figure", "difference", "over seeds", "p", "over images", "n"]
    lines = []
    for compared in results["comparisons"]:
        pair, metric = f"{compared['better']} less {compared['than']}", compared["metric"]
        for state in STATES:
            if compared[state] is not None and (state, metric) in COLUMNS:
                lines.append([pair, *_difference(metric, state, compared[state])])
    return simple(head, lines)


def _difference(metric: str, state: str, difference: dict) -> list[str]:
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
