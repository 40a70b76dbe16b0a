"""Online label distributions on CIFAR-10: the label mixed with the network's own prediction one
epoch ago (PS-KD).

python -m ldl_jax.main --config=configs/cifar10_online.py --config.data.root=DATA

The memory has 50,000 rows. The published recipe is the schedule '300'. Not measured here.
"""

from ldl_jax.config import start


def get_config(schedule="short"):
    """`cifar10_hard.py` with these changes."""
    config = start("cifar10_hard.py", schedule)
    config.labels.name = "online"
    config.labels.online.alpha = 0.8  # PS-KD
    return config
