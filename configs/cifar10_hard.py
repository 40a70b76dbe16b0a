"""Hard labels on CIFAR-10, the common ground of the CIFAR-10 configs: ResNet-20, 240 epochs.

python -m ldl_jax.main --config=configs/cifar10_hard.py --config.data.root=DATA

The recipe, schedules and networks of cifar100_hard.py. No figure is published for it as a table.
Not measured here.
"""

from ldl_jax.config import start


def get_config(schedule="short"):
    """`cifar100_hard.py`, and what differs."""
    config = start("cifar100_hard.py", schedule)
    config.data.name = "cifar10"
    return config
