"""A study's results as text, as CSV and as a page: the answers, the table, the pictures, how it was made."""

import csv
import io

from ldl_jax.config.study import LEAST_SEEDS, METRICS, Study
from ldl_jax.evaluation import bootstrap as uncertainty
from ldl_jax.report import html
from ldl_jax.report import plots as pictures
from ldl_jax.report import study_plots as study_pictures
from ldl_jax.report.page import MEANINGS, number
from ldl_jax.report.study_plots import STATES
from ldl_jax.report.table import KNOWN, align, at_bound
from ldl_jax.study.cards import Card

COLUMNS = [*(("raw", name) for name in METRICS), *(("scaled", name) for name in METRICS[1:])]
SHOWN = ("ldl-jax", "jax", "flax", "optax")  # packages whose versions are said
MOST_LINES = 6  # of a picture of epochs
OF_STUDIES = ("ece", "floor", "at_t")  # of what the figures mean
CSV = ["what", "name", "than", "state", "figure", "mean", "std", "n", "low", "high", "images_low", "images_high", "p",
       "less_floors", "less_floors_p", "holm", "verdict"]  # fmt: skip
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


def rows(asked: Study, found: dict[str, dict[int, Card]]) -> list[dict]:
    """For each cell with results: its figures over seeds, by state; mean, std (n - 1; None for one), and n."""
    made = []
    for cell in asked.cells:
        there = found.get(cell.name)
        if not there:
            continue
        facts = [card.facts for card in there.values()]
        own = {"cell": cell.name, "n": len(facts), "seeds": cell.seeds, "published": dict(cell.published),
               "at_bound": sum(fact["at_bound"] for fact in facts),
               "seconds": sum(fact["seconds"] for fact in facts) / len(facts)}  # fmt: skip
        for state in STATES:
            some = [fact[state] for fact in facts]
            own[state] = None if None in some else _spreads(some)
        made.append(own)
    return made


def _spreads(some: list[dict]) -> dict:
    spread = {name: uncertainty.over_seeds([one["figures"][name] for one in some]) for name in METRICS}
    spread["floor"] = uncertainty.over_seeds([one["floor"] for one in some])
    return {name: {"mean": x.mean, "std": x.std} for name, x in spread.items()}


def numbers(results: dict) -> str:
    """All of it as CSV, a line for each cell or comparison, state and figure; fractions, nat."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV)
    for row in results["cells"]:
        for state in STATES:
            for name, value in (row[state] or {}).items():
                writer.writerow(["cell", row["cell"], "", state, name, value["mean"], value["std"], row["n"]])
    for what in ("findings", "comparisons"):
        for one in results[what]:
            for state in STATES:
                own = one[state]
                if own is not None:
                    asked = [what[:-1], one["better"], one["than"], state, one["metric"], own["mean"], own["std"]]
                    ends = [end for name in ("seeds", "images") for end in own[name] or ("", "")]
                    less = [(own["excess"] or {}).get(name, "") for name in ("mean", "p")]
                    decided = [own.get(name, "") for name in ("holm", "verdict")]
                    writer.writerow([*asked, own["n"], *ends, own["p"], *less, *decided])
    return out.getvalue()


def text(results: dict) -> str:
    """The answers and the table for the terminal."""
    parts = []
    for name in ("findings", "cells"):
        head, lines = _table(name, results)
        if lines:
            parts.append("\n".join(align([[head], lines])))
    parts += ["\n".join(_notes(results))] if _notes(results) else []
    return "\n\n".join(parts)


def _notes(results: dict) -> list[str]:
    return [at_bound(row["cell"], row["at_bound"], row["n"]) for row in results["cells"] if row["at_bound"]]


def _table(name: str, results: dict) -> tuple[list[str], list[list[str]]]:
    return {"findings": _answers, "cells": _cells, "comparisons": _explored}[name](results)


def _cells(results, between: str = " ") -> tuple[list[str], list[list[str]]]:
    columns = [(s, n) for s, n in COLUMNS if any(row[s] for row in results["cells"])]
    published = list(dict.fromkeys(n for row in results["cells"] for n in row["published"]))
    head = ["", "n", *(KNOWN[n][0] + STATES[s] for s, n in columns), *(f"published {KNOWN[n][0]}" for n in published)]
    lines = []
    for row in results["cells"]:
        count = str(row["n"]) if row["n"] == row["seeds"] else f"{row['n']} of {row['seeds']}"
        theirs = [number(n, row["published"].get(n)) for n in published]
        lines.append([row["cell"], count, *(_spread(row[s], n, between) for s, n in columns), *theirs])
    return head, lines


def _spread(own: dict | None, name: str, between: str) -> str:
    if own is None:
        return "–"
    std = "" if own[name]["std"] is None else f"± {number(name, own[name]['std'])}"
    floor = f"floor {number(name, own['floor']['mean'])}" if name == "ece" else ""
    return between.join(filter(None, [number(name, own[name]["mean"]), std, floor]))


def _answers(results) -> tuple[list[str], list[list[str]]]:
    head = ["finding", "", "verdict", "difference", "over seeds", "over images", "less floors", "p", "n"]
    lines = []
    for one in results["findings"]:
        question = f"{one['name']}: {one['direction']} {KNOWN[one['metric']][0]}, {one['better']} than {one['than']}"
        for state, own in ((state, one[state]) for state in STATES):
            label = [question, "raw"] if state == "raw" else ["", "at T"]
            if own is None:
                lines.append([*label, "no temperature" if one["raw"] else "undecided", *["–"] * 6])
            else:
                mean, seeds, p, images, n = _difference(one["metric"], own, own["holm"])
                less = (
                    "–" if own["excess"] is None else "{} ({})".format(*_difference("ece", own | own["excess"], None))
                )
                n = n if own["n"] == own["of"] else f"{n} of {own['of']}"
                lines.append([*label, own["verdict"], mean, seeds, images, less, p, n])
    return head, lines


def _explored(results) -> tuple[list[str], list[list[str]]]:
    head = ["", "figure", "difference", "over seeds", "p", "over images", "n"]
    lines = [
        [f"{one['better']} less {one['than']}", KNOWN[one["metric"]][0] + STATES[state],
         *_difference(one["metric"], one[state], one[state]["p"])]
        for one in results["comparisons"] for state in STATES
        if one[state] is not None and (state, one["metric"]) in COLUMNS
    ]  # fmt: skip
    return head, lines


def _difference(name: str, own: dict, p: float | None) -> list[str]:
    def signed(value):
        return f"{KNOWN[name][1] * value:+.{KNOWN[name][2]}f}"

    said = "–" if p is None else f"{p:.2g}"

    def between(ends):
        return "–" if ends is None else f"{signed(ends[0])} to {signed(ends[1])}"

    return [signed(own["mean"]), between(own["seeds"]), said, between(own["images"]), str(own["n"])]


def page(asked: Study, results: dict, found: dict[str, dict[int, Card]], command: str) -> str:
    """The whole of it as HTML; command: the one that makes it."""
    parts = [html.text(asked.about)] if asked.about else []
    if results["findings"]:
        parts.append(_section_of_answers(asked, results))
    glance = html.drawing("cells", study_pictures.cells(results["cells"]), "accuracy and ECE of all cells", "full")
    table = html.table(*_cells(results, "\n"))
    parts.append(html.section("Results", glance, html.text(GLANCE, "quiet"), table, *map(html.text, _notes(results))))
    parts += _pictures(asked, found)
    if results["comparisons"]:
        compared = html.table(*_explored(results))
        said = (html.text(rule, "quiet") for rule in RULES[1:])
        parts.append(html.section("Other comparisons", *said, compared))
    parts.append(html.section("What the figures mean", *map(html.text, (MEANINGS[n] for n in OF_STUDIES))))
    parts.append(html.section("How it was made", html.table(["", ""], _made(asked, found, command))))
    return html.document(asked.title, parts)


def _section_of_answers(asked: Study, results: dict) -> str:
    about = [html.text(f"{one.name}: {one.about}") for one in asked.findings if one.about]
    drawn = study_pictures.answers(results["findings"])
    picture = [] if drawn is None else [html.drawing("answers", drawn, "differences with their intervals", "full")]
    table = html.table(*_answers(results))
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
