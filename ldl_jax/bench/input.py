"""The training pipeline of a folder of JPEGs beside the bare rate of the same boxes of the same
files.
"""

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ldl_jax.bench import bare, base
from ldl_jax.data.base import Split
from ldl_jax.data.readers import crops, folder, tfdata

EPOCHS = 8  # with boxes of their own; then they come again
BATCHES = 8  # in a call, more than lie ready
REFILL = 2.0  # seconds in which the program before has made all that it makes ahead


def plan(count: int, batch_size: int) -> list[tuple[int, np.ndarray]]:
    """(epoch, index i32[b]) of whole batches in EPOCHS shuffled epochs of `count` examples."""
    draw = np.random.default_rng(0)
    orders = [
        np.resize(draw.permutation(count), -(-count // batch_size) * batch_size)
        for _ in range(EPOCHS)
    ]
    return [
        (epoch, part.astype(np.int32))
        for epoch, order in enumerate(orders)
        for part in order.reshape(-1, batch_size)
    ]


def calls(batches) -> Callable:
    """A program that takes BATCHES batches."""
    return lambda: [next(batches) for _ in range(BATCHES)][-1] is None


def settle(program: Callable) -> None:
    """Let the program before come to rest, then take what lies ready of this one."""
    time.sleep(REFILL)
    program()


def programs(
    root: str, size: int, batch_size: int, antialias: bool, peers: bool
) -> tuple[dict[str, Callable], int]:
    """{name: program}, and the number of JPEGs. Raises ValueError where `root` has no folder
    train/.
    """
    found = folder.listing(Path(root) / "train")
    source, view = folder.Files(found), crops.View(size, True, antialias=antialias)
    split: Split = tfdata.split(source, view, "raise")
    batches = plan(source.num_examples, batch_size)
    drawn = bare.boxes(source, view, epochs=EPOCHS, seed=0)
    order = np.concatenate([index for _, index in batches])
    places = np.concatenate([drawn[epoch, index] for epoch, index in batches])
    made = {
        "bare decode, crop, resize": calls(bare.stream(source, view, order, places, batch_size)),
        "training pipeline": calls(split.stream(itertools.cycle(batches), 0)),
    }
    if peers:
        from ldl_jax.bench import torch_input

        paths = [found.path(index) for index in order]
        made["torch DataLoader, Pillow"] = calls(
            torch_input.batches(paths, places, size, batch_size, workers=tfdata.cores())
        )
    return made, source.num_examples


def measure(
    root: str,
    *,
    rounds: int,
    seconds: float,
    size=224,
    batch=64,
    antialias=True,
    cores=None,
    peers=False,
) -> str:
    """Goal: the training pipeline at 0.9 or more of the bare rate. cores: how many may be used;
    None for all.
    """
    if not (Path(root) / "train").is_dir():
        raise ValueError(f"--root is {root!r}; needed is a folder with train/<class>/*.JPEG")
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:cores])
    try:
        made, count = programs(root, size, batch, antialias, peers)
        done = dict.fromkeys(made, lambda done: None)
        times = base.alternate(made, rounds=rounds, seconds=seconds, wait=done, settle=settle)
        used = tfdata.cores()
    finally:
        os.sched_setaffinity(0, allowed)
    reference, ours = list(made)[:2]
    ratio = np.median(np.array(times[reference]) / np.array(times[ours]))
    filtered = "bilinear, antialiased" if antialias else "bilinear"
    return (
        f"{count} JPEGs of {root}/train to {size}x{size}, {filtered}, batch {batch}, {used} cores, {rounds} "
        f"alternations\n\n{base.summary(times, reference, 'images/s', batch * BATCHES)}\n\n"
        f"training pipeline: {ratio:.3f} of the bare rate (goal: 0.9)"
    )
