"""The report of stored predictions: one HTML file with the figures of all models, their pictures and what they mean."""

from importlib import metadata
from pathlib import Path

from ldl_jax import files
from ldl_jax.report import html
from ldl_jax.report import plots as pictures
from ldl_jax.report.table import KNOWN

HEADLINE = ("accuracy", "nll", "brier", "ece")
CAPTIONS = {
    "reliability": (
        "Can the confidence be trusted?",
        "Blue: the accuracy of the examples in each bin of confidence; short thin line: their mean confidence. Where "
        "blue is below the thin line the model is overconfident. The grey bar holds the accuracies of 95 % of "
        "perfectly calibrated models with as many examples in that bin: what lies inside it may be chance. Below: how "
        "many examples are right (blue) and wrong (orange).",
    ),
    "classes": (
        "Which classes mislead?",
        "Mean confidence less accuracy, of the examples that were predicted as each class: orange-red is "
        "overconfident, green underconfident. The grey bar holds 95 % of perfectly calibrated models with the same "
        "confidences, and a few more where hardly an error is to be expected: of 20 classes about one lies outside by "
        "chance.",
    ),
    "coverage": (
        "Does it know when it is wrong?",
        "The error rate if only the most confident share of the examples is answered. A good confidence starts near "
        "0 and rises late. Raw predictions; a temperature may change the order a little.",
    ),
    "temperature": (
        "What would one temperature do?",
        "NLL and ECE of these examples at each temperature; the dot is the one that was fitted on other examples. A "
        "model that is calibrated already has its lowest NLL at 1.",
    ),
}  # fmt: skip
MEANINGS = {
    "ece": "ECE: 15 bins of equal width (lo, hi] over the confidence (Guo et al. 2017); the mean over examples of the "
    "gap between a bin's accuracy and its mean confidence. It is overconfidence plus underconfidence; signed ECE is "
    "their difference.",
    "intervals": "Intervals are nominally of 95 %, by 1,000 bootstrap resamples of the examples. Those of gaps, "
    "which noise makes larger, are moved back by as much (basic bootstrap); that of the ECE begins at 0 "
    "where chance explains it.",
    "floor": "Floor: the ECE that a perfectly calibrated model with these confidences scores on this many examples, "
    "since noise makes gaps; an ECE near it is what chance makes. Other figures that add up gaps have such a "
    "floor too, which is not measured here; debiased ones have none.",
    "others": "Debiased L2 is without this noise and may be negative when squared. Smooth ECE has a kernel in "
    "the place of bins (Blasiok and Nakkiran 2023), the KS error has neither (Gupta et al. 2021).",
    "at_t": "At T: after the logits were divided by one temperature that was fitted on other examples. What wins only "
    "before that wins by something that one number mends. Intervals at T take the temperature as given.",
}


def page(suites: list[dict], *, title: str, facts: dict[str, str] | None = None) -> str:
    """The report of what `suite.measure` gave for one model or several, as HTML; `facts` stand at its end."""
    drawn: dict[str, list[str]] = {}
    for kind, name, figure in pictures.pictures(suites):
        label = f"{CAPTIONS[kind][0]} {figure.axes[0].get_title(loc='left')}".strip()
        drawn.setdefault(kind, []).append(html.drawing(name, figure, label))
    parts = [_measured(suites), _headline(suites)]
    parts += [
        html.section(CAPTIONS[kind][0], html.text(CAPTIONS[kind][1], "quiet"), html.many(drawings))
        for kind, drawings in drawn.items()
    ]
    parts.append(html.section("All figures", *(_figures(suite) for suite in suites)))
    parts.append(html.section("What they mean", *map(html.text, MEANINGS.values())))
    parts.append(html.section("How it was made", html.table(["", ""], [[k, v] for k, v in _facts(facts).items()])))
    return html.document(title, parts)


def write(path, suites: list[dict], *, title: str, facts: dict[str, str] | None = None) -> Path:
    """Write the report; returns its path."""
    return files.write(path, page(suites, title=title, facts=facts))


def _measured(suites) -> str:
    """What was read, and how it was understood."""
    lines = []
    for suite in suites:
        count = f"{suite['examples']:,} example{'s' * (suite['examples'] > 1)}, {suite['classes']} classes"
        lines.append(html.text(f"{suite['name']}: {count}; {suite['understood']}. {_fitted(suite['temperature'])}"))
        lines += [html.text(f"{note}.", "warn") for note in suite["notes"]]
    return "\n".join(lines)


def _fitted(temperature: dict | None) -> str:
    if temperature is None:
        return "No temperature was fitted."
    where = f"{temperature['name']} ({temperature['examples']:,} examples)"
    return f"Temperature {temperature['temperature']:.4g}, fitted on {where}."


def _headline(suites) -> str:
    states = [state for state in pictures.STATES if any(suite[state] for suite in suites)]
    heads = [KNOWN[name][0] + (" at T" if state == "scaled" else "") for state in states for name in _shown(state)]
    rows = [
        [suite["name"], *(_cell(suite, state, name) for state in states for name in _shown(state))] for suite in suites
    ]
    return html.table(["", *heads], rows)


def _shown(state: str) -> tuple[str, ...]:
    return HEADLINE if state == "raw" else HEADLINE[1:]  # a temperature leaves the accuracy alone


def _cell(suite: dict, state: str, name: str) -> str:
    figure = (suite[state] or {"figures": {}})["figures"].get(name)
    if figure is None:
        return "–"
    floor = "" if figure["floor"] is None else f"floor {number(name, figure['floor'])}"
    return "\n".join(filter(None, [number(name, figure["value"]), interval(name, figure["interval"]), floor]))


def _figures(suite: dict) -> str:
    """Every figure of one model, by group."""
    states = [state for state in pictures.STATES if suite[state]]
    rows: list = []
    for name, figure in suite["raw"]["figures"].items():
        if figure["group"] not in rows:
            rows.append(figure["group"])
        cells = [cell for state in states for cell in _cells(name, suite[state]["figures"].get(name))]
        rows.append([KNOWN.get(name, (name,))[0], *cells])
    heads = [head for state in states for head in ("raw" if state == "raw" else "at T", "95 %", "floor")]
    title = html.heading(suite["name"]) if suite["name"] else ""
    return title + html.table(["", *heads], rows)


def number(name: str, value: float | None) -> str:
    """A figure's value in the unit of its name, such as percent."""
    _, factor, digits = KNOWN.get(name, (name, 1, 4))
    return "–" if value is None else f"{factor * value:.{digits}f}"


def interval(name: str, ends) -> str:
    """A figure's interval, '' where it has none."""
    return "" if ends is None else f"{number(name, ends[0])} to {number(name, ends[1])}"


def _cells(name: str, figure: dict | None) -> tuple[str, str, str]:
    """A figure's value, interval and floor."""
    if figure is None:
        return "–", "", ""
    floor = "" if figure["floor"] is None else number(name, figure["floor"])
    return number(name, figure["value"]), interval(name, figure["interval"]), floor


def _facts(facts: dict[str, str] | None) -> dict[str, str]:
    packages = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("jax", "numpy", "scipy", "scikit-learn", "matplotlib")
    )
    return {**(facts or {}), "packages": packages}
