"""The methods of the CIFAR-100 table on CIFAR-10, where no table is published: five ResNets, three
seeds.

python -m ldl_jax.study configs/studies/cifar10.py --set data.root=DATA --only=CELL

In addition, a WRN-28-10 with the recipe of github.com/google/uncertainty-baselines, whose row is
published (ECE with 15 bins, as ours), and the same with the focal loss (gamma 3). CRD, SSKD and WSL
are not implemented.
"""

from ldl_jax.config import Cell, Study

DEPTHS = (20, 32, 44, 56, 110)
HELD = {"data.holdout": 5000}
ONE = ("teacher",)
THREE = ("teacher/0", "teacher/1", "teacher/2")
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


def get_study():
    """Every method on every ResNet, the wide networks, and the teachers."""
    teacher = {**HELD, "model.cifar_resnet.depth": 110, "seed": 100}
    cells = [Cell("teacher", "cifar10_hard.py", teacher, 3)]
    for depth in DEPTHS:
        for name, (config, fields, teachers) in METHODS.items():
            method, colon, schedule = config.partition(":")
            file = f"cifar10_{method}.py{colon}{schedule}"
            settings = {**HELD, **fields, "model.cifar_resnet.depth": depth}
            cells.append(Cell(f"{name}_r{depth}", file, settings, 3, teachers))
    published = {"accuracy": 0.960, "nll": 0.159, "ece": 0.0231}
    focal = {"losses.name": "focal", "losses.focal.gamma": 3.0}
    cells.append(Cell("hard_wrn28", "cifar10_hard.py", {**HELD, **WRN}, 3, (), published))
    cells.append(Cell("focal_wrn28", "cifar10_hard.py", {**HELD, **WRN, **focal}))

    # Every method against hard labels, and the pairs that the paper makes claims about.
    methods = [(name, "hard") for name in METHODS if name != "hard"]
    methods += CLAIMS
    pairs = []
    for depth in DEPTHS:
        for method, baseline in methods:
            pairs.append((f"{method}_r{depth}", f"{baseline}_r{depth}"))
    pairs.append(("focal_wrn28", "hard_wrn28"))
    return Study(
        "Label distributions on CIFAR-10",
        tuple(cells),
        comparisons=tuple(pairs),
        about="Three seeds a cell: enough for a mean and a spread, too few for a verdict. "
        "45,000 images to train on.",
    )
