"""Clean and mixed images side by side on CIFAR-10: WideResNet-28-10, 350 epochs.

python -m ldl_jax.main --config=configs/cifar10_regmixup.py --config.data.root=DATA

The argument is the method: regmixup (Beta(20, 20); 10 for CIFAR-100) or mixupmp. The schedule is that
of Pinto et al. 2022 (github.com/FrancescoPinto/RegMixup): rate 0.1, times 0.1 after 150 and 250
epochs, one mean over both halves, so that each weighs 1/2. No figure of it is quoted here. Not
measured here.
"""

from ldl_jax.config import choose, start

METHODS = {"regmixup": ("regmixup",), "mixupmp": ("mixupmp",)}


def get_config(method="regmixup"):
    """`cifar10_hard.py` with these changes."""
    config = start("cifar10_hard.py")
    config.auxiliary.names = choose(method, METHODS)
    config.labels.name = "blend"
    config.labels.blend.parts = ("hard",)
    config.labels.blend.weights = (0.5,)  # of the clean half; the mixed half inherits it
    config.data.batch_size = 128
    config.model.name = "wide_resnet"
    config.model.wide_resnet.depth = 28
    config.model.wide_resnet.widen = 10
    config.optimizer.learning_rate = 0.1
    config.optimizer.boundaries = (150.0, 250.0)  # epochs
    config.train.epochs = 350.0
    return config
