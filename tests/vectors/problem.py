"""The tiny problem of the twins: 64 images of 8x8 pixels in 5 classes, a ResNet-8 of width 2, drawn
mixings.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

K, N, B, SIDE, PER_EPOCH = 5, 64, 16, 8, 4


class Block(nn.Module):
    """Basic block; `before` is the sum that its last ReLU sees."""

    def __init__(self, inside, outside, stride, norm):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = norm(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = norm(outside)
        self.downsample = None
        if stride > 1 or inside != outside:
            self.downsample = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), norm(outside)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet8(nn.Module):
    """CIFAR ResNet-8 with K classes; forward returns (logits, maps after each stage's ReLU)."""

    def __init__(self, width, norm=nn.BatchNorm2d):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = norm(width)
        self.layer1 = nn.Sequential(Block(width, width, 1, norm))
        self.layer2 = nn.Sequential(Block(width, 2 * width, 2, norm))
        self.layer3 = nn.Sequential(Block(2 * width, 4 * width, 2, norm))
        self.fc = nn.Linear(4 * width, K)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3):
            x = layer(x)
            maps.append(x)
        return self.fc(x.mean((2, 3))), maps


class BiasedNorm(nn.BatchNorm2d):
    """BatchNorm whose running variance averages the batch's own (biased) variance, as flax's does."""

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.running_mean.lerp_(x.mean((0, 2, 3)), self.momentum)
                self.running_var.lerp_(x.var((0, 2, 3), unbiased=False), self.momentum)
        mean, var = (None, None) if self.training else (self.running_mean, self.running_var)
        return F.batch_norm(x, mean, var, self.weight, self.bias, self.training, 0.0, self.eps)


class Problem:
    """Images, labels, order, start weights and the drawn mixings: all that the twins share."""

    def __init__(self, seed=0):
        draw = np.random.default_rng(seed)
        torch.manual_seed(seed)
        self.labels = draw.permutation(np.arange(N) % K).astype(np.int32)
        shapes = draw.uniform(40, 210, (K, SIDE, SIDE, 3))
        noise = draw.normal(0, 30, (N, SIDE, SIDE, 3))
        self.images = np.clip(shapes[self.labels] + noise, 0, 255).astype(np.uint8)
        self.order = (
            np.stack([draw.permutation(N) for _ in range(10)]).reshape(-1, B).astype(np.int32)
        )
        steps = 3 * PER_EPOCH  # that are mixed
        self.partner = np.stack(
            [[draw.permutation(B) for _ in range(4)] for _ in range(steps)]
        ).astype(np.int32)
        self.share = draw.beta(1, 1, steps)
        self.box = (
            np.sort(draw.integers(0, SIDE + 1, (steps, 2, 2)), -1)
            .reshape(steps, 4)
            .astype(np.int32)
        )
        self.split = draw.integers(1, SIDE, (steps, 2)).astype(np.int32)
        high, low = self.split, SIDE - self.split
        sides = [
            (high[:, 0], high[:, 1]),
            (high[:, 0], low[:, 1]),
            (low[:, 0], high[:, 1]),
            (low[:, 0], low[:, 1]),
        ]
        offset = [[draw.integers(0, SIDE - side + 1) for side in both] for both in sides]
        self.offset = np.asarray(offset).transpose(2, 0, 1).astype(np.int32)
        self.start = self.weights(ResNet8(2))
        self.peer = self.weights(ResNet8(2))
        self.teachers = [self.taught(width) for width in (3, 2)]
        self.regress = self.weights(
            nn.ModuleDict({"conv": nn.Conv2d(4, 6, 1), "bn": nn.BatchNorm2d(6)})
        )

    def weights(self, net):
        """A network's tensors, rounded to float32 so that they are stored small and exactly."""
        kept = {
            name: value for name, value in net.state_dict().items() if "num_batches" not in name
        }
        return {name: value.to(torch.float32).to(torch.float64) for name, value in kept.items()}

    def taught(self, width):
        """A frozen network that has seen the images for ten epochs, so that its predictions mean
        something.
        """
        net = ResNet8(width)
        optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
        for index in np.concatenate([self.order, self.order[:16]]):
            optimizer.zero_grad()
            F.cross_entropy(net(self.batch(index)[0])[0], self.batch(index)[1]).backward()
            optimizer.step()
        return self.weights(net)

    def batch(self, index):
        """(image [B, 3, H, W] in [0, 1], label [B])."""
        image = torch.from_numpy(self.images[index].transpose(0, 3, 1, 2).astype(np.float64) / 255)
        return image, torch.from_numpy(self.labels[index].astype(np.int64))


def load(width, weights, norm=nn.BatchNorm2d):
    """A network in training mode with given weights."""
    net = ResNet8(width, norm)
    net.load_state_dict(weights, strict=False)
    return net


def tensors(net):
    """The tensors of a network as numpy arrays, without PyTorch's counter of batches."""
    return {
        n: v.detach().numpy().copy() for n, v in net.state_dict().items() if "num_batches" not in n
    }


def flat(weights):
    """Named tensors joined to one float64 vector, in their order."""
    return np.concatenate([np.ravel(value) for value in weights.values()])
