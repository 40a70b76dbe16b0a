"""Calibration errors that need sorted predictions, by the peers themselves: writes sorted.npz here.

python tests/vectors/make_sorted.py (relplot, uncertainty-calibration, scikit-learn; a second on one
core). The tests read the file alone. Each case is a set of probabilities f32[400, K] and labels:
one overconfident, one about calibrated with tied confidences (probabilities of whole percents), one
of two classes.
"""

from importlib.metadata import version
from pathlib import Path

import calibration
import numpy as np
import relplot
from sklearn.metrics import average_precision_score, roc_auc_score

PEERS = ("numpy", "relplot", "uncertainty-calibration", "scikit-learn")
WIDTHS = (0.02, 0.1, 0.3)  # of relplot's kernel


def drawn(key, classes: int, spread: float, honest: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities f32[400, classes], and labels drawn from them to the power of `honest`."""
    logits = spread * key.standard_normal((400, classes))
    probs = np.exp(logits - logits.max(1, keepdims=True))
    probs = (probs / probs.sum(1, keepdims=True)).astype(np.float32)
    true = probs.astype(np.float64) ** honest
    return probs, np.array([key.choice(classes, p=row / row.sum()) for row in true])


def tied(probs) -> np.ndarray:
    """Probabilities in whole percents; the largest takes up what is left to 1."""
    rounded = np.round(probs.astype(np.float64), 2)
    top = rounded.argmax(1)
    rounded[np.arange(len(top)), top] += 1 - rounded.sum(1)
    return np.round(rounded, 2).astype(np.float32)


def measured(probs, label) -> dict[str, float]:
    """What each peer says."""
    confidence, correct = probs.max(1), probs.argmax(1) == label
    single, right = confidence.astype(np.float64), correct.astype(np.float64)
    return {
        "mass_ece": calibration.get_ece_em(probs, label),
        "l2": calibration.lower_bound_scaling_ce(probs, label, mode="top-label"),
        "marginal": calibration.lower_bound_scaling_ce(probs, label, mode="marginal"),
        "smooth_ece": relplot.smECE(single, right),
        **{f"smooth_ece_{width}": relplot.smECE_sigma(single, right, width) for width in WIDTHS},
        "error_auroc": roc_auc_score(correct, confidence),
        "error_aupr": average_precision_score(~correct, -confidence),
    }


def main() -> None:
    """Write the file."""
    key = np.random.default_rng(0)
    made = {"versions": np.array([f"{name} {version(name)}" for name in PEERS])}
    cases = {"over": (5, 3.0, 0.5), "tied": (4, 1.5, 1.0), "two": (2, 2.0, 0.8)}
    for name, options in cases.items():
        probs, label = drawn(key, *options)
        probs = tied(probs) if name == "tied" else probs
        made |= {f"{name}/probs": probs, f"{name}/label": label.astype(np.int32)}
        made |= {f"{name}/{figure}": value for figure, value in measured(probs, label).items()}
    np.savez_compressed(Path(__file__).parent / "sorted.npz", **made)


if __name__ == "__main__":
    main()
