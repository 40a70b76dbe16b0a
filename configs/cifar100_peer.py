"""Deep mutual learning on CIFAR-100: two networks learn side by side, from the labels and from each
other.

python -m ldl_jax.main --config=configs/cifar100_peer.py --config.data.root=DATA

Both have the same architecture; the first one is evaluated. No published result is known for this
setting. Not measured here.
"""

from ldl_jax.config import start


def get_config(schedule="short"):
    """`cifar100_hard.py` with these changes."""
    config = start("cifar100_hard.py", schedule)
    config.labels.name = "peer"
    return config
