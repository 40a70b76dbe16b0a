"""Hard labels on ImageNet, the base of the ImageNet configs: ResNet-50, 90 epochs, batch 1,024.

python -m ldl_jax.main --config=configs/imagenet_hard.py --config.data.root=DATA

Learning rate = 0.1 x batch / 256: change both together. 5 warm-up epochs, then a cosine; bfloat16
inside the network. Weight decay 1e-4 on all parameters, as in the PyTorch recipes; flax's example
excludes biases and BatchNorm, as does --config.optimizer.decay=kernels. BatchNorm sees the whole
batch; with --config.model.norm_group=128 it sees what each of 8 devices has if statistics are not
shared. Hardware: 8 or more GPUs or TPU cores, and input that keeps up (see launch/README.md); on
fewer, --config.data.batch_size=256 --config.optimizer.accumulate=4 averages gradients over as many
images, with BatchNorm over 256. Published for ResNet-50 and 90 epochs, accuracy % / NLL / ECE %:
76.2 / .939 / 3.2 (github.com/google/uncertainty-baselines); 76.3 to 76.7 % (flax's ImageNet
example). Not measured here.
"""

from ldl_jax.config import default


def get_config():
    """1,281,167 training images, cropped at random to 224x224 pixels and mirrored, and 50,000 test
    images.
    """
    config = default()
    config.data.name = "imagenet"
    config.data.root = "data/imagenet"
    config.data.resident = False
    config.data.batch_size = 1024
    config.augment.flip = True
    config.model.name = "resnet"
    config.model.dtype = "bfloat16"
    config.model.resnet.depth = 50
    config.model.resnet.stem = "imagenet"
    config.model.resnet.stride_in_3x3 = True  # 'v1.5'
    config.model.resnet.zero_init = True
    config.optimizer.learning_rate = 0.4  # 0.1 for each 256 images of a batch
    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay = "all"
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 5.0
    config.train.epochs = 90.0
    return config
