"""All figures of stored predictions: what a careful reader would want to know of one network on one test set."""

import math
from functools import lru_cache

import jax
import numpy as np

from ldl_jax import config
from ldl_jax.config.options import plug
from ldl_jax.evaluation import binning as scores
from ldl_jax.evaluation import bootstrap as uncertainty
from ldl_jax.evaluation import curves
from ldl_jax.evaluation.predictions import Logits, Predictions, Reduced, Transform, probabilities, reduce, streamed
from ldl_jax.metrics import distribution, ks, marginal, mass, selective, smooth
from ldl_jax.metrics import ece_conventions as conventions
from ldl_jax.metrics.base import Metric
from ldl_jax.report.result import Evaluation, Figure, State

WHOLE = 2**26  # numbers of a matrix that is in memory as a whole (256 MB), as 50,000 x 1,000 are
SAMPLE = 2**24  # numbers of the rows of a larger one that figures of every class are measured on
THRESHOLD = 1e-3  # of TACE: smaller probabilities are left out
GROUPS = {  # heading -> figures, in the order in which they are shown; any other stands under 'other'
    "accuracy": ("accuracy", "top5"),
    "proper scores": ("nll", "brier", "brier_reliability", "brier_resolution", "brier_uncertainty", "brier_within"),
    "calibration": (
        "confidence", "entropy", "ece", "overconfidence", "underconfidence", "signed_ece", "mce", "rmsce", "mass_ece",
        "l2_squared", "l2", "smooth_ece", "ks",
    ),
    "calibration of every class": ("classwise_ece", "ace", "tace", "marginal_squared", "marginal"),
    "ECE as others compute it": tuple(f"ece_{name}" for name in conventions.CONVENTIONS if name != "guo15"),
    "knowing when it is wrong": ("aurc", "e_aurc", "error_auroc", "error_fpr95"),
    "other examples": ("ood_auroc", "ood_fpr95", "ood_aupr"),
    "human votes": (
        "table_cross_entropy", "table_kl", "table_js", "table_chebyshev", "table_clark", "table_canberra",
        "table_cosine", "table_intersection", "entropy_pearson", "entropy_spearman",
    ),
}  # fmt: skip
MEANS = {name: name for name in ("nll", "brier", "confidence", "entropy")} | {"accuracy": "correct"}  # -> a column
_GROUP = {name: group for group, names in GROUPS.items() for name in names}


def measure(
    predictions: Predictions, *, val: Predictions | None = None, ood: Predictions | None = None,
    human: np.ndarray | None = None, seed: int = 0,
) -> Evaluation:  # fmt: skip
    """All figures of predictions, raw and, with `val`, after the temperature that was fitted on it.

    ood: predictions on examples of no class; human: true distributions f64[N, K]; seed: of what is simulated and drawn.
    Figures that need the whole matrix are measured on a sample where it has more than WHOLE numbers, which the notes
    tell. Raises ValueError where the files do not fit each other.
    """
    _check(predictions, val, ood)
    fitted = _temperature(val) if val else None
    places = _sample(seed, predictions)
    beside = (places, ood, human)
    return Evaluation(
        name=predictions.name,
        examples=len(predictions.values),
        classes=predictions.values.shape[1],
        class_names=predictions.classes,
        kind=predictions.kind,
        understood="; ".join(predictions.notes) or predictions.kind,
        seed=seed,
        notes=tuple(_notes(predictions, fitted, places)),
        temperature=fitted,
        raw=_state(seed, predictions, None, *beside),
        scaled=_scaled(seed, predictions, fitted["temperature"], *beside) if fitted else None,
    )


def _check(predictions, *others) -> None:
    classes = predictions.values.shape[1]
    for other in filter(None, others):
        if other.values.shape[1] != classes:
            raise ValueError(
                f"{other.name} has {other.values.shape[1]} classes and {predictions.name} {classes}; allowed are files "
                "of one network, with as many classes"
            )


def _temperature(val: Predictions) -> dict:
    params = plug("calibrate", "temperature").make().fit(Logits(val), val.label)
    return {"name": val.name, "examples": len(val.values), **params}


def _sample(seed: int, predictions: Predictions) -> np.ndarray | None:
    """Places i64[n] of the examples that figures of the whole matrix are measured on; None: all."""
    count, classes = predictions.values.shape
    if count * classes <= WHOLE:
        return None
    return np.sort(np.random.default_rng(seed).choice(count, max(1, SAMPLE // classes), replace=False))


def _notes(predictions, fitted, places) -> list[str]:
    notes = []
    if fitted and fitted["at_bound"]:
        notes.append(f"{fitted['name']} has its best temperature at a bound of the search")
    if fitted and len(predictions.values) > curves.SAMPLE:
        notes.append(f"the curves over temperatures are of {curves.SAMPLE:,} examples, drawn at random")
    if places is not None:
        notes.append(
            f"ACE, TACE, the marginal error and distances from votes but CE and KL are of {len(places):,} examples "
            f"drawn from the {len(predictions.values):,}"
        )
    return notes


def _scaled(seed: int, predictions: Predictions, temperature: float, *beside) -> State:
    state = _state(seed, predictions, curves.divided(temperature), *beside)
    swept = curves.temperatures(seed, predictions, temperature)
    return state._replace(curves={**state.curves, "temperature": swept})


def _state(seed: int, predictions: Predictions, transform: Transform | None, places, ood, human) -> State:
    reduced = reduce(predictions, transform)
    means = {name: getattr(reduced, column) for name, column in MEANS.items()}
    floor, chance = uncertainty.noise_floor(jax.random.key(seed), reduced.confidence)
    drawn = len(reduced.correct) > 1  # one example does not vary
    intervals = uncertainty.bootstrap(seed, reduced.confidence, reduced.correct, means, chance=chance) if drawn else {}
    values = _streamed(predictions, transform) | uncertainty.figures(reduced.confidence, reduced.correct, means)
    values |= _of_confidence(reduced, predictions.values.shape[1]) | _of_matrix(predictions, transform, places)
    if ood is not None:
        values |= _unknown(reduced, reduce(ood, transform))
    if human is not None:
        values |= _human(predictions, transform, places, human)
    names = [*filter(values.__contains__, _GROUP), *(name for name in values if name not in _GROUP)]
    figures = {name: _figure(name, values[name], intervals.get(name)) for name in names}
    figures["ece"] = figures["ece"]._replace(floor=floor)
    drawn_from = {
        "reliability": curves.reliability(reduced),
        "classes": curves.classes(reduced, predictions.values.shape[1]),
        "risk_coverage": curves.risk_coverage(reduced),
    }
    return State(figures, drawn_from)


def _figure(name: str, value, interval=None) -> Figure:
    """A figure; what is not finite is None, since JSON has no such number."""
    value = float(value) if math.isfinite(value) else None
    return Figure(value, interval, None, _GROUP.get(name, "other"))


def _streamed(predictions, transform) -> dict[str, float]:
    found = streamed(predictions, _metrics(predictions.values.shape[1]), transform)
    return {name: float(value) for name, value in found.items() if name != "n"}


@lru_cache
def _metrics(classes: int) -> dict[str, Metric]:
    return {name: plug("metrics", name).make(classes) for name in config.plugs("metrics")}


def _of_confidence(reduced: Reduced, classes: int) -> dict[str, float]:
    """Figures of the confidence and of what was right; netcal measures something else where there are two classes."""
    confidence, correct = reduced.confidence, reduced.correct
    single = confidence.astype(np.float32)  # in which other programs compare
    left = ("guo15", "netcal10") if classes == 2 else ("guo15",)
    names = [name for name in conventions.CONVENTIONS if name not in left]
    others = {f"ece_{name}": conventions.ece(single, correct, name) for name in names}
    return {
        "mass_ece": mass.ece(confidence, correct), **mass.debiased(confidence, correct),
        "smooth_ece": smooth.ece(confidence, correct), "ks": ks.ks(confidence, correct),
        **selective.errors(confidence, correct), **others,
    }  # fmt: skip


def _of_matrix(predictions: Predictions, transform, places) -> dict[str, float]:
    """Figures of every class's probabilities, of the examples at `places`."""
    probs = probabilities(predictions, transform, places=places)
    label = predictions.label if places is None else predictions.label[places]
    whole = scores.every_class(probs, label)
    above = scores.every_class(probs, label, above=THRESHOLD)
    return {"ace": mass.ace(whole), "tace": mass.ace(above), **marginal.debiased(whole)}


def _unknown(known: Reduced, unknown: Reduced) -> dict[str, float]:
    """How well the confidence tells the examples from those of no class, which are to have the lower one."""
    return selective.unknown(known.confidence, unknown.confidence)


def _human(predictions: Predictions, transform, places, table) -> dict[str, float]:
    """Distances from the true distributions f64[N, K], of the examples at `places`; cross entropy and KL of all.

    These two are of log-probabilities, so that they differ by the entropy of the table however certain a network is.
    """
    metric = {"table": plug("metrics", "table").make(table.shape[1])}
    logarithmic = streamed(predictions, metric, transform, given={"table": table})
    some = table if places is None else table[places]
    found = distribution.measure(probabilities(predictions, transform, places=places), some)
    del found["kl"]  # of the probabilities, which float32 may have made 0
    own = {name: found.pop(name) for name in ("entropy_pearson", "entropy_spearman")}
    whole = {name: float(logarithmic[name]) for name in ("table_cross_entropy", "table_kl")}
    return {f"table_{name}": x for name, x in found.items()} | whole | own
