"""Measuring predictions that are arrays in memory: what notebooks and other programs call."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from ldl_jax import arrays, files, workdir
from ldl_jax.evaluation import bootstrap, evaluation
from ldl_jax.evaluation.fitting import DEFAULT
from ldl_jax.evaluation.predictions import Predictions
from ldl_jax.metrics import ece_conventions
from ldl_jax.metrics.base import BINS
from ldl_jax.report import figure_tables, html
from ldl_jax.report.conclusion import conclusions
from ldl_jax.report.result import STATE_NAMES, Evaluation


class Result(Evaluation):
    """An evaluation that shows itself as a table, and writes its report."""

    __slots__ = ()

    def __repr__(self) -> str:
        """The table that `python -m ldl_jax.evaluate` prints."""
        return figure_tables.evaluation_text(self)

    def _repr_html_(self) -> str:
        """What was found, and the same table, for a notebook."""
        found = [html.text(f"{state}: {text}") for state, text in conclusions(self).items()]
        table = figure_tables.figures(self, figure_tables.MISSING)
        return "".join([html.heading(self.name), *found, html.table(table)])

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row for each figure: value, interval and noise floor by state."""
        import pandas as pd

        rows = {}
        for name in self.raw.figures:
            row = {}
            for state, measured in self.states().items():
                figure = measured.figures.get(name)
                low, high = (figure.interval if figure else None) or (None, None)
                prefix = STATE_NAMES[state]
                row[f"{prefix} value"] = figure.value if figure else None
                row[f"{prefix} low"] = low
                row[f"{prefix} high"] = high
                row[f"{prefix} floor"] = figure.floor if figure else None
            rows[name] = row
        return pd.DataFrame.from_dict(rows, orient="index").astype(float)

    def save(self, directory: str | Path) -> Path:
        """Write evaluation.json and report.html into a directory; returns the report's path."""
        return save([self], Path(directory).expanduser(), title=self.name)[1]


def save(results: Sequence[Evaluation], folder: Path, *, title: str) -> list[Path]:
    """Write evaluation.json and report.html, with all results, into a folder; returns the two paths."""
    # The report draws its plots with matplotlib, which is slow to import.
    from ldl_jax.report import page

    report = page.page(list(results), title=title)
    suites = [result.to_json() for result in results]
    return [
        files.write_json(folder / workdir.EVALUATION, {"seed": results[0].seed, "suites": suites}),
        files.write(folder / workdir.REPORT, report),
    ]


SCORES = {"logits": "logits", "probs": "probabilities"}  # keyword -> kind of predictions


def predictions_of(
    *,
    logits: Any = None,
    probs: Any = None,
    labels: Any = None,
    name: str = "predictions",
    classes: tuple[str, ...] | None = None,
    argument: str = "",
) -> Predictions:
    """Checked predictions from arrays: logits or probabilities [N, K], and class numbers [N].

    argument: what the arrays are called in messages, if they are not `logits`, `probs` and
    `labels`. Raises ValueError if the arrays cannot be what they are passed as.
    """
    if (logits is None) == (probs is None):
        given = "both" if logits is not None else "neither"
        raise ValueError(f"pass either logits= or probs=, got {given}")
    values, note = logits, None
    if logits is not None:
        scores = arrays.checked_logits(logits, f"{argument}logits")
    else:
        scores, note = arrays.checked_probs(probs, f"{argument}probs")
        values = probs
    label = None
    if labels is not None:
        label = arrays.checked_labels(labels, *scores.shape, name=f"{argument}labels")
    kind = SCORES["logits" if probs is None else "probs"]
    names = classes or arrays.column_names(values)
    if names is not None and len(names) != scores.shape[1]:
        raise ValueError(
            f"classes must name each of {scores.shape[1]} classes, got {len(names)} names"
        )
    notes = (kind,) if note is None else (kind, note)
    return Predictions(name, scores, label, kind, None, notes, names)


def measure(
    *,
    labels: Any,
    logits: Any = None,
    probs: Any = None,
    val: tuple[Any, Any] | None = None,
    human: Any = None,
    ood: Any = None,
    name: str = "predictions",
    classes: tuple[str, ...] | None = None,
    calibrator: str = DEFAULT,
    metrics: tuple[str, ...] = (),
    seed: int = 0,
) -> Result:
    """All metrics of predictions, raw and, with `val`, recalibrated.

    labels: class numbers [N]. logits or probs: [N, K]; numpy, jax, torch and pandas arrays are
    accepted. val: (scores, labels) of the same network on other examples, of the same kind, on
    which `calibrator` is fitted. human: votes or distributions [N, K]. ood: scores [M, K] of
    examples of no class. metrics: dotted names of modules with metrics of your own. seed: of
    bootstrap and simulation. The result shows as a table, and `result.save(directory)` writes the
    report. Raises ValueError if an array is not what it is passed as.

    >>> import numpy as np
    >>> import ldl_jax as ldl
    >>> logits = np.random.default_rng(0).normal(size=(500, 3))
    >>> result = ldl.measure(logits=logits, labels=np.arange(500) % 3)
    >>> round(result.raw["accuracy"].value, 3)
    0.31
    """
    kind = "logits" if probs is None else "probs"
    test = predictions_of(logits=logits, probs=probs, labels=labels, name=name, classes=classes)
    holdout = None
    if val is not None:
        scores, val_labels = val
        given = {kind: scores, "labels": val_labels}
        holdout = predictions_of(**given, name="val", argument="val ")
    unknown = None
    if ood is not None:
        unknown = predictions_of(**{kind: ood}, name="ood", argument="ood ")
    table = None
    if human is not None:
        table = arrays.checked_distributions(human, *test.values.shape, name="human")
    measured = evaluation.measure(
        test,
        val=holdout,
        calibrator=calibrator,
        ood=unknown,
        human=table,
        seed=seed,
        metrics=evaluation.own_metrics(metrics),
    )
    return Result(*measured)


def ece(
    *,
    labels: Any,
    logits: Any = None,
    probs: Any = None,
    convention: str = "guo15",
    bins: int = 15,
) -> float:
    """The expected calibration error of the top label, a fraction.

    convention: whose definition (`ece_conventions.CONVENTIONS`); guo15 is that of Guo et al. 2017
    with `bins` bins. Raises ValueError if an array is not what it is passed as, or if another
    convention is given with `bins`.

    >>> import ldl_jax as ldl
    >>> ldl.ece(probs=[[0.9, 0.1], [0.2, 0.8]], labels=[0, 0])
    0.45
    """
    confidence, correct = _answers(logits, probs, labels)
    return ece_conventions.ece(confidence, correct, convention, bins=bins)


def reliability_diagram(
    *, labels: Any, logits: Any = None, probs: Any = None, title: str = "", ax: Any = None
) -> Any:
    """The reliability diagram of predictions: accuracy against confidence in 15 bins.

    Returns a matplotlib Figure with a histogram of confidences, which notebooks show inline; or
    draws into the Axes `ax` and returns it. The grey band contains the accuracies of 95 % of
    perfectly calibrated models. Raises ValueError if an array is not what it is passed as.

    >>> import ldl_jax as ldl
    >>> figure = ldl.reliability_diagram(probs=[[0.9, 0.1], [0.2, 0.8]], labels=[0, 0], title="A")
    >>> figure.savefig("reliability.png")  # doctest: +SKIP
    """
    from ldl_jax.report import plots

    confidence, correct = _answers(logits, probs, labels)
    place = bootstrap.bin_number(confidence)
    bins = {
        "count": np.bincount(place, minlength=BINS),
        "confidence": np.bincount(place, confidence, BINS),
        "correct": np.bincount(place, correct, BINS),
    }
    if ax is None:
        return plots.shown_inline(plots.reliability(bins, title=title, keyed=True))
    return plots.reliability_on(ax, bins, title=title)


def difference(
    result: Evaluation, other: Evaluation, *, state: str = "raw", seed: int = 0
) -> dict[str, bootstrap.Difference]:
    """How much `result` differs from `other` on the same examples, by metric.

    Each Difference has the value, its 95 % interval by the paired bootstrap over examples, and p.
    state: 'raw' or 'scaled' (recalibrated). Raises ValueError if the results were not measured in
    this process, or on different numbers of examples.

    >>> import numpy as np
    >>> import ldl_jax as ldl
    >>> logits, labels = np.random.default_rng(0).normal(size=(500, 3)), np.arange(500) % 3
    >>> result = ldl.measure(logits=logits, labels=labels)
    >>> sharper = ldl.measure(logits=2 * logits, labels=labels)
    >>> nll = ldl.difference(sharper, result)["nll"]
    >>> nll.value > 0, nll.interval[0] < nll.value < nll.interval[1]
    (True, True)
    """
    pair = []
    for evaluation_ in (result, other):
        if evaluation_.answers is None:
            raise ValueError(
                f"{evaluation_.name} was read from a file, which holds no single examples; measure "
                "it again to compare it"
            )
        if state not in evaluation_.answers:
            states = ", ".join(evaluation_.answers)
            raise ValueError(f"state must be one of {states} of {evaluation_.name}, got {state!r}")
        pair.append(evaluation_.answers[state])
    return bootstrap.paired(seed, [tuple(pair)])


def _answers(logits: Any, probs: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """(confidence f64[N], correct bool[N]) of arrays, in float64."""
    predictions = predictions_of(logits=logits, probs=probs, labels=labels)
    values = predictions.values.astype(np.float64)
    values = softmax(values, 1) if predictions.kind == "logits" else values
    values = values / values.sum(1, keepdims=True)
    return values.max(1), values.argmax(1) == predictions.label
