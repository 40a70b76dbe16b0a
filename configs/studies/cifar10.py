"""The methods of the CIFAR-100 table on CIFAR-10, for which no table is published: five ResNets,
three seeds.

python -m ldl_jax.study configs/studies/cifar10.py --set data.root=DATA --only=CELL

Beside it a WRN-28-10 with the recipe of github.com/google/uncertainty-baselines, whose row is
published (ECE in 15 bins, as ours), and the focal loss at gamma 3 on it. CRD, SSKD and WSL are not
served.
"""

from ldl_jax.config import Cell, Study

DEPTHS = (20, 32, 44, 56, 110)
HELD = {"data.holdout": 5000}
ONE, THREE = ("teacher",), ("teacher/0", "teacher/1", "teacher/2")
SUM = {"labels.teacher.weight": 3.0}
KD = {
    "labels.name": "blend",
    "labels.blend.parts": ("hard", "teacher"),
    "labels.teacher.soft": True,
}
LDL = {"labels.name": "teacher"}
MIX = {**LDL, "mixing.name": "cutmix"}
METHODS = {  # name -> (config, fields, teachers)
    "hard": ("hard", {}, ()),
    "hard_long": ("hard:long", {}, ()),  # what the longer schedule alone does
    "smooth": ("smooth", {}, ()),
    "kd_by_class": (
        "hard",
        {**KD, "labels.blend.weights": (1.0, 0.01), "labels.teacher.temperature": 3.0},
        ONE,
    ),
    "kd": (
        "hard",
        {**KD, "labels.blend.weights": (0.1, 0.9), "labels.teacher.temperature": 4.0},
        ONE,
    ),
    "fitnet": ("hard", {"auxiliary.names": ("hint",)}, ONE),
    "ldl": ("hard", LDL, ONE),
    "ldl_mix": ("hard", MIX, ONE),
    "ldl_mix_long": ("hard:long", MIX, ONE),
    "ldl_three": ("hard", LDL, THREE),
    "ldl_three_logits": ("hard", {**LDL, "labels.teacher.average": "logits"}, THREE),
    "ldl_sum": ("hard", {**LDL, **SUM}, THREE),
    "ldl_mix_three": ("hard", MIX, THREE),
    "ldl_mix_sum": ("hard", {**MIX, **SUM}, THREE),
    "ldl_mix_three_long": ("hard:long", MIX, THREE),
    "ldl_mix_sum_long": ("hard:long", {**MIX, **SUM}, THREE),
    "online": ("online", {}, ()),
    "classwise": ("classwise", {}, ()),
    "mean_teacher": ("hard", {"labels.name": "mean_teacher"}, ()),
    "peer": ("hard", {"labels.name": "peer"}, ()),
}
WRN = {
    "model.name": "wide_resnet", "data.batch_size": 512, "optimizer.learning_rate": 0.4, "optimizer.nesterov": True,
    # there 2e-4 times the squared norm in the loss, whose gradient is twice that
    "optimizer.weight_decay": 4e-4,
    "optimizer.boundaries": (60.0, 120.0, 160.0), "optimizer.factor": 0.2,
    "optimizer.warmup_epochs": 1.0, "train.epochs": 200.0,
}  # fmt: skip


def get_study():
    """Every method on every ResNet, the wide networks, and the teachers; compared where the claims
    lie.
    """
    made = [
        Cell(
            "teacher", "cifar10_hard.py", {**HELD, "model.cifar_resnet.depth": 110, "seed": 100}, 3
        )
    ]
    for depth in DEPTHS:
        for name, (config, fields, teachers) in METHODS.items():
            method, colon, schedule = config.partition(":")
            size = {**HELD, **fields, "model.cifar_resnet.depth": depth}
            made.append(
                Cell(f"{name}_r{depth}", f"cifar10_{method}.py{colon}{schedule}", size, 3, teachers)
            )
    wide = {"accuracy": 0.960, "nll": 0.159, "ece": 0.0231}
    focal = {"losses.name": "focal", "losses.focal.gamma": 3.0}
    made.append(Cell("hard_wrn28", "cifar10_hard.py", {**HELD, **WRN}, 3, (), wide))
    made.append(Cell("focal_wrn28", "cifar10_hard.py", {**HELD, **WRN, **focal}))
    claims = [(name, "hard") for name in METHODS if name != "hard"] + [
        ("kd", "ldl"), ("kd", "smooth"), ("fitnet", "ldl"), ("ldl_mix", "ldl"), ("ldl_mix_long", "ldl_mix"),
        ("ldl_mix_long", "hard_long"), ("ldl_three_logits", "ldl_three"),
    ]  # fmt: skip
    pairs = [(f"{one}_r{d}", f"{other}_r{d}") for d in DEPTHS for one, other in claims]
    return Study(
        "Label distributions on CIFAR-10", tuple(made), comparisons=(*pairs, ("focal_wrn28", "hard_wrn28")),
        about="Three seeds a cell: enough for a mean and a spread, too few for a verdict. 45,000 images to train on.",
    )  # fmt: skip
