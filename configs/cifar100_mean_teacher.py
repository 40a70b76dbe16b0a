"""Mean teacher on CIFAR-100: the hard label, and the averaged network's prediction of the image at
hand.

python -m ldl_jax.main --config=configs/cifar100_mean_teacher.py --config.data.root=DATA

The average's decay is 0.999, after a warm-up. No published figure is known for it in this setting.
Not measured here.
"""

from ldl_jax.config import start


def get_config(schedule="short"):
    """`cifar100_hard.py`, and what differs."""
    config = start("cifar100_hard.py", schedule)
    config.labels.name = "mean_teacher"
    config.labels.mean_teacher.decay = 0.999  # of each update
    return config
