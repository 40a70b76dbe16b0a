"""A folder of one's own images, one sub-folder per class: a few hundred to some ten thousand.

python -m ldl_jax.main --config=configs/images.py --config.data.root=FOLDER

A fifth of the images of every class is set aside to test on, a tenth of the rest to fit the
calibrator on. Images are resized to 64x64 pixels.

Measured on 6 classes of 60 Tiny ImageNet images each with configs/studies/images.py (3 seeds, 72
test images, mean ± std): hard labels 47.7 ± 3.2 % accurate, NLL 1.512 ± 0.029; online 49.1 ± 2.1 %,
1.437 ± 0.033; hard labels with CutMix 45.4 ± 0.8 %, 1.474 ± 0.040.
"""

from ldl_jax.config import default


def get_config():
    """A ResNet-8 that learns from the labels and its own earlier predictions, in 30 epochs."""
    config = default()
    config.data.name = "imagefolder"
    config.data.imagefolder.size = 64  # pixels
    config.data.holdout_share = 0.1
    config.data.on_error = "skip"
    config.data.batch_size = 32
    config.augment.pad = 8  # pixels
    config.augment.flip = True
    config.model.name = "cifar_resnet"
    config.model.cifar_resnet.depth = 8
    config.labels.name = "online"
    config.optimizer.learning_rate = 0.05
    config.optimizer.nesterov = True
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 2.0
    config.train.epochs = 30.0
    config.train.save_every_epochs = 5.0
    config.train.eval_every_epochs = 5.0
    return config
