"""What all twins share: images mixed by given draws, PyTorch's SGD, a schedule, and what is
recorded.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from problem import PER_EPOCH, SIDE, B, flat, load, tensors
from torch import Tensor, nn


class Seen(NamedTuple):
    """A batch as a method's loss sees it."""

    x: Tensor  # [B, 3, H, W], mixed
    clean: Tensor  # [B, 3, H, W], as it was
    y: Tensor  # [B]
    index: np.ndarray  # [B]
    parts: list  # (whose label: positions [B], share) of the images mixed together
    epoch: int


def soft_cross_entropy(z, probs):
    """Mean over the batch of -sum_k probs_k log softmax(z)_k."""
    return F.cross_entropy(z, probs)


class Twin:
    """A method: its loss at a step, and what it does after the optimizer step. By default the hard
    label's.
    """

    norm, epochs, rate, nesterov = nn.BatchNorm2d, 3, 0.05, False
    own = None  # the loss to record, where it isn't the one that is minimised

    def __init__(self, problem):
        self.problem = problem
        self.net = load(2, problem.start, self.norm)
        self.frozen = [
            load(w, weights).eval() for w, weights in zip((3, 2), problem.teachers, strict=True)
        ]
        self.memory = []  # after each epoch

    def parameters(self):
        return list(self.net.parameters())

    def mix(self, x, step):
        """(the images mixed, [(whose label: positions [B], share) ...])."""
        return x, [(np.arange(B), 1.0)]

    def loss(self, seen):
        z, _ = self.net(seen.x)
        return sum(share * F.cross_entropy(z, seen.y[other]) for other, share in seen.parts)

    def after(self, seen):
        """After the optimizer step."""

    def end(self, epoch):
        """At the end of an epoch."""

    def extra(self):
        """What else is recorded at the end: {name: {tensor name: value}}."""
        return {}

    def run(self):
        """Train; returns {name: array}."""
        optimizer = torch.optim.SGD(
            self.parameters(), self.rate, momentum=0.9, weight_decay=5e-4, nesterov=self.nesterov
        )
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [self.epochs - 1], 0.1)
        losses = []
        for epoch in range(self.epochs):
            for step in range(epoch * PER_EPOCH, (epoch + 1) * PER_EPOCH):
                index = self.problem.order[step]
                clean, y = self.problem.batch(index)
                x, parts = self.mix(clean, step)
                seen = Seen(x, clean, y, index, parts, epoch)
                optimizer.zero_grad()
                loss = self.loss(seen)
                loss.backward()
                optimizer.step()
                losses.append(loss.item() if self.own is None else self.own)
                self.after(seen)
            self.end(epoch)
            schedule.step()
        found = {"loss": np.asarray(losses), "p": flat(tensors(self.net))}
        found.update({name: flat(values) for name, values in self.extra().items()})
        return found | ({"memory": np.stack(self.memory)} if self.memory else {})


class Mixup(Twin):
    """mixup with hard labels: Zhang et al. 2018; one share for the batch."""

    def mix(self, x, step):
        share, other = self.problem.share[step], self.problem.partner[step, 0]
        return share * x + (1 - share) * x[other], [(np.arange(B), share), (other, 1 - share)]


class CutMix(Twin):
    """CutMix with hard labels: Yun et al. 2019; one box for the batch."""

    def mix(self, x, step):
        (top, bottom, left, right), other = self.problem.box[step], self.problem.partner[step, 0]
        mixed = x.clone()
        mixed[:, :, top:bottom, left:right] = x[other][:, :, top:bottom, left:right]
        area = (bottom - top) * (right - left) / SIDE**2
        return mixed, [(np.arange(B), 1 - area), (other, area)]


class Ricap(Twin):
    """RICAP with hard labels: Takahashi et al. 2018; four crops of four permuted batches, joined."""

    def mix(self, x, step):
        (height, width), crops, parts = self.problem.split[step], [], []
        for number, other in enumerate(self.problem.partner[step]):
            rows = height if number < 2 else SIDE - height
            columns = width if number % 2 == 0 else SIDE - width
            top, left = self.problem.offset[step, number]
            crops.append(x[other][:, :, top : top + rows, left : left + columns])
            parts.append((other, rows * columns / SIDE**2))
        return torch.cat([torch.cat(crops[:2], 3), torch.cat(crops[2:], 3)], 2), parts
