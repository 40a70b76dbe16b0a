"""Data order: which examples form each batch, a pure function of the seed and the epoch."""

from collections.abc import Iterator

import numpy as np

HOLDOUT_SEED = 20230131  # fixed: all runs on a data set hold out the same examples
FOLD_SEED = 20190823  # fixed: all runs on a data set have the same folds


def split(
    positions: np.ndarray, examples: int | None, holdout: int
) -> tuple[np.ndarray, np.ndarray]:
    """Positions to train on and positions held out, i64, both rising, of the first `examples`.

    positions: i64[n], rising, those that may be used; examples: None for all. Raises ValueError if
    there are fewer positions than requested.
    """
    count = len(positions) if examples is None else examples
    if count > len(positions):
        raise ValueError(f"config.data.examples must be at most {len(positions)}, got {examples}")
    if holdout >= count:
        raise ValueError(
            f"config.data.holdout must be less than {count}, the number of training examples, got "
            f"{holdout}"
        )
    shuffled = np.random.Generator(np.random.Philox(HOLDOUT_SEED)).permutation(count)
    return positions[np.sort(shuffled[holdout:])], positions[np.sort(shuffled[:holdout])]


def fold(num_examples: int, folds: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions outside and inside fold `number` of `folds`, i64, both rising.

    Folds are drawn with a fixed seed and differ in size by at most one. Raises ValueError if there
    are fewer examples than folds.
    """
    if folds > num_examples:
        raise ValueError(
            f"config.data.folds must be at most {num_examples}, the number of examples, got {folds}"
        )
    shuffled = np.random.Generator(np.random.Philox(FOLD_SEED)).permutation(num_examples)
    parts = np.array_split(shuffled, folds)
    inside = parts.pop(number)
    return np.sort(np.concatenate(parts)), np.sort(inside)


def epoch_order(positions: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The positions in the order of one epoch: a permutation drawn from (seed, epoch)."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(positions)


def batches(
    positions: np.ndarray, *, seed: int, batch_size: int, steps_per_epoch: int, first_step: int
) -> Iterator:
    """Yield (epoch, i32[batch_size]) for step `first_step` and every later one, without end.

    Each position occurs at most once per epoch. If the last batch would be incomplete, its
    positions are dropped; which ones these are changes from epoch to epoch.
    """
    step = first_step
    shuffled_epoch = None
    while True:
        epoch, batch = divmod(step, steps_per_epoch)
        # Shuffle once per epoch, not once per batch.
        if epoch != shuffled_epoch:
            shuffled = epoch_order(positions, seed, epoch)
            shuffled_epoch = epoch
        yield epoch, shuffled[batch * batch_size : (batch + 1) * batch_size].astype(np.int32)
        step += 1


def padded_batches(
    positions: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (i32[batch_size] positions, f32[batch_size] mask), each position once.

    The last batch is filled up with repeats, whose mask is 0.
    """
    for start in range(0, len(positions), batch_size):
        part = positions[start : start + batch_size]
        mask = np.zeros(batch_size, np.float32)
        mask[: len(part)] = 1
        # All batches have one size, so that the evaluation step is compiled once.
        yield np.resize(part, batch_size).astype(np.int32), mask
