"""Hard labels on STL-10, the base of the STL-10 configs: ResNet-20 on 96x96 pixels, 240 epochs.

python -m ldl_jax.main --config=configs/stl10_hard.py --config.data.root=DATA

5,000 training images and 8,000 test images; the unlabelled ones are not used. The published recipe
does not state the depth. --config.data.stl10.fold=0 trains on the first of the ten predefined folds
of 1,000 images. Not measured here.
"""

from ldl_jax.config import start


def get_config(schedule="short"):
    """`cifar100_hard.py` with these changes."""
    config = start("cifar100_hard.py", schedule)
    config.data.name = "stl10"
    return config
