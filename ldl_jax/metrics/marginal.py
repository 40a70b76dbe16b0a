"""The calibration of every class's probability, without the bias of small bins."""

import numpy as np

from ldl_jax.evaluation.binning import Bins
from ldl_jax.evaluation.binning import debiased as _debiased
from ldl_jax.metrics.base import Shown

SHOWN = {
    "marginal_squared": Shown("marginal L2 squared", "", 6, "calibration of every class", 3, "lower"),
    "marginal": Shown("marginal L2", "%", 2, "calibration of every class", 4, "lower"),
}


def debiased(found: Bins) -> dict[str, float]:
    """The debiased L2 marginal calibration error of `base.every_class` sums (Kumar, Liang and Ma 2019, section 2).

    marginal_squared: the mean over classes of each one's debiased square, which may be negative; marginal: its root, 0
    where it is. uncertainty-calibration's get_calibration_error, its default, takes each class's root first, cut off at
    0, so that noise does not cancel over classes: it is at least as large.
    """
    squared = float(_debiased(found).mean())
    return {"marginal_squared": squared, "marginal": np.maximum(squared, 0.0) ** 0.5}
