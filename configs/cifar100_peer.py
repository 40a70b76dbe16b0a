"""Deep mutual learning on CIFAR-100: two networks learn side by side, from the label and from each
other.

python -m ldl_jax.main --config=configs/cifar100_peer.py --config.data.root=DATA

Both have the student's architecture; the first is the one that is measured. No published figure is
known for it in this setting. Not measured here.
"""

from ldl_jax.config import start


def get_config(schedule="short"):
    """`cifar100_hard.py`, and what differs."""
    config = start("cifar100_hard.py", schedule)
    config.labels.name = "peer"
    return config
