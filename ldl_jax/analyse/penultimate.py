"""Analyses of the penultimate layer: embeddings f[n, D] of n examples with labels i[n], and the
head's weights f[D, K].
"""

import math

import numpy as np


def plane(embedding, weights, classes) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings f[n, D] on the plane through the weight vectors of three classes.

    Müller et al. 2019, 'When Does Label Smoothing Help?', section 2: an orthonormal basis of the
    plane that crosses the three columns of weights f[D, K]. Returns (points f64[n, 2], corners
    f64[3, 2]): the projections of the embeddings and of the three vectors, the first of which is
    the origin. Raises ValueError if there are not three different classes, or the vectors lie on a
    line.
    """
    weights = np.asarray(weights, np.float64)
    if len(set(classes)) != 3:
        raise ValueError(f"classes must be three different ones, got {list(classes)}")
    first, second, third = weights.T[list(classes)]
    basis, scale = np.linalg.qr(np.stack([second - first, third - first], axis=1))
    if not np.abs(np.diag(scale)).min() > 1e-12 * np.abs(scale).max():
        raise ValueError("the weight vectors of three classes must not lie on a line")
    # The sign of a basis is arbitrary: the second corner comes to the right, the third above.
    basis = basis * np.sign(np.diag(scale))
    points = (np.asarray(embedding, np.float64) - first) @ basis
    corners = (weights.T[list(classes)] - first) @ basis
    return points, corners


def confused(probs, label) -> tuple[int, int, int]:
    """Three classes that are worth a plane: the two that are confused most, and the one that is
    confused with either of them most, by the mean of probabilities f[n, K] over labels i[n].

    Raises ValueError for fewer than three classes.
    """
    probs = np.asarray(probs, np.float64)
    label = np.asarray(label)
    classes = probs.shape[1]
    if classes < 3:
        raise ValueError(f"a plane needs at least three classes, got {classes}")
    taken = np.zeros((classes, classes))
    for number in np.unique(label):
        taken[number] = probs[label == number].mean(axis=0)
    taken = taken + taken.T
    np.fill_diagonal(taken, -math.inf)
    first, second = np.unravel_index(taken.argmax(), taken.shape)
    further = np.maximum(taken[first], taken[second])
    further[[first, second]] = -math.inf
    return int(first), int(second), int(further.argmax())


def class_means(embedding, label, classes: int) -> np.ndarray:
    """The mean embedding of each class, f64[K, D]. Raises ValueError for a class without example."""
    embedding = np.asarray(embedding, np.float64)
    label = np.asarray(label)
    missing = np.setdiff1d(np.arange(classes), label)
    if len(missing):
        raise ValueError(f"every class must have an example, but class {missing[0]} has none")
    return np.stack([embedding[label == number].mean(axis=0) for number in range(classes)])


def variances(embedding, label, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(within f64[D, D], between f64[D, D]): covariances of embeddings within and between classes.

    Papyan et al. 2020, section 2, every class counting alike: the mean over classes of the
    covariance of their examples, and the covariance of the class means around their mean.
    """
    embedding = np.asarray(embedding, np.float64)
    means = class_means(embedding, label, classes)
    spread = embedding - means[label]
    weight = 1 / (classes * np.bincount(label, minlength=classes)[label])
    centred = means - means.mean(axis=0)
    return (spread * weight[:, None]).T @ spread, centred.T @ centred / classes


def collapse(embedding, label, weights, bias, means=None) -> dict[str, float]:
    """The measures of neural collapse of embeddings f[n, D] with labels i[n], and of a head with
    weights f[D, K] and bias f[K]; all but the variances go to 0 where a network collapses.

    Papyan, Han and Donoho 2020, 'Prevalence of neural collapse during the terminal phase of deep
    learning training', figures 2 to 7. `variability` (NC1): tr(within pinv(between)) / K.
    `norms_of_means`, `norms_of_weights` (NC2): standard deviation over mean of the lengths of the
    centred class means and of the weight vectors. `angles_of_means`, `angles_of_weights` (NC2):
    mean of |cosine + 1 / (K - 1)| over pairs of classes. `duality` (NC3): squared Frobenius
    distance of the weights and the centred means, each divided by its norm. `nearest_centre`
    (NC4): share of examples for which the head does not choose the class with the nearest mean, of
    `means` f[K, D] (those of the training images) or of these examples. Beside them `within` and
    `between`, the traces of both covariances. Raises ValueError for a class without an example.
    """
    embedding = np.asarray(embedding, np.float64)
    weights = np.asarray(weights, np.float64)
    label = np.asarray(label)
    classes = weights.shape[1]
    within, between = variances(embedding, label, classes)
    own = class_means(embedding, label, classes)
    centred = own - own.mean(axis=0)
    centres = own if means is None else np.asarray(means, np.float64)
    # |h - m|^2 without |h|^2, which is the same for all classes.
    distance = (centres**2).sum(axis=1) - 2 * embedding @ centres.T
    predicted = (embedding @ weights + np.asarray(bias, np.float64)).argmax(axis=1)
    gap = weights.T / np.linalg.norm(weights) - centred / np.linalg.norm(centred)
    pseudo_inverse = np.linalg.pinv(between, rcond=1e-10, hermitian=True)
    return {
        "within": float(np.trace(within)),
        "between": float(np.trace(between)),
        "variability": float(np.trace(within @ pseudo_inverse)) / classes,
        "norms_of_means": _spread(centred),
        "norms_of_weights": _spread(weights.T),
        "angles_of_means": _angles(centred),
        "angles_of_weights": _angles(weights.T),
        "duality": float((gap**2).sum()),
        "nearest_centre": float((distance.argmin(axis=1) != predicted).mean()),
    }


def _spread(vectors: np.ndarray) -> float:
    """Standard deviation over mean of the lengths of vectors f64[K, D]."""
    lengths = np.linalg.norm(vectors, axis=1)
    return float(lengths.std() / lengths.mean())


def _angles(vectors: np.ndarray) -> float:
    """Mean over pairs of vectors f64[K, D] of the distance of their cosine from -1 / (K - 1)."""
    count = len(vectors)
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (directions @ directions.T)[~np.eye(count, dtype=bool)]
    return float(np.abs(cosines + 1 / (count - 1)).mean())
