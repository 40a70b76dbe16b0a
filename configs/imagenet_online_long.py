"""Online label distributions on ImageNet, long and large: ResNet-152, CutMix, 300 epochs.

python -m ldl_jax.main --config=configs/imagenet_online_long.py --config.data.root=DATA

According to arXiv 2301.13444, online distributions gain most from long training, a large network
and mixing. CutMix is applied to half of the batches, and rows are written in the other half: a row
may be epochs old, but costs no second pass. To mix every batch, at the price of one more forward
pass: --config.labels.online.write=clean --config.mixing.cutmix.probability=1.0. The memory is in
half precision, 2.6 GB in all. Hardware: a pod, such as 32 devices; see docs/scaling.md. Published
for ResNet-50 with CutMix in every batch, batch 256, 300 epochs (github.com/clovaai/CutMix-PyTorch):
error 21.40 %, without 23.68 %; for PS-KD with ResNet-152, without CutMix: see `imagenet_online.py`.
Not measured here.
"""

from ldl_jax.config import start


def get_config():
    """`imagenet_online.py` with these changes."""
    config = start("imagenet_online.py")
    config.model.resnet.depth = 152
    config.mixing.name = "cutmix"
    config.mixing.cutmix.probability = 0.5
    config.labels.online.dtype = "float16"
    config.train.epochs = 300.0
    return config
