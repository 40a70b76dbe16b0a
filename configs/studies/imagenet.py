"""Label sources on ImageNet with ResNet-50 and ResNet-152, one seed: weeks on eight accelerators.

python -m ldl_jax.study configs/studies/imagenet.py --set data.root=DATA --print

prints the command of each run for a job array.

Sources of the published rows: ResNet-50, also with mixup for 200 epochs:
github.com/google/uncertainty-baselines (ECE with 15 bins, as ours; its mixup rescales the logits,
ours does not); ResNet-152: github.com/lgcnsai/PS-KD-Pytorch (10 bins); OLS:
github.com/Kurumi233/OnlineLabelSmoothing. Our recipes differ from the published ones. That of
uncertainty-baselines has steps at 30, 60 and 80 epochs, batches of 4,096 and Nesterov momentum;
ours has a cosine schedule, batches of 1,024 and plain momentum. For the others, see the headers of
the configs. Unlike in the other studies, `kd` has T = 1 and half of its weight on the hard label.
`mixup` is trained for 200 epochs, its baseline `hard` for 90.
"""

from ldl_jax.config import Cell, Study

HELD = {"data.holdout": 25_000}  # to fit the temperature on
LARGE = {**HELD, "model.resnet.depth": 152}
MIXUP = {**HELD, "mixing.name": "mixup", "mixing.mixup.alpha": 0.2, "train.epochs": 200.0}
LONG = {**LARGE, "mixing.name": "cutmix", "mixing.cutmix.probability": 0.5, "train.epochs": 300.0}
LDL = {**HELD, "labels.name": "teacher"}
KD = {
    **HELD,
    "labels.name": "blend",
    "labels.blend.parts": ("hard", "teacher"),
    "labels.blend.weights": (0.5, 0.5),
    "labels.teacher.temperature": 1.0,
    "labels.teacher.soft": True,
}
ROWS = {  # cell -> (config, fields, teachers, published accuracy, NLL, ECE)
    "hard": ("hard", HELD, (), (0.762, 0.939, 0.032)),
    "smooth": ("smooth", HELD, (), ()),
    "online": ("online", HELD, (), ()),
    "classwise": ("classwise", HELD, (), (0.7727,)),
    "mixup": ("hard", MIXUP, (), (0.777, 0.888, 0.028)),
    "hard_r152": ("hard", LARGE, (), (0.7781, 0.88, 0.0384)),
    "smooth_r152": ("smooth", LARGE, (), (0.7827, 0.92, 0.0391)),
    "online_r152": ("online", LARGE, (), (0.7859, 0.84, 0.0251)),
    "kd": ("hard", KD, ("hard_r152",), ()),
    "ldl": ("hard", LDL, ("hard_r152",), ()),
    "ldl_mix": ("hard", {**LDL, "mixing.name": "cutmix"}, ("hard_r152",), ()),
    "hard_long": ("hard", LONG, (), ()),
    "online_long": ("online_long", HELD, (), ()),
}
PAIRS = (
    ("smooth", "hard"),
    ("online", "hard"),
    ("classwise", "hard"),
    ("mixup", "hard"),
    ("kd", "hard"),
    ("ldl", "hard"),
    ("ldl_mix", "hard"),
    ("kd", "ldl"),
    ("ldl_mix", "ldl"),
    ("smooth_r152", "hard_r152"),
    ("online_r152", "hard_r152"),
    ("online_long", "hard_long"),
)


def get_study():
    """A cell for each row, one seed."""
    metrics = ("accuracy", "nll", "ece")
    cells = []
    for name, (config, fields, teachers, row) in ROWS.items():
        # Not strict: most rows lack some of the metrics.
        published = dict(zip(metrics, row, strict=False))
        cells.append(Cell(name, f"imagenet_{config}.py", fields, 1, teachers, published))
    return Study(
        "Label distributions on ImageNet",
        tuple(cells),
        comparisons=PAIRS,
        about="One seed: differences have an interval over images alone. "
        "1,256,167 images to train on.",
    )
