"""Which example comes when: a pure function of the seed and the epoch."""

from collections.abc import Iterator

import numpy as np

HOLDOUT_SEED = 20230131  # fixed: every run of a data set sets the same examples aside
FOLD_SEED = 20190823  # fixed: the folds of a data set are the same for every run


def split(
    positions: np.ndarray, examples: int | None, holdout: int
) -> tuple[np.ndarray, np.ndarray]:
    """Positions to train on and positions set aside, i64, both rising, out of the first `examples`
    (None: all).

    positions: i64[n], rising, those that may be used. Raises ValueError where more is asked for
    than there is.
    """
    count = len(positions) if examples is None else examples
    if count > len(positions):
        raise ValueError(
            f"config.data.examples is {examples}; allowed are at most {len(positions)}"
        )
    if holdout >= count:
        raise ValueError(f"config.data.holdout is {holdout} of {count} examples; allowed are fewer")
    shuffled = np.random.Generator(np.random.Philox(HOLDOUT_SEED)).permutation(count)
    return positions[np.sort(shuffled[holdout:])], positions[np.sort(shuffled[:holdout])]


def fold(num_examples: int, folds: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions outside and inside one of `folds` parts, i64, both rising: drawn by a fixed seed,
    sizes within one.

    Raises ValueError where there are fewer examples than folds.
    """
    if folds > num_examples:
        raise ValueError(
            f"config.data.folds is {folds}; allowed are at most {num_examples}, the number of examples"
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
    """(epoch, i32[batch_size]) for step first_step and every later one, without end.

    Each position comes at most once in an epoch; those left over when the last batch would be
    incomplete are left out, and who they are changes with the epoch.
    """
    step, order, known = first_step, None, -1
    while True:
        epoch, place = divmod(step, steps_per_epoch)
        if epoch != known:
            order, known = epoch_order(positions, seed, epoch), epoch
        yield epoch, order[place * batch_size : (place + 1) * batch_size].astype(np.int32)
        step += 1


def padded_batches(
    positions: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(i32[batch_size] positions, f32[batch_size] mask): each position once; the last batch is
    filled with repeats.
    """
    for start in range(0, len(positions), batch_size):
        part = positions[start : start + batch_size]
        mask = np.zeros(batch_size, np.float32)
        mask[: len(part)] = 1
        yield np.resize(part, batch_size).astype(np.int32), mask
