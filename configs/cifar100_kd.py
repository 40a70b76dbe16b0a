"""Knowledge distillation on CIFAR-100: hard labels and a teacher's prediction at temperature 4.

python -m ldl_jax.main --config=configs/cifar100_kd.py --config.data.root=DATA

The teacher is a ResNet-110 trained with hard labels, named by its run directory. Several teachers
of different seeds are averaged: --config.teachers="('a', 'b', 'c')",
--config.labels.teacher.average=logits, --config.labels.teacher.weight=3. Weights 0.1 and 0.9 at T =
4 with the KL divergence averaged over examples are those of github.com/HobbitLong/RepDistiller.
Published there, accuracy %: ResNet-56 -> 20 70.66, ResNet-110 -> 32 73.08 (last epoch). The row
'KD' of github.com/vision01234/8511 (ResNet-20 69.07 / ECE .071) averages over examples and classes
at T = 3, so its weight is 0.1 / 100: --config.labels.blend.weights="(1.0, 0.001)"
--config.labels.teacher.temperature=3. Not measured here.
"""

from ldl_jax.config import start


def get_config(schedule="short"):
    """`cifar100_hard.py` with these changes."""
    config = start("cifar100_hard.py", schedule)
    config.teachers = ("runs/cifar100_teacher",)
    config.teachers_from = (
        "--config=configs/cifar100_hard.py --config.model.cifar_resnet.depth=110 --config.seed=100"
    )
    config.labels.name = "blend"
    config.labels.blend.parts = ("hard", "teacher")
    config.labels.blend.weights = (0.1, 0.9)
    config.labels.teacher.temperature = 4.0
    config.labels.teacher.soft = True
    return config
