"""The data set that a config names: what it holds, which examples take part, the statistics of its
pixels.
"""

import numpy as np
from ml_collections import ConfigDict

from ldl_jax.config.options import plug
from ldl_jax.data import order, own_labels
from ldl_jax.data.base import Dataset, Request, streamed


def make_dataset(settings: ConfigDict, *, published: bool = False) -> Dataset:
    """The data set that `config.data` names, resident or streamed; `published`: its sizes alone,
    nothing is read.

    Raises ValueError where its module does, or where it has a single class.
    """
    module, options = plug("data", settings.name), settings[settings.name]
    request = Request(settings.root, settings.verify, settings.resident, settings.on_error)
    dataset = module.published(**options) if published else module.make(request, **options)
    if len(dataset.classes) < 2:
        raise ValueError(
            f"config.data.root {settings.root!r} has images of a single class; allowed are two or more classes"
        )
    dataset = own_labels.trained_on(own_labels.with_tables(dataset, settings), settings)
    if settings.resident or published:
        return dataset
    train, test = (
        part if part.stream else streamed(part) for part in (dataset.train, dataset.test)
    )
    return dataset._replace(train=train, test=train if dataset.test is dataset.train else test)


def positions(settings: ConfigDict, dataset: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions i64, rising, of the examples that are trained on, set aside, and evaluated as test.

    With `folds` the fold's examples are the test ones, and the others those that may be trained on.
    """
    test, allowed = np.arange(dataset.test.num_examples), np.arange(dataset.train.num_examples)
    if settings.folds:
        allowed, test = order.fold(dataset.train.num_examples, settings.folds, settings.fold)
    if dataset.subset is not None:
        allowed = np.intersect1d(allowed, dataset.subset)
    return *order.split(allowed, settings.examples, settings.holdout), test


def statistics(
    settings: ConfigDict, dataset: Dataset
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the pixels of each channel: those of `config.model`, or the
    data set's.

    Raises ValueError where they are not one for each channel, or a deviation is not above 0.
    """
    mean, std = tuple(settings.mean) or dataset.mean, tuple(settings.std) or dataset.std
    channels = dataset.train.shape[-1]
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise ValueError(
            f"config.model.mean is {mean} and std {std}; images have {channels} channels, and allowed are one number "
            "for each, standard deviations above 0"
        )
    return mean, std
