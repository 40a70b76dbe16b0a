"""The three claims on the first 10,000 training images of CIFAR-10, eight and a half hours of two
CPU cores.

python -m ldl_jax.study configs/studies/cifar10_small.py --set data.root=DATA --jobs=2

2,000 of the images are held out. Student: ResNet-8; the larger one: ResNet-14; teacher: ResNet-20.
Hypotheses were written down before the runs; the long schedule is three times the short one. DATA
may hold any copy of CIFAR-10: its checksum is not asked for (`data.verify`), since rebuilt archives
have another.
"""

from ldl_jax.config import Cell, Finding, Study

EPOCHS = 12.0
SMALL = {"data.examples": 10_000, "data.holdout": 2000, "data.verify": False, "train.save_every_epochs": 0.0,
         "train.eval_every_epochs": 3.0, "train.log_every_steps": 125}  # fmt: skip


def schedule(epochs):
    """The published schedule's shape in fewer epochs: the rate is multiplied by 0.1 at 5/8, 6/8 and
    7/8.
    """
    return {
        "train.epochs": epochs,
        "optimizer.boundaries": (epochs * 5 / 8, epochs * 6 / 8, epochs * 7 / 8),
    }


SHORT, LONG = schedule(EPOCHS), schedule(3 * EPOCHS)
LDL = {"labels.name": "teacher"}
KD = {"labels.name": "blend", "labels.blend.parts": ("hard", "teacher"), "labels.blend.weights": (0.1, 0.9),
      "labels.teacher.temperature": 4.0, "labels.teacher.soft": True}  # fmt: skip
FITNET = {"labels.name": "hard", "auxiliary.names": ("hint",)}
ONLINE = (
    "Online label distributions gain with long training "
    "('online' read as a frozen teacher's, which follow the image)."
)
CUTMIX, MIXUP, RICAP = ({"mixing.name": name} for name in ("cutmix", "mixup", "ricap"))


def cell(name, fields, seeds, *, depth=8, length=SHORT):
    """A row; those that learn from a network learn from the teacher of their own seed."""
    taught = fields.get("labels.name") in ("teacher", "blend") or "auxiliary.names" in fields
    size = {**SMALL, **length, "model.cifar_resnet.depth": depth}
    return Cell(name, "cifar10_hard.py", {**size, **fields}, seeds, ("teacher",) if taught else ())


def get_study():
    """Six seeds for the cells of the findings, three for the others."""
    primary = (
        cell("teacher", {"seed": 100}, 6, depth=20),
        cell("hard", {}, 6),
        cell("kd", KD, 6),
        cell("ldl", LDL, 6),
        cell("ldl_mix", {**LDL, **CUTMIX}, 6),
        cell("ldl_mix_long", {**LDL, **CUTMIX}, 6, length=LONG),
    )
    others = (
        cell("fitnet", FITNET, 3),
        cell("smooth", {"labels.name": "smooth"}, 3),
        cell("ldl_mixup", {**LDL, **MIXUP}, 3),
        cell("ldl_ricap", {**LDL, **RICAP}, 3),
        cell("ldl_mix_three", {**LDL, **CUTMIX}, 3)._replace(
            teachers=("teacher/0", "teacher/1", "teacher/2")
        ),
        cell("ldl_mix_r14", {**LDL, **CUTMIX}, 3, depth=14),
        cell("hard_r14", {}, 3, depth=14),
        cell("hard_long", {}, 3, length=LONG),
        cell("online", {"labels.name": "online"}, 3),
        cell("classwise", {"labels.name": "classwise", "labels.classwise.first": "zeros"}, 3),
        cell("mean_teacher", {"labels.name": "mean_teacher"}, 3),
        cell("peer", {"labels.name": "peer"}, 3),
    )
    against = [("ldl", "hard"), ("kd", "hard"), ("fitnet", "hard"), ("fitnet", "ldl"), ("ldl_mix", "ldl"),
               ("ldl_mix_three", "ldl_mix"), ("ldl_mix_r14", "hard_r14"), ("ldl_mix_long", "hard_long")]  # fmt: skip
    against += [
        (one.name, "hard")
        for one in others
        if "_r14" not in one.name and one.name not in ("fitnet",)
    ]
    return Study(
        "The three findings on 10,000 images of CIFAR-10",
        primary + others,
        (
            Finding(
                "1",
                "ldl",
                "kd",
                about="Knowledge distillation impedes calibration beside label distributions.",
            ),
            Finding(
                "2",
                "ldl_mix",
                "hard",
                about="Label distributions with augmentation improve calibration.",
            ),
            Finding("3", "ldl_mix_long", "ldl_mix", about=ONLINE),
        ),
        tuple(against),
        about="ResNet-8 on 8,000 images of CIFAR-10, 2,000 held out, 10,000 to test on; the teacher is a ResNet-20.",
    )
