"""Label distribution learning on CIFAR-100: cross entropy with a teacher's prediction at
temperature 1, without the hard label.

python -m ldl_jax.main --config=configs/cifar100_ldl.py --config.data.root=DATA

The teacher is a ResNet-110 trained with hard labels, named by its run directory. Several teachers
of different seeds are averaged: --config.teachers="('a', 'b', 'c')",
--config.labels.teacher.average=logits, --config.labels.teacher.weight=3. Published as 'SL'
(github.com/vision01234/8511), accuracy % / ECE: ResNet-20 69.09 / .051, ResNet-32 71.96 / .071,
ResNet-44 72.79 / .084, ResNet-56 73.59 / .085, ResNet-110 75.47 / .089. Not measured here.
"""

from ldl_jax.config import start


def get_config(schedule="short"):
    """`cifar100_hard.py` with these changes."""
    config = start("cifar100_hard.py", schedule)
    config.teachers = ("runs/cifar100_teacher",)
    config.teachers_from = (
        "--config=configs/cifar100_hard.py --config.model.cifar_resnet.depth=110 --config.seed=100"
    )
    config.labels.name = "teacher"
    return config
