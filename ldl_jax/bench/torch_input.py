"""PyTorch's DataLoader with Pillow on the same boxes of the same files (extra `peers`)."""

import itertools
from collections.abc import Callable

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
        return torch.from_numpy(np.array(part.resize((self.size, self.size), Image.Resampling.BILINEAR)))


class Following(Sampler):
    """The next `count` numbers of 0 to `total` - 1, round and round: when they are read, no worker goes on."""

    def __init__(self, total: int, count: int):
        self.numbers, self.count = itertools.cycle(range(total)), count

    def __len__(self):
        return self.count

    def __iter__(self):
        return itertools.islice(self.numbers, self.count)


def program(
    paths: list[str], places: np.ndarray, size: int, batch_size: int, *, workers: int, batches: int
) -> Callable:
    """A program that takes so many batches u8[b, size, size, 3] from as many worker processes as there are cores."""
    # Spawned: a process with TensorFlow's threads may not be forked.
    kept = {"persistent_workers": True, "multiprocessing_context": "spawn"}
    sampler = Following(len(paths), batches * batch_size)
    made = DataLoader(Boxes(paths, places, size), batch_size, sampler=sampler, num_workers=workers, **kept)
    return lambda: [batch.shape for batch in made][-1] is None
