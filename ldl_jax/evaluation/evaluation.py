"""Evaluation of stored predictions: all figures of one network on one test set."""

import math
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import numpy as np

from ldl_jax.config.options import called, make_plug, plug
from ldl_jax.config.own import default_options
from ldl_jax.evaluation import bootstrap, curves, simulation
from ldl_jax.evaluation.fitting import DEFAULT, Fit, divided, fit
from ldl_jax.evaluation.passes import Pass, Reduced, one_pass, reduce
from ldl_jax.evaluation.predictions import Predictions
from ldl_jax.metrics.base import Metric, Stored, checked_figures, modules, shown
from ldl_jax.report.result import Evaluation, Figure, State

# Largest matrix, in numbers, that is held in memory as a whole (256 MB): 50,000 x 1,000 fits.
WHOLE = 2**26
SAMPLE = 2**24  # size, in numbers, of the sample of rows that is used of a larger matrix
SWEPT = 10_000  # maximal number of examples of the curves over temperatures


class OwnMetric(NamedTuple):
    """A metric of the user's own: a module with `make`, `of` or both."""

    name: str  # dotted
    options: tuple[tuple[str, object], ...] = ()  # of its `make`


def measure(
    predictions: Predictions,
    *,
    val: Predictions | None = None,
    calibrator: str = DEFAULT,
    fitted: Fit | None = None,
    ood: Predictions | None = None,
    human: np.ndarray | None = None,
    seed: int = 0,
    full: bool = True,
    metrics: tuple[OwnMetric, ...] = (),
) -> Evaluation:
    """All figures of predictions, raw and, if a calibrator is given, recalibrated.

    val: predictions on other examples, to fit `calibrator` on. fitted: an already fitted
    calibrator, on `val` if that is given. ood: predictions on out-of-distribution examples. human: true
    distributions f64[N, K]. seed: random seed of the bootstrap, the simulations and the samples.
    full: False computes only the figures of sums, the noise floor and the reliability diagram,
    which is fast; the raw state then has no streaming metrics. metrics: of the user's own. Figures
    that need the whole matrix are measured on a sample if it has more than WHOLE numbers; a note
    says so. Raises ValueError if the numbers of classes differ.
    """
    _check(predictions, val, ood)
    if val is not None and fitted is None:
        fitted = fit(val, calibrator)
    task = _Task(predictions, seed, _sample(seed, predictions), ood, human, full, metrics)
    raw, raw_answers = _state(task, None)
    scaled, answers = None, {"raw": raw_answers}
    if fitted is not None:
        scaled, answers["scaled"] = _state(task, fitted)
    facts = None if fitted is None else fitted.facts()
    by_temperature = fitted is not None and fitted.temperature is not None
    return Evaluation(
        name=predictions.name,
        examples=len(predictions.values),
        classes=predictions.values.shape[1],
        class_names=predictions.classes,
        kind=predictions.kind,
        understood="; ".join(predictions.notes) or predictions.kind,
        seed=seed,
        notes=tuple(_notes(task, fitted)),
        temperature=facts if by_temperature else None,
        raw=raw,
        scaled=scaled,
        calibrator=None if by_temperature else facts,
        answers=answers,
    )


def ece_floor(reduced: Reduced, seed: int = 0) -> tuple[float, float]:
    """The noise floor of the ECE and the 95 % quantile of a calibrated network's ECE."""
    return simulation.noise_floor(jax.random.key(seed), reduced.confidence)


class _Task(NamedTuple):
    """The inputs of a measurement, which every state shares."""

    predictions: Predictions
    seed: int
    # i64[n]: the examples that figures of the whole matrix are measured on; None: all.
    sample: np.ndarray | None
    ood: Predictions | None
    human: np.ndarray | None  # f64[N, K]
    full: bool
    metrics: tuple[OwnMetric, ...]  # of the user's own


def _check(predictions, *others) -> None:
    classes = predictions.values.shape[1]
    for other in filter(None, others):
        if other.values.shape[1] != classes:
            raise ValueError(
                f"{other.name} has {other.values.shape[1]} classes and {predictions.name} "
                f"{classes}; all files must be predictions of the same network"
            )


def _sample(seed: int, predictions: Predictions) -> np.ndarray | None:
    """Positions i64[n] of the examples that figures of the whole matrix use; None: all."""
    count, classes = predictions.values.shape
    if count * classes <= WHOLE:
        return None
    rows = max(1, SAMPLE // classes)
    return np.sort(np.random.default_rng(seed).choice(count, rows, replace=False))


def _swept(task: _Task, fitted: Fit | None) -> np.ndarray | None:
    """Positions i64[m] of the examples of the curves over temperatures; None: no curves."""
    if not task.full or fitted is None or fitted.temperature is None:
        return None
    count = len(task.predictions.values)
    if count <= SWEPT:
        return np.arange(count)
    return np.sort(np.random.default_rng(task.seed).choice(count, SWEPT, replace=False))


def _notes(task: _Task, fitted: Fit | None) -> list[str]:
    """What a reader of the figures must know, a sentence each."""
    notes = [] if fitted is None else fitted.notes()
    count = len(task.predictions.values)
    if _swept(task, fitted) is not None and count > SWEPT:
        notes.append(f"The curves over temperatures use a random sample of {SWEPT:,} examples")
    if task.sample is not None:
        notes.append(
            "ACE, TACE, the marginal errors and the distances to human votes (except CE and KL) "
            f"use a random sample of {len(task.sample):,} of the {count:,} examples"
        )
    return notes


def _state(task: _Task, fitted: Fit | None) -> tuple[State, bootstrap.Answers]:
    """The figures and curves of raw predictions (fitted None) or of recalibrated ones.

    Also the columns that they are computed from, so that results can be compared by example.
    """
    transform = None if fitted is None else fitted.transform
    swept = _swept(task, fitted)
    done = _read_once(task, fitted, transform, swept)
    reduced = done.reduced
    means = means_of(reduced)

    # Figures of sums. Those of the columns are summed in float64 and replace the streamed ones.
    values = {name: float(value) for name, value in done.values.items() if name != "n"}
    values |= bootstrap.figures(reduced.confidence, reduced.correct, means)
    floor, chance = ece_floor(reduced, task.seed)

    # Figures that need all examples at once, intervals, and the curves of the plots.
    intervals = {}
    state_curves = {"reliability": curves.reliability(reduced)}
    if task.full:
        unknown = None if task.ood is None else reduce(task.ood, transform)
        values |= _of_stored(_stored(task, done, unknown), task.metrics)
        # Resamples of a single example are all the same.
        if len(reduced.correct) > 1:
            intervals = bootstrap.bootstrap(
                task.seed, reduced.confidence, reduced.correct, means, chance=chance
            )
        state_curves["classes"] = curves.classes(reduced, task.predictions.values.shape[1])
        state_curves["risk_coverage"] = curves.risk_coverage(reduced)
    if swept is not None:
        state_curves["temperature"] = curves.temperatures(fitted.temperature, done.swept)

    figures = {name: _figure(name, values[name], intervals.get(name)) for name in _in_order(values)}
    figures["ece"] = figures["ece"]._replace(floor=floor)
    return State(figures, state_curves), bootstrap.Answers(
        reduced.confidence, reduced.correct, means
    )


def _read_once(task: _Task, fitted: Fit | None, transform, swept: np.ndarray | None) -> Pass:
    """The only pass over the scores in this state."""
    # The caller of a quick measurement has the raw sums already, from its own evaluation.
    metrics = {}
    if task.full or fitted:
        metrics = streamed_metrics(task.predictions.values.shape[1], task.metrics)
    sweep = None
    if swept is not None:
        sweep = (swept, [divided(t) for t in curves.around(fitted.temperature)])
    return one_pass(
        task.predictions,
        transform,
        metrics=metrics,
        given={} if task.human is None else {"table": task.human},
        probs=task.full,
        index=task.sample,
        swept=sweep,
    )


def means_of(reduced: Reduced) -> dict[str, np.ndarray]:
    """The columns whose means are figures, by the figures' names."""
    return {
        "nll": reduced.nll,
        "brier": reduced.brier,
        "confidence": reduced.confidence,
        "entropy": reduced.entropy,
        "accuracy": reduced.correct,
    }


def own_metrics(names) -> tuple[OwnMetric, ...]:
    """The metrics of the user's own with these dotted names, with their default options.

    Raises ValueError if there is no such module.
    """
    metrics = []
    for name in names:
        if "." not in name:
            raise ValueError(f"a metric of your own must be PACKAGE.MODULE, got {name!r}")
        metrics.append(OwnMetric(name, tuple(default_options("metrics", name).items())))
    return tuple(metrics)


@lru_cache
def streamed_metrics(classes: int, own: tuple[OwnMetric, ...] = ()) -> dict[str, Metric]:
    """The streaming metrics of ldl_jax/metrics and of the user's own, cached so that their sums are
    compiled once.

    A file of ldl_jax/metrics that cannot be imported is left out with a warning. Raises ValueError
    if a metric of the user's own is broken.
    """
    metrics = {}
    for name, module in modules().items():
        if hasattr(module, "make"):
            metrics[name] = module.make(classes)
    for name, options in own:
        module = plug("metrics", name)
        if hasattr(module, "make"):
            metric = make_plug("metrics", name, Metric, classes, **dict(options))
            metrics[name] = metric._replace(value=partial(_own_value, name, metric))
        elif not hasattr(module, "of"):
            raise ValueError(
                f"config.eval.metrics has {name!r}, which must have a function make() or of()"
            )
    return metrics


def _own_value(name: str, metric: Metric, sums) -> dict[str, float]:
    return checked_figures(name, called(f"{name}: value()", metric.value, sums))


def _stored(task: _Task, done: Pass, unknown: Reduced | None) -> Stored:
    """The input of metrics of stored predictions."""
    rows = slice(None) if task.sample is None else task.sample
    return Stored(
        confidence=done.reduced.confidence,
        correct=done.reduced.correct,
        classes=task.predictions.values.shape[1],
        probs=done.probs,
        label=task.predictions.label[rows],
        table=None if task.human is None else task.human[rows],
        unknown=None if unknown is None else unknown.confidence,
    )


def _of_stored(stored: Stored, own: tuple[OwnMetric, ...]) -> dict[str, float]:
    """The figures of all metrics of ldl_jax/metrics that work on stored predictions."""
    values = {}
    for module in modules().values():
        if hasattr(module, "of"):
            values |= module.of(stored)
    for name, _ in own:
        function = getattr(plug("metrics", name), "of", None)
        figures = {} if function is None else called(f"{name}: of()", function, stored)
        values |= checked_figures(name, figures)
    return values


def _in_order(values: dict[str, float]) -> list[str]:
    """Names of figures in the order in which they are shown; those without a SHOWN come last."""
    known = [name for name in shown() if name in values]
    return [*known, *(name for name in values if name not in shown())]


def _figure(name: str, value, interval=None) -> Figure:
    """A figure with its group; a value that is not finite becomes None, as JSON has no NaN."""
    group = shown()[name].group if name in shown() else "other"
    return Figure(float(value) if math.isfinite(value) else None, interval, None, group)
