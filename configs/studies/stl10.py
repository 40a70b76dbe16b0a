"""Hard labels, online labels and LDL with CutMix on STL-10's 5,000 labelled images: three ResNets, six seeds.

python -m ldl_jax.study configs/studies/stl10.py --set data.root=DATA --only=CELL
"""

from ldl_jax.config import Cell, Finding, Study

DEPTHS = (20, 56, 110)
HELD = {"data.holdout": 500}


def get_study():
    """Three methods on three networks, LDL with CutMix also for longer; the two claims that they can speak to."""
    cells = [Cell("teacher", "stl10_hard.py", {**HELD, "model.cifar_resnet.depth": 110, "seed": 100}, 6)]
    for depth in DEPTHS:
        size = {**HELD, "model.cifar_resnet.depth": depth}
        cells.append(Cell(f"hard_r{depth}", "stl10_hard.py", size, 6))
        cells.append(Cell(f"online_r{depth}", "stl10_online.py", size, 6))
        cells.append(Cell(f"ldl_mix_r{depth}", "stl10_ldl_mix.py", size, 6, ("teacher",)))
        cells.append(Cell(f"ldl_mix_long_r{depth}", "stl10_ldl_mix.py:long", size, 6, ("teacher",)))
    pairs = [
        (cell.name, f"hard_{cell.name.rpartition('_')[2]}") for cell in cells[1:] if not cell.name.startswith("hard")
    ]
    findings = (
        Finding("2", "ldl_mix_r56", "hard_r56", about="Label distributions with augmentation improve calibration."),
        Finding("3", "ldl_mix_long_r56", "ldl_mix_r56", about="Online label distributions gain with long training."),
    )
    return Study("Label distributions on STL-10", tuple(cells), findings, tuple(pairs))
