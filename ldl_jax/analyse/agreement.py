"""Agreement between two networks on the same n examples: predictions and representations."""

import numpy as np
from scipy.special import log_softmax


def predictions(logits, others) -> dict[str, float]:
    """Agreement of logits f[n, K] with those of another network, f[n, K].

    `same`: the share of examples for which both predict the same class. `kl`: the mean of KL(one ||
    other), in nat, and `kl_back`: that of KL(other || one).
    """
    one = log_softmax(np.asarray(logits, np.float64), axis=1)
    other = log_softmax(np.asarray(others, np.float64), axis=1)
    gap = one - other
    return {
        "same": float((one.argmax(axis=1) == other.argmax(axis=1)).mean()),
        "kl": float((np.exp(one) * gap).sum(axis=1).mean()),
        "kl_back": float(-(np.exp(other) * gap).sum(axis=1).mean()),
    }


def gram(features) -> np.ndarray:
    """The centred Gram matrix f64[n, n] of features f[n, ...], each example's flattened."""
    flat = np.asarray(features).reshape(len(features), -1)
    # Centred in the type of the features: maps are large, and float64 would double them.
    flat = flat - flat.mean(axis=0, dtype=np.float64).astype(flat.dtype)
    product = (flat @ flat.T).astype(np.float64)
    return product - product.mean(axis=0) - product.mean(axis=1)[:, None] + product.mean()


def cka(one: np.ndarray, other: np.ndarray) -> float:
    """Linear CKA, from 0 to 1, of the Gram matrices f64[n, n] of two representations of the same
    examples (see `gram`); NaN if one of them is constant.

    Kornblith et al. 2019, 'Similarity of Neural Network Representations Revisited', section 3: with
    centred X and Y it is |Y'X|^2 / (|X'X| |Y'Y|) in Frobenius norms, invariant to rotations and to
    scale. The Gram form is the same number and takes any number of features.
    """
    norms = np.linalg.norm(one) * np.linalg.norm(other)
    return float((one * other).sum() / norms) if norms > 0 else float("nan")
