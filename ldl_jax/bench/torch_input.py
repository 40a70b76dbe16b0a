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
    """Boxes of files, resized by Pillow, which always filters against aliasing."""

    def __init__(self, paths: list[str], places: np.ndarray, size: int):
        self.paths, self.places, self.size = paths, places, size

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, number):
        top, left, height, width = self.places[number].tolist()
        with Image.open(self.paths[number]) as stored:
            part = stored.convert("RGB").crop((left, top, left + width, top + height))
        return torch.from_numpy(
            np.array(part.resize((self.size, self.size), Image.Resampling.BILINEAR))
        )


class Endless(Sampler):
    """The numbers 0 to `total` - 1, round and round."""

    def __init__(self, total: int):
        self.total = total

    def __iter__(self):
        return itertools.cycle(range(self.total))


def batches(
    paths: list[str], places: np.ndarray, size: int, batch_size: int, *, workers: int
) -> Iterator:
    """Batches u8[b, size, size, 3] without end from so many worker processes."""
    # Spawned: a process with TensorFlow's threads may not be forked.
    kept = {"num_workers": workers, "multiprocessing_context": "spawn"}
    return iter(
        DataLoader(Boxes(paths, places, size), batch_size, sampler=Endless(len(paths)), **kept)
    )
