"""Claims 1 and 2 beside another set of classes: 2,000 training images of CIFAR-100 with its 20
coarse classes.

python -m ldl_jax.study configs/studies/cifar100_few.py --set data.root=DATA --jobs=2

The networks, the schedule and the number of images held out are those of
configs/studies/cifar10_few.py. All cells are exploratory: three seeds, no verdict. DATA may contain
any copy of CIFAR-100: its checksum is not verified (`data.verify`). Not measured yet.
"""

from ldl_jax.config import Cell, Study, eighths

IMAGES = 2_000  # to train on
HOLDOUT = 1_000
EPOCHS = 60.0
SMALL = {
    "data.cifar100.labels": "coarse",
    "data.examples": IMAGES + HOLDOUT,
    "data.holdout": HOLDOUT,
    "data.batch_size": 128,
    "data.verify": False,
    "eval.train_examples": IMAGES,
    "train.save_every_epochs": 0.0,
    "train.eval_every_epochs": EPOCHS / 5,
    "train.log_every_steps": 75,
    **eighths(EPOCHS),
}


def cell(name, config, depth=8, **fields):
    """A row of three seeds: the recipe `cifar100_<config>.py` on few images."""
    teachers = (
        ("teacher",) if config in ("ldl", "ldl_mix", "kd") or "auxiliary.names" in fields else ()
    )
    settings = {**SMALL, "model.cifar_resnet.depth": depth, **fields}
    return Cell(name, f"cifar100_{config}.py", settings, 3, teachers)


def get_study():
    """Hard labels with and without CutMix, online labels, and four students of a ResNet-14."""
    cells = (
        cell("teacher", "hard", 14, seed=100),
        cell("hard", "hard"),
        cell("ldl", "ldl"),
        cell("hard_mix", "hard", **{"mixing.name": "cutmix"}),
        cell("ldl_mix", "ldl_mix"),
        cell("online", "online"),
        cell("kd", "kd"),
        cell("fitnet", "hard", **{"auxiliary.names": ("hint",)}),
    )
    compared = [(name, "hard") for name in ("ldl", "ldl_mix", "hard_mix", "online", "kd", "fitnet")]
    return Study(
        f"Label distributions on {IMAGES:,} images of CIFAR-100, coarse classes",
        cells,
        (),
        (*compared, ("ldl", "kd"), ("ldl", "fitnet"), ("ldl_mix", "hard_mix")),
        about=f"ResNet-8 on {IMAGES:,} images, {HOLDOUT:,} held out, 10,000 to test on, {EPOCHS:g} "
        "epochs; the teacher is a ResNet-14.",
    )
