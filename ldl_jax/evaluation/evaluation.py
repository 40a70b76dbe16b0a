"""All figures of stored predictions: what a careful reader would want to know of one network on one
test set.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np

from ldl_jax import config
from ldl_jax.config.options import plug
from ldl_jax.evaluation import bootstrap, curves, simulation
from ldl_jax.evaluation.fitting import DEFAULT, Fit, divided, fit
from ldl_jax.evaluation.passes import Pass, Reduced, one_pass, reduce
from ldl_jax.evaluation.predictions import Predictions
from ldl_jax.metrics.base import Metric, Stored, shown
from ldl_jax.report.result import Evaluation, Figure, State

WHOLE = 2**26  # numbers of a matrix that is in memory as a whole (256 MB), as 50,000 x 1,000 are
SAMPLE = 2**24  # numbers of the rows of a larger one that figures of every class are measured on
SWEPT = 10_000  # examples that the curves over temperatures are measured on, at most


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
) -> Evaluation:
    """All figures of predictions, raw and, with `val`, after the calibrator that was fitted on it.

    fitted: a calibrator that was fitted already, in the place of `val`. ood: predictions on
    examples of no class. human: true distributions f64[N, K]. seed: of what is simulated and drawn.
    full: False leaves out all but the figures of sums, the noise floor and the reliability diagram,
    and is quick; raw, it sums no streaming metrics. Figures that need the whole matrix are measured
    on a sample where it has more than WHOLE numbers, which the notes tell. Raises ValueError where
    the files do not fit each other.
    """
    _check(predictions, val, ood)
    if val is not None:
        fitted = fit(val, calibrator)
    task = _Task(predictions, seed, _sample(seed, predictions), ood, human, full)
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
        raw=_state(task, None),
        scaled=None if fitted is None else _state(task, fitted),
        calibrator=None if by_temperature else facts,
    )


def ece_floor(reduced: Reduced, seed: int = 0) -> tuple[float, float]:
    """The noise floor of the ECE, and the 95 % quantile of what chance makes of it."""
    return simulation.noise_floor(jax.random.key(seed), reduced.confidence)


class _Task(NamedTuple):
    """What is measured in every state."""

    predictions: Predictions
    seed: int
    # i64[n]: examples that figures of the whole matrix are measured on; None: all
    sample: np.ndarray | None
    ood: Predictions | None
    human: np.ndarray | None  # f64[N, K]
    full: bool


def _check(predictions, *others) -> None:
    classes = predictions.values.shape[1]
    for other in filter(None, others):
        if other.values.shape[1] != classes:
            raise ValueError(
                f"{other.name} has {other.values.shape[1]} classes and {predictions.name} {classes}; allowed are files "
                "of one network, with as many classes"
            )


def _sample(seed: int, predictions: Predictions) -> np.ndarray | None:
    """Positions i64[n] of the examples that figures of the whole matrix are measured on; None: all."""
    count, classes = predictions.values.shape
    if count * classes <= WHOLE:
        return None
    return np.sort(
        np.random.default_rng(seed).choice(count, max(1, SAMPLE // classes), replace=False)
    )


def _swept(task: _Task, fitted: Fit | None) -> np.ndarray | None:
    """Positions i64[m] of the examples that the curves over temperatures are measured on; None:
    there are no curves.
    """
    if not task.full or fitted is None or fitted.temperature is None:
        return None
    count = len(task.predictions.values)
    if count <= SWEPT:
        return np.arange(count)
    return np.sort(np.random.default_rng(task.seed).choice(count, SWEPT, replace=False))


def _notes(task: _Task, fitted: Fit | None) -> list[str]:
    notes = [] if fitted is None else fitted.notes()
    count = len(task.predictions.values)
    if _swept(task, fitted) is not None and count > SWEPT:
        notes.append(f"the curves over temperatures are of {SWEPT:,} examples, drawn at random")
    if task.sample is not None:
        notes.append(
            "ACE, TACE, the marginal error and distances from votes but CE and KL are of "
            f"{len(task.sample):,} examples drawn from the {count:,}"
        )
    return notes


def _state(task: _Task, fitted: Fit | None) -> State:
    """The figures and curves of the predictions as they are, or after a calibrator."""
    transform = None if fitted is None else fitted.transform
    swept = _swept(task, fitted)
    # The one pass over the scores of this state. A quick look at a network leaves its raw sums to
    # who evaluated it.
    metrics = streamed_metrics(task.predictions.values.shape[1]) if task.full or fitted else {}
    done = one_pass(
        task.predictions,
        transform,
        metrics=metrics,
        given={} if task.human is None else {"table": task.human},
        probs=task.full,
        index=task.sample,
        swept=None
        if swept is None
        else (swept, [divided(t) for t in curves.around(fitted.temperature)]),
    )
    reduced, means = done.reduced, means_of(done.reduced)
    # Figures of sums: those that streamed metrics alone have, then those of the columns, in
    # float64.
    values = {name: float(value) for name, value in done.values.items() if name != "n"}
    values |= bootstrap.figures(reduced.confidence, reduced.correct, means)
    floor, chance = ece_floor(reduced, task.seed)
    intervals = {}
    state_curves = {"reliability": curves.reliability(reduced)}
    if task.full:
        # Figures that need all examples at once, and intervals; one example does not vary.
        unknown = None if task.ood is None else reduce(task.ood, transform)
        values |= _of_stored(_stored(task, done, unknown))
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
    return State(figures, state_curves)


def means_of(reduced: Reduced) -> dict[str, np.ndarray]:
    """The columns whose means are figures, by their names."""
    return {
        "nll": reduced.nll,
        "brier": reduced.brier,
        "confidence": reduced.confidence,
        "entropy": reduced.entropy,
        "accuracy": reduced.correct,
    }


@lru_cache
def streamed_metrics(classes: int) -> dict[str, Metric]:
    """The streaming metrics of ldl_jax/metrics, made once, so that their sums are compiled once."""
    return {name: plug("metrics", name).make(classes) for name in config.plugs("metrics")}


def _stored(task: _Task, done: Pass, unknown: Reduced | None) -> Stored:
    """What metrics of stored predictions are measured on."""
    every = slice(None) if task.sample is None else task.sample
    return Stored(
        confidence=done.reduced.confidence,
        correct=done.reduced.correct,
        classes=task.predictions.values.shape[1],
        probs=done.probs,
        label=task.predictions.label[every],
        table=None if task.human is None else task.human[every],
        unknown=None if unknown is None else unknown.confidence,
    )


def _of_stored(stored: Stored) -> dict[str, float]:
    """What every metric of ldl_jax/metrics has to say of stored predictions."""
    values = {}
    for name in config.plugs("metrics", "of"):
        values |= plug("metrics", name).of(stored)
    return values


def _in_order(values: dict[str, float]) -> list[str]:
    """Names of figures as they are shown; those that nothing is said of come last."""
    known = [name for name in shown() if name in values]
    return [*known, *(name for name in values if name not in shown())]


def _figure(name: str, value, interval=None) -> Figure:
    """A figure; what is not finite is None, since JSON has no such number."""
    group = shown()[name].group if name in shown() else "other"
    return Figure(float(value) if math.isfinite(value) else None, interval, None, group)
