"""MDCA on CIFAR-10: cross entropy and the difference between mean confidence and frequency of each
class.

python -m ldl_jax.main --config=configs/cifar10_mdca.py --config.data.root=DATA

The recipe is that of Hebbalaguppe et al. 2022 (github.com/mdca-loss/MDCA-Calibration): 160 epochs,
rate times 0.1 after 80 and 120, weight 1; it is also combined with the focal loss
(--config.losses.name=focal --config.losses.focal.gamma=3). No figure of it is quoted here. Not
measured here.
"""

from ldl_jax.config import start


def get_config():
    """`cifar10_hard.py` with these changes."""
    config = start("cifar10_hard.py")
    config.auxiliary.names = ("mdca",)
    config.data.batch_size = 128
    config.data.holdout = 5000
    config.model.cifar_resnet.depth = 56
    config.optimizer.learning_rate = 0.1
    config.optimizer.boundaries = (80.0, 120.0)  # epochs
    config.train.epochs = 160.0
    return config
