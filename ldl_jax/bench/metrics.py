"""ECE, NLL and Brier score of stored predictions, beside scikit-learn, netcal and torchmetrics on
the same numbers.

All take turns in one process, from logits f32[N, K] in memory to three numbers. Libraries are
called as their documentation shows, on the same softmax; the figures that one lacks (scikit-learn
ECE and this Brier score, netcal NLL and Brier score, torchmetrics the same) are a few lines of
numpy or PyTorch beside it, which take less than the rest.
"""

import importlib
import time
from collections.abc import Callable

import jax
import numpy as np

from ldl_jax import config
from ldl_jax.bench.base import alternate, machine, summary
from ldl_jax.config.options import plug
from ldl_jax.evaluation import bootstrap, passes, predictions
from ldl_jax.metrics.base import Seen

BINS = 15
OURS = "ldl_jax"
# absolute: how far the figures of two programs may be apart, where conventions do not part them
AGREE = 1e-5


def drawn(examples: int, classes: int) -> predictions.Predictions:
    """Logits f32[N, K] of a network that is right more often than not, and labels."""
    draw = np.random.default_rng(0)
    logits = draw.standard_normal((examples, classes), np.float32)
    label = draw.integers(0, classes, examples).astype(np.int32)
    logits[np.arange(examples), label] += np.float32(0.9 * np.log(classes))
    return predictions.Predictions("drawn", 2 * logits, label, "logits")


def ours(given: predictions.Predictions) -> dict[str, float]:
    """ECE, NLL and Brier score as `ldl_jax.evaluate` reads them off one pass."""
    found = passes.reduce(given)
    ece = bootstrap.figures(found.confidence, found.correct)["ece"]
    return {"ece": ece, "nll": float(found.nll.mean()), "brier": float(found.brier.mean())}


def ours_streamed(given: predictions.Predictions) -> dict[str, float]:
    """The same by the sums of the training loop."""
    metrics = {
        name: plug("metrics", name).make(given.values.shape[1])
        for name in ("calibration", "nll", "brier")
    }
    found = passes.streamed(given, metrics)
    return {name: float(found[name]) for name in ("ece", "nll", "brier")}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities f32[N, K], in numpy."""
    exp = np.exp(logits - logits.max(1, keepdims=True))
    exp /= exp.sum(1, keepdims=True)
    return exp


def by_numpy(given: predictions.Predictions) -> dict[str, float]:
    """The few lines that anyone would write, without a library."""
    probs = softmax(given.values)
    confidence, correct = probs.max(1), probs.argmax(1) == given.label
    own = probs[np.arange(len(probs)), given.label]
    return {
        "ece": float(
            np.abs(np.bincount(bootstrap.bin_number(confidence), confidence - correct)).sum()
            / len(probs)
        ),
        "nll": float(-np.log(own).mean(dtype=np.float64)),
        "brier": float((np.einsum("nk,nk->n", probs, probs) - 2 * own + 1).mean(dtype=np.float64)),
    }


def by_sklearn(given: predictions.Predictions) -> dict[str, float]:
    """scikit-learn's log_loss; the others by numpy, as its calibration_curve gives no counts of the
    bins.
    """
    from sklearn.metrics import log_loss

    probs, classes = softmax(given.values), np.arange(given.values.shape[1])
    confidence, correct = probs.max(1), probs.argmax(1) == given.label
    own = probs[np.arange(len(probs)), given.label]
    return {
        "ece": float(
            np.abs(np.bincount(bootstrap.bin_number(confidence), confidence - correct)).sum()
            / len(probs)
        ),
        "nll": float(log_loss(given.label, probs, labels=classes)),
        "brier": float((np.einsum("nk,nk->n", probs, probs) - 2 * own + 1).mean(dtype=np.float64)),
    }


def by_netcal(given: predictions.Predictions) -> dict[str, float]:
    """netcal: ECE(15); NLL and Brier score by numpy."""
    from netcal.metrics import ECE

    probs = softmax(given.values)
    own = probs[np.arange(len(probs)), given.label]
    return {
        "ece": float(ECE(BINS).measure(probs, given.label)),
        "nll": float(-np.log(own).mean(dtype=np.float64)),
        "brier": float((np.einsum("nk,nk->n", probs, probs) - 2 * own + 1).mean(dtype=np.float64)),
    }


def programs(given: predictions.Predictions) -> tuple[dict[str, Callable], list[str]]:
    """The programs that are there, and sentences on those that are not."""
    found, lacking = (
        {OURS: lambda: ours(given), f"{OURS} streamed": lambda: ours_streamed(given)},
        [],
    )
    found["numpy"] = lambda: by_numpy(given)
    for name, make in {
        "scikit-learn": _sklearn,
        "netcal": _netcal,
        "torchmetrics": _torchmetrics,
    }.items():
        try:
            found[name] = make(given)
        except ImportError as error:
            lacking.append(f"{name} is not there ({error}); pip install 'ldl-jax[peers]'")
    return found, lacking


def _sklearn(given) -> Callable:
    return lambda: by_sklearn(given)


def _netcal(given) -> Callable:
    importlib.import_module("netcal.metrics")
    return lambda: by_netcal(given)


def _torchmetrics(given) -> Callable:
    from ldl_jax.bench import torch_metrics

    return torch_metrics.program(given.values, given.label, BINS)


def state_bytes(classes: int) -> int:
    """Bytes of the sums of all streaming metrics, whatever the number of examples."""
    metrics = {name: plug("metrics", name).make(classes) for name in config.plugs("metrics")}
    logits = jax.ShapeDtypeStruct((8, classes), np.float32)
    seen = Seen(jax.ShapeDtypeStruct((8,), np.int32), jax.ShapeDtypeStruct((8,), np.float32))
    sums = jax.eval_shape(
        lambda z, s: {name: metric.sums(z, s) for name, metric in metrics.items()}, logits, seen
    )
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(sums))


def linear(given: predictions.Predictions) -> str:
    """Seconds for a quarter, a half and all of the examples, by all streaming metrics."""
    classes = given.values.shape[1]
    metrics = {name: plug("metrics", name).make(classes) for name in config.plugs("metrics")}
    lines = []
    for share in (4, 2, 1):
        size = len(given.label) // share
        part = given._replace(values=given.values[:size], label=given.label[:size])
        best = min(_seconds(lambda part=part: passes.streamed(part, metrics)) for _ in range(4))
        lines.append(
            f"{len(part.label):>10,} examples  {best:7.3f} s  {1e6 * best / len(part.label):6.2f} us each"
        )
    return "\n".join(["all streaming metrics:", *lines])


def _seconds(program) -> float:
    begin = time.perf_counter()
    program()
    return time.perf_counter() - begin


def measure(*, examples: int, classes: int, rounds: int, seconds: float) -> str:
    """The table of rates and ratios, whether the figures agree, and how state and time grow."""
    given = drawn(examples, classes)
    there, lacking = programs(given)
    figures = {name: program() for name, program in there.items()}
    wait = dict.fromkeys(there, lambda _: None)
    times = alternate(there, rounds=rounds, seconds=seconds, wait=wait)
    apart = {
        f"{name} {figure}": value - figures[OURS][figure]
        for name, own in figures.items()
        for figure, value in own.items()
    }
    worst = max(apart, key=lambda name: abs(apart[name]))
    agree = f"figures agree within {abs(apart[worst]):.1e} ({worst})"
    if abs(apart[worst]) > AGREE:
        raise ValueError(f"{worst} is {apart[worst]:+.2e} from ours; allowed is {AGREE:g}")
    milliseconds = ", ".join(
        f"{name} {1000 * np.median(values):.0f} ms" for name, values in times.items()
    )
    return "\n".join([
        f"ECE, NLL and Brier score of {examples:,} x {classes:,} logits; {machine(rounds)}",
        summary(times, OURS, "examples/s", examples), milliseconds, agree, *lacking, "",
        linear(given), f"sums of all streaming metrics: {state_bytes(classes):,} bytes",
    ])  # fmt: skip
