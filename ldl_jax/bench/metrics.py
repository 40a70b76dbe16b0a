"""ECE, NLL and Brier score of stored predictions, compared with scikit-learn, netcal and
torchmetrics.

All programs take turns in one process, from logits f32[N, K] in memory to three numbers. Libraries
are called as their documentation shows, on the same softmax. What a library lacks (scikit-learn
ECE and this Brier score, netcal and torchmetrics NLL and Brier score) is computed beside it in a
few lines of numpy or PyTorch, which take less time than the rest.
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
# Largest absolute difference of a metric between two programs with the same convention.
AGREE = 1e-5


def drawn(examples: int, classes: int) -> predictions.Predictions:
    """Logits f32[N, K] of a network that is right more often than not, and labels."""
    draw = np.random.default_rng(0)
    logits = draw.standard_normal((examples, classes), np.float32)
    label = draw.integers(0, classes, examples).astype(np.int32)
    logits[np.arange(examples), label] += np.float32(0.9 * np.log(classes))
    return predictions.Predictions("drawn", 2 * logits, label, "logits")


def ours(given: predictions.Predictions) -> dict[str, float]:
    """ECE, NLL and Brier score as `ldl_jax.evaluate` computes them in one pass."""
    per_example = passes.reduce(given)
    ece = bootstrap.figures(per_example.confidence, per_example.correct)["ece"]
    nll = float(per_example.nll.mean())
    return {"ece": ece, "nll": nll, "brier": float(per_example.brier.mean())}


def ours_streamed(given: predictions.Predictions) -> dict[str, float]:
    """The same, from the sums of the training loop."""
    metrics = {}
    for name in ("calibration", "nll", "brier"):
        metrics[name] = plug("metrics", name).make(given.values.shape[1])
    values = passes.streamed(given, metrics)
    return {name: float(values[name]) for name in ("ece", "nll", "brier")}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities f32[N, K], in numpy."""
    exp = np.exp(logits - logits.max(1, keepdims=True))
    exp /= exp.sum(1, keepdims=True)
    return exp


def _own(probs: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The probability f32[N] of each example's own label."""
    return probs[np.arange(len(probs)), label]


def _ece(probs: np.ndarray, label: np.ndarray) -> float:
    confidence = probs.max(1)
    correct = probs.argmax(1) == label
    gaps = np.bincount(bootstrap.bin_number(confidence), confidence - correct)
    return float(np.abs(gaps).sum() / len(probs))


def _brier(probs: np.ndarray, own: np.ndarray) -> float:
    # einsum sums the squares without a second array of N x K.
    squares = np.einsum("nk,nk->n", probs, probs)
    return float((squares - 2 * own + 1).mean(dtype=np.float64))


def by_numpy(given: predictions.Predictions) -> dict[str, float]:
    """The few lines that anyone would write, without a library."""
    probs = softmax(given.values)
    own = _own(probs, given.label)
    return {
        "ece": _ece(probs, given.label),
        "nll": float(-np.log(own).mean(dtype=np.float64)),
        "brier": _brier(probs, own),
    }


def by_sklearn(given: predictions.Predictions) -> dict[str, float]:
    """scikit-learn's log_loss; ECE by numpy, as its calibration_curve has no counts per bin."""
    from sklearn.metrics import log_loss

    probs = softmax(given.values)
    own = _own(probs, given.label)
    classes = np.arange(given.values.shape[1])
    return {
        "ece": _ece(probs, given.label),
        "nll": float(log_loss(given.label, probs, labels=classes)),
        "brier": _brier(probs, own),
    }


def by_netcal(given: predictions.Predictions) -> dict[str, float]:
    """netcal: ECE(15); NLL and Brier score by numpy."""
    from netcal.metrics import ECE

    probs = softmax(given.values)
    own = _own(probs, given.label)
    return {
        "ece": float(ECE(BINS).measure(probs, given.label)),
        "nll": float(-np.log(own).mean(dtype=np.float64)),
        "brier": _brier(probs, own),
    }


def programs(given: predictions.Predictions) -> tuple[dict[str, Callable], list[str]]:
    """The programs whose libraries are installed, and a sentence on each of the others."""
    by_name = {
        OURS: lambda: ours(given),
        f"{OURS} streamed": lambda: ours_streamed(given),
        "numpy": lambda: by_numpy(given),
    }
    missing = []
    peers = {"scikit-learn": _sklearn, "netcal": _netcal, "torchmetrics": _torchmetrics}
    # The libraries are large and optional, so measure those that are installed.
    for name, make in peers.items():
        try:
            by_name[name] = make(given)
        except ImportError as error:
            missing.append(f"{name} is not installed ({error}); pip install 'ldl-jax[peers]'")
    return by_name, missing


def _sklearn(given) -> Callable:
    return lambda: by_sklearn(given)


def _netcal(given) -> Callable:
    importlib.import_module("netcal.metrics")
    return lambda: by_netcal(given)


def _torchmetrics(given) -> Callable:
    from ldl_jax.bench import torch_metrics

    return torch_metrics.program(given.values, given.label, BINS)


def _all_streaming(classes: int) -> dict:
    return {name: plug("metrics", name).make(classes) for name in config.plugs("metrics")}


def state_bytes(classes: int) -> int:
    """Bytes of the sums of all streaming metrics, whatever the number of examples."""
    metrics = _all_streaming(classes)
    logits = jax.ShapeDtypeStruct((8, classes), np.float32)
    seen = Seen(jax.ShapeDtypeStruct((8,), np.int32), jax.ShapeDtypeStruct((8,), np.float32))

    def sums(logits, seen):
        return {name: metric.sums(logits, seen) for name, metric in metrics.items()}

    leaves = jax.tree.leaves(jax.eval_shape(sums, logits, seen))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def linear(given: predictions.Predictions) -> str:
    """Seconds for a quarter, a half and all of the examples, by all streaming metrics."""
    metrics = _all_streaming(given.values.shape[1])
    lines = ["all streaming metrics:"]
    for share in (4, 2, 1):
        size = len(given.label) // share
        part = given._replace(values=given.values[:size], label=given.label[:size])
        # The best of four: the first one compiles, and others may be disturbed.
        best = min(_seconds(lambda part=part: passes.streamed(part, metrics)) for _ in range(4))
        each = 1e6 * best / size
        lines.append(f"{size:>10,} examples  {best:7.3f} s  {each:6.2f} us each")
    return "\n".join(lines)


def _seconds(program) -> float:
    begin = time.perf_counter()
    program()
    return time.perf_counter() - begin


def _agreement(values: dict[str, dict[str, float]]) -> str:
    """A sentence on how well all programs agree with ours. Raises ValueError if one does not."""
    differences = {}
    for name, own in values.items():
        for metric, value in own.items():
            differences[f"{name} {metric}"] = value - values[OURS][metric]
    worst = max(differences, key=lambda name: abs(differences[name]))
    largest = differences[worst]
    if abs(largest) > AGREE:
        raise ValueError(
            f"{worst} differs from ours by {largest:+.2e}, but must agree to {AGREE:g}"
        )
    return f"metrics agree within {abs(largest):.1e} ({worst})"


def measure(*, examples: int, classes: int, rounds: int, seconds: float) -> str:
    """The table of rates and ratios, whether the metrics agree, and how state and time grow."""
    given = drawn(examples, classes)
    by_name, missing = programs(given)
    # A fast program with other numbers would be no comparison, so check them before timing.
    agreement = _agreement({name: program() for name, program in by_name.items()})
    finished = dict.fromkeys(by_name, lambda _: None)
    times = alternate(by_name, rounds=rounds, seconds=seconds, wait=finished)
    milliseconds = []
    for name, values in times.items():
        milliseconds.append(f"{name} {1000 * np.median(values):.0f} ms")
    lines = [
        f"ECE, NLL and Brier score of {examples:,} x {classes:,} logits; {machine(rounds)}",
        summary(times, OURS, "examples/s", examples),
        ", ".join(milliseconds),
        agreement,
        *missing,
        "",
        linear(given),
        f"sums of all streaming metrics: {state_bytes(classes):,} bytes",
    ]
    return "\n".join(lines)
