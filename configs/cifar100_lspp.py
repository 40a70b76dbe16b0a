"""Label smoothing++ on CIFAR-100: each class learns how its smoothing is spread; 300 epochs.

python -m ldl_jax.main --config=configs/cifar100_lspp.py --config.data.root=DATA

Chhabra et al. 2024 (github.com/s-chh/LSPP): share 0.1, warm-up of 10 epochs, no other loss. No figure
of it is quoted here. Not measured here.
"""

from ldl_jax.config import start


def get_config():
    """`cifar100_hard.py:300` with these changes."""
    config = start("cifar100_hard.py", "300")
    config.auxiliary.names = ("lspp",)
    config.labels.name = "blend"
    config.labels.blend.parts = ("hard",)
    config.labels.blend.weights = (0.0,)  # the penalty is the whole loss
    config.optimizer.warmup_epochs = 10.0
    return config
