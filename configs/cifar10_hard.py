"""Hard labels on CIFAR-10, the base of the CIFAR-10 configs: ResNet-20, 240 epochs.

python -m ldl_jax.main --config=configs/cifar10_hard.py --config.data.root=DATA

The recipe, schedules and networks are those of cifar100_hard.py. No table of results is published
for it. Not measured here.
"""

from ldl_jax.config import start


def get_config(schedule="short"):
    """`cifar100_hard.py` with these changes."""
    config = start("cifar100_hard.py", schedule)
    config.data.name = "cifar10"
    return config
