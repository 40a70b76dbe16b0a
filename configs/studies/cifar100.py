"""The table of the paper's earlier code on CIFAR-100, twenty methods on five ResNets, and rows of
other codes.

python -m ldl_jax.study configs/studies/cifar100.py --set data.root=DATA --only=CELL

Published rows: github.com/vision01234/8511 (accuracy / ECE; its number of bins is not stated, its
teacher a ResNet-110 of plain cross entropy); for PreActResNet-18 and -101
github.com/lgcnsai/PS-KD-Pytorch (ECE in 10 bins); for ResNet-34
github.com/zhangchbin/OnlineLabelSmoothing; for distillation at T = 4
github.com/HobbitLong/RepDistiller; for WRN-28-10 github.com/google/uncertainty-baselines (ECE in 15
bins). Ours is in 15 bins. 'three' has three teachers' averaged probabilities, 'logits' their
averaged logits, 'sum' three times that loss; which mixing 'Aug' is, is not said: here CutMix. 5,000
images are held out of the 50,000 that the published rows were trained on, to fit the temperature
on; --set data.holdout=0 trains as they did. CRD, SSKD and WSL, which the table has too, are not
served.
"""

from ldl_jax.config import Cell, Study

DEPTHS = (20, 32, 44, 56, 110)
ONE, THREE = ("teacher",), ("teacher/0", "teacher/1", "teacher/2")
SUM = {"labels.teacher.weight": 3.0}
# averaged over images and classes
KD = {"labels.blend.weights": (1.0, 0.001), "labels.teacher.temperature": 3.0}
METHODS = {  # name -> (config, fields, teachers, published accuracy % / ECE at each depth)
    "hard": ("hard", {}, (), (69.32, 0.070, 71.17, 0.094, 72.11, 0.109, 72.28, 0.123, 73.88, 0.131)),
    "hard_long": ("hard:long", {}, (), ()),  # what the longer schedule alone does
    "smooth": ("smooth", {}, (), (69.43, 0.053, 71.49, 0.032, 72.32, 0.018, 72.87, 0.020, 73.90, 0.051)),
    "kd_by_class": ("kd", KD, ONE, (69.07, 0.071, 71.23, 0.092, 72.19, 0.108, 72.76, 0.118, 73.60, 0.135)),
    "ldl": ("ldl", {}, ONE, (69.09, 0.051, 71.96, 0.071, 72.79, 0.084, 73.59, 0.085, 75.47, 0.089)),
    "ldl_mix": ("ldl_mix", {}, ONE, (68.9, 0.063, 72.17, 0.060, 73.79, 0.037, 74.87, 0.025, 76.56, 0.039)),
    "ldl_mix_long": ("ldl_mix:long", {}, ONE, (69.41, 0.073, 72.95, 0.054, 74.30, 0.048, 75.54, 0.028, 77.28, 0.025)),
    "ldl_three": ("ldl", {}, THREE, (70.57, 0.050, 73.00, 0.065, 73.84, 0.072, 74.66, 0.072, 76.39, 0.071)),
    "ldl_sum": ("ldl", SUM, THREE, (70.75, 0.019, 73.24, 0.020, 74.39, 0.023, 74.84, 0.023, 76.35, 0.016)),
    "ldl_mix_three": ("ldl_mix", {}, THREE, (69.57, 0.069, 72.64, 0.059, 73.67, 0.049, 74.66, 0.055, 76.08, 0.061)),
    "ldl_mix_sum": ("ldl_mix", SUM, THREE, (69.13, 0.082, 72.23, 0.085, 73.51, 0.080, 74.29, 0.069, 76.04, 0.088)),
    "ldl_mix_three_long": (
        "ldl_mix:long", {}, THREE, (70.06, 0.071, 72.94, 0.058, 74.47, 0.059, 75.14, 0.069, 76.86, 0.074),
    ),
    "ldl_mix_sum_long": (
        "ldl_mix:long", SUM, THREE, (70.02, 0.084, 72.58, 0.102, 74.20, 0.086, 75.28, 0.091, 76.48, 0.089),
    ),
    "ldl_three_logits": ("ldl", {"labels.teacher.average": "logits"}, THREE, ()),
    "kd": ("kd", {}, ONE, ()),
    "fitnet": ("hard", {"auxiliary.names": ("hint",)}, ONE, ()),
    "online": ("online", {}, (), ()),
    "classwise": ("classwise", {}, (), ()),
    "mean_teacher": ("mean_teacher", {}, (), ()),
    "peer": ("peer", {}, (), ()),
}  # fmt: skip
PREACT = {  # (method, depth of a PreActResNet) with PS-KD's recipe -> accuracy, NLL, ECE
    ("hard", 18): (0.7582, 1.10, 0.1184), ("smooth", 18): (0.7906, 0.98, 0.1079),
    ("online", 18): (0.7918, 0.76, 0.0177),
    ("hard", 101): (0.7925, 0.89, 0.1002), ("smooth", 101): (0.8016, 0.93, 0.0343),
    ("online", 101): (0.8057, 0.74, 0.0692),
}  # fmt: skip
HELD = {"data.holdout": 5000}
WRN = {  # uncertainty-baselines' recipe
    "model.name": "wide_resnet", "data.batch_size": 512, "optimizer.learning_rate": 0.4, "optimizer.nesterov": True,
    # there 2e-4 times the squared norm in the loss, whose gradient is twice that
    "optimizer.weight_decay": 4e-4,
    "optimizer.boundaries": (60.0, 120.0, 160.0), "optimizer.factor": 0.2,
    "optimizer.warmup_epochs": 1.0, "train.epochs": 200.0,
}  # fmt: skip


def file(name):
    """The config file of a method, with its schedule."""
    method, colon, schedule = name.partition(":")
    return f"cifar100_{method}.py{colon}{schedule}"


def table():
    """Every method on every ResNet."""
    made = []
    for place, depth in enumerate(DEPTHS):
        for name, (config, fields, teachers, rows) in METHODS.items():
            known = {"accuracy": rows[2 * place] / 100, "ece": rows[2 * place + 1]} if rows else {}
            known = {"accuracy": 0.7308} if (name, depth) == ("kd", 32) else known
            size = {**HELD, **fields, "model.cifar_resnet.depth": depth}
            made.append(Cell(f"{name}_r{depth}", file(config), size, 3, teachers, known))
    return made


def others():
    """Rows of other codes, each with its own recipe."""
    small = {**HELD, "model.cifar_resnet.depth": 20}
    made = [
        Cell("kd_r20_from_r56", "cifar100_kd.py", small, 3, ("hard_r56",), {"accuracy": 0.7066})
    ]
    for (name, depth), (accuracy, nll, ece) in PREACT.items():
        preact = {
            **HELD,
            "model.name": "resnet",
            "model.resnet.depth": depth,
            "model.resnet.preact": True,
        }
        known = {"accuracy": accuracy, "nll": nll, "ece": ece}
        made.append(Cell(f"{name}_preact{depth}", file(f"{name}:300"), preact, 3, (), known))
    basic = {**HELD, "model.name": "resnet", "model.resnet.depth": 34}
    made.append(Cell("hard_resnet34", "cifar100_hard.py:300", basic))
    made.append(
        Cell(
            "classwise_resnet34",
            "cifar100_classwise.py:300",
            basic,
            3,
            (),
            {"accuracy": 0.8001, "nll": 0.846},
        )
    )
    wide = {"accuracy": 0.798, "nll": 0.875, "ece": 0.0857}
    return [*made, Cell("hard_wrn28", "cifar100_hard.py", {**HELD, **WRN}, 3, (), wide)]


def get_study():
    """The table, the rows of others, and the teachers; compared with hard labels, and where the
    claims lie.
    """
    teacher = Cell(
        "teacher", "cifar100_hard.py", {**HELD, "model.cifar_resnet.depth": 110, "seed": 100}, 3
    )
    pairs = [(f"{name}_r{d}", f"hard_r{d}") for d in DEPTHS for name in METHODS if name != "hard"]
    claims = (("kd", "ldl"), ("kd", "smooth"), ("fitnet", "ldl"), ("ldl_mix", "ldl"), ("ldl_mix_long", "ldl_mix"),
              ("ldl_mix_long", "hard_long"), ("ldl_three_logits", "ldl_three"))  # fmt: skip
    pairs += [(f"{one}_r{d}", f"{other}_r{d}") for d in DEPTHS for one, other in claims]
    pairs += [(f"{name}_preact{d}", f"hard_preact{d}") for name, d in PREACT if name != "hard"]
    pairs += [("classwise_resnet34", "hard_resnet34"), ("kd_r20_from_r56", "hard_r20")]
    return Study(
        "Label distributions on CIFAR-100", (teacher, *table(), *others()), comparisons=tuple(pairs),
        about="Three seeds a cell, as published: enough for a mean and a spread, too few for a verdict. 45,000 images "
        "to train on where the published rows had 50,000; their ECE is in 10 bins (PreAct), 15 (WRN) or not stated.",
    )  # fmt: skip
