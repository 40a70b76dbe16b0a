"""Online label smoothing (OLS) on CIFAR-10: a soft label for every class, from last epoch's correct
predictions.

python -m ldl_jax.main --config=configs/cifar10_classwise.py --config.data.root=DATA

The paper's form for CIFAR: weights 0.5 and 0.5, and no second term in the first epoch. The
published recipe is the schedule '300'. Not measured here.
"""

from ldl_jax.config import start


def get_config(schedule="short"):
    """`cifar10_hard.py` with these changes."""
    config = start("cifar10_hard.py", schedule)
    config.labels.name = "classwise"
    config.labels.classwise.first = "zeros"
    return config
