"""Penalties on the logits on Tiny ImageNet: ResNet-50, 100 epochs.

python -m ldl_jax.main --config=configs/tiny_imagenet_penalties.py:mbls --config.data.root=DATA/tiny-imagenet

The argument is the method: mbls (margin 10, weight 0.1), acls (weight 0.1), rankmixup_mrl or
rankmixup_mndcg. The recipe is that of ACLS and MbLS (github.com/cvlab-yonsei/ACLS,
github.com/by-liu/MbLS): batch 64, rate times 0.1 after 40 and 60 epochs, norm of the gradient
clipped at 2, 50 images of each class held out. Published for ResNet-50, accuracy % / ECE % / NLL:
mbls 64.74 / 1.64 / 1.437, acls 64.84 / 1.05 / 1.421, cross entropy 65.02 / 3.73 / 1.410, label
smoothing 65.78 / 3.17 / 1.413. Not measured here.
"""

from ldl_jax.config import choose, start

# method -> fields
METHODS = {
    "mbls": {},
    "acls": {},
    "rankmixup_mrl": {
        "auxiliary.rankmixup_mrl.margin": 1.0,
        "auxiliary.rankmixup_mrl.alpha": 1.0,
    },
    "rankmixup_mndcg": {"auxiliary.rankmixup_mndcg.alpha": 1.0},
}


def get_config(method="mbls"):
    """`tiny_imagenet_hard.py` with these changes."""
    config = start("tiny_imagenet_hard.py")
    config.update_from_flattened_dict(choose(method, METHODS))
    config.auxiliary.names = (method,)
    config.data.batch_size = 64
    config.data.holdout = 10000
    config.optimizer.clip_norm = 2.0
    return config
