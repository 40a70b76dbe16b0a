"""A study's results as a page: the answers, the table, the plots, how it was made."""

from ldl_jax.config.study import LEAST_SEEDS, Study
from ldl_jax.report import html, plots, study_plots
from ldl_jax.report.page import MEANINGS
from ldl_jax.report.tables import simple
from ldl_jax.study import tables
from ldl_jax.study.cards import Card

SHOWN = ("ldl-jax", "jax", "flax", "optax")  # packages whose versions are said
MOST_LINES = 6  # of a plot of epochs
OF_STUDIES = ("ece", "floor", "at_t")  # of what the figures mean
RULES = (
    f"Every finding was written down before the runs, with at least {LEAST_SEEDS} seeds for its "
    "cells. Over seeds: 95 % interval of the mean difference and paired t test, Student's t: for "
    "these training and test images. Less floors: the same after the noise floor of each run was "
    "taken off its ECE, what a perfectly calibrated network of these confidences would score; "
    "noise alone gives the less sure of two networks the higher ECE. Of an ECE well above its "
    "floor less is noise, and this takes off too much: it can leave a finding undecided, never "
    "decide it. p: the larger of both, which have to point the same way, by Holm's correction "
    "over all findings, for raw figures and for those at T; supported or refuted where it is "
    "below 5 % and every seed is there, undecided otherwise.",
    "The other comparisons are exploratory: p is that of the paired t test over seeds, without "
    "correction and without a verdict, and there is none where seeds share teachers: their "
    "interval holds for these teachers alone.",
    "Over images: 95 %, paired bootstrap; between the ECE of an overconfident and that of a "
    "calibrated network it may miss the true difference (in simulations it held it in 48 to 83 "
    "%). At T: after the temperature that each run fitted on its holdout.",
)
INTERVALS = (
    "Thick: 95 % interval over seeds; thin: over test images; ring: less the noise floors of the "
    "ECE; green: supported, red: refuted, grey: undecided."
)
GLANCE = (
    "Point: mean over seeds; line: their standard deviation; grey tick: the noise floor of the ECE."
)
DIAGRAMS = (
    "Of each cell's first seed. Blue: the accuracy of the test images in each bin of confidence; "
    "short thin line: their mean confidence. Where blue is below the thin line the network is "
    "overconfident. The grey bar holds the accuracies of 95 % of perfectly calibrated networks "
    "with as many images in that bin. Below: how many images are right (blue) and wrong (orange)."
)
EPOCHS = (
    "The cells of the findings, or the first ones: mean over seeds on the test images, with a "
    "band from the lowest to the highest."
)


def page(study: Study, results: dict, cards: dict[str, dict[int, Card]], command: str) -> str:
    """The whole of it as HTML; command: the one that makes it."""
    parts = [html.text(study.about)] if study.about else []
    if results["findings"]:
        parts.append(_answers(study, results))
    parts.append(_results(results))
    parts += [_reliability(cards), _epochs(study, cards)]
    if results["comparisons"]:
        table = html.table(tables.comparisons(results))
        rules = [html.text(rule, "quiet") for rule in RULES[1:]]
        parts.append(html.section("Other comparisons", *rules, table))
    meanings = [html.text(MEANINGS[name]) for name in OF_STUDIES]
    parts.append(html.section("What the figures mean", *meanings))
    facts = simple(["", ""], _facts(study, cards, command))
    parts.append(html.section("How it was made", html.table(facts)))
    return html.document(study.title, parts)


def _answers(study: Study, results: dict) -> str:
    parts = []
    for finding in study.findings:
        if finding.about:
            parts.append(html.text(f"{finding.name}: {finding.about}"))
    figure = study_plots.answers(results["findings"])
    if figure is not None:
        parts.append(html.plot("answers", figure, "differences with their intervals", "full"))
    parts += [html.text(INTERVALS, "quiet"), html.table(tables.answers(results))]
    parts += [html.text(RULES[0], "quiet"), html.text(RULES[2], "quiet")]
    return html.section("Answers", *parts)


def _results(results: dict) -> str:
    """All cells at a glance, and their table."""
    figure = study_plots.cells(results["cells"])
    plot = html.plot("cells", figure, "accuracy and ECE of all cells", "full")
    table = html.table(tables.cells(results))
    notes = [html.text(note) for note in tables.notes(results)]
    return html.section("Results", plot, html.text(GLANCE, "quiet"), table, *notes)


def _reliability(cards) -> str:
    """The reliability diagram of each cell's first run."""
    diagrams = []
    for number, (name, runs) in enumerate(cards.items()):
        bins = runs[min(runs)].facts["raw"]["reliability"]
        figure = plots.reliability(bins, title=plots.short(name, 28), size=plots.SMALL)
        diagrams.append(html.plot(f"reliability-{number}", figure, f"reliability {name}"))
    explained = html.text(DIAGRAMS, "quiet")
    return html.section("Can the confidence be trusted?", explained, html.many(diagrams, "lots"))


def _epochs(study: Study, cards) -> str:
    """Accuracy and ECE against the epoch, of the cells of the findings, or of the first ones."""
    pairs = [(finding.than, finding.better) for finding in study.findings]
    asked = dict.fromkeys(name for pair in pairs for name in pair)
    names = [name for name in asked or cards if name in cards][:MOST_LINES]
    lines = []
    for metric, label in (("accuracy", "accuracy, %"), ("ece", "ECE, %")):
        figure = study_plots.epochs(_curves({name: cards[name] for name in names}, metric), label)
        lines.append(html.plot(f"epochs-{metric}", figure, f"{label} against epochs"))
    return html.section("How they got there", html.text(EPOCHS, "quiet"), html.many(lines))


def _curves(cards, metric: str) -> dict[str, list[tuple]]:
    """(epochs, values) of each cell's seeds that were measured at the same epochs as its first."""
    curves = {}
    for name, runs in cards.items():
        measured = [card.facts["epochs"] for card in runs.values()]
        seeds = [(epochs["epoch"], epochs[metric]) for epochs in measured]
        first = seeds[0][0]
        if first:
            curves[name] = [seed for seed in seeds if seed[0] == first]
    return curves


def _facts(study: Study, cards, command: str) -> list[list[str]]:
    """How the runs were made, and what each cell is."""
    facts = [card.facts for runs in cards.values() for card in runs.values()]
    lines = [["command", command], ["runs", f"{len(facts)}"]]
    machines = dict.fromkeys(_machine(fact["versions"]) for fact in facts)
    lines += [["machine", machine] for machine in machines]
    lines.append(["time", f"{sum(fact['seconds'] for fact in facts) / 3600:.2f} hours of runs"])
    for cell in study.cells:
        fields = ", ".join(f"{name}={value}" for name, value in cell.fields.items())
        changed = f": {fields}" if fields else ""
        taught = f"; teachers: {', '.join(cell.teachers)}" if cell.teachers else ""
        lines.append([cell.name, f"{cell.config}{changed}{taught}"])
    return lines


def _machine(versions: dict) -> str:
    device = f"{versions['devices']} x {versions['device']} ({versions['backend']})"
    packages = ", ".join(f"{name} {versions['packages'][name]}" for name in SHOWN)
    return f"{device}, {versions['cores']} cores, Python {versions['python']}, {packages}"
