"""PyTorch's training step of the same network, channels-last; on a GPU also compiled (extra
`peers`).
"""

from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from ldl_jax.data.base import Dataset

try:
    import torch
    from torch import nn
    from torch.nn import functional
except ImportError as error:
    raise ImportError("--torch needs PyTorch: pip install 'ldl-jax[peers]'") from error


def _shortcut(before: int, after: int, stride: int) -> nn.Module:
    """The identity, or a 1x1 convolution if the shape changes."""
    if stride == 1 and before == after:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2))
        self.shortcut = _shortcut(before, width, stride)

    def forward(self, x):
        """Feature maps after the last ReLU."""
        y = functional.relu(self.norms[0](self.first(x)))
        return functional.relu(self.norms[1](self.second(y)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 to four times the width, and a shortcut."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        after = 4 * width
        shapes = ((before, width, 1, 1), (width, width, 3, stride), (width, after, 1, 1))
        self.layers = nn.ModuleList()
        self.norms = nn.ModuleList()
        for channels_in, channels_out, side, step in shapes:
            self.layers.append(
                nn.Conv2d(channels_in, channels_out, side, step, side // 2, bias=False)
            )
            self.norms.append(nn.BatchNorm2d(channels_out))
        self.shortcut = _shortcut(before, after, stride)

    def forward(self, x):
        """Feature maps after the last ReLU."""
        y = x
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            y = norm(layer(y))
            # The last ReLU comes after the shortcut is added.
            y = functional.relu(y) if number < 2 else y
        return functional.relu(y + self.shortcut(x))


def imagenet(kind: type, counts, classes: int, channels: int) -> nn.Module:
    """A residual network with ImageNet's stem: 7x7 with stride 2, and pooling."""
    layers = [
        nn.Conv2d(channels, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    before = 64
    for stage, count in enumerate(counts):
        for number in range(count):
            layers.append(kind(before, 64 * 2**stage, 2 if stage and not number else 1))
            before = 64 * 2**stage * (4 if kind is Bottleneck else 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def network(widths, blocks, classes: int, channels: int) -> nn.Module:
    """A residual network of basic blocks with a 3x3 stem."""
    layers = [
        nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
    ]
    before = widths[0]
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        for number in range(count):
            layers.append(Block(before, width, 2 if stage and not number else 1))
            before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def twin(c: ConfigDict, classes: int, channels: int) -> nn.Module:
    """The PyTorch network of a config. Raises ValueError if there is none here."""
    depth = c.model[c.model.name].depth
    if c.model.name == "cifar_resnet":
        return network((16, 32, 64), [(depth - 2) // 6] * 3, classes, channels)
    counts = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
    if c.model.name == "resnet" and c.model.resnet.stem == "imagenet":
        counts |= {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
    if c.model.name != "resnet" or depth not in counts:
        raise ValueError(
            "--torch must be used with cifar_resnet, resnet18 or 34, or for ImageNet resnet50, 101 "
            f"or 152, got {c.model.name} of depth {depth}"
        )
    if c.model.resnet.stem == "imagenet":
        return imagenet(Bottleneck if depth >= 50 else Block, counts[depth], classes, channels)
    return network((64, 128, 256, 512), counts[depth], classes, channels)


def programs(c: ConfigDict, dataset: Dataset) -> dict[str, Callable]:
    """{name: one training step} without augmentation: gather, network, gradient, SGD with momentum
    and weight decay.
    """
    gpu = torch.cuda.is_available()
    by_name = {"torch eager": step(c, dataset, gpu, mode=None)}
    if gpu:
        # What XLA does by default: search for cuDNN's fastest algorithms, and use TF32 in float32.
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        by_name["torch compile"] = step(c, dataset, gpu, mode="default")
        by_name["torch compile, CUDA graphs"] = step(c, dataset, gpu, mode="reduce-overhead")
    return by_name


def step(c: ConfigDict, dataset: Dataset, gpu: bool, *, mode: str | None) -> Callable:
    """A program that takes one step per call and returns its loss.

    mode: of `torch.compile`; None: not compiled.
    """
    device = torch.device("cuda" if gpu else "cpu")
    model = twin(c, len(dataset.classes), dataset.train.shape[-1])
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=5e-4)
    split = dataset.train
    # A streamed set is one batch that is shown again and again, as in the JAX step.
    if split.stream is not None:
        batch = next(split.stream([(0, np.arange(c.data.batch_size))], 0))
        split = split._replace(images=batch["image"], labels=batch["label"])
    images = torch.from_numpy(split.images.transpose(0, 3, 1, 2)).to(device)
    labels = torch.from_numpy(split.labels.astype(np.int64)).to(device)
    half = c.model.dtype == "bfloat16"
    model = torch.compile(model, mode=mode) if mode else model
    order = torch.randperm(len(images), device=device)
    start = 0

    def call():
        nonlocal start
        index = order[start : start + c.data.batch_size]
        start = (start + c.data.batch_size) % max(1, len(order) - c.data.batch_size)
        x = (images[index].float() / 255 - 0.5) / 0.25
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits = model(x.contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(logits.float(), labels[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss

    return call


def wait(loss) -> None:
    """Wait for a step's result."""
    if loss is not None:
        loss.item()
