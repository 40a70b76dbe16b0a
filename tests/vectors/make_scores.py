"""The ECE of the programs that conventions are named after, run on a few probabilities: writes
conventions.npz here.

python tests/vectors/make_scores.py (torch, torchmetrics, netcal, scikit-learn and tensorflow;
seconds on one core). The tests read the file alone. torchmetrics15 and netcal10 are what these
libraries return. ub15 is the sum of |correct - confidence| over the bins that tensorflow's
histogram_fixed_width_bins gives, as robustness_metrics, which is in no package index, takes it.
scikit-learn's calibration_curve gives mean confidence and accuracy of 15 bins. The code that pskd10
and focal10 stand for is in no package: the tests have it as loops over examples.
"""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import tensorflow as tf
import torch
from netcal.metrics import ECE
from sklearn.calibration import calibration_curve
from torchmetrics.functional.classification import multiclass_calibration_error

K = 20
PEERS = ("numpy", "torch", "torchmetrics", "netcal", "scikit-learn", "tensorflow-cpu")


def spread(key) -> np.ndarray:
    """Probabilities f32[200, K] of every confidence, most of them high."""
    logits = key.standard_normal((200, K)) * key.uniform(0.2, 6, (200, 1))
    probs = np.exp(logits - logits.max(1, keepdims=True))
    return (probs / probs.sum(1, keepdims=True)).astype(np.float32)


def at_edges() -> np.ndarray:
    """Probabilities f32[., K] whose largest is an edge of 10 or 15 bins, or the number before or
    after one, or 1.
    """
    edges = np.concatenate([np.linspace(0, 1, bins + 1) for bins in (10, 15)]).astype(np.float32)
    edges = np.concatenate([edges, torch.linspace(0, 1, 16).numpy(), np.float32([1, 1, 1])])
    near = np.concatenate(
        [edges, np.nextafter(edges, np.float32(0)), np.nextafter(edges, np.float32(1))]
    )
    top = near[near > 1 / K + 0.01]
    rows = np.repeat((1 - top[:, None].astype(np.float64)) / (K - 1), K, axis=1).astype(np.float32)
    rows[np.arange(len(top)), np.arange(len(top)) % K] = top
    return rows


def measured(probs, label) -> dict[str, float]:
    """What each peer says of probabilities f32[N, K] and labels."""
    confidence, correct = probs.max(1), probs.argmax(1) == label
    bins = tf.histogram_fixed_width_bins(confidence, tf.constant([0.0, 1.0]), nbins=15).numpy()
    gap = np.bincount(bins, correct - confidence.astype(np.float64))
    theirs = multiclass_calibration_error(
        torch.tensor(probs), torch.tensor(label), num_classes=K, n_bins=15
    )
    return {
        "torchmetrics15": float(theirs),
        "netcal10": ECE(10).measure(probs, label),
        "ub15": abs(gap).sum() / len(probs),
    }


def main() -> None:
    """Write the file."""
    key = np.random.default_rng(0)
    made = {"versions": np.array([f"{name} {version(name)}" for name in PEERS])}
    for name, probs in (("spread", spread(key)), ("edges", at_edges())):
        assert (probs.sum(1) - 1 < 1e-5).all()
        hit = key.random(len(probs)) < 0.6
        label = np.where(hit, probs.argmax(1), key.integers(0, K, len(probs))).astype(np.int64)
        made |= {f"{name}/probs": probs, f"{name}/label": label.astype(np.int32)}
        made |= {f"{name}/{peer}": value for peer, value in measured(probs, label).items()}
    # on an edge it compares with edges in float64
    probs, label = made["spread/probs"], made["spread/label"]
    curve = calibration_curve(probs.argmax(1) == label, probs.max(1), n_bins=15)
    # accuracy and mean confidence of the bins that hold an example
    made["spread/curve"] = np.stack(curve)
    np.savez_compressed(Path(__file__).parent / "conventions.npz", **made)


if __name__ == "__main__":
    main()
