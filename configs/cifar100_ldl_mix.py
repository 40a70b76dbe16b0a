"""Label distribution learning with CutMix on CIFAR-100: the teacher labels the same mixed image
that the student sees.

python -m ldl_jax.main --config=configs/cifar100_ldl_mix.py --config.data.root=DATA

Every batch is mixed, up to the last epoch. Other mixings: --config.mixing.name=mixup,
--config.mixing.name=ricap. Published as 'Aug-SL' (github.com/vision01234/8511, which does not name
the mixing), accuracy % / ECE: ResNet-20 68.9 / .063, ResNet-32 72.17 / .060, ResNet-44 73.79 /
.037, ResNet-56 74.87 / .025, ResNet-110 76.56 / .039; with the schedule 'long' 69.41 / .073, 72.95
/ .054, 74.30 / .048, 75.54 ± .24 / .028, 77.28 ± .20 / .025. Not measured here.
"""

from ldl_jax.config import start


def get_config(schedule="short"):
    """`cifar100_ldl.py` with these changes."""
    config = start("cifar100_ldl.py", schedule)
    config.mixing.name = "cutmix"
    return config
