"""The training pipeline of a folder of JPEGs, compared with bare decoding of the same boxes."""

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ldl_jax.bench import bare, base
from ldl_jax.data.base import Split
from ldl_jax.data.readers import crops, folder, tfdata

EPOCHS = 8  # with boxes of their own, before they repeat
BATCHES = 8  # per call, more than are prefetched
REFILL = 2.0  # seconds in which the previous program finishes all that it makes ahead


def plan(count: int, batch_size: int) -> list[tuple[int, np.ndarray]]:
    """(epoch, index i32[b]) of whole batches in EPOCHS shuffled epochs of `count` examples."""
    draw = np.random.default_rng(0)
    # Round up to whole batches by repeating examples, so that each batch takes the same time.
    padded = -(-count // batch_size) * batch_size
    batches = []
    for epoch in range(EPOCHS):
        order = np.resize(draw.permutation(count), padded)
        for index in order.reshape(-1, batch_size):
            batches.append((epoch, index.astype(np.int32)))
    return batches


def calls(batches) -> Callable:
    """A program that takes BATCHES batches."""
    return lambda: [next(batches) for _ in range(BATCHES)][-1] is None


def settle(program: Callable) -> None:
    """Let the previous program finish, then discard what this one has prefetched."""
    time.sleep(REFILL)
    program()


def programs(
    root: str, size: int, batch_size: int, antialias: bool, peers: bool
) -> tuple[dict[str, Callable], int]:
    """{name: program}, and the number of JPEGs. Raises ValueError if `root` has no train/."""
    listing = folder.listing(Path(root) / "train")
    source = folder.Files(listing)
    view = crops.View(size, True, antialias=antialias)
    split: Split = tfdata.split(source, view, "raise")
    batches = plan(source.num_examples, batch_size)
    # Draw the boxes beforehand, so that the bare program does nothing but decode and resize.
    drawn = bare.boxes(source, view, epochs=EPOCHS, seed=0)
    order = np.concatenate([index for _, index in batches])
    places = np.concatenate([drawn[epoch, index] for epoch, index in batches])
    by_name = {
        "bare decode, crop, resize": calls(bare.stream(source, view, order, places, batch_size)),
        "training pipeline": calls(split.stream(itertools.cycle(batches), 0)),
    }
    if peers:
        from ldl_jax.bench import torch_input

        paths = [listing.path(index) for index in order]
        loader = torch_input.batches(paths, places, size, batch_size, workers=tfdata.cores())
        by_name["torch DataLoader, Pillow"] = calls(loader)
    return by_name, source.num_examples


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
    """Goal: the training pipeline reaches 0.9 of the bare rate. cores: None for all."""
    if not (Path(root) / "train").is_dir():
        raise ValueError(f"--root must be a folder with train/<class>/*.JPEG, got {root!r}")
    allowed = os.sched_getaffinity(0)
    # tf.data and PyTorch take their number of threads from the cores allowed here.
    os.sched_setaffinity(0, sorted(allowed)[:cores])
    try:
        by_name, count = programs(root, size, batch, antialias, peers)
        finished = dict.fromkeys(by_name, lambda result: None)
        times = base.alternate(
            by_name, rounds=rounds, seconds=seconds, wait=finished, settle=settle
        )
        used = tfdata.cores()
    finally:
        os.sched_setaffinity(0, allowed)
    reference, pipeline = list(by_name)[:2]
    ratio = np.median(np.array(times[reference]) / np.array(times[pipeline]))
    interpolation = "bilinear, antialiased" if antialias else "bilinear"
    return (
        f"{count} JPEGs of {root}/train to {size}x{size}, {interpolation}, batch {batch}, {used} "
        f"cores, {rounds} alternations\n\n"
        f"{base.summary(times, reference, 'images/s', batch * BATCHES)}\n\n"
        f"training pipeline: {ratio:.3f} of the bare rate (goal: 0.9)"
    )
