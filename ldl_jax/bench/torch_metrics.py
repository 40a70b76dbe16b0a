"""torchmetrics on the same logits (extra `peers`)."""

from collections.abc import Callable

import numpy as np

try:
    import torch
    from torch.nn.functional import cross_entropy
    from torchmetrics.functional.classification import multiclass_calibration_error
except ImportError as error:
    raise ImportError(f"torchmetrics needs PyTorch: {error}") from error


def program(logits: np.ndarray, label: np.ndarray, bins: int) -> Callable:
    """Make a function that computes torchmetrics' ECE, and NLL and Brier score by PyTorch.

    torchmetrics has no functions for the latter two.
    """
    scores = torch.from_numpy(logits)
    target = torch.from_numpy(label.astype(np.int64))

    def run() -> dict[str, float]:
        with torch.no_grad():
            probs = torch.softmax(scores, 1)
            own = probs.gather(1, target[:, None])[:, 0]
            # Validation would add passes over the data that other programs do not make.
            ece = multiclass_calibration_error(
                probs, target, num_classes=probs.shape[1], n_bins=bins, validate_args=False
            )
            brier = (probs.square().sum(1) - 2 * own + 1).double().mean()
            nll = cross_entropy(scores, target)
        return {"ece": float(ece), "nll": float(nll), "brier": float(brier)}

    return run
