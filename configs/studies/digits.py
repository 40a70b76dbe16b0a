"""Eight of the nine label sources, with and without CutMix, on a fifth of scikit-learn's digits:
ten seeds, in minutes.

python -m ldl_jax.study configs/studies/digits.py --jobs=2

It shows how a study works. The images are so few and so easy that its verdicts say little about the
paper's claims.
"""

from ldl_jax.config import Cell, Finding, Study

ONLINE = (
    "Online label distributions gain with long training "
    "('online' read as a frozen teacher's, which follow the image)."
)
SMALL = {
    # Half of these images are held out to fit the temperature. The other 287, a fifth of the
    # training set, are trained on.
    "data.examples": 574,
    "data.holdout": 287,
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
        "labels.name": "blend",
        "labels.blend.parts": ("hard", "teacher"),
        "labels.blend.weights": (0.1, 0.9),
        "labels.teacher.temperature": 4.0,
        "labels.teacher.soft": True,
    },
}
MIXINGS = {"": {}, "_cutmix": {"mixing.name": "cutmix"}}
LONG = {"train.epochs": 120.0, "train.eval_every_epochs": 30.0}


def cell(name, fields, seeds=10):
    """A row of the study; each seed of a student learns from the teacher of the same seed."""
    teachers = ("teacher",) if fields["labels.name"] in ("teacher", "blend") else ()
    return Cell(name, "digits_online.py", {**SMALL, **fields}, seeds, teachers)


def get_study():
    """Eight label sources with two mixings each, LDL with CutMix for three times as long, and the
    teacher.
    """
    teacher = cell("teacher", {"labels.name": "hard", "model.cifar_resnet.depth": 14, "seed": 100})
    cells = [teacher]
    comparisons = []
    for mixing, mixing_fields in MIXINGS.items():
        for source, fields in SOURCES.items():
            name = source + mixing
            cells.append(cell(name, {**fields, **mixing_fields}))
            if name != "hard":
                comparisons.append((name, "hard"))
    long = cell("ldl_cutmix_long", {**SOURCES["ldl"], **MIXINGS["_cutmix"], **LONG})
    return Study(
        title="Label distributions on a fifth of the digits",
        cells=(*cells, long),
        findings=(
            Finding(
                "1",
                "ldl",
                "kd",
                about="Knowledge distillation impedes calibration beside label distributions.",
            ),
            Finding(
                "2",
                "ldl_cutmix",
                "hard",
                about="Label distributions with augmentation improve calibration.",
            ),
            Finding("3", "ldl_cutmix_long", "ldl_cutmix", about=ONLINE),
        ),
        comparisons=tuple(comparisons),
        about="ResNet-8 on 287 images of handwritten digits, 287 held out, 360 to test on; "
        "the teacher is a ResNet-14.",
    )
