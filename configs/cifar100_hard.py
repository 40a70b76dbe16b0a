"""Hard labels on CIFAR-100, the base of the CIFAR-100 configs: ResNet-20, 240 epochs.

python -m ldl_jax.main --config=configs/cifar100_hard.py --config.data.root=DATA

Schedules are an argument of the file: `cifar100_hard.py:long` has 350 epochs,
`cifar100_hard.py:300` is the recipe of OLS and PS-KD (batch 128, learning rate 0.1, Nesterov).
Deeper networks: --config.model.cifar_resnet.depth=56 and so on. The recipe is that of the README of
github.com/vision01234/8511. Published there, 3 seeds, accuracy % / ECE: ResNet-20 69.32 / .070,
ResNet-32 71.17 / .094, ResNet-44 72.11 / .109, ResNet-56 72.28 ± .09 / .123, ResNet-110 73.88 ± .15
/ .131. Not measured here.
"""

from ldl_jax.config import choose, default

# (epochs, epochs at which the rate is multiplied by 0.1, batch size, learning rate, Nesterov)
SCHEDULES = {
    "short": (240.0, (150.0, 180.0, 210.0), 64, 0.05, False),
    "long": (350.0, (150.0, 200.0, 250.0, 300.0), 64, 0.05, False),
    "300": (300.0, (150.0, 225.0), 128, 0.1, True),
}


def get_config(schedule="short"):
    """50,000 training images of 32x32 pixels and 10,000 test images."""
    epochs, boundaries, batch, rate, nesterov = choose(schedule, SCHEDULES)
    config = default()
    config.data.name = "cifar100"
    config.data.root = "data"
    config.data.batch_size = batch
    config.augment.pad = 4  # pixels
    config.augment.flip = True
    config.model.name = "cifar_resnet"
    config.model.cifar_resnet.depth = 20
    config.optimizer.learning_rate = rate
    config.optimizer.nesterov = nesterov
    config.optimizer.boundaries = boundaries  # epochs
    config.train.epochs = epochs
    config.train.save_every_epochs = 5.0
    return config
