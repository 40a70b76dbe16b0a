"""PyTorch's step of the same kind of network, channels-last; on a GPU also compiled (extra
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


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2))
        same = stride == 1 and before == width
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(
                nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )
        )

    def forward(self, x):
        """Maps after the last ReLU."""
        y = functional.relu(self.norms[0](self.first(x)))
        return functional.relu(self.norms[1](self.second(y)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (which strides), 1x1 to four times the width, and a shortcut."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        after = 4 * width
        shapes = ((before, width, 1, 1), (width, width, 3, stride), (width, after, 1, 1))
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, k, s, k // 2, bias=False) for a, b, k, s in shapes
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(shape[1]) for shape in shapes)
        same = stride == 1 and before == after
        shortcut = nn.Sequential(
            nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
        )
        self.shortcut = nn.Identity() if same else shortcut

    def forward(self, x):
        """Maps after the last ReLU."""
        y = x
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            y = norm(layer(y))
            y = functional.relu(y) if number < 2 else y
        return functional.relu(y + self.shortcut(x))


def imagenet(kind: type, counts, classes: int, channels: int) -> nn.Module:
    """A residual network with ImageNet's stem: 7x7 of stride 2, and pooling."""
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
    """The PyTorch network of a config's shape. Raises ValueError where there is none of that kind
    here.
    """
    depth = c.model[c.model.name].depth
    if c.model.name == "cifar_resnet":
        return network((16, 32, 64), [(depth - 2) // 6] * 3, classes, channels)
    counts = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
    if c.model.name == "resnet" and c.model.resnet.stem == "imagenet":
        counts |= {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
    if c.model.name != "resnet" or depth not in counts:
        raise ValueError(
            f"--torch has no network for {c.model.name} of depth {depth}; it has cifar_resnet, resnet18 and 34, and "
            "of ImageNet's shape resnet50, 101 and 152 too"
        )
    if c.model.resnet.stem == "imagenet":
        return imagenet(Bottleneck if depth >= 50 else Block, counts[depth], classes, channels)
    return network((64, 128, 256, 512), counts[depth], classes, channels)


def programs(c: ConfigDict, dataset: Dataset) -> dict[str, Callable]:
    """{name: one training step}, without augmentation: fetch, network, gradient, SGD with momentum
    and decay.
    """
    gpu = torch.cuda.is_available()
    made = {"torch eager": step(c, dataset, gpu, mode=None)}
    if gpu:
        torch.backends.cudnn.benchmark = True  # cuDNN's fastest algorithms, as XLA looks for them
        torch.set_float32_matmul_precision("high")  # TF32 in float32, as XLA has it
        made["torch compile"] = step(c, dataset, gpu, mode="default")
        made["torch compile, CUDA graphs"] = step(c, dataset, gpu, mode="reduce-overhead")
    return made


def step(c: ConfigDict, dataset: Dataset, gpu: bool, *, mode: str | None) -> Callable:
    """A program that takes one step a call and returns its loss; mode: of `torch.compile`, None =
    not compiled.
    """
    device = torch.device("cuda" if gpu else "cpu")
    model = twin(c, len(dataset.classes), dataset.train.shape[-1]).to(
        device, memory_format=torch.channels_last
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=5e-4)
    held = dataset.train
    if held.stream is not None:  # one batch, shown again and again
        batch = next(held.stream([(0, np.arange(c.data.batch_size))], 0))
        held = held._replace(images=batch["image"], labels=batch["label"])
    images = torch.from_numpy(held.images.transpose(0, 3, 1, 2)).to(device)
    labels = torch.from_numpy(held.labels.astype(np.int64)).to(device)
    half = c.model.dtype == "bfloat16"
    model = torch.compile(model, mode=mode) if mode else model
    order = torch.randperm(len(images), device=device)
    place = 0

    def call():
        nonlocal place
        index = order[place : place + c.data.batch_size]
        place = (place + c.data.batch_size) % max(1, len(order) - c.data.batch_size)
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
