"""The runs of the golden fixtures: a narrow ResNet-8 on scikit-learn's digits, 33 steps in float64.

python -m ldl_jax.main --config=digits.py:online, and the other names of RUNS
"""

from ldl_jax.config import choose, default

RUNS = {
    "online": {
        "labels.name": "online", "labels.online.write": "clean", "labels.online.momentum": 0.5,
        "mixing.name": "cutmix", "mixing.cutmix.probability": 0.5, "optimizer.ema": 0.9, "data.holdout": 0,
    },
    "classwise": {"labels.name": "classwise", "eval.report": True},
    "hard": {"labels.name": "hard"},
    "smooth": {"labels.name": "smooth"},
    "teacher": {"labels.name": "teacher"},
}  # fmt: skip


def get_config(name="hard"):
    """One of RUNS, by its name."""
    config = default()
    config.data.name = "digits"
    config.data.batch_size = 64
    config.data.holdout = 157
    config.augment.pad = 1
    config.augment.flip = True
    config.augment.cutout = 2
    config.model.name = "cifar_resnet"
    config.model.cifar_resnet.depth = 8
    config.model.cifar_resnet.width = 4
    config.model.dtype = "float64"
    config.optimizer.learning_rate = 0.05
    config.optimizer.schedule = "cosine"
    config.train.max_steps = 33
    config.train.log_every_steps = 11
    config.train.save_every_epochs = 0.5  # 11 steps
    config.eval.report = False
    for field, value in choose(name, RUNS).items():
        *blocks, last = field.split(".")
        block = config
        for part in blocks:
            block = block[part]
        block[last] = value
    return config
