"""Label smoothing on CIFAR-100: 0.1 of the probability mass spread over all classes.

python -m ldl_jax.main --config=configs/cifar100_smooth.py --config.data.root=DATA

Published (github.com/vision01234/8511), accuracy % / ECE: ResNet-20 69.43 / .053, ResNet-32 71.49 /
.032, ResNet-44 72.32 / .018, ResNet-56 72.87 ± .17 / .020, ResNet-110 73.90 ± .16 / .051. Not
measured here.
"""

from ldl_jax.config import start


def get_config(schedule="short"):
    """`cifar100_hard.py` with these changes."""
    config = start("cifar100_hard.py", schedule)
    config.labels.name = "smooth"
    config.labels.smooth.epsilon = 0.1
    return config
