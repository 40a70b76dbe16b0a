"""A folder of one's own images, one sub-folder per class: a few hundred to some ten thousand.

python -m ldl_jax.main --config=configs/images.py --config.data.root=FOLDER

A fifth of the images of every class is set aside to test on, a tenth of the rest to fit the
calibrator on. Images are resized to 64x64 pixels.

Measured with configs/studies/images.py on a CPU (3 seeds, mean ± std), accuracy and NLL:

6 classes of 60 Tiny ImageNet images each (72 test images), as here
  hard labels  47.7 ± 3.2 %  1.512 ± 0.029, recalibrated 1.373 ± 0.008
  online       49.1 ± 2.1 %  1.437 ± 0.033, recalibrated 1.417 ± 0.049
200 classes of 50 (5,000 test images), 32x32 pixels, 15 epochs
  hard labels  11.9 ± 0.1 %  4.186 ± 0.021, recalibrated 4.171 ± 0.020
  online       10.0 ± 0.2 %  4.306 ± 0.025, recalibrated 4.306 ± 0.025

docs/data.md says which labels to use when.
"""

from ldl_jax.config import default


def get_config():
    """A ResNet-8 that learns from the labels, in 30 epochs."""
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
    config.labels.name = "hard"
    config.optimizer.learning_rate = 0.05
    config.optimizer.nesterov = True
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 2.0
    config.train.epochs = 30.0
    config.train.save_every_epochs = 5.0
    config.train.eval_every_epochs = 5.0
    return config
