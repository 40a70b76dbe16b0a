"""Losses that are robust to wrong labels, on CIFAR-100: ResNet-20, 300 epochs.

python -m ldl_jax.main --config=configs/cifar100_robust.py:sce --config.data.root=DATA

The argument is the method: sce (alpha 6, beta 0.1), gce (q 0.7), bootstrap (beta 0.95),
bootstrap_hard (beta 0.8) or joint (weights 1.2 and 0.8; labels are the network's own predictions
after 70 epochs). Options and schedule are those of the comparison in
github.com/zhangchbin/OnlineLabelSmoothing, which gives no table for them. Wrong labels are drawn
with --config.data.noise=0.2, or read with --config.data.labels_file. Not measured here.
"""

from ldl_jax.config import choose, start

# method -> fields
METHODS = {
    "sce": {"losses.name": "sce", "losses.sce.alpha": 6.0, "losses.sce.beta": 0.1},
    "gce": {"losses.name": "gce"},
    "bootstrap": {"losses.name": "bootstrap"},
    "bootstrap_hard": {
        "losses.name": "bootstrap",
        "losses.bootstrap.hard": True,
        "losses.bootstrap.beta": 0.8,
    },
    "joint": {
        "auxiliary.names": ("joint",),
        "labels.name": "online",
        "labels.online.alpha": 1.0,
        "labels.online.schedule": "constant",
        "labels.online.momentum": 0.9,
        "labels.online.start_epoch": 70.0,
    },
}


def get_config(method="sce"):
    """`cifar100_hard.py:300` with these changes."""
    config = start("cifar100_hard.py", "300")
    config.update_from_flattened_dict(choose(method, METHODS))
    return config
