"""The sections of the page: each measures all runs and draws what it finds.

A section is (HTML, numbers as JSON values).
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy.special import softmax

from ldl_jax.analyse import agreement, epochs, mixing, networks, penultimate
from ldl_jax.analyse.networks import Network, Passed
from ldl_jax.analyse.runs import Run
from ldl_jax.evaluation import confidence
from ldl_jax.evaluation.from_arrays import ece
from ldl_jax.report import analysis_plots, html
from ldl_jax.report.tables import simple

Section = tuple[str, dict]
MISSING = "–"
SPLITS = {"test": "test", "train": "training"}
RECORD = (
    "Curves of training images, of the confidence of right and wrong predictions and of the parts "
    "of the NLL are recorded by runs with --config.eval.train_examples=N."
)
# Curves against epochs: entry of the log -> label of the axis, factor.
CURVES = {
    "accuracy": ("accuracy, %", 100),
    "ece": ("ECE, %", 100),
    "nll": ("NLL, nat", 1),
    "nll_refinement": ("refinement part of the NLL, nat", 1),
    "nll_calibration": ("calibration part of the NLL, nat", 1),
}
MOST_PAIRS = 15  # of networks; of more, each with the first


def text(value: float, digits: int = 3, factor: float = 1) -> str:
    """A number of a table."""
    return MISSING if value is None or not math.isfinite(value) else f"{factor * value:.{digits}f}"


def plain(values) -> object:
    """Numbers and arrays as JSON values; what is not finite becomes None."""
    if isinstance(values, dict):
        return {str(key): plain(value) for key, value in values.items()}
    if isinstance(values, np.ndarray | list | tuple):
        return [plain(value) for value in values]
    if isinstance(values, np.generic):
        values = values.item()
    return None if isinstance(values, float) and not math.isfinite(values) else values


def now(runs: Sequence[Run]) -> Section:
    """Figures of the finished networks on test and training images in evaluation mode."""
    head = ["", "images", "accuracy %", "ECE %", "NLL", "refinement", "calibration", "best T"]
    head += ["confidence (right, %)", "confidence (wrong, %)"]
    rows = []
    numbers: dict[str, dict] = {}
    for run in runs:
        for split, name in SPLITS.items():
            figures = _figures(run.passed[split].logits, run.examples[split].label)
            numbers.setdefault(run.name, {})[split] = figures
            cells = [f"{figures['n']:,}"]
            cells += [text(figures[key], 2, 100) for key in ("accuracy", "ece")]
            cells += [text(figures[key], 4) for key in ("nll", "nll_refinement", "nll_calibration")]
            cells += [text(figures["best_temperature"])]
            cells += [text(figures[f"confidence_{kind}"], 1, 100) for kind in ("right", "wrong")]
            rows.append([f"{run.name}, {name}", *cells])
    caption = html.text(
        "At the end of training, in evaluation mode. Refinement: the NLL at the temperature that is "
        "best for these very images; calibration: what that temperature takes away. A method that "
        "only makes a network less confident changes the second, one that knows less the first.",
        "quiet",
    )
    return html.section("Networks", caption, html.table(simple(head, rows))), numbers


def _figures(logits: np.ndarray, label: np.ndarray) -> dict[str, float]:
    parts = confidence.parts(logits, label)
    return {
        "n": len(label),
        "accuracy": float((logits.argmax(axis=1) == label).mean()),
        "ece": ece(logits=logits, labels=label),
        "nll": parts["nll_refinement"] + parts["nll_calibration"],
        **parts,
        **confidence.right_and_wrong(logits, label),
    }


def against_epochs(runs: Sequence[Run]) -> Section:
    """What the runs recorded at evaluations, as curves."""
    figures = []
    for metric, (label, factor) in CURVES.items():
        curves = {run.name: epochs.curves(run.rows, metric) for run in runs}
        if any(curves.values()):
            figures.append((label, analysis_plots.by_epoch(curves, label=label, factor=factor)))
    for split, name in SPLITS.items():
        curves = {}
        for run in runs:
            kinds = {}
            for kind in ("right", "wrong"):
                points = epochs.curve(run.rows, f"{split}/confidence_{kind}")
                if len(points[0]):
                    kinds[kind] = points
            curves[run.name] = kinds
        if any(curves.values()):
            label = f"confidence of right and wrong predictions, {name} images"
            figure = analysis_plots.right_and_wrong(curves, title=f"{name} images")
            figures.append((label, figure))
    caption = (
        "Solid: test images; dotted: training images in evaluation mode. In the last two plots, "
        f"solid: right predictions; dashed: wrong ones. {RECORD}"
    )
    plots = [html.plot(f"epochs-{i}", figure, label) for i, (label, figure) in enumerate(figures)]
    return html.section("Against epochs", html.text(caption, "quiet"), html.many(plots)), {}


MEASURES = {
    "within": ("within-class variance", 3, 1),
    "between": ("between-class variance", 3, 1),
    "variability": ("NC1: within / between", 4, 1),
    "norms_of_means": ("NC2: spread of lengths, means", 3, 1),
    "norms_of_weights": ("NC2: spread of lengths, weights", 3, 1),
    "angles_of_means": ("NC2: off equal angles, means", 3, 1),
    "angles_of_weights": ("NC2: off equal angles, weights", 3, 1),
    "duality": ("NC3: weights off means", 3, 1),
    "nearest_centre": ("NC4: not the nearest mean, %", 2, 100),
}
LAYER = (
    "Embeddings of three classes on the plane through their weight vectors (crosses), test and "
    "training images. Müller et al. 2019 find that label smoothing pulls them into tight groups, which "
    "erases how much an image resembles the other classes. Below: measures of neural collapse (Papyan "
    "et al. 2020), of which all but the two variances go to 0 where it occurs; and the best "
    "temperature of each class (none without an error): above 1, the network is overconfident on it."
)


def penultimate_layer(runs: Sequence[Run], three: tuple[int, int, int] | None) -> Section:
    """Planes of three classes, measures of collapse and temperatures by class."""
    names = runs[0].network.spec["classes"]
    label = runs[0].examples["test"].label
    if three is None and len(names) > 2:
        mean = np.mean([softmax(run.passed["test"].logits, axis=1) for run in runs], axis=0)
        three = penultimate.confused(mean, label)
    planes = []
    measured = {}
    for number, run in enumerate(runs):
        head = run.network.head
        if head is None or not networks.is_linear(head, run.passed["test"]):
            planes.append(html.text(f"{run.name}: its logits are not linear in its embedding."))
            continue
        measured[run.name] = _collapse(run)
        if three is not None:
            planes += _planes(run, three, names, f"plane-{number}")
    temperatures = {}
    for run in runs:
        temperatures[run.name] = confidence.by_class(run.passed["test"].logits, label)
    figure = analysis_plots.classes(temperatures, names, label="best temperature, test images")
    parts = [html.text(LAYER, "quiet"), html.many(planes, "lots")]
    if any(measured.values()):
        parts.append(html.table(_collapse_table(measured)))
    parts.append(html.plot("temperatures", figure, "best temperature by class", "full"))
    numbers = {"classes": three, "collapse": measured, "temperature_by_class": temperatures}
    return html.section("Penultimate layer", *parts), numbers


def _collapse(run: Run) -> dict[str, dict[str, float]]:
    """The measures of both splits; {} if a class has no image."""
    head = run.network.head
    train = run.passed["train"].embedding
    label = run.examples["train"].label
    classes = head.weights.shape[1]
    found = {}
    for split in SPLITS:
        own = run.examples[split].label
        if len(np.unique(own)) == len(np.unique(label)) == classes:
            means = penultimate.class_means(train, label, classes)
            found[split] = penultimate.collapse(
                run.passed[split].embedding, own, head.weights, head.bias, means
            )
    return found


def _collapse_table(measured: dict):
    head = [""]
    columns = []
    for name, splits in measured.items():
        for split, figures in splits.items():
            head.append(f"{name} ({SPLITS[split]})")
            columns.append(figures)
    rows = []
    for key, (title, digits, factor) in MEASURES.items():
        rows.append([title, *(text(figures[key], digits, factor) for figures in columns)])
    return simple(head, rows)


def _planes(run: Run, three: Sequence[int], names: Sequence[str], prefix: str) -> list[str]:
    """The plane of a run's test and training images."""
    drawn = []
    for split, title in SPLITS.items():
        label = run.examples[split].label
        own = np.isin(label, three)
        points, corners = penultimate.plane(
            run.passed[split].embedding[own], run.network.head.weights, three
        )
        member = np.array([list(three).index(number) for number in label[own]], int)
        figure = analysis_plots.plane(
            points,
            member,
            corners,
            [names[number] for number in three],
            title=f"{analysis_plots.short(run.name, 26)}\n{title}",
        )
        label = f"{run.name}: embeddings, {title}"
        drawn.append(html.plot(f"{prefix}-{split}", figure, label))
    return drawn


def networks_agree(runs: Sequence[Run], teachers: Sequence[tuple[Network, Passed]]) -> Section:
    """Pairs of networks: the same predictions, KL and CKA by stage. Empty for a single network."""
    outputs = {run.name: run.passed["test"] for run in runs}
    outputs |= {teacher.name: passed for teacher, passed in teachers}
    pairs = list(itertools.combinations(outputs, 2))
    if len(pairs) > MOST_PAIRS:
        pairs = [pair for pair in pairs if pair[0] == runs[0].name]
    if not pairs:
        return "", {}
    grams = {}
    lengths = [len(passed.stages[0]) for passed in outputs.values() if passed.stages]
    count = min(lengths, default=len(runs[0].examples["test"].label))
    for name, passed in outputs.items():
        layers = [*passed.stages, passed.embedding]
        grams[name] = [agreement.gram(layer[:count]) for layer in layers]
    rows = []
    curves = {}
    numbers = {}
    for one, other in pairs:
        found = agreement.predictions(outputs[one].logits, outputs[other].logits)
        label = f"{one} and {other}"
        # Stages are compared in order, which needs as many of them.
        if len(grams[one]) == len(grams[other]):
            layers = zip(grams[one], grams[other], strict=True)
            found["cka"] = np.array([agreement.cka(*pair) for pair in layers])
            curves[label] = found["cka"]
        numbers[label] = found
        cells = [text(found["same"], 2, 100), text(found["kl"], 4), text(found["kl_back"], 4)]
        rows.append([label, *cells, " ".join(text(value, 3) for value in found.get("cka", ()))])
    caption = (
        "On the test images: share with the same predicted class, KL divergence of the predictions "
        "from the first to the second network and back, and linear CKA of the maps after each stage "
        f"and of the embedding (Kornblith et al. 2019, {count} images)."
    )
    head = ["", "same class %", "KL", "KL back", "CKA (stages, embedding)"]
    parts = [html.text(caption, "quiet"), html.table(simple(head, rows))]
    longest = max(curves.values(), key=len, default=())
    if len(longest):
        names = [*(f"stage {number + 1}" for number in range(len(longest) - 1)), "embedding"]
        same = {label: curve for label, curve in curves.items() if len(curve) == len(longest)}
        parts.append(html.many([html.plot("cka", analysis_plots.stages(same, names), "CKA")]))
    return html.section("Agreement between networks", *parts), numbers


def mixes(runs: Sequence[Run], *, count: int, seed: int) -> Section:
    """What the networks predict along the mix of two test images."""
    test = runs[0].examples["test"]
    first, second = mixing.pairs(test.label, count, seed)
    one = test.images[first].astype(np.float32) / 255
    other = test.images[second].astype(np.float32) / 255
    plots = []
    rows = []
    numbers: dict[str, dict] = {}
    middle = len(mixing.SHARES) // 2
    for kind, mix in mixing.MIXES.items():
        curves = {}
        for run in runs:
            logits = np.stack(
                [networks.passed(run.network, mix(one, other, s)).logits for s in mixing.SHARES]
            )
            curves[run.name] = mixing.along(logits, test.label[first], test.label[second])
            found = {key: values[middle] for key, values in curves[run.name].items()}
            both = found["first"] + found["second"]
            cells = [text(found["confidence"], 1, 100), text(both, 1, 100)]
            cells += [text(found["miss"], 1, 100), text(found["entropy"])]
            rows.append([f"{run.name}, {kind}", *cells])
        numbers[kind] = curves
        figure = analysis_plots.shares(curves, mixing.SHARES, title=kind)
        plots.append(html.plot(f"mix-{kind}", figure, f"predictions along a {kind} of two images"))
    caption = (
        f"{len(first)} pairs of test images of different classes; blend: share x first + (1 - share) "
        "x second; cut: the left columns of the first, the right ones of the second. Solid: "
        "probability of the first image's label; dashed: confidence. A network whose predictions "
        "follow the share would be on the diagonal."
    )
    head = ["at a share of 0.5", "confidence %", "both labels %", "neither predicted %", "entropy"]
    parts = [html.text(caption, "quiet"), html.many(plots), html.table(simple(head, rows))]
    return html.section("Along the mix of two images", *parts), numbers
