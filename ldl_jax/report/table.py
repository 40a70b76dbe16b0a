"""The scores of one network as a table for the terminal and the log file."""

import math

KNOWN = {  # metric -> (row name, factor, digits after the point)
    "accuracy": ("accuracy %", 100, 2),
    "top5": ("top-5 %", 100, 2),
    "nll": ("NLL", 1, 4),
    "brier": ("Brier", 1, 4),
    "brier_reliability": ("Brier: reliability", 1, 4),
    "brier_resolution": ("Brier: resolution", 1, 4),
    "brier_uncertainty": ("Brier: uncertainty", 1, 4),
    "brier_within": ("Brier: within bins", 1, 4),
    "ece": ("ECE %", 100, 2),
    "ece_floor": ("ECE noise floor %", 100, 2),
    "overconfidence": ("overconfidence %", 100, 2),
    "underconfidence": ("underconfidence %", 100, 2),
    "signed_ece": ("signed ECE %", 100, 2),
    "mce": ("MCE %", 100, 2),
    "rmsce": ("RMSCE %", 100, 2),
    "mass_ece": ("equal-mass ECE %", 100, 2),
    "l2_squared": ("debiased L2 squared", 1, 6),
    "l2": ("debiased L2 %", 100, 2),
    "smooth_ece": ("smooth ECE %", 100, 2),
    "ks": ("KS error %", 100, 2),
    "confidence": ("mean confidence %", 100, 2),
    "entropy": ("mean entropy", 1, 4),
    "classwise_ece": ("class-wise ECE %", 100, 3),
    "ace": ("ACE %", 100, 3),
    "tace": ("TACE %", 100, 3),
    "marginal_squared": ("marginal L2 squared", 1, 6),
    "marginal": ("marginal L2 %", 100, 2),
    **{
        f"ece_{name}": (f"ECE % {name}", 100, 2) for name in ("torchmetrics15", "netcal10", "pskd10", "ub15", "focal10")
    },
    "aurc": ("AURC %", 100, 2),
    "e_aurc": ("E-AURC %", 100, 2),
    "error_auroc": ("AUROC of errors %", 100, 2),
    "error_fpr95": ("FPR95 of errors %", 100, 2),
    "ood_auroc": ("AUROC of others %", 100, 2),
    "ood_fpr95": ("FPR95 of others %", 100, 2),
    "ood_aupr": ("AUPR of others %", 100, 2),
    "table_cross_entropy": ("CE to the table", 1, 4),
    "table_kl": ("KL to the table", 1, 4),
    "table_js": ("Jensen-Shannon", 1, 4),
    "table_chebyshev": ("Chebyshev", 1, 4),
    "table_clark": ("Clark", 1, 4),
    "table_canberra": ("Canberra", 1, 4),
    "table_cosine": ("cosine", 1, 4),
    "table_intersection": ("intersection", 1, 4),
    "entropy_pearson": ("entropies: Pearson", 1, 4),
    "entropy_spearman": ("entropies: Spearman", 1, 4),
}
_NOTE = "noise floor: the ECE that a perfectly calibrated model with these confidences scores on this many images"
_MISSING = "-"


def at_bound(name: str, count: int, of: int) -> str:
    """The sentence that `count` of a row's runs have no best temperature."""
    return f"{name}: in {count} of {of} runs T is a bound of the search, as no temperature is best on the holdout"


def table(columns: dict[str, dict[str, float]], floors: dict[str, float] | None = None) -> str:
    """Metrics as rows, splits ('test', 'holdout') as columns, in plain ASCII, without a newline at the end.

    `columns` holds fractions (accuracy, top5, ece, mce), NLL in nats, Brier, and `n`, the number of images; metrics
    that are not known come last, with 4 significant digits. `floors` holds the noise floor of each split's ECE, a
    fraction; without it, a column's own `ece_floor` is shown.
    """
    columns = {split: _with_floor(values, (floors or {}).get(split)) for split, values in columns.items()}
    names = list(dict.fromkeys(name for values in columns.values() for name in values))
    blocks = [
        [["", *columns]],
        [["images", *(_count(values.get("n")) for values in columns.values())]] if "n" in names else [],
        [_row(*KNOWN[name], [values.get(name) for values in columns.values()]) for name in KNOWN if name in names],
        [
            [name, *(_significant(values.get(name)) for values in columns.values())]
            for name in names
            if name != "n" and name not in KNOWN
        ],
    ]
    lines = align([block for block in blocks if block])
    return "\n".join([*lines, _NOTE] if "ece_floor" in names else lines)


def _with_floor(values, floor):
    return values if floor is None else {**values, "ece_floor": floor}


def _row(label, factor, digits, values):
    return [label, *(_MISSING if value is None else f"{factor * value:.{digits}f}" for value in values)]


def _count(value):
    return _MISSING if value is None or not math.isfinite(value) else f"{round(value):,}"


def _significant(value):
    return _MISSING if value is None else f"{value:.4g}"


def align(blocks):
    """Lines of equal width of blocks of rows: first column to the left, the others to the right, a rule between."""
    widths = [max(len(row[i]) for block in blocks for row in block) for i in range(len(blocks[0][0]))]
    rule = "-" * (sum(widths) + 3 * (len(widths) - 1))
    lines = [rule]
    for block in blocks:
        for label, *cells in block:
            cells = [f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True)]
            lines.append("   ".join([f"{label:<{widths[0]}}", *cells]))
        lines.append(rule)
    return lines
