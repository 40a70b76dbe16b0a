"""Label distribution learning with CutMix on CIFAR-10: the teacher labels the same mixed image that
the student sees.

python -m ldl_jax.main --config=configs/cifar10_ldl_mix.py --config.data.root=DATA

The teacher is a ResNet-110 trained with hard labels, named by its run directory. Several teachers
of different seeds are averaged: --config.teachers="('a', 'b', 'c')". Other mixings:
--config.mixing.name=mixup, --config.mixing.name=ricap. Not measured here.
"""

from ldl_jax.config import start


def get_config(schedule="short"):
    """`cifar10_hard.py` with these changes."""
    config = start("cifar10_hard.py", schedule)
    config.teachers = ("runs/cifar10_teacher",)
    config.teachers_from = (
        "--config=configs/cifar10_hard.py --config.model.cifar_resnet.depth=110 --config.seed=100"
    )
    config.labels.name = "teacher"
    config.mixing.name = "cutmix"
    return config
