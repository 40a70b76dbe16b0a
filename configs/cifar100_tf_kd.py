"""Distillation from a virtual teacher (TF-KD) on CIFAR-100: ResNet-18, 200 epochs.

python -m ldl_jax.main --config=configs/cifar100_tf_kd.py --config.data.root=DATA

The regularisation of Yuan et al. 2020 (github.com/yuanli2333/Teacher-free-Knowledge-Distillation),
with its divisor: the softened term is averaged over examples and classes. Share 0.95 and temperature
40 are those for MobileNetV2 there (ResNet-50: 6). Published there for training without it: ResNet-18
75.87 %. Not measured here.
"""

from ldl_jax.config import start


def get_config():
    """`cifar100_hard.py` with these changes."""
    config = start("cifar100_hard.py")
    config.labels.name = "tf_kd"
    config.labels.tf_kd.alpha = 0.95
    config.labels.tf_kd.temperature = 40.0
    config.labels.tf_kd.multiplier = 100.0
    config.data.batch_size = 128
    config.model.name = "resnet"
    config.model.resnet.depth = 18
    config.model.resnet.stem = "cifar"
    config.optimizer.learning_rate = 0.1
    config.optimizer.boundaries = (60.0, 120.0, 160.0)  # epochs
    config.optimizer.factor = 0.2
    config.train.epochs = 200.0
    return config
