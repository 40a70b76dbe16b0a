"""The paper's three claims on STL-10 with its 5,000 labelled images: nine methods, two of them
longer schedules, on three ResNets.

python -m ldl_jax.study configs/studies/stl10.py --set data.root=DATA --only=CELL
"""

from ldl_jax.config import Cell, Finding, Study

DEPTHS = (20, 56, 110)
HELD = {"data.holdout": 500}
ONE = ("teacher",)
KD = {
    "labels.name": "blend",
    "labels.blend.parts": ("hard", "teacher"),
    "labels.blend.weights": (0.1, 0.9),
    "labels.teacher.temperature": 4.0,
    "labels.teacher.soft": True,
}
ONLINE = (
    "Online label distributions gain with long training "
    "('online' read as a frozen teacher's, which follow the image)."
)
METHODS = {  # name -> (config, fields, teachers)
    "hard": ("stl10_hard.py", {}, ()),
    "hard_long": ("stl10_hard.py:long", {}, ()),  # what the longer schedule alone does
    "smooth": ("stl10_hard.py", {"labels.name": "smooth"}, ()),
    "online": ("stl10_online.py", {}, ()),
    "classwise": (
        "stl10_hard.py",
        {"labels.name": "classwise", "labels.classwise.first": "zeros"},
        (),
    ),
    "kd": ("stl10_hard.py", KD, ONE),
    "ldl": ("stl10_hard.py", {"labels.name": "teacher"}, ONE),
    "ldl_mix": ("stl10_ldl_mix.py", {}, ONE),
    "ldl_mix_long": ("stl10_ldl_mix.py:long", {}, ONE),
}


def get_study():
    """Every method on every network; the three claims are tested on ResNet-56."""
    teacher = {**HELD, "model.cifar_resnet.depth": 110, "seed": 100}
    cells = [Cell("teacher", "stl10_hard.py", teacher, 6)]
    pairs = []
    for depth in DEPTHS:
        for name, (file, fields, teachers) in METHODS.items():
            settings = {**HELD, "model.cifar_resnet.depth": depth, **fields}
            cells.append(Cell(f"{name}_r{depth}", file, settings, 6, teachers))
            if name != "hard":
                pairs.append((f"{name}_r{depth}", f"hard_r{depth}"))
    # The longer schedule alone is a part of the difference to hard labels; this takes it out.
    for depth in DEPTHS:
        pairs.append((f"ldl_mix_long_r{depth}", f"hard_long_r{depth}"))
    findings = (
        Finding(
            "1",
            "ldl_r56",
            "kd_r56",
            about="Knowledge distillation impedes calibration beside label distributions.",
        ),
        Finding(
            "2",
            "ldl_mix_r56",
            "hard_r56",
            about="Label distributions with augmentation improve calibration.",
        ),
        Finding("3", "ldl_mix_long_r56", "ldl_mix_r56", about=ONLINE),
    )
    return Study("Label distributions on STL-10", tuple(cells), findings, tuple(pairs))
