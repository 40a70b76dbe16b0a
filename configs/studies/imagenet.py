"""Hard, smooth, online and classwise labels on ImageNet with ResNet-50, one seed: days of eight accelerators.

python -m ldl_jax.study configs/studies/imagenet.py --set data.root=DATA --print

prints the command of each run for a job array. Published for hard labels and 90 epochs: 76.2 % / NLL .939 / ECE .032
(github.com/google/uncertainty-baselines).
"""

from ldl_jax.config import Cell, Study

NAMES = ("hard", "smooth", "online", "online_long", "classwise")
PUBLISHED = {"hard": {"accuracy": 0.762, "nll": 0.939, "ece": 0.032}}


def get_study():
    """A cell for each of the ImageNet configs; 25,000 training images are held out to fit the temperature on."""
    held = {"data.holdout": 25_000}
    cells = tuple(Cell(n, f"imagenet_{n}.py", held, 1, (), PUBLISHED.get(n, {})) for n in NAMES)
    return Study("Label distributions on ImageNet", cells, comparisons=tuple((n, "hard") for n in NAMES[1:]))
