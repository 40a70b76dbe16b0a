"""Which label distribution for a folder of one's own images: six methods of `configs/images.py`.

python -m ldl_jax.study configs/studies/images.py --set data.root=FOLDER --jobs=2

Three seeds each, on the same test images. The teacher of `ldl_mix` is a network of the same kind,
trained on the labels; its seconds belong to the cost of the student.
"""

from ldl_jax.config import Cell, Study

QUIET = {"train.save_every_epochs": 0.0, "train.eval_every_epochs": 0.0}


def cell(name, teachers=(), **fields):
    """A row of three seeds."""
    settings = {field.replace("__", "."): value for field, value in fields.items()}
    return Cell(name, "images.py", {**QUIET, **settings}, 3, teachers)


def get_study():
    """Labels, four label distributions, and hard labels with the mixing of `ldl_mix`."""
    cells = (
        cell("hard", labels__name="hard"),
        cell("hard_mix", labels__name="hard", mixing__name="cutmix"),
        cell("smooth", labels__name="smooth"),
        cell("online", labels__name="online"),
        cell("classwise", labels__name="classwise"),
        cell("teacher", labels__name="hard", seed=100),
        cell("ldl_mix", ("teacher",), labels__name="teacher", mixing__name="cutmix"),
    )
    compared = [(name, "hard") for name in ("smooth", "online", "classwise", "ldl_mix")]
    return Study(
        "Label distributions for a folder of one's own images",
        cells,
        (),
        (*compared, ("ldl_mix", "hard_mix")),
        about="Small networks on a folder with few images of each class.",
    )
