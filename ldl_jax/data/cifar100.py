"""CIFAR-100: 50,000 + 10,000 images of 32x32 pixels in 100 classes, or in 20 coarse ones."""

from ldl_jax.data.base import Dataset, Request, check_split, unread
from ldl_jax.data.readers import archive, cifar
from ldl_jax.data.readers.archive import Published

FINE = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish",
    "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
    "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine",
    "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk",
    "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
    "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip
COARSE = (
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables", "household_electrical_devices",
    "household_furniture", "insects", "large_carnivores", "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes", "large_omnivores_and_herbivores", "medium_mammals", "non-insect_invertebrates",
    "people", "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2",
)  # fmt: skip
CLASSES = {"fine": FINE, "coarse": COARSE}
PYTHON = Published(
    "cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", "cifar-100-python",
    {  # MD5, as torchvision's list has them
        "train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    },
)  # fmt: skip
BINARY = Published(
    "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", "cifar-100-binary",
    {  # SHA-1, as MXNet's list has them
        "train.bin": "e207cd2e05b73b1393c74c7f5e7bea451d63e08e",
        "test.bin": "8fb6623e830365ff53cf14adec797474f5478006",
    },
)  # fmt: skip


def make(
    request: Request,
    *,
    labels: str = "fine",  # 'fine': 100 classes; 'coarse': the 20 that hold five of them each
) -> Dataset:
    """CIFAR-100, from the python or the binary version, as a folder or as the .tar.gz it is
    published in.

    Where several lie below `data.root`, the first of these is read: python folder, python archive,
    binary folder, binary archive. mean and std are those of the code of arXiv 2301.13444's authors.
    Raises ValueError in one sentence where nothing is there, a file is damaged or has another
    checksum, or `labels` is unknown.
    """
    if labels not in CLASSES:
        raise ValueError(f"config.data.cifar100.labels is {labels!r}; allowed are 'fine', 'coarse'")
    found = archive.read(request.root, (PYTHON, BINARY), verify=request.verify)
    splits, classes = [], CLASSES[labels]
    for part in ("train", "test"):
        if found.version is PYTHON:
            arrays = cifar.pickled(found, (part,), f"{labels}_labels")
        else:
            arrays = cifar.binary(found, (f"{part}.bin",), 2, 1 if labels == "fine" else 0)
        splits.append(check_split(f"{found.place} ({part})", *arrays, len(classes)))
    if found.version is PYTHON:
        classes = cifar.names(found, "meta", f"{labels}_label_names", len(classes))
    return Dataset(*splits, classes, cifar.MEAN, cifar.STD)


def published(*, labels: str = "fine") -> Dataset:
    """The published sizes, with no file read."""
    return Dataset(
        unread(50_000, cifar.SHAPE),
        unread(10_000, cifar.SHAPE),
        CLASSES[labels],
        cifar.MEAN,
        cifar.STD,
    )
