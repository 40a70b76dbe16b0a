"""The report of an evaluation: one HTML page with the figures and plots of all models."""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from ldl_jax import files
from ldl_jax.report import evaluation_plots, figure_tables, html, run_plots
from ldl_jax.report.conclusion import conclusions
from ldl_jax.report.figure_tables import interval, number
from ldl_jax.report.result import STATE_NAMES, Evaluation
from ldl_jax.report.tables import Table, simple

MISSING = "–"
HEADLINE = ("accuracy", "ece", "nll", "brier")
# Kind of plot -> heading of its section, and the text below it.
CAPTIONS = {
    "reliability": (
        "Reliability diagrams",
        "Bars: accuracy of the examples in each confidence bin; short thin lines: their mean "
        "confidence. If a bar ends below its thin line, the model is overconfident there. Grey: "
        "the range of accuracies of 95 % of perfectly calibrated models with the same number of "
        "examples in that bin; a deviation within it may be chance. Below: number of correct "
        "(blue) and wrong (orange) predictions.",
    ),
    "classes": (
        "Calibration by predicted class",
        "Mean confidence minus accuracy of the examples predicted as each class: orange-red is "
        "overconfident, green underconfident. Grey: the range of 95 % of perfectly calibrated "
        "models with the same confidences (slightly more if hardly any errors are expected). About "
        "one class in 20 is outside by chance.",
    ),
    "coverage": (
        "Risk-coverage curves",
        "Error rate if the model predicts only the most confident share of the examples. A good "
        "curve starts near 0 and rises late. Raw predictions; a temperature may change the order "
        "of the examples slightly.",
    ),
    "temperature": (
        "NLL and ECE by temperature",
        "NLL and ECE of these examples at each temperature; the dot is the temperature fitted on "
        "other examples. A calibrated model has its lowest NLL at temperature 1.",
    ),
}
TRAINING = (
    "By epoch, with the last value of each curve. The loss is that of the training targets, the NLL "
    "that of the labels. Long curves are drawn faintly, with a moving mean over them."
)
MEANINGS = {
    "ece": "ECE: with 15 bins (lo, hi] of equal width over the confidence (Guo et al. 2017), the "
    "mean over examples of the gap between their bin's accuracy and mean confidence. It is the sum "
    "of overconfidence and underconfidence; signed ECE is their difference.",
    "intervals": "Intervals: nominally 95 %, from 1,000 bootstrap resamples of the examples. Noise "
    "makes gaps larger, so the intervals of figures made of gaps are corrected for that (basic "
    "bootstrap); the interval of the ECE starts at 0 if chance alone explains the ECE.",
    "floor": "Floor: the expected ECE of a perfectly calibrated model with the same confidences and "
    "number of examples, since noise alone causes gaps. An ECE close to it is no evidence of "
    "miscalibration. Other figures made of gaps have such a floor too, which is not measured here; "
    "debiased ones have none.",
    "others": "Debiased L2 corrects for this noise; its square may be negative. Smooth ECE uses a "
    "kernel instead of bins (Blasiok and Nakkiran 2023), the KS error uses neither (Gupta et al. "
    "2021).",
    "at_t": "Recalibrated: after a calibrator fitted on other examples, by default temperature "
    "scaling (safe_temperature), which divides all logits by one number, and by 1 unless these "
    "examples show that another one is better. If an improvement disappears after "
    "temperature scaling, the method only changed the overall confidence level. Intervals of "
    "recalibrated figures do not include the uncertainty of the fit.",
}


Facts = dict[str, str]  # how the predictions were made: label -> text


def page(
    evaluations: Sequence[Evaluation],
    *,
    title: str,
    facts: Facts | None = None,
    rows: Sequence[dict] = (),
    noun: str = "examples",
) -> str:
    """The report of one or several models as HTML, with `facts` at its end.

    rows: of the metrics.jsonl of a run, for its training curves. noun: what the examples are.
    """
    # Draw everything first: a kind of plot has a section only if there are plots of it.
    plots: dict[str, list[str]] = {}
    for kind, name, figure in evaluation_plots.every(evaluations):
        label = f"{CAPTIONS[kind][0]} {figure.axes[0].get_title(loc='left')}".strip()
        plots.setdefault(kind, []).append(html.plot(name, figure, label))
    parts = [_conclusions(evaluations, noun), html.table(_headline(evaluations), "headline")]
    parts.append(_inputs(evaluations))
    for kind, of_kind in plots.items():
        heading, caption = CAPTIONS[kind]
        parts.append(html.section(heading, html.text(caption, "quiet"), html.many(of_kind)))
    parts += _curves(rows)
    parts.append(html.section("All figures", *map(_figures, evaluations)))
    parts.append(html.section("Definitions", *map(html.text, MEANINGS.values())))
    parts.append(html.section("How it was made", html.table(simple(["", ""], _facts(facts)))))
    return html.document(title, parts)


def write(path, evaluations, **words) -> Path:
    """Write the report; returns its path. words: those of `page`."""
    return files.write(path, page(evaluations, **words))


def _conclusions(evaluations, noun: str) -> str:
    """What was found, a paragraph for each model."""
    paragraphs = []
    for evaluation in evaluations:
        sentences = []
        for state, found in conclusions(evaluation, noun).items():
            # The first state speaks for itself; the name of the model stands before it.
            sentences.append(f"{state.capitalize()}: {found}." if sentences else f"{found}.")
        name = f"{evaluation.name}:" if evaluation.name else ""
        paragraphs.append(html.text(" ".join(sentences), "found", strong=name))
    return "\n".join(paragraphs)


def _curves(rows: Sequence[dict]) -> list[str]:
    """The section of the training curves; no section without any."""
    plots = []
    for label, figure in run_plots.panels(rows):
        plots.append(html.plot(f"training-{len(plots)}", figure, f"{label} by epoch"))
    if not plots:
        return []
    caption = html.text(TRAINING, "quiet")
    return [html.section("Training curves", caption, html.many(plots))]


def _inputs(evaluations) -> str:
    """What was read, how it was interpreted, and notes on the figures."""
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
    if evaluation.temperature:
        text = figure_tables.fitted_temperature(fit)
        return f"{text[0].upper()}{text[1:]}."
    source = f"fitted on {fit['name']} ({fit['examples']:,} examples)"
    return f"Calibrator {fit['calibrator']}, {source}."


def _headline(evaluations) -> Table:
    """The most important figures, a row for each model and state."""
    head = ["", *(figure_tables.title(name) for name in HEADLINE)]
    rows = []
    for evaluation in evaluations:
        for state in evaluation.states():
            cells = [_cell(evaluation, state, name) for name in HEADLINE]
            # Few columns, so that the table fits a phone.
            suffix = "" if state == "raw" else f", {STATE_NAMES[state]}"
            rows.append([f"{evaluation.name}{suffix}", *cells])
    return simple(head, rows)


def _cell(evaluation: Evaluation, state: str, name: str) -> str:
    """A figure, its interval and its noise floor, one line each."""
    states = evaluation.states()
    figure = states[state].figures.get(name) if state in states else None
    if figure is None:
        return MISSING
    lines = [number(name, figure.value, MISSING), interval(name, figure.interval)]
    if figure.floor is not None:
        lines.append(f"floor {number(name, figure.floor)}")
    return "\n".join(filter(None, lines))


def _figures(evaluation: Evaluation) -> str:
    """All figures of one model, by group."""
    # Shorter titles than in a terminal, so that six columns fit the width of the page.
    head = [""]
    for state in evaluation.states():
        head += [STATE_NAMES[state], "95 %", "floor"]
    table = figure_tables.figures(evaluation, MISSING)._replace(head=head)
    heading = html.heading(evaluation.name) if evaluation.name else ""
    return heading + html.table(table)


def _facts(facts: Facts | None) -> list[list[str]]:
    """Rows of the facts, and the versions of the packages that the figures depend on."""
    names = ("jax", "numpy", "scipy", "scikit-learn", "matplotlib")
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    return [*map(list, (facts or {}).items()), ["packages", packages]]
