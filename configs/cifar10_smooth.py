"""Label smoothing on CIFAR-10: 0.1 of the probability mass spread over all classes.

python -m ldl_jax.main --config=configs/cifar10_smooth.py --config.data.root=DATA

Not measured here.
"""

from ldl_jax.config import start


def get_config(schedule="short"):
    """`cifar10_hard.py` with these changes."""
    config = start("cifar10_hard.py", schedule)
    config.labels.name = "smooth"
    config.labels.smooth.epsilon = 0.1
    return config
