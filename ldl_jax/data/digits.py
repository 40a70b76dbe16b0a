"""scikit-learn's digits: 1,797 real 8x8 images of handwritten digits, shipped with the package."""

import numpy as np

from ldl_jax.data.base import Dataset, Request, check_split

NUM_TRAIN = 1437  # in published order; the last 360 are the test images


def make(request: Request) -> Dataset:
    """The digits of scikit-learn (UCI 'Optical Recognition of Handwritten Digits', test part):
    1,437 + 360 images.
    """
    from sklearn.datasets import load_digits

    del request
    bunch = load_digits()
    # The published values run from 0 to 16; spread them over the range of a byte.
    images = np.round(bunch.images[..., None] * (255 / 16)).astype(np.uint8)
    labels = bunch.target
    train = check_split("digits (train)", images[:NUM_TRAIN], labels[:NUM_TRAIN], 10)
    test = check_split("digits (test)", images[NUM_TRAIN:], labels[NUM_TRAIN:], 10)
    pixels = train.images / 255
    mean = (float(pixels.mean()),)
    std = (float(pixels.std()),)
    return Dataset(train, test, tuple("0123456789"), mean, std)
