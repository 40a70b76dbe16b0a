"""A study's results as an HTML page: answers, table of cells, plots, and how they were made."""

from ldl_jax.config.study import LEAST_SEEDS, Study
from ldl_jax.report import html, plots, study_plots
from ldl_jax.report.page import MEANINGS
from ldl_jax.report.tables import simple
from ldl_jax.study import tables
from ldl_jax.study.cards import Card, thread_note

SHOWN = ("ldl-jax", "jax", "flax", "optax")  # packages whose versions are shown
MOST_DIAGRAMS = 60  # reliability diagrams, each of which takes a quarter of a second
MOST_LINES = 6  # at most, in the plots against the epoch
OF_STUDIES = ("ece", "floor", "at_t")  # the entries of MEANINGS that a study needs
RULES = (
    f"Every finding was written down before the runs, with at least {LEAST_SEEDS} seeds for its "
    "cells. Over seeds: 95 % interval of the mean difference, and paired t test (Student's t); "
    "both hold for these training and test images. Minus noise floors: the same after subtracting "
    "from the ECE of each run its noise floor, the ECE that a perfectly calibrated network with "
    "these confidences would score. Noise alone gives the less confident of two networks the "
    "higher ECE. Far above its floor, an ECE contains less noise than the floor, and this "
    "subtracts too much: it can leave a finding undecided but never decide it. p: the larger of "
    "the two p values, which must belong to differences of the same sign, with Holm's correction "
    "over {findings}, separately for raw and recalibrated predictions. A finding whose seeds have "
    "all finished is supported or refuted if p is below 5 %, and undecided otherwise.",
    "These comparisons are exploratory: p is that of the paired t test over seeds, without "
    "correction and without a verdict. There is no p if seeds share teachers: the interval then "
    "holds for these teachers only.",
    "Over images: 95 % interval by the paired bootstrap over test images. Between the ECE of an "
    "overconfident and that of a calibrated network it may miss the true difference (in "
    "simulations it contained it in 48 to 83 % of the cases). Recalibrated: after temperature "
    "scaling with the temperature that each run fitted on its holdout (by "
    "default with safe_temperature; runs of older versions by maximum likelihood).",
)
INTERVALS = (
    "Point: mean difference; thick line: 95 % interval over seeds; thin line: over test images; "
    "ring: mean difference minus the noise floors of the ECE; green: supported, red: refuted, "
    "grey: undecided or not finished."
)
GLANCE = (
    "Point: mean over seeds; line: ± one standard deviation; grey tick: noise floor of the ECE."
)
PARTS = (
    "The recalibrated NLL is the refinement part of the NLL: what a network knows. The calibration "
    "part, the raw NLL less the recalibrated one, is what a temperature mends. In the plot, a point "
    "and a ring mark the recalibrated and the raw NLL, and the line between them is the calibration "
    "part. A method with a smaller calibration part but a larger refinement is better calibrated "
    "because it knows less."
)
DIAGRAMS = (
    "Raw predictions of each cell's first seed. Blue bars: accuracy of the test images in each "
    "confidence bin; short thin lines: their mean confidence. The network is overconfident where "
    "the bar ends below the line. Grey bars: range of accuracies for 95 % of perfectly calibrated "
    "networks with as many images in the bin. Below: number of correct (blue) and wrong (orange) "
    "predictions."
)
EPOCHS = (
    f"The cells of the findings (without findings, the first cells; at most {MOST_LINES}): mean "
    "over seeds on the test images, with a band from the lowest to the highest seed."
)


def page(study: Study, results: dict, cards: dict[str, dict[int, Card]], command: str) -> str:
    """The page as HTML. results: the contents of results.json; command: what makes the page."""
    parts = []
    if study.about:
        parts.append(html.text(study.about))
    if results["findings"]:
        parts.append(_answers(results))
    parts.append(_results(results))
    parts.append(_reliability(cards))
    parts.append(_epochs(study, cards))
    if results["comparisons"]:
        table = html.table(tables.comparisons(results))
        rules = (html.text(RULES[1], "quiet"), html.text(RULES[2], "quiet"))
        parts.append(html.section("Other comparisons", *rules, table))
    # What a reader looks up stands at the end: definitions, and how the runs were made.
    meanings = [html.text(MEANINGS[name]) for name in OF_STUDIES]
    parts.append(html.section("What the metrics mean", *meanings))
    facts = simple(["", ""], _facts(study, cards, command))
    parts.append(html.section("How it was made", html.table(facts)))
    return html.document(study.title, parts)


def _answers(results: dict) -> str:
    """The answers: verdicts and hypotheses, differences as plot and table, rules."""
    parts = []
    for finding in results["findings"]:
        verdict, hypothesis = tables.answer(finding, results)
        words = f"{hypothesis} {finding['about']}".strip()
        parts.append(html.text(words, "found", strong=verdict))
    figure = study_plots.answers(results["findings"])
    if figure is not None:
        parts.append(html.plot("answers", figure, "differences with their intervals", "full"))
    parts.append(html.text(INTERVALS, "quiet"))
    parts.append(html.table(tables.answers(results)))
    corrected = "the findings of each group" if tables.has_groups(results) else "all findings"
    parts.append(html.text(RULES[0].format(findings=corrected), "quiet"))
    parts.append(html.text(RULES[2], "quiet"))
    return html.section("Answers", *parts)


def _results(results: dict) -> str:
    """The metrics of all cells, as plot and table."""
    figure = study_plots.cells(results["cells"])
    plot = html.plot("cells", figure, "accuracy, ECE and NLL of all cells", "full")
    table = html.table(tables.cells(results))
    notes = map(html.text, tables.notes(results))
    explained = [html.text(GLANCE, "quiet")]
    if any(row["parts"] for row in results["cells"]):
        explained.append(html.text(PARTS, "quiet"))
    return html.section("Results", plot, *explained, table, *notes)


def _reliability(cards) -> str:
    """The reliability diagram of each cell's first seed, for the first MOST_DIAGRAMS cells."""
    diagrams = []
    shown = list(cards.items())[:MOST_DIAGRAMS]
    for number, (name, runs) in enumerate(shown):
        first = runs[min(runs)]  # of the seeds that have finished
        bins = first.facts["raw"]["reliability"]
        figure = plots.reliability(bins, title=plots.short(name, 28), size=plots.SMALL)
        diagrams.append(html.plot(f"reliability-{number}", figure, f"reliability {name}"))
    count = (
        f" Shown: the first {len(shown)} of {len(cards)} cells." if len(shown) < len(cards) else ""
    )
    explained = html.text(DIAGRAMS + count, "quiet")
    return html.section("Reliability diagrams", explained, html.many(diagrams, "lots"))


def _epochs(study: Study, cards) -> str:
    """Accuracy and ECE against the epoch, for the cells of the findings or the first cells; '' if
    the runs were measured only at their end.
    """
    # Baselines first, so that a cell and what it is compared with share the plot.
    compared: dict[str, None] = {}
    for finding in study.findings:
        compared |= dict.fromkeys((finding.than, finding.better, *finding.minus))
    # Only cells with finished runs have curves.
    shown = {}
    for name in compared or cards:
        if name in cards and len(shown) < MOST_LINES:
            shown[name] = cards[name]
    if not _curves(shown, "accuracy"):
        return ""

    plots_by_metric = []
    for metric, label in (("accuracy", "accuracy, %"), ("ece", "ECE, %")):
        figure = study_plots.epochs(_curves(shown, metric), label)
        plots_by_metric.append(html.plot(f"epochs-{metric}", figure, f"{label} against epochs"))
    explained = html.text(EPOCHS, "quiet")
    return html.section("Training curves", explained, html.many(plots_by_metric))


def _curves(cards, metric: str) -> dict[str, list[tuple]]:
    """For each cell the pairs (epochs, values) of its seeds."""
    curves = {}
    for name, runs in cards.items():
        measured = [card.facts["epochs"] for card in runs.values()]
        epochs = measured[0]["epoch"]
        if len(epochs) < 2:
            continue
        # The mean and the band over seeds need values at the same epochs.
        seeds = []
        for run in measured:
            if run["epoch"] == epochs:
                seeds.append((run["epoch"], run[metric]))
        curves[name] = seeds
    return curves


def _facts(study: Study, cards, command: str) -> list[list[str]]:
    """How the runs were made, and the config, fields and teachers of each cell."""
    count = 0
    seconds = 0.0
    # The runs of a study may come from several machines; each is named once.
    machines: dict[str, None] = {}
    for runs in cards.values():
        for card in runs.values():
            count += 1
            seconds += card.facts["seconds"]
            machines[_machine(card.facts["versions"])] = None

    lines = [["command", command], ["finished runs", f"{count}"]]
    for machine in machines:
        lines.append(["machine", machine])
    lines.append(["total time of the runs", f"{seconds / 3600:.2f} hours"])
    for cell in study.cells:
        description = cell.config
        if cell.fields:
            fields = ", ".join(f"{name}={value}" for name, value in cell.fields.items())
            description += f": {fields}"
        if cell.teachers:
            description += f"; teachers: {', '.join(cell.teachers)}"
        if note := thread_note(cards.get(cell.name, {}).values()):
            description += f"; {note}"
        lines.append([cell.name, description])
    return lines


def _machine(versions: dict) -> str:
    """The devices, cores and versions of a run, as one line."""
    device = f"{versions['devices']} x {versions['device']} ({versions['backend']})"
    packages = ", ".join(f"{name} {versions['packages'][name]}" for name in SHOWN)
    return f"{device}, {versions['cores']} cores, Python {versions['python']}, {packages}"
