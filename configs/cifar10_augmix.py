"""AugMix with its loss on CIFAR-10: WideResNet-40-2, 100 epochs, cosine.

python -m ldl_jax.main --config=configs/cifar10_augmix.py --config.data.root=DATA

The recipe is that of Hendrycks et al. 2020 (github.com/google-research/augmix): three views, weight
12 of the Jensen-Shannon divergence, pixels normalised with 0.5. Its figures are for corrupted
images, which are not measured yet. Not measured here.
"""

from ldl_jax.config import start


def get_config():
    """`cifar10_hard.py` with these changes."""
    config = start("cifar10_hard.py")
    config.auxiliary.names = ("augmix",)
    config.data.batch_size = 128
    config.model.name = "wide_resnet"
    config.model.wide_resnet.depth = 40
    config.model.wide_resnet.widen = 2
    config.model.mean = (0.5, 0.5, 0.5)
    config.model.std = (0.5, 0.5, 0.5)
    config.optimizer.learning_rate = 0.1
    config.optimizer.nesterov = True
    config.optimizer.schedule = "cosine"
    config.train.epochs = 100.0
    return config
