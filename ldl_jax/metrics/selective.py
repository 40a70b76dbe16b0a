"""Selective prediction and detection: does the confidence separate errors and OOD examples?"""

import numpy as np
from sklearn.metrics import auc, average_precision_score, roc_curve

from ldl_jax.metrics.base import Shown, Stored, checked

SHOWN = {
    "aurc": Shown("AURC", "%", 2, "knowing when it is wrong", 0, "lower"),
    "e_aurc": Shown("E-AURC", "%", 2, "knowing when it is wrong", 1, "lower"),
    "error_auroc": Shown("AUROC of errors", "%", 2, "knowing when it is wrong", 2, "higher"),
    "error_fpr95": Shown("FPR95 of errors", "%", 2, "knowing when it is wrong", 3, "lower"),
    "ood_auroc": Shown("OOD AUROC", "%", 2, "other examples", 0, "higher"),
    "ood_fpr95": Shown("OOD FPR95", "%", 2, "other examples", 1, "lower"),
    "ood_aupr": Shown("OOD AUPR", "%", 2, "other examples", 2, "higher"),
}

RECALL = 0.95  # true positive rate at which the false positive rate is measured


def of(stored: Stored) -> dict[str, float]:
    """Figures of the order of confidences; those of OOD detection if OOD examples are given."""
    figures = errors(stored.confidence, stored.correct)
    if stored.unknown is not None:
        figures |= unknown(stored.confidence, stored.unknown)
    return figures


def risk(confidence, correct) -> np.ndarray:
    """Risk-coverage curve: error rate among the k most confident examples, f64[N], k = 1 to N.

    Ties in confidence are averaged over all orders. Raises ValueError for values outside [0, 1].
    """
    confidence, correct = checked(confidence, correct)
    order = np.argsort(-confidence)
    ordered = confidence[order]
    wrong = (~correct[order]).astype(np.float64)
    # Examples of equal confidence share their errors equally: the mean over all their orders.
    group = np.cumsum(np.append(True, ordered[1:] != ordered[:-1])) - 1
    count = np.bincount(group)
    shared = (np.bincount(group, wrong) / count)[group]
    return np.cumsum(shared) / np.arange(1, len(wrong) + 1)


def errors(confidence, correct) -> dict[str, float]:
    """aurc, e_aurc, error_auroc and error_fpr95 of confidences f[N] and correct bool[N].

    aurc: the mean risk over all coverages (Geifman, Uziel and El-Yaniv 2019); e_aurc: aurc minus
    the smallest value possible with this number of errors, reached if all errors come last (the
    exact sum; the paper uses its limit r + (1 - r) ln(1 - r)). error_auroc and error_fpr95:
    detection of correct predictions by their confidence; error_fpr95 is the share of errors that
    are as confident as 95 % of the correct predictions. Both are NaN if all predictions are
    correct, or all wrong.
    """
    curve = risk(confidence, correct)
    count = len(curve)
    wrong = round(curve[-1] * count)
    # The best possible curve has no errors until only errors remain.
    covered = np.arange(1, count + 1)
    best = np.maximum(covered - (count - wrong), 0) / covered
    auroc, fpr, _ = _detection(np.asarray(confidence), np.asarray(correct, bool))
    return {
        "aurc": float(curve.mean()),
        "e_aurc": float(max(0.0, (curve - best).mean())),
        "error_auroc": auroc,
        "error_fpr95": fpr,
    }


def unknown(known, other) -> dict[str, float]:
    """OOD detection by confidence: known examples f[N] should be more confident than others f[M].

    ood_auroc; ood_fpr95: the share of OOD examples that are as confident as 95 % of the known ones
    (Hendrycks and Gimpel 2017; Liang et al. 2018); ood_aupr: average precision with OOD examples as
    positives, ranked by 1 - confidence.
    """
    known = np.asarray(known)
    other = np.asarray(other)
    for confidence in (known, other):
        checked(confidence, np.zeros(confidence.shape, bool))
    both = np.concatenate([known, other])
    auroc, fpr, aupr = _detection(both, np.arange(len(both)) < len(known))
    return {"ood_auroc": auroc, "ood_fpr95": fpr, "ood_aupr": aupr}


def _detection(confidence, positive) -> tuple[float, float, float]:
    """AUROC, FPR at RECALL, and average precision of the negatives; NaN if one class is missing."""
    if positive.all() or not positive.any():
        return (float("nan"),) * 3
    false, true, _ = roc_curve(positive, confidence, drop_intermediate=False)
    return (
        float(auc(false, true)),
        float(false[np.argmax(true >= RECALL)]),
        float(average_precision_score(~positive, -confidence)),
    )
