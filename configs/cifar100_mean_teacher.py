"""Mean teacher on CIFAR-100: the hard label and the averaged network's prediction of the same
image.

python -m ldl_jax.main --config=configs/cifar100_mean_teacher.py --config.data.root=DATA

The decay of the average is 0.999, after a warm-up. No published result is known for this setting.
Not measured here.
"""

from ldl_jax.config import start


def get_config(schedule="short"):
    """`cifar100_hard.py` with these changes."""
    config = start("cifar100_hard.py", schedule)
    config.labels.name = "mean_teacher"
    config.labels.mean_teacher.decay = 0.999  # per update
    return config
