"""The methods of the CIFAR-100 table on CIFAR-10, for which no table is published: five ResNets, three seeds.

python -m ldl_jax.study configs/studies/cifar10.py --set data.root=DATA --only=CELL
"""

from ldl_jax.config import Cell, Study

DEPTHS = (20, 32, 44, 56, 110)
HELD = {"data.holdout": 5000}
TEACHER = {
    "kd": {
        "labels.name": "blend", "labels.blend.parts": ("hard", "teacher"), "labels.blend.weights": (0.1, 0.9),
        "labels.teacher.temperature": 4.0, "labels.teacher.soft": True,
    },
    "ldl": {"labels.name": "teacher"},
    "ldl_mix": {"labels.name": "teacher", "mixing.name": "cutmix"},
}  # fmt: skip


def get_study():
    """Hard, smooth, online and classwise labels, distillation, and LDL with and without CutMix, short and long."""
    cells = [Cell("teacher", "cifar10_hard.py", {**HELD, "model.cifar_resnet.depth": 110, "seed": 100}, 3)]
    for depth in DEPTHS:
        size = {**HELD, "model.cifar_resnet.depth": depth}
        for name in ("hard", "smooth", "online", "classwise"):
            cells.append(Cell(f"{name}_r{depth}", f"cifar10_{name}.py", size))
        for name, fields in TEACHER.items():
            cells.append(Cell(f"{name}_r{depth}", "cifar10_hard.py", {**size, **fields}, 3, ("teacher",)))
        long = {**size, **TEACHER["ldl_mix"]}
        cells.append(Cell(f"ldl_mix_long_r{depth}", "cifar10_hard.py:long", long, 3, ("teacher",)))
    pairs = [
        (cell.name, f"hard_{cell.name.rpartition('_')[2]}") for cell in cells[1:] if not cell.name.startswith("hard")
    ]
    return Study("Label distributions on CIFAR-10", tuple(cells), comparisons=tuple(pairs))
