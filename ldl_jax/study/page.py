"""A study's results as a page: the answers, the table, the plots, how it was made."""

from ldl_jax.config.study import LEAST_SEEDS, Study
from ldl_jax.report import html
from ldl_jax.report import plots as pictures
from ldl_jax.report import study_plots as study_pictures
from ldl_jax.report.page import MEANINGS
from ldl_jax.report.tables import simple
from ldl_jax.study import tables
from ldl_jax.study.cards import Card

SHOWN = ("ldl-jax", "jax", "flax", "optax")  # packages whose versions are said
MOST_LINES = 6  # of a picture of epochs
OF_STUDIES = ("ece", "floor", "at_t")  # of what the figures mean
RULES = (
    f"Every finding was written down before the runs, with at least {LEAST_SEEDS} seeds for its cells. Over seeds: "
    "95 % interval of the mean difference and paired t test, Student's t: for these training and test images. Less "
    "floors: the same after the noise floor of each run was taken off its ECE, what a perfectly calibrated network of "
    "these confidences would score; noise alone gives the less sure of two networks the higher ECE. Of an ECE well "
    "above its floor less is noise, and this takes off too much: it can leave a finding undecided, never decide it. "
    "p: the larger of both, which have to point the same way, by Holm's correction over all findings, for raw figures "
    "and for those at T; supported or refuted where it is below 5 % and every seed is there, undecided otherwise.",
    "The other comparisons are exploratory: p is that of the paired t test over seeds, without correction and "
    "without a verdict, and there is none where seeds share teachers: their interval holds for these teachers alone.",
    "Over images: 95 %, paired bootstrap; between the ECE of an overconfident and that of a calibrated network it may "
    "miss the true difference (in simulations it held it in 48 to 83 %). At T: after the temperature that each run "
    "fitted on its holdout.",
)
INTERVALS = (
    "Thick: 95 % interval over seeds; thin: over test images; ring: less the noise floors of the ECE; green: "
    "supported, red: refuted, grey: undecided."
)
GLANCE = "Point: mean over seeds; line: their standard deviation; grey tick: the noise floor of the ECE."
DIAGRAMS = (
    "The accuracy (up) of the test images in each bin of confidence (right) of each cell's first seed; the larger a "
    "point, the more images. On the diagonal confidence can be trusted; below it the network is overconfident. The "
    "grey bar holds the accuracies of 95 % of perfectly calibrated networks with as many images in that bin."
)
EPOCHS = (
    "The cells of the findings, or the first ones: mean over seeds on the test images, with a band from the lowest to "
    "the highest."
)


def page(asked: Study, results: dict, found: dict[str, dict[int, Card]], command: str) -> str:
    """The whole of it as HTML; command: the one that makes it."""
    parts = [html.text(asked.about)] if asked.about else []
    if results["findings"]:
        parts.append(_section_of_answers(asked, results))
    glance = html.drawing("cells", study_pictures.cells(results["cells"]), "accuracy and ECE of all cells", "full")
    table = html.table(tables.cells(results))
    notes = map(html.text, tables.notes(results))
    parts.append(html.section("Results", glance, html.text(GLANCE, "quiet"), table, *notes))
    parts += _pictures(asked, found)
    if results["comparisons"]:
        compared = html.table(tables.comparisons(results))
        said = (html.text(rule, "quiet") for rule in RULES[1:])
        parts.append(html.section("Other comparisons", *said, compared))
    parts.append(html.section("What the figures mean", *map(html.text, (MEANINGS[n] for n in OF_STUDIES))))
    parts.append(html.section("How it was made", html.table(simple(["", ""], _made(asked, found, command)))))
    return html.document(asked.title, parts)


def _section_of_answers(asked: Study, results: dict) -> str:
    about = [html.text(f"{one.name}: {one.about}") for one in asked.findings if one.about]
    drawn = study_pictures.answers(results["findings"])
    picture = [] if drawn is None else [html.drawing("answers", drawn, "differences with their intervals", "full")]
    table = html.table(tables.answers(results))
    said = (html.text(RULES[place], "quiet") for place in (0, 2))
    return html.section("Answers", *about, *picture, html.text(INTERVALS, "quiet"), table, *said)


def _pictures(asked: Study, found) -> list[str]:
    """Reliability diagrams of each cell's first run, and figures against the epoch."""
    small = []
    for place, (name, there) in enumerate(found.items()):
        bins = there[min(there)].facts["raw"]["reliability"]
        small.append(
            html.drawing(f"reliability-{place}", study_pictures.reliability(name, bins), f"reliability {name}")
        )
    telling = dict.fromkeys(name for one in asked.findings for name in (one.than, one.better))
    few = {name: found[name] for name in telling or found if name in found}
    few = dict(list(few.items())[:MOST_LINES])
    lines = [
        html.drawing(f"epochs-{figure}", pictures.epochs(_epochs(few, figure), label), f"{label} against epochs")
        for figure, label in (("accuracy", "accuracy, %"), ("ece", "ECE, %"))
    ]
    diagrams = html.section("Can the confidence be trusted?", html.text(DIAGRAMS, "quiet"), html.many(small, "lots"))
    return [diagrams, html.section("How they got there", html.text(EPOCHS, "quiet"), html.many(lines))]


def _epochs(found, figure: str) -> dict[str, list[tuple]]:
    made = {}
    for name, there in found.items():
        seeds = [(card.facts["epochs"]["epoch"], card.facts["epochs"][figure]) for card in there.values()]
        same = [one for one in seeds if one[0] == seeds[0][0]]
        if seeds[0][0]:
            made[name] = same
    return made


def _made(asked: Study, found, command: str) -> list[list[str]]:
    facts = [card.facts for there in found.values() for card in there.values()]
    machines = dict.fromkeys(
        f"{f['versions']['devices']} x {f['versions']['device']} ({f['versions']['backend']}), "
        f"{f['versions']['cores']} cores, Python {f['versions']['python']}, "
        + ", ".join(f"{name} {f['versions']['packages'][name]}" for name in SHOWN)
        for f in facts
    )
    lines = [["command", command], ["runs", f"{len(facts)}"]]
    lines += [["machine", machine] for machine in machines]
    lines.append(["time", f"{sum(fact['seconds'] for fact in facts) / 3600:.2f} hours of runs"])
    for cell in asked.cells:
        changed = ", ".join(f"{name}={value}" for name, value in cell.fields.items())
        taught = f"; teachers: {', '.join(cell.teachers)}" if cell.teachers else ""
        lines.append([cell.name, f"{cell.config}{f': {changed}' if changed else ''}{taught}"])
    return lines
