"""The report of stored predictions: one HTML file with the metrics of all models and plots."""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from ldl_jax import files
from ldl_jax.report import evaluation_plots, figure_tables, html
from ldl_jax.report.figure_tables import interval, number
from ldl_jax.report.result import Evaluation
from ldl_jax.report.tables import Table, simple

MISSING = "–"
HEADLINE = ("accuracy", "nll", "brier", "ece")
CAPTIONS = {
    "reliability": (
        "Can the confidence be trusted?",
        "Blue: the accuracy of the examples in each bin of confidence; short thin line: their "
        "mean confidence. Where blue is below the thin line the model is overconfident. The grey "
        "bar holds the accuracies of 95 % of perfectly calibrated models with as many examples "
        "in that bin: what lies inside it may be chance. Below: how many examples are right "
        "(blue) and wrong (orange).",
    ),
    "classes": (
        "Which classes mislead?",
        "Mean confidence less accuracy, of the examples that were predicted as each class: "
        "orange-red is overconfident, green underconfident. The grey bar holds 95 % of perfectly "
        "calibrated models with the same confidences, and a few more where hardly an error is to "
        "be expected: of 20 classes about one lies outside by chance.",
    ),
    "coverage": (
        "Does it know when it is wrong?",
        "The error rate if only the most confident share of the examples is answered. A good "
        "confidence starts near 0 and rises late. Raw predictions; a temperature may change the "
        "order a little.",
    ),
    "temperature": (
        "What would one temperature do?",
        "NLL and ECE of these examples at each temperature; the dot is the one that was fitted "
        "on other examples. A model that is calibrated already has its lowest NLL at 1.",
    ),
}  # fmt: skip
MEANINGS = {
    "ece": "ECE: 15 bins of equal width (lo, hi] over the confidence (Guo et al. 2017); the mean "
    "over examples of the gap between a bin's accuracy and its mean confidence. It is "
    "overconfidence plus underconfidence; signed ECE is their difference.",
    "intervals": "Intervals are nominally of 95 %, by 1,000 bootstrap resamples of the examples. "
    "Those of gaps, which noise makes larger, are moved back by as much (basic bootstrap); that "
    "of the ECE begins at 0 where chance explains it.",
    "floor": "Floor: the ECE that a perfectly calibrated model with these confidences scores on "
    "this many examples, since noise makes gaps; an ECE near it is what chance makes. Other "
    "figures that add up gaps have such a floor too, which is not measured here; debiased ones "
    "have none.",
    "others": "Debiased L2 is without this noise and may be negative when squared. Smooth ECE "
    "has a kernel in the place of bins (Blasiok and Nakkiran 2023), the KS error has neither "
    "(Gupta et al. 2021).",
    "at_t": "At T: after the logits were divided by one temperature that was fitted on other "
    "examples. What wins only before that wins by something that one number mends. Intervals at "
    "T take the temperature as given.",
}


Facts = dict[str, str]  # how something was made, in a reader's words


def page(evaluations: Sequence[Evaluation], *, title: str, facts: Facts | None = None) -> str:
    """The report of one model's evaluation or several, as HTML; `facts` stand at its end."""
    plots: dict[str, list[str]] = {}
    for kind, name, figure in evaluation_plots.every(evaluations):
        label = f"{CAPTIONS[kind][0]} {figure.axes[0].get_title(loc='left')}".strip()
        plots.setdefault(kind, []).append(html.plot(name, figure, label))
    parts = [_measured(evaluations), html.table(_headline(evaluations))]
    for kind, of_kind in plots.items():
        caption, explained = CAPTIONS[kind]
        parts.append(html.section(caption, html.text(explained, "quiet"), html.many(of_kind)))
    parts.append(html.section("All figures", *map(_figures, evaluations)))
    parts.append(html.section("What they mean", *map(html.text, MEANINGS.values())))
    parts.append(html.section("How it was made", html.table(simple(["", ""], _facts(facts)))))
    return html.document(title, parts)


def write(path, evaluations, *, title: str, facts: Facts | None = None) -> Path:
    """Write the report; returns its path."""
    return files.write(path, page(evaluations, title=title, facts=facts))


def _measured(evaluations) -> str:
    """What was read, and how it was understood."""
    lines = []
    for evaluation in evaluations:
        plural = "s" if evaluation.examples > 1 else ""
        size = f"{evaluation.examples:,} example{plural}, {evaluation.classes} classes"
        fitted = _fitted(evaluation)
        lines.append(html.text(f"{evaluation.name}: {size}; {evaluation.understood}. {fitted}"))
        lines += [html.text(f"{note}.", "warn") for note in evaluation.notes]
    return "\n".join(lines)


def _fitted(evaluation: Evaluation) -> str:
    fit = evaluation.temperature or evaluation.calibrator
    if fit is None:
        return "No temperature was fitted."
    what = (
        f"Temperature {fit['temperature']:.4g}"
        if evaluation.temperature
        else f"Calibrator {fit['calibrator']}"
    )
    return f"{what}, fitted on {fit['name']} ({fit['examples']:,} examples)."


def _headline(evaluations) -> Table:
    """The figures that are asked for first, a row for each model."""
    columns = [("raw", name) for name in HEADLINE]
    if any(evaluation.scaled for evaluation in evaluations):
        # a temperature leaves the accuracy alone
        columns += [("scaled", name) for name in HEADLINE if name != "accuracy"]
    head = ["", *(figure_tables.title(name, state) for state, name in columns)]
    rows = []
    for evaluation in evaluations:
        rows.append([evaluation.name, *(_cell(evaluation, *column) for column in columns)])
    return simple(head, rows)


def _cell(evaluation: Evaluation, state: str, name: str) -> str:
    """A figure with its interval and its noise floor, a line each."""
    states = evaluation.states()
    figure = states[state].figures.get(name) if state in states else None
    if figure is None:
        return MISSING
    lines = [number(name, figure.value, MISSING), interval(name, figure.interval)]
    if figure.floor is not None:
        lines.append(f"floor {number(name, figure.floor)}")
    return "\n".join(filter(None, lines))


def _figures(evaluation: Evaluation) -> str:
    """Every figure of one model, by group."""
    titles = {"raw": "raw", "scaled": "at T"}
    head = [column for state in evaluation.states() for column in (titles[state], "95 %", "floor")]
    table = figure_tables.figures(evaluation, MISSING)._replace(head=["", *head])
    heading = html.heading(evaluation.name) if evaluation.name else ""
    return heading + html.table(table)


def _facts(facts: Facts | None) -> list[list[str]]:
    names = ("jax", "numpy", "scipy", "scikit-learn", "matplotlib")
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    return [*map(list, (facts or {}).items()), ["packages", packages]]
