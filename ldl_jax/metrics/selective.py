"""How well the confidence tells what is right from what is wrong, and what is known from what is
not.
"""

import numpy as np
from sklearn.metrics import auc, average_precision_score, roc_curve

from ldl_jax.metrics.base import Shown, Stored, checked

SHOWN = {
    "aurc": Shown("AURC", "%", 2, "knowing when it is wrong", 0, "lower"),
    "e_aurc": Shown("E-AURC", "%", 2, "knowing when it is wrong", 1, "lower"),
    "error_auroc": Shown("AUROC of errors", "%", 2, "knowing when it is wrong", 2, "higher"),
    "error_fpr95": Shown("FPR95 of errors", "%", 2, "knowing when it is wrong", 3, "lower"),
    "ood_auroc": Shown("AUROC of others", "%", 2, "other examples", 0, "higher"),
    "ood_fpr95": Shown("FPR95 of others", "%", 2, "other examples", 1, "lower"),
    "ood_aupr": Shown("AUPR of others", "%", 2, "other examples", 2, "higher"),
}

RECALL = 0.95  # at which the false positives are counted


def of(stored: Stored) -> dict[str, float]:
    """Figures of the order of confidences; those of other examples where there are such."""
    figures = errors(stored.confidence, stored.correct)
    if stored.unknown is not None:
        figures |= unknown(stored.confidence, stored.unknown)
    return figures


def risk(confidence, correct) -> np.ndarray:
    """Share of wrong answers among the k most confident ones, f64[N] for k = 1 to N: the
    risk-coverage curve.

    Among equal confidences every order is as good: theirs is the mean over all orders. Raises
    ValueError for what is no probability.
    """
    confidence, correct = checked(confidence, correct)
    order = np.argsort(-confidence)
    ordered, wrong = confidence[order], (~correct[order]).astype(np.float64)
    group = np.cumsum(np.append(True, ordered[1:] != ordered[:-1])) - 1
    count = np.bincount(group)
    shared = (np.bincount(group, wrong) / count)[group]
    return np.cumsum(shared) / np.arange(1, len(wrong) + 1)


def errors(confidence, correct) -> dict[str, float]:
    """aurc, e_aurc, error_auroc, error_fpr95 of confidences f[N] and bool[N].

    aurc: the mean of the risk over coverages (Geifman, Uziel and El-Yaniv 2019); e_aurc: that less
    the least that so many errors allow, all of them last (the sum itself; the paper has its limit r
    + (1 - r) ln(1 - r)). error_auroc, error_fpr95: right answers as positives, by confidence; the
    share of wrong ones that are as confident as 95 % of the right ones. NaN where all are right, or
    all wrong.
    """
    curve = risk(confidence, correct)
    count, wrong = len(curve), round(curve[-1] * len(curve))
    kept = np.arange(1, count + 1)
    least = np.maximum(kept - (count - wrong), 0) / kept
    auroc, fpr, _ = _apart(np.asarray(confidence), np.asarray(correct, bool))
    return {
        "aurc": float(curve.mean()),
        "e_aurc": float(max(0.0, (curve - least).mean())),
        "error_auroc": auroc,
        "error_fpr95": fpr,
    }


def unknown(known, other) -> dict[str, float]:
    """How well the confidence tells examples f[N] from others f[M] of no class, which are to have
    the lower one.

    ood_auroc; ood_fpr95: the share of the others that are as confident as 95 % of the known
    (Hendrycks and Gimpel 2017; Liang et al. 2018); ood_aupr: average precision of the others as
    positives, by 1 - confidence.
    """
    known, other = np.asarray(known), np.asarray(other)
    for side in (known, other):
        checked(side, np.zeros(side.shape, bool))
    both = np.concatenate([known, other])
    auroc, fpr, aupr = _apart(both, np.arange(len(both)) < len(known))
    return {"ood_auroc": auroc, "ood_fpr95": fpr, "ood_aupr": aupr}


def _apart(confidence, positive) -> tuple[float, float, float]:
    """AUROC, FPR at RECALL, and average precision of the negatives; NaN where there is one kind
    alone.
    """
    if positive.all() or not positive.any():
        return (float("nan"),) * 3
    false, true, _ = roc_curve(positive, confidence, drop_intermediate=False)
    return (
        float(auc(false, true)),
        float(false[np.argmax(true >= RECALL)]),
        float(average_precision_score(~positive, -confidence)),
    )
