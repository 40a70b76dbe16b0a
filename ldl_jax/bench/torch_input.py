"""PyTorch's DataLoader with Pillow on the same boxes of the same files (extra `peers`)."""

import itertools
from collections.abc import Iterator

import numpy as np
from PIL import Image

try:
    import torch
    from torch.utils.data import DataLoader, Dataset, Sampler
except ImportError as error:
    raise ImportError("--torch needs PyTorch: pip install 'ldl-jax[peers]'") from error


class Boxes(Dataset):
    """Boxes of files, resized by Pillow, which always antialiases."""

    def __init__(self, paths: list[str], places: np.ndarray, size: int):
        self.paths = paths
        self.places = places
        self.size = size

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        top, left, height, width = self.places[index].tolist()
        with Image.open(self.paths[index]) as image:
            part = image.convert("RGB").crop((left, top, left + width, top + height))
        resized = part.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(resized))


class Endless(Sampler):
    """The numbers 0 to `total` - 1, again and again."""

    def __init__(self, total: int):
        self.total = total

    def __iter__(self):
        return itertools.cycle(range(self.total))


def batches(
    paths: list[str], places: np.ndarray, size: int, batch_size: int, *, workers: int
) -> Iterator:
    """Batches u8[b, size, size, 3] without end, from `workers` processes."""
    loader = DataLoader(
        Boxes(paths, places, size),
        batch_size,
        sampler=Endless(len(paths)),
        num_workers=workers,
        # Spawned: a process with TensorFlow's threads may not be forked.
        multiprocessing_context="spawn",
    )
    return iter(loader)
