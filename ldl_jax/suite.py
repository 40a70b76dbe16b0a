"""All figures of stored predictions: what a careful reader would want to know of one network on one test set."""

import math
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import auc, roc_curve

from ldl_jax import config, curves
from ldl_jax.dataset import plug
from ldl_jax.metrics import calibration
from ldl_jax.metrics.base import Metric
from ldl_jax.predictions import Logits, Predictions, Transform, reduce, streamed


def measure(
    predictions: Predictions, *, val: Predictions | None = None, ood: Predictions | None = None,
    human: np.ndarray | None = None, seed: int = 0,
) -> dict:  # fmt: skip
    """All figures of predictions, raw and, with `val`, after the temperature that was fitted on it.

    ood: predictions on examples of no class; human: true distributions f64[N, K]; seed: of what is simulated and drawn.
    Gives a dict that JSON can hold: 'raw' and 'scaled' (or None) have 'figures', {name: {'value', 'interval' (95 %,
    or None), 'floor' (or None), 'group'}}, and 'curves' (see `curves`). Raises ValueError where the files do not fit
    each other.
    """
    _check(predictions, val, ood)
    fitted = _temperature(val) if val else None
    beside = (ood, human)
    notes = (
        [f"{fitted['name']} has its best temperature at a bound of the search"] if val and fitted["at_bound"] else []
    )
    return {
        "name": predictions.name, "examples": len(predictions.values), "classes": predictions.values.shape[1],
        "kind": predictions.kind, "understood": "; ".join(predictions.notes) or predictions.kind, "seed": seed,
        "notes": notes, "temperature": fitted, "raw": _state(seed, predictions, None, *beside),
        "scaled": _scaled(seed, predictions, fitted["temperature"], *beside) if fitted else None,
    }  # fmt: skip


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


def _scaled(seed: int, predictions: Predictions, temperature: float, *beside) -> dict:
    made = _state(seed, predictions, curves.divided(temperature), *beside)
    made["curves"]["temperature"] = curves.temperatures(seed, predictions, temperature)
    return made


def _state(seed: int, predictions: Predictions, transform: Transform | None, ood, human) -> dict:
    reduced = reduce(predictions, transform)
    figures = _streamed(predictions, transform, human)
    for name, column in {"accuracy": reduced.correct, **reduced._asdict()}.items():
        if name in figures:
            figures[name]["interval"] = _interval(column)
    if ood is not None:
        figures |= _unknown(reduced, ood, transform)
    floor = jax.jit(calibration.noise_floor)(jax.random.key(seed), jnp.asarray(reduced.confidence, jnp.float32))
    figures["ece"]["floor"] = float(floor)
    return {
        "figures": figures,
        "curves": {
            "reliability": curves.reliability(reduced),
            "classes": curves.classes(reduced, predictions.values.shape[1]),
            "risk_coverage": curves.risk_coverage(reduced),
        },
    }


def _figure(group: str, value, interval=None, floor=None) -> dict:
    """A figure as JSON holds it; what is not finite is None, since JSON has no such number."""
    value = float(value)
    return {
        "value": value if math.isfinite(value) else None,
        "interval": None if interval is None else [float(end) for end in interval],
        "floor": None if floor is None else float(floor),
        "group": group,
    }


def _interval(column) -> list[float]:
    """The 95 % interval of a mean over examples, by the normal distribution."""
    half = 1.96 * float(np.std(column)) / math.sqrt(len(column))
    return [float(np.mean(column)) - half, float(np.mean(column)) + half]


def _unknown(reduced, ood, transform) -> dict[str, dict]:
    """How well the confidence tells the examples from those of no class, which are to have the lower one."""
    known, unknown = reduced.confidence, reduce(ood, transform).confidence
    of_known = np.repeat([1, 0], [len(known), len(unknown)])
    false, true, _ = roc_curve(of_known, np.concatenate([known, unknown]), drop_intermediate=False)
    return {
        "ood_auroc": _figure("other examples", auc(false, true)),
        "ood_fpr95": _figure("other examples", false[np.argmax(true >= 0.95)]),
    }


def _streamed(predictions, transform, human) -> dict[str, dict]:
    given = {} if human is None else {"table": human}
    found = streamed(predictions, _metrics(predictions.values.shape[1]), transform, given=given)
    return {name: _figure("streamed", value) for name, value in found.items() if name != "n"}


@lru_cache
def _metrics(classes: int) -> dict[str, Metric]:
    return {name: plug("metrics", name).make(classes) for name in config.plugs("metrics")}
