"""Losses and penalties where networks overfit: 1,500 training images of CIFAR-10.

python -m ldl_jax.study configs/studies/cifar10_few_losses.py --set data.root=DATA --jobs=2

Images, network, schedule and holdout are those of cifar10_few.py (ResNet-8, 60 epochs), and so is
`hard`, which every cell is compared with; labels are hard. Not measured yet.

Screening, one seed: each loss with its published options, each penalty with its published weight,
a third of it and three times as much. The weight to use is the one with the lowest recalibrated NLL
on the holdout, which the page shows; the test images choose nothing. One seed says which methods
are worth a second look, and no more.
"""

from ldl_jax.config import Cell, Study, eighths

IMAGES = 1_500  # to train on
HOLDOUT = 1_000
EPOCHS = 60.0
SMALL = {
    "data.examples": IMAGES + HOLDOUT,
    "data.holdout": HOLDOUT,
    "data.batch_size": 128,
    "data.verify": False,
    "model.cifar_resnet.depth": 8,
    "labels.name": "hard",
    "eval.train_examples": IMAGES,
    "train.save_every_epochs": 0.0,
    "train.eval_every_epochs": 0.0,
    "train.log_every_steps": 75,
    **eighths(EPOCHS),
}
FACTORS = {"third": 1 / 3, "": 1.0, "triple": 3.0}  # name -> factor of the published weight

# cell -> (loss, its options where they differ from the defaults)
LOSSES = {
    "focal": ("focal", {"gamma": 3.0}),
    "flsd53": ("focal", {"schedule": "flsd53"}),
    "dual_focal": ("dual_focal", {}),
    "bsce_gra": ("bsce_gra", {}),
    "brier": ("brier", {}),
    "label_relaxation": ("label_relaxation", {}),
    "sce": ("sce", {}),
    "gce": ("gce", {}),
    "bootstrap": ("bootstrap", {}),
    "bootstrap_hard": ("bootstrap", {"hard": True, "beta": 0.8}),
}
# penalty -> its published weight
PENALTIES = {
    "maxsup": 0.1,
    "mbls": 0.1,
    "acls": 0.1,
    "mdca": 1.0,
    "dca": 1.0,
    "mmce": 2.0,
    "mmce_weighted": 2.0,
    "soft_ece": 1.0,
    "confidence_penalty": 0.1,
    "cpc": 1.0,
    "pairwise_confusion": 10.0,
    "logit_penalty": 0.002,
    "lspp": 1.0,
    "joint": 1.0,
    "jsd": 12.0,
    "augmix": 12.0,
    "regmixup": 1.0,
    "mixupmp": 1.0,
    "rankmixup_mrl": 0.1,
    "rankmixup_mndcg": 0.1,
    "soft_augmentation": 1.0,
}


def cell(name, fields):
    """One seed of hard labels with a loss or a penalty."""
    return Cell(name, "cifar10_hard.py", {**SMALL, **fields}, 1)


def get_study():
    """A cell for each loss, three for each penalty, and hard labels alone."""
    cells = [cell("hard", {})]
    for name, (loss, options) in LOSSES.items():
        fields = {f"losses.{loss}.{option}": value for option, value in options.items()}
        cells.append(cell(name, {"losses.name": loss, **fields}))
    for name, weight in PENALTIES.items():
        for suffix, factor in FACTORS.items():
            fields = {"auxiliary.names": (name,), f"auxiliary.{name}.weight": weight * factor}
            cells.append(cell(f"{name}_{suffix}" if suffix else name, fields))
    return Study(
        f"Losses and penalties on {IMAGES:,} images of CIFAR-10: screening",
        tuple(cells),
        (),
        tuple((one.name, "hard") for one in cells[1:]),
        about=f"ResNet-8 on {IMAGES:,} images of CIFAR-10, hard labels, {HOLDOUT:,} held out, 10,000 to "
        f"test on, {EPOCHS:g} epochs, one seed.",
    )
