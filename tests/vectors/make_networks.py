"""Writes networks.npz: what PyTorch computes with small twins of our networks, in float64.

python tests/vectors/make_networks.py   (extra `peers`)

For each twin: a state_dict, and with it the logits of sixteen images in evaluation and in training
mode, the mean of every channel of every stage in evaluation mode, and the losses of five steps of
SGD. The twins have the parts, names and layouts of widely used code (named beside each); weights
are random and exact in float16, BatchNorm's among them.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

CLASSES, IMAGES, BATCH, STEPS = 5, 16, 8, 5
MEAN, STD = (0.5, 0.45, 0.4), (0.25, 0.2, 0.3)


def conv(features_in, features, kernel, stride=1):
    return nn.Conv2d(features_in, features, kernel, stride, kernel // 2, bias=False)


class Block(nn.Module):
    """A residual block that returns its sum, and for pre-activation the maps before the first ReLU
    beside it.
    """

    def __init__(
        self, features_in, features, stride, *, inner=None, preact=False, shortcut="downsample"
    ):
        super().__init__()
        self.preact, self.project = preact, shortcut
        layers = [(features, 3, stride), (features, 3, 1)]
        if inner:
            layers = [(inner, 1, 1), (inner, 3, stride), (features, 1, 1)]
        self.count, last = len(layers), features_in
        for number, (wide, kernel, step) in enumerate(layers, start=1):
            self.add_module(f"conv{number}", conv(last, wide, kernel, step))
            self.add_module(f"bn{number}", nn.BatchNorm2d(last if preact else wide))
            last = wide
        self.changes = stride != 1 or features_in != features
        if self.changes:
            project = conv(features_in, features, 1, stride)
            if shortcut != "convShortcut":
                project = (
                    nn.Sequential(project)
                    if preact
                    else nn.Sequential(project, nn.BatchNorm2d(features))
                )
            self.add_module(shortcut, project)

    def part(self, kind, number):
        return getattr(self, f"{kind}{number}")

    def forward(self, x):
        project = getattr(self, self.project) if self.changes else nn.Identity()
        if not self.preact:
            y = x
            for number in range(1, self.count + 1):
                y = self.part("bn", number)(self.part("conv", number)(y))
                y = y if number == self.count else F.relu(y)
            return y + project(x), None
        before = self.bn1(x)
        y = F.relu(before)
        x = project(y) if self.changes else x
        y = self.conv1(y)
        for number in range(2, self.count + 1):
            y = self.part("conv", number)(F.relu(self.part("bn", number)(y)))
        return x + y, before


class Twin(nn.Module):
    """A stem, stages of blocks, the average, a linear layer; forward returns logits and the maps of
    the stages.
    """

    def __init__(
        self, stem, widths, blocks, *, bottleneck=0, preact=False, kernel=3, stem_norm=True, final="", linear="fc",
        shortcut="downsample", stage="layer{}",
    ):  # fmt: skip
        super().__init__()
        self.preact, self.final, self.head, self.stage = preact, final, linear, stage
        self.count, self.large, self.stem_norm = len(widths), kernel == 7, stem_norm
        self.conv1 = conv(3, stem, kernel, 2 if self.large else 1)
        if stem_norm:
            self.bn1 = nn.BatchNorm2d(stem)
        last = stem
        for number, width in enumerate(widths, start=1):
            features, made = width * (4 if bottleneck else 1), []
            for block in range(blocks):
                stride = 2 if number > 1 and block == 0 else 1
                options = {"inner": width * bottleneck, "preact": preact, "shortcut": shortcut}
                made.append(Block(last, features, stride, **options))
                last = features
            made = nn.Sequential(*made)
            self.add_module(
                stage.format(number), nn.ModuleDict({"layer": made}) if "block" in stage else made
            )
        if final:
            self.add_module(final, nn.BatchNorm2d(last))
        self.add_module(linear, nn.Linear(last, CLASSES))

    def blocks(self, number):
        found = getattr(self, self.stage.format(number))
        return found["layer"] if isinstance(found, nn.ModuleDict) else found

    def forward(self, x):
        x, stages = self.conv1(x), []
        x = F.relu(self.bn1(x)) if self.stem_norm else x
        x = F.max_pool2d(x, 3, 2, 1) if self.large else x
        for number in range(1, self.count + 1):
            for place, block in enumerate(self.blocks(number)):
                x, before = block(x)
                if self.preact and number > 1 and place == 0:
                    stages.append(before)
                total, x = x, x if self.preact else F.relu(x)
            if not self.preact:
                stages.append(total)
        if self.preact:
            x = getattr(self, self.final)(x) if self.final else x
            stages.append(x)
            x = F.relu(x) if self.final else x
        return getattr(self, self.head)(x.mean((2, 3))), stages


KUANGLIU = {"linear": "linear", "shortcut": "shortcut"}
WIDTHS = (4, 8, 16, 32)
TWINS = {  # name -> (side of an image, how the twin is made)
    "cifar_resnet": (16, lambda: Twin(4, WIDTHS[:3], 1)),  # RepDistiller's resnet.py, resnet8
    # kuangliu's resnet.py, basic blocks
    "resnet_cifar": (16, lambda: Twin(4, WIDTHS, 1, **KUANGLIU)),
    # torchvision, wide_resnet50_2
    "resnet_imagenet": (32, lambda: Twin(2, (2, 4, 8, 16), 1, bottleneck=2, kernel=7)),
    # PS-KD's CIFAR_ResNet18_preActBasic
    "preact_pskd": (16, lambda: Twin(4, WIDTHS, 1, preact=True, **KUANGLIU)),
    # kuangliu's preact_resnet.py, bottleneck blocks, with He et al.'s activation at the end
    "preact_bottleneck": (
        16,
        lambda: Twin(2, (2, 4, 8, 16), 1, bottleneck=1, preact=True, stem_norm=False, final="bn", **KUANGLIU),
    ),
    "wide_resnet": (  # RepDistiller's wrn.py, WRN-10-1
        16, lambda: Twin(16, (16, 32, 64), 1, preact=True, stem_norm=False, final="bn1", shortcut="convShortcut",
                         stage="block{}"),
    ),
}  # fmt: skip


def draw_weights(twin, draw):
    """Random values that float16 holds exactly, BatchNorm's scales, shifts and statistics among
    them.
    """
    for name, value in twin.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        noise = draw.standard_normal(tuple(value.shape))
        if name.endswith("running_var"):
            noise = np.exp(0.3 * noise)
        elif name.endswith("running_mean"):
            noise = 0.3 * noise
        elif value.ndim == 1:
            noise = (name.endswith("weight")) + 0.2 * noise
        else:
            noise = noise * np.sqrt(2 / np.prod(value.shape[1:]))
        value.copy_(torch.from_numpy(noise.astype(np.float16).astype(np.float64)))


def train(twin, x, labels, order):
    """Losses of five steps: SGD .1, momentum .9 (Nesterov), L2 5e-4 on all parameters."""
    optimizer = torch.optim.SGD(
        twin.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    losses = []
    twin.train()
    for index in order:
        loss = F.cross_entropy(twin(x[index])[0], labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main():
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (IMAGES, 32, 32, 3), np.uint8)
    labels = draw.integers(0, CLASSES, IMAGES).astype(np.int32)
    order = np.stack([draw.permutation(IMAGES)[:BATCH] for _ in range(STEPS)]).astype(np.int32)
    versions = f"torch {torch.__version__}, numpy {np.__version__}"
    found = {
        "images": images,
        "labels": labels,
        "order": order,
        "versions": versions,
        "mean": MEAN,
        "std": STD,
    }
    for name, (side, make) in TWINS.items():
        twin = make()
        draw_weights(twin, draw)
        state = {key: value.numpy().astype(np.float16) for key, value in twin.state_dict().items()}
        x = torch.from_numpy(((images[:, :side, :side] / 255 - MEAN) / STD).transpose(0, 3, 1, 2))
        with torch.no_grad():
            eval_logits, stages = twin.eval()(x)
            for number, stage in enumerate(stages):
                found[f"{name}/stages/{number}"] = stage.mean((0, 2, 3)).numpy()
            found[f"{name}/eval_logits"] = eval_logits.numpy()
            kept = {key: value.clone() for key, value in twin.state_dict().items()}
            found[f"{name}/train_logits"] = twin.train()(x)[0].numpy()
            twin.load_state_dict(kept)
        found[f"{name}/losses"] = train(
            twin, x, torch.from_numpy(labels).long(), torch.from_numpy(order)
        )
        found |= {f"{name}/weights/{key}": value for key, value in state.items()}
    np.savez_compressed(Path(__file__).with_name("networks.npz"), **found)


if __name__ == "__main__":
    main()
