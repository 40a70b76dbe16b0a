"""Soft augmentation on CIFAR-10: labels softened by the part of the image that a shift hides.

python -m ldl_jax.main --config=configs/cifar10_soft_augmentation.py --config.data.root=DATA

Liu et al. 2023 (github.com/youngleox/soft_augmentation): 500 epochs, cosine; shifts of standard
deviation 12 of 32 pixels. No clean half, as published. They report about half the ECE; with
TrivialAugment the gain vanishes (arXiv 2507.16427). Not measured here.
"""

from ldl_jax.config import start


def get_config():
    """`cifar10_hard.py` with these changes."""
    config = start("cifar10_hard.py")
    config.auxiliary.names = ("soft_augmentation",)
    config.labels.name = "blend"
    config.labels.blend.parts = ("hard",)
    config.labels.blend.weights = (0.0,)  # the shifted crop is the whole loss
    config.augment.pad = 0  # the shift is the crop
    config.data.batch_size = 128
    config.optimizer.learning_rate = 0.1
    config.optimizer.nesterov = True
    config.optimizer.schedule = "cosine"
    config.train.epochs = 500.0
    return config
