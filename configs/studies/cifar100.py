"""The table of the paper's earlier code on CIFAR-100, thirteen methods on five ResNets, and PS-KD's rows.

python -m ldl_jax.study configs/studies/cifar100.py --set data.root=DATA --only=CELL

Published rows: github.com/vision01234/8511 (accuracy / ECE; its number of bins is not stated, its teacher a ResNet-110
of plain cross entropy) and, for a PreActResNet-18, github.com/lgcnsai/PS-KD-Pytorch (ECE in 10 bins). 'three' has three
teachers' averaged probabilities, 'sum' three times that loss; which mixing 'Aug' is, is not said: here CutMix. 5,000
images are held out of the 50,000 that the published rows were trained on, to fit the temperature on; --set
data.holdout=0 trains as they did.
"""

from ldl_jax.config import Cell, Study

DEPTHS = (20, 32, 44, 56, 110)
ONE, THREE = ("teacher",), ("teacher/0", "teacher/1", "teacher/2")
SUM = {"labels.teacher.weight": 3.0}
KD = {"labels.blend.weights": (1.0, 0.001), "labels.teacher.temperature": 3.0}  # averaged over images and classes
METHODS = {  # name -> (config, fields, teachers, published accuracy % / ECE at each depth)
    "hard": ("hard", {}, (), (69.32, 0.070, 71.17, 0.094, 72.11, 0.109, 72.28, 0.123, 73.88, 0.131)),
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
    "kd": ("kd", {}, ONE, ()),
    "online": ("online", {}, (), ()),
    "classwise": ("classwise", {}, (), ()),
    "mean_teacher": ("mean_teacher", {}, (), ()),
    "peer": ("peer", {}, (), ()),
}  # fmt: skip
PREACT = {  # on a PreActResNet-18 with PS-KD's recipe: accuracy, NLL, ECE
    "hard": (0.7582, 1.10, 0.1184), "smooth": (0.7906, 0.98, 0.1079), "online": (0.7918, 0.76, 0.0177),
}  # fmt: skip
HELD = {"data.holdout": 5000}


def file(name):
    """The config file of a method, with its schedule."""
    method, colon, schedule = name.partition(":")
    return f"cifar100_{method}.py{colon}{schedule}"


def get_study():
    """85 cells of the table, 3 of PS-KD's, and the teachers."""
    cells = [Cell("teacher", "cifar100_hard.py", {**HELD, "model.cifar_resnet.depth": 110, "seed": 100}, 3)]
    for place, depth in enumerate(DEPTHS):
        for name, (config, fields, teachers, rows) in METHODS.items():
            fields = {**HELD, **fields, "model.cifar_resnet.depth": depth}
            published = (
                dict(zip(("accuracy", "ece"), (rows[2 * place] / 100, rows[2 * place + 1]), strict=True))
                if rows
                else {}
            )
            cells.append(Cell(f"{name}_r{depth}", file(config), fields, 3, teachers, published))
    preact = {**HELD, "model.name": "resnet", "model.resnet.depth": 18, "model.resnet.preact": True}
    for name, (accuracy, nll, ece) in PREACT.items():
        published = {"accuracy": accuracy, "nll": nll, "ece": ece}
        cells.append(Cell(f"{name}_preact18", file(f"{name}:300"), preact, 3, (), published))
    pairs = [(f"{name}_r{d}", f"hard_r{d}") for d in DEPTHS for name in METHODS if name != "hard"]
    return Study(
        "Label distributions on CIFAR-100", tuple(cells), comparisons=tuple(pairs),
        about="Three seeds a cell, as published: enough for a mean and a spread, too few for a verdict.",
    )  # fmt: skip
