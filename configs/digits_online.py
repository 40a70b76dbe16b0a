"""Online label distributions on scikit-learn's digits: a small ResNet, about half a minute on two cores.

python -m ldl_jax.main --config=configs/digits_online.py
"""

from ldl_jax.config import default


def get_config():
    """1,437 training images of 8x8 pixels, 360 to test on; PS-KD's targets from a memory of one row an image."""
    config = default()
    config.data.name = "digits"
    config.data.batch_size = 64
    config.augment.pad = 1  # pixels
    config.model.name = "cifar_resnet"
    config.model.cifar_resnet.depth = 8
    config.labels.name = "online"
    config.labels.online.alpha = 0.8  # PS-KD
    config.optimizer.learning_rate = 0.05
    config.optimizer.nesterov = True
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 1.0
    config.train.epochs = 20.0
    config.train.log_every_steps = 11
    config.train.save_every_epochs = 5.0
    return config
