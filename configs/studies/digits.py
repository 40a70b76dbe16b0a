"""Eight of the nine label sources, with and without CutMix, on a fifth of scikit-learn's digits:
ten seeds, minutes.

python -m ldl_jax.study configs/studies/digits.py --jobs=2

It shows how the harness works, on images so few and so easy that what it decides says little of the
paper's claims.
"""

from ldl_jax.config import Cell, Finding, Study

ONLINE = (
    "Online label distributions gain with long training "
    "('online' read as a frozen teacher's, which follow the image)."
)
SMALL = {
    "data.examples": 574,
    "data.holdout": 287,  # of them, to fit the temperature on; 287 are trained on, a fifth of the training images
    "data.batch_size": 32,
    "train.epochs": 40.0,
    "train.eval_every_epochs": 10.0,
    "train.save_every_epochs": 0.0,
    "train.log_every_steps": 90,
}
SOURCES = {
    "hard": {"labels.name": "hard"},
    "smooth": {"labels.name": "smooth"},
    "online": {"labels.name": "online", "labels.online.write": "clean"},
    "classwise": {"labels.name": "classwise", "labels.classwise.write": "clean"},
    "mean_teacher": {"labels.name": "mean_teacher"},
    "peer": {"labels.name": "peer"},
    "ldl": {"labels.name": "teacher"},
    "kd": {
        "labels.name": "blend", "labels.blend.parts": ("hard", "teacher"), "labels.blend.weights": (0.1, 0.9),
        "labels.teacher.temperature": 4.0, "labels.teacher.soft": True,
    },
}  # fmt: skip
MIXINGS = {"": {}, "_cutmix": {"mixing.name": "cutmix"}}
LONG = {"train.epochs": 120.0, "train.eval_every_epochs": 30.0}


def cell(name, fields, seeds=10):
    """A row on these few digits; those that learn from a network learn from the teacher of their
    own seed.
    """
    teachers = ("teacher",) if fields["labels.name"] in ("teacher", "blend") else ()
    return Cell(name, "digits_online.py", {**SMALL, **fields}, seeds, teachers)


def get_study():
    """Eight sources in two mixings, LDL with CutMix for three times as long, and the teacher they
    share.
    """
    teacher = cell("teacher", {"labels.name": "hard", "model.cifar_resnet.depth": 14, "seed": 100})
    table = [
        cell(source + mixing, {**fields, **more})
        for mixing, more in MIXINGS.items() for source, fields in SOURCES.items()
    ]  # fmt: skip
    long = cell("ldl_cutmix_long", {**SOURCES["ldl"], **MIXINGS["_cutmix"], **LONG})
    return Study(
        title="Label distributions on a fifth of the digits",
        cells=(teacher, *table, long),
        findings=(
            Finding("1", "ldl", "kd", about="Knowledge distillation impedes calibration beside label distributions."),
            Finding("2", "ldl_cutmix", "hard", about="Label distributions with augmentation improve calibration."),
            Finding("3", "ldl_cutmix_long", "ldl_cutmix", about=ONLINE),
        ),
        comparisons=tuple((name + mixing, "hard") for mixing in MIXINGS for name in SOURCES if name + mixing != "hard"),
        about="ResNet-8 on 287 images of handwritten digits, 287 held out, 360 to test on; the teacher is a ResNet-14.",
    )  # fmt: skip
