"""The paper's three claims on the first 10,000 training images of CIFAR-10: eight and a half hours
on two CPU cores.

python -m ldl_jax.study configs/studies/cifar10_small.py --set data.root=DATA --jobs=2

2,000 of the images are held out. Student: ResNet-8; larger student: ResNet-14; teacher: ResNet-20.
The hypotheses were written down before the runs; the long schedule is three times the short one.
DATA may contain any copy of CIFAR-10: its checksum is not verified (`data.verify`), since an archive
that was packed again has another one.
"""

from ldl_jax.config import Cell, Finding, Study, eighths

EPOCHS = 12.0
SMALL = {
    "data.examples": 10_000,
    "data.holdout": 2000,
    "data.verify": False,
    "train.save_every_epochs": 0.0,
    "train.eval_every_epochs": 3.0,
    "train.log_every_steps": 125,
}


SHORT = eighths(EPOCHS)
LONG = eighths(3 * EPOCHS)
LDL = {"labels.name": "teacher"}
KD = {
    "labels.name": "blend",
    "labels.blend.parts": ("hard", "teacher"),
    "labels.blend.weights": (0.1, 0.9),
    "labels.teacher.temperature": 4.0,
    "labels.teacher.soft": True,
}
FITNET = {"labels.name": "hard", "auxiliary.names": ("hint",)}
ONLINE = (
    "Online label distributions gain with long training "
    "('online' read as a frozen teacher's, which follow the image)."
)
CUTMIX = {"mixing.name": "cutmix"}
MIXUP = {"mixing.name": "mixup"}
RICAP = {"mixing.name": "ricap"}


def cell(name, fields, seeds, *, depth=8, length=SHORT):
    """A row of the study; each seed of a student learns from the teacher of the same seed."""
    needs_teacher = fields.get("labels.name") in ("teacher", "blend") or "auxiliary.names" in fields
    teachers = ("teacher",) if needs_teacher else ()
    settings = {**SMALL, **length, "model.cifar_resnet.depth": depth, **fields}
    return Cell(name, "cifar10_hard.py", settings, seeds, teachers)


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
    comparisons = [
        ("ldl", "hard"),
        ("kd", "hard"),
        ("fitnet", "hard"),
        ("fitnet", "ldl"),
        ("ldl_mix", "ldl"),
        ("ldl_mix_three", "ldl_mix"),
        ("ldl_mix_r14", "hard_r14"),
        ("ldl_mix_long", "hard_long"),
    ]
    # Of the secondary cells, those of the same network are also compared with hard labels.
    for row in others:
        if "_r14" not in row.name and row.name != "fitnet":
            comparisons.append((row.name, "hard"))
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
        tuple(comparisons),
        about="ResNet-8 on 8,000 images of CIFAR-10, 2,000 held out, 10,000 to test on; "
        "the teacher is a ResNet-20.",
    )
