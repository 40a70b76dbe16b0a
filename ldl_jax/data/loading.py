"""Make the data set that a config names, choose its examples, and find its pixel statistics."""

import numpy as np
from ml_collections import ConfigDict

from ldl_jax.config.options import make_plug, options_of, plug
from ldl_jax.data import order, own_labels
from ldl_jax.data.base import Dataset, Request, Split, streamed


def make_dataset(settings: ConfigDict, *, published: bool = False) -> Dataset:
    """The data set that `config.data` names, resident or streamed.

    published: only its published sizes; no file is read. Raises ValueError if its module does, or
    if the data have a single class.
    """
    options = options_of(settings, settings.name)
    request = Request(
        settings.root,
        settings.verify,
        settings.resident,
        settings.on_error,
        settings.test_share,
        settings.test_seed,
    )
    if published:
        dataset = plug("data", settings.name).published(**options)
    else:
        dataset = make_plug("data", settings.name, Dataset, request, **options)
    return prepared(dataset, settings, published=published)


def prepared(dataset: Dataset, settings: ConfigDict, *, published: bool = False) -> Dataset:
    """A data set as `config.data` uses it: with the user's own labels, resident or streamed.

    Raises ValueError if the data have a single class, or if labels or tables do not fit.
    """
    if len(dataset.classes) < 2:
        raise ValueError(
            f"config.data.root {settings.root!r} must hold images of at least two classes, got one"
            if settings.root
            else "the images must be of at least two classes, got one"
        )
    # Tables belong to the published splits, so attach them before the splits are exchanged.
    dataset = own_labels.with_tables(dataset, settings)
    # The labels of a published size are not the published labels.
    dataset = own_labels.trained_on(dataset, settings, compare=not published)
    if settings.resident or published:
        return dataset
    train = _as_stream(dataset.train)
    # With folds, both splits are the same object, and have to stay so.
    test = train if dataset.test is dataset.train else _as_stream(dataset.test)
    return dataset._replace(train=train, test=test)


def _as_stream(split: Split) -> Split:
    return split if split.stream else streamed(split)


def positions(settings: ConfigDict, dataset: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions i64, rising, of the training examples, the holdout, and the test examples.

    With `folds`, the chosen fold holds the test examples, and the other folds the rest.
    """
    test = np.arange(dataset.test.num_examples)
    allowed = np.arange(dataset.train.num_examples)
    if settings.folds:
        allowed, test = order.fold(dataset.train.num_examples, settings.folds, settings.fold)
    if dataset.subset is not None:
        allowed = np.intersect1d(allowed, dataset.subset)
    train, holdout = order.split(allowed, settings.examples, _holdout(settings, len(allowed)))
    return train, holdout, test


def _holdout(settings: ConfigDict, available: int) -> int:
    """The number of training examples to hold out."""
    share = settings.holdout_share
    if not share:
        return settings.holdout
    count = available if settings.examples is None else settings.examples
    holdout = round(share * count)
    if not 0 < holdout < count:
        raise ValueError(
            f"config.data.holdout_share must leave examples to train on and to hold out of {count}, "
            f"got {share:g}, which holds out {holdout}"
        )
    return holdout


def statistics(
    settings: ConfigDict, dataset: Dataset
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the pixels per channel: `config.model`'s, or the data set's.

    Raises ValueError if there is not one of each per channel, or a deviation is not above 0.
    """
    mean = tuple(settings.mean) or dataset.mean
    std = tuple(settings.std) or dataset.std
    channels = dataset.train.shape[-1]
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise ValueError(
            "config.model.mean and config.model.std must have one number per channel "
            f"({channels}), with standard deviations above 0; got {mean} and {std}"
        )
    return mean, std
