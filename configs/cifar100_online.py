"""Online label distributions on CIFAR-100: the label mixed with the network's own prediction one
epoch ago (PS-KD).

python -m ldl_jax.main --config=configs/cifar100_online.py --config.data.root=DATA

The memory has 50,000 rows. The published recipe is the schedule '300' with a PreAct ResNet-18:
--config.model.name=resnet --config.model.resnet.preact=True; with it
(github.com/lgcnsai/PS-KD-Pytorch), error % / NLL / ECE % in 10 bins: 20.82 / 0.76 / 1.77, with hard
labels 24.18 / 1.10 / 11.84. Temporal ensembling: --config.labels.online.momentum=0.6
--config.labels.online.schedule=constant. Not measured here.
"""

from ldl_jax.config import start


def get_config(schedule="short"):
    """`cifar100_hard.py` with these changes."""
    config = start("cifar100_hard.py", schedule)
    config.labels.name = "online"
    config.labels.online.alpha = 0.8  # PS-KD
    return config
