"""The table of the paper's earlier code on CIFAR-100, twenty methods on five ResNets, and published
rows of other repositories.

python -m ldl_jax.study configs/studies/cifar100.py --set data.root=DATA --only=CELL

Sources of the published rows: github.com/vision01234/8511 (accuracy and ECE; the number of bins is
not stated; its teacher is a ResNet-110 trained with cross entropy); PreActResNet-18 and -101:
github.com/lgcnsai/PS-KD-Pytorch (ECE with 10 bins); ResNet-34:
github.com/zhangchbin/OnlineLabelSmoothing; distillation at T = 4:
github.com/HobbitLong/RepDistiller; WRN-28-10: github.com/google/uncertainty-baselines (ECE with 15
bins). Our ECE has 15 bins.

'three' uses the averaged probabilities of three teachers, 'logits' their averaged logits, 'sum'
three times that loss. The source does not say which mixing its 'Aug' is; here it is CutMix. Of the
50,000 images that the published rows were trained on, 5,000 are held out to fit the temperature;
--set data.holdout=0 trains on all of them. CRD, SSKD and WSL, which the table also has, are not
implemented.
"""

from ldl_jax.config import Cell, Study

DEPTHS = (20, 32, 44, 56, 110)
HELD = {"data.holdout": 5000}
ONE = ("teacher",)
THREE = ("teacher/0", "teacher/1", "teacher/2")
SUM = {"labels.teacher.weight": 3.0}
# Their distillation loss is averaged over images and classes, hence the small weight.
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
    ("hard", 18): (0.7582, 1.10, 0.1184),
    ("smooth", 18): (0.7906, 0.98, 0.1079),
    ("online", 18): (0.7918, 0.76, 0.0177),
    ("hard", 101): (0.7925, 0.89, 0.1002),
    ("smooth", 101): (0.8016, 0.93, 0.0343),
    ("online", 101): (0.8057, 0.74, 0.0692),
}
# The recipe of uncertainty-baselines.
WRN = {
    "model.name": "wide_resnet",
    "data.batch_size": 512,
    "optimizer.learning_rate": 0.4,
    "optimizer.nesterov": True,
    # Their loss adds 2e-4 times the squared norm of the weights, whose gradient is twice that.
    "optimizer.weight_decay": 4e-4,
    "optimizer.boundaries": (60.0, 120.0, 160.0),
    "optimizer.factor": 0.2,
    "optimizer.warmup_epochs": 1.0,
    "train.epochs": 200.0,
}
CLAIMS = (
    ("kd", "ldl"),
    ("kd", "smooth"),
    ("fitnet", "ldl"),
    ("ldl_mix", "ldl"),
    ("ldl_mix_long", "ldl_mix"),
    ("ldl_mix_long", "hard_long"),
    ("ldl_three_logits", "ldl_three"),
)


def file(name):
    """The config file of METHOD or METHOD:SCHEDULE, with the schedule as its argument."""
    method, colon, schedule = name.partition(":")
    return f"cifar100_{method}.py{colon}{schedule}"


def table():
    """Every method on every ResNet."""
    cells = []
    for column, depth in enumerate(DEPTHS):
        for name, (config, fields, teachers, row) in METHODS.items():
            published = {}
            if row:
                published = {"accuracy": row[2 * column] / 100, "ece": row[2 * column + 1]}
            # RepDistiller's, which has this student, but not the ECE.
            if (name, depth) == ("kd", 32):
                published = {"accuracy": 0.7308}
            settings = {**HELD, **fields, "model.cifar_resnet.depth": depth}
            cells.append(Cell(f"{name}_r{depth}", file(config), settings, 3, teachers, published))
    return cells


def others():
    """Rows of other repositories, each with its own recipe."""
    small = {**HELD, "model.cifar_resnet.depth": 20}
    published = {"accuracy": 0.7066}
    cells = [Cell("kd_r20_from_r56", "cifar100_kd.py", small, 3, ("hard_r56",), published)]

    for (name, depth), (accuracy, nll, ece) in PREACT.items():
        preact = {
            **HELD,
            "model.name": "resnet",
            "model.resnet.depth": depth,
            "model.resnet.preact": True,
        }
        published = {"accuracy": accuracy, "nll": nll, "ece": ece}
        cells.append(Cell(f"{name}_preact{depth}", file(f"{name}:300"), preact, 3, (), published))

    basic = {**HELD, "model.name": "resnet", "model.resnet.depth": 34}
    published = {"accuracy": 0.8001, "nll": 0.846}
    cells.append(Cell("hard_resnet34", "cifar100_hard.py:300", basic))
    cells.append(Cell("classwise_resnet34", "cifar100_classwise.py:300", basic, 3, (), published))

    published = {"accuracy": 0.798, "nll": 0.875, "ece": 0.0857}
    cells.append(Cell("hard_wrn28", "cifar100_hard.py", {**HELD, **WRN}, 3, (), published))
    return cells


def comparisons():
    """Every method against hard labels, and the pairs that the sources make claims about."""
    pairs = []
    for depth in DEPTHS:
        for name in METHODS:
            if name != "hard":
                pairs.append((f"{name}_r{depth}", f"hard_r{depth}"))
    for depth in DEPTHS:
        for method, baseline in CLAIMS:
            pairs.append((f"{method}_r{depth}", f"{baseline}_r{depth}"))
    for name, depth in PREACT:
        if name != "hard":
            pairs.append((f"{name}_preact{depth}", f"hard_preact{depth}"))
    pairs.append(("classwise_resnet34", "hard_resnet34"))
    pairs.append(("kd_r20_from_r56", "hard_r20"))
    return tuple(pairs)


def get_study():
    """The table, the rows of other repositories, and the teachers."""
    settings = {**HELD, "model.cifar_resnet.depth": 110, "seed": 100}
    teacher = Cell("teacher", "cifar100_hard.py", settings, 3)
    return Study(
        "Label distributions on CIFAR-100",
        (teacher, *table(), *others()),
        comparisons=comparisons(),
        about="Three seeds a cell, as published: enough for a mean and a spread, too few for a "
        "verdict. 45,000 images to train on where the published rows had 50,000; their ECE is in "
        "10 bins (PreAct), 15 (WRN) or not stated.",
    )
