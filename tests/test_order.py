"""Each training example at most once an epoch, each evaluation example exactly once."""

import itertools
from collections import Counter

import numpy as np
import pytest

from ldl_jax.data import order


@pytest.mark.parametrize(
    ("count", "batch", "accumulate"), [(103, 10, 1), (64, 64, 1), (65, 8, 3), (7, 2, 1)]
)
def test_an_epoch_takes_each_example_at_most_once_and_others_next_time(count, batch, accumulate):
    per_epoch = count // batch // accumulate * accumulate
    positions = np.arange(1000, 1000 + 3 * count, 3)
    feed = order.batches(
        positions, seed=3, batch_size=batch, steps_per_epoch=per_epoch, first_step=0
    )
    epochs = [list(itertools.islice(feed, per_epoch)) for _ in range(4)]
    seen = []
    for number, parts in enumerate(epochs):
        assert {epoch for epoch, _ in parts} == {number}
        index = np.concatenate([index for _, index in parts])
        assert len(set(index)) == len(index) == per_epoch * batch
        assert set(index) <= set(positions)
        seen.append(tuple(index))
    assert len(set(seen)) == 4
    if per_epoch * batch < count:
        assert len({frozenset(index) for index in seen}) > 1  # who is left out changes


def test_the_order_from_any_step_is_the_order_of_the_whole():
    settings = {"seed": 1, "batch_size": 8, "steps_per_epoch": 5}
    whole = list(itertools.islice(order.batches(np.arange(45), first_step=0, **settings), 20))
    for first in (1, 4, 5, 13):
        part = list(
            itertools.islice(order.batches(np.arange(45), first_step=first, **settings), 20 - first)
        )
        for (epoch, index), (expected_epoch, expected) in zip(part, whole[first:], strict=True):
            assert epoch == expected_epoch
            np.testing.assert_array_equal(index, expected)


def test_another_seed_is_another_order():
    orders = {
        tuple(order.epoch_order(np.arange(50), seed, epoch)) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(orders) == 4


@pytest.mark.parametrize(("count", "batch"), [(1, 8), (8, 8), (9, 8), (103, 16)])
def test_evaluation_counts_each_example_once(count, batch):
    positions = np.arange(count) * 2
    counted = Counter()
    for index, mask in order.padded_batches(positions, batch):
        assert index.shape == mask.shape == (batch,)
        assert set(index) <= set(positions)
        counted.update(index[mask > 0].tolist())
    assert counted == Counter(positions.tolist())


def test_the_holdout_is_the_same_for_every_run_and_disjoint():
    train, holdout = order.split(np.arange(1000), None, 100)
    assert len(train) == 900
    assert sorted([*train, *holdout]) == list(range(1000))
    np.testing.assert_array_equal(holdout, order.split(np.arange(1000), None, 100)[1])
    first, _ = order.split(np.arange(1000), 300, 0)
    np.testing.assert_array_equal(first, np.arange(300))


@pytest.mark.parametrize(("examples", "holdout"), [(1001, 0), (None, 1000), (50, 50)])
def test_more_than_there_is(examples, holdout):
    with pytest.raises(ValueError, match=r"config.data.(examples|holdout) must be "):
        order.split(np.arange(1000), examples, holdout)
