"""What a network makes of the mix of two images, by the share of the first.

Images are f[n, H, W, C]; the pairs of two arrays have different labels.
"""

import numpy as np
from scipy.special import softmax, xlogy

SHARES = np.linspace(0, 1, 11)


def blended(one, other, share: float) -> np.ndarray:
    """share one + (1 - share) other, as mixup does (Zhang et al. 2018): f[n, H, W, C]."""
    return share * one + (1 - share) * other


def cut(one, other, share: float) -> np.ndarray:
    """The columns of `one` up to a share of the width, then those of `other`: as CutMix does (Yun et
    al. 2019), with an edge in place of a box; f[n, H, W, C].
    """
    width = round(share * one.shape[2])
    return np.concatenate([one[:, :, :width], other[:, :, width:]], axis=2)


MIXES = {"blend": blended, "cut": cut}


def pairs(label, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Positions (i64[m], i64[m]) of at most `count` random pairs of examples with different labels
    i[n].
    """
    label = np.asarray(label)
    draw = np.random.default_rng(seed)
    first = draw.permutation(len(label))
    second = draw.permutation(len(label))
    differ = label[first] != label[second]
    return first[differ][:count], second[differ][:count]


def along(logits, label, other) -> dict[str, np.ndarray]:
    """What is predicted at each of S shares, f64[S] each, from logits f[S, n, K] of mixed images and
    the labels i[n] of both images.

    `confidence`: the mean of the largest probability; `first`, `second`: the mean probability of
    the first image's and of the second's label; `miss`: the share of images predicted as neither,
    as in Zhang et al. 2018, figure 2; `entropy` in nat.
    """
    label = np.asarray(label)
    other = np.asarray(other)
    probs = softmax(np.asarray(logits, np.float64), axis=2)
    example = np.arange(probs.shape[1])
    predicted = probs.argmax(axis=2)
    return {
        "confidence": probs.max(axis=2).mean(axis=1),
        "first": probs[:, example, label].mean(axis=1),
        "second": probs[:, example, other].mean(axis=1),
        "miss": ((predicted != label) & (predicted != other)).mean(axis=1),
        "entropy": -xlogy(probs, probs).sum(axis=2).mean(axis=1) + 0.0,
    }
