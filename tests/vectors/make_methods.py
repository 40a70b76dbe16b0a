"""Twins in PyTorch of the methods that ldl_jax has, on a tiny problem in float64: writes
methods.npz beside this file.

python tests/vectors/make_methods.py (torch 2.13.0, numpy; seconds on one core). Each twin is
written from the formulas of its paper or of the published code, which its class names, with
PyTorch's own optimizer, losses and layers. The tests read the file alone and need no torch.
"""

import copy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from problem import BiasedNorm, K, N, Problem, load, tensors
from torch import nn
from twin import CutMix, Mixup, Ricap, Twin, soft_cross_entropy


class Smoothing(Twin):
    """Label smoothing, epsilon 0.1."""

    def loss(self, seen):
        return F.cross_entropy(self.net(seen.x)[0], seen.y, label_smoothing=0.1)


class PSKD(Twin):
    """Progressive self-knowledge distillation, Kim et al. 2021: last epoch's predictions, weight
    0.8 (e + 1) / E.
    """

    nesterov = True

    def __init__(self, problem):
        super().__init__(problem)
        self.rows = torch.zeros(N, K)

    def loss(self, seen):
        z, _ = self.net(seen.x)
        hard, alpha = F.one_hot(seen.y, K).double(), 0.8 * (seen.epoch + 1) / self.epochs
        if seen.epoch == 0:
            self.rows[seen.index] = hard
        self.said = z.detach().softmax(1)
        return soft_cross_entropy(z, (1 - alpha) * hard + alpha * self.rows[seen.index])

    def after(self, seen):
        self.rows[seen.index] = self.said

    def end(self, epoch):
        self.memory.append(self.rows.numpy().copy())


class CutMixPSKD(PSKD):
    """PS-KD under CutMix: targets of the own images mixed by area, memory from a clean pass before
    the update.
    """

    mix = CutMix.mix

    def loss(self, seen):
        with torch.no_grad():
            look = copy.deepcopy(self.net)  # whose running statistics may move
            self.said = look(seen.clean)[0].softmax(1)
        hard, alpha = F.one_hot(seen.y, K).double(), 0.8 * (seen.epoch + 1) / self.epochs
        own = hard if seen.epoch == 0 else (1 - alpha) * hard + alpha * self.rows[seen.index]
        return soft_cross_entropy(
            self.net(seen.x)[0], sum(share * own[other] for other, share in seen.parts)
        )


class Ensembling(Twin):
    """Temporal ensembling's recursion (Laine and Aila 2017, algorithm 2) inside a cross entropy: a
    0.6, weight 0.5.
    """

    def __init__(self, problem):
        super().__init__(problem)
        self.average = torch.zeros(N, K)

    def loss(self, seen):
        z, _ = self.net(seen.x)
        hard = F.one_hot(seen.y, K).double()
        own = hard if seen.epoch == 0 else self.average[seen.index] / (1 - 0.6**seen.epoch)
        self.said = z.detach().softmax(1)
        return soft_cross_entropy(z, 0.5 * hard + 0.5 * own)

    def after(self, seen):
        self.average[seen.index] = 0.6 * self.average[seen.index] + 0.4 * self.said

    def end(self, epoch):
        self.memory.append(self.average.numpy().copy())


class OLS(Twin):
    """Online label smoothing, Zhang et al. 2021, as its CIFAR script: 0.5 + 0.5, zeros in the first
    epoch.
    """

    weights, first, freeze = (0.5, 0.5), 0.0, None

    def __init__(self, problem):
        super().__init__(problem)
        self.table = torch.full((K, K), self.first)
        self.clear()

    def clear(self):
        self.sums, self.count = torch.zeros(K, K), torch.zeros(K)

    def loss(self, seen):
        z, _ = self.net(seen.x)
        for probs, label in zip(z.detach().softmax(1), seen.y.tolist(), strict=True):
            if probs.argmax() == label:
                self.sums[label] += probs
                self.count[label] += 1
        online = -(self.table[seen.y] * z.log_softmax(1)).sum(1).mean()
        return self.weights[0] * F.cross_entropy(z, seen.y) + self.weights[1] * online

    def end(self, epoch):
        for label in range(K):
            if self.count[label] < 0.5:
                self.table[label] = 1 / K
            elif self.freeze is None or self.table[label].max() < self.freeze:
                self.table[label] = self.sums[label] / self.count[label]
        self.clear()
        self.memory.append(self.table.numpy().copy())


class FineGrainedOLS(OLS):
    """The same as its fine-grained solver: 1 + 1, uniform in the first epoch, rows frozen from
    0.88.
    """

    weights, first, freeze = (1.0, 1.0), 1 / K, 0.88
    # so that rows are frozen, and one of them loses all of its correct examples
    epochs, rate = 10, 1.0


class MeanTeacher(Twin):
    """Tarvainen and Valpola 2017, with a cross entropy; the teacher's BatchNorm by the batch, as in
    its code.
    """

    decay = 0.8

    def __init__(self, problem):
        super().__init__(problem)
        self.teacher = copy.deepcopy(self.net)
        self.updates = 0

    def loss(self, seen):
        z, _ = self.net(seen.x)
        with torch.no_grad():
            probs = self.teacher(seen.x)[0].softmax(1)
        return F.cross_entropy(z, seen.y) + soft_cross_entropy(z, probs)

    def averaged(self):
        return zip(self.teacher.parameters(), self.net.parameters(), strict=True)

    def after(self, seen):
        self.updates += 1
        decay = min(1 - 1 / (self.updates + 1), self.decay)
        with torch.no_grad():
            for old, new in self.averaged():
                old.mul_(decay).add_(new, alpha=1 - decay)

    def extra(self):
        return {
            "average": {n: v.detach().numpy().copy() for n, v in self.teacher.named_parameters()}
        }


class AveragedMeanTeacher(MeanTeacher):
    """The same with the running statistics averaged too and used by the teacher; they are the
    biased ones here.
    """

    norm = BiasedNorm

    def __init__(self, problem):
        super().__init__(problem)
        self.teacher.eval()

    def averaged(self):
        states = (net.state_dict().items() for net in (self.teacher, self.net))
        return [
            (old, new)
            for (name, old), (_, new) in zip(*states, strict=True)
            if "num_batches" not in name
        ]

    def extra(self):
        return {"average": tensors(self.teacher)}


class Distillation(Twin):
    """Hinton et al. 2015 as RepDistiller runs it: 0.1 CE + 0.9 T^2 KL, mean over the batch, T 4."""

    hard, soft, temperature, reduction = 0.1, 0.9, 4.0, "batchmean"

    def loss(self, seen):
        z, _ = self.net(seen.x)
        with torch.no_grad():
            probs = (self.frozen[0](seen.x)[0] / self.temperature).softmax(1)
        kl = F.kl_div((z / self.temperature).log_softmax(1), probs, reduction=self.reduction)
        return self.hard * F.cross_entropy(z, seen.y) + self.soft * self.temperature**2 * kl


class ElementwiseDistillation(Distillation):
    """CE + 0.1 T^2 KL at T 3 with the KL's mean over examples and classes, as vision01234/8511 runs
    it: 0.9 / K.
    """

    hard, soft, temperature, reduction = 1.0, 0.1, 3.0, "mean"


class MixedTeacher(CutMix):
    """CutMix, and the frozen teacher's prediction of the mixed image at temperature 1 as the only
    label.
    """

    def loss(self, seen):
        with torch.no_grad():
            probs = self.frozen[0](seen.x)[0].softmax(1)
        return soft_cross_entropy(self.net(seen.x)[0], probs)


class TwoTeachers(Twin):
    """One cross-entropy term for each of two frozen teachers, summed, no hard label."""

    def loss(self, seen):
        z, _ = self.net(seen.x)
        with torch.no_grad():
            each = [net(seen.x)[0].softmax(1) for net in self.frozen]
        return sum(soft_cross_entropy(z, probs) for probs in each)


class Hint(Twin):
    """FitNet (Romero et al. 2015) as RepDistiller runs it: CE + 100 MSE after conv, BatchNorm,
    ReLU; stage 2.
    """

    rate = 0.02

    def __init__(self, problem):
        super().__init__(problem)
        self.regress = nn.ModuleDict({"conv": nn.Conv2d(4, 6, 1), "bn": nn.BatchNorm2d(6)})
        self.regress.load_state_dict(problem.regress, strict=False)

    def parameters(self):
        return [*self.net.parameters(), *self.regress.parameters()]

    def loss(self, seen):
        z, maps = self.net(seen.x)
        with torch.no_grad():
            theirs = self.frozen[0](seen.x)[1][1]
        mine = F.relu(self.regress["bn"](self.regress["conv"](maps[1])))
        return F.cross_entropy(z, seen.y) + 100 * F.mse_loss(mine, theirs)

    def extra(self):
        return {
            "regress": {name: value.detach() for name, value in self.regress.named_parameters()}
        }


class Mutual(Twin):
    """Deep mutual learning, Zhang et al. 2018, equations 5-8 for two networks; both updates from
    the same passes.
    """

    def __init__(self, problem):
        super().__init__(problem)
        self.other = load(2, problem.peer)

    def parameters(self):
        return [*self.net.parameters(), *self.other.parameters()]

    def loss(self, seen):
        logits = [net(seen.x)[0] for net in (self.net, self.other)]
        mine, theirs = (
            F.cross_entropy(z, seen.y)
            + F.kl_div(z.log_softmax(1), o.detach().softmax(1), reduction="batchmean")
            for z, o in (logits, logits[::-1])
        )
        self.own = mine.item()
        # neither depends on the other's parameters: the gradients are those of each alone
        return mine + theirs

    def extra(self):
        return {"peer": tensors(self.other)}


METHODS = {
    "mixup": Mixup, "cutmix": CutMix, "ricap": Ricap, "smooth": Smoothing, "pskd": PSKD, "pskd_cutmix": CutMixPSKD,
    "ensembling": Ensembling, "ols": OLS, "ols_fine": FineGrainedOLS, "mean_teacher": MeanTeacher,
    "mean_teacher_averaged": AveragedMeanTeacher, "kd": Distillation, "kd_elementwise": ElementwiseDistillation,
    "teacher_cutmix": MixedTeacher, "two_teachers": TwoTeachers, "hint": Hint, "mutual": Mutual,
}  # fmt: skip


def check_frozen(table):
    """Raise AssertionError where the run doesn't show a row that stays frozen, and one that falls
    back to uniform.
    """
    before, after = table[:-2], table[1:-1]
    frozen = before.max(-1) >= 0.88
    assert (frozen & (before == after).all(-1)).any()
    assert (frozen & (after == 1 / K).all(-1)).any()


def main():
    """Run every twin and write methods.npz."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    problem = Problem()
    drawn = ("images", "labels", "order", "partner", "share", "box", "split", "offset")
    found = {name: getattr(problem, name) for name in drawn}
    found["versions"] = np.asarray(f"torch {torch.__version__}, numpy {np.__version__}")
    given = {"start": problem.start, "peer": problem.peer, "regress": problem.regress}
    given |= {f"teacher{number}": weights for number, weights in enumerate(problem.teachers)}
    for name, weights in given.items():
        found.update(
            {f"{name}/{key}": value.numpy().astype(np.float32) for key, value in weights.items()}
        )
    for name, twin in METHODS.items():
        made = twin(problem).run()
        print(name, np.array2string(made["loss"], precision=3, max_line_width=200))
        found.update({f"{name}/{key}": value for key, value in made.items()})
    check_frozen(found["ols_fine/memory"])
    np.savez_compressed(Path(__file__).with_name("methods.npz"), **found)


if __name__ == "__main__":
    main()
