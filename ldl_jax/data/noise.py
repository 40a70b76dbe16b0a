"""Synthetic label noise: some training labels are replaced by wrong ones."""

import numpy as np


def noisy(
    labels: np.ndarray, num_classes: int, *, share: float, kind: str, seed: int
) -> np.ndarray:
    """Labels i32[N] of which round(share N) are wrong, a pure function of the arguments.

    kind: 'symmetric', any of the other classes with equal probability; 'pair', the next class, as
    if each class was mistaken for one other (Patrini et al. 2017, section 5).
    """
    draw = np.random.Generator(np.random.Philox(seed))
    chosen = draw.permutation(len(labels))[: round(share * len(labels))]
    shift = draw.integers(1, num_classes, len(chosen)) if kind == "symmetric" else 1
    changed = labels.astype(np.int32)
    changed[chosen] = (changed[chosen] + shift) % num_classes
    return changed
