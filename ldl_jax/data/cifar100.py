"""CIFAR-100: 50,000 + 10,000 images of 32x32 pixels in 100 classes, or in 20 coarse ones."""

from ldl_jax.data.base import Dataset, Request, Split, check_split, unread
from ldl_jax.data.readers import archive, cifar
from ldl_jax.data.readers.archive import Found, Published

_FINE = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
    camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
    cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
    lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
FINE = tuple(_FINE.split())
_COARSE = """
    aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
    household_furniture insects large_carnivores large_man-made_outdoor_things
    large_natural_outdoor_scenes large_omnivores_and_herbivores medium_mammals
    non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2
"""
COARSE = tuple(_COARSE.split())
CLASSES = {"fine": FINE, "coarse": COARSE}
# MD5 checksums from torchvision.
PYTHON = Published(
    "cifar-100-python.tar.gz",
    "eb9058c3a382ffc7106e4002c42a8d85",
    "cifar-100-python",
    {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    },
)
# SHA-1 checksums from MXNet.
BINARY = Published(
    "cifar-100-binary.tar.gz",
    "03b5dce01913d631647c71ecec9e9cb8",
    "cifar-100-binary",
    {
        "train.bin": "e207cd2e05b73b1393c74c7f5e7bea451d63e08e",
        "test.bin": "8fb6623e830365ff53cf14adec797474f5478006",
    },
)


def make(
    request: Request,
    *,
    labels: str = "fine",  # classes: 'fine' (100) or 'coarse' (20, each of five fine ones)
) -> Dataset:
    """CIFAR-100, from the python or the binary version, as a folder or as the published .tar.gz.

    If `data.root` holds several, the first of these is read: python folder, python archive,
    binary folder, binary archive. mean and std are those of the code of arXiv 2301.13444's authors.
    Raises ValueError with one sentence if nothing is found, a file is damaged or has another
    checksum, or `labels` is unknown.
    """
    if labels not in CLASSES:
        raise ValueError(f"config.data.cifar100.labels must be 'fine' or 'coarse', got {labels!r}")
    contents = archive.read(request.root, (PYTHON, BINARY), verify=request.verify)
    train = _split(contents, "train", labels)
    test = _split(contents, "test", labels)
    classes = CLASSES[labels]
    # The python version names its classes, so the names come from the data.
    if contents.version is PYTHON:
        classes = cifar.names(contents, "meta", f"{labels}_label_names", len(classes))
    return Dataset(train, test, classes, cifar.MEAN, cifar.STD)


def _split(contents: Found, part: str, labels: str) -> Split:
    if contents.version is PYTHON:
        images, numbers = cifar.pickled(contents, (part,), f"{labels}_labels")
    else:
        # Each record begins with two label bytes: the coarse class, then the fine one.
        column = 1 if labels == "fine" else 0
        images, numbers = cifar.binary(contents, (f"{part}.bin",), 2, column)
    return check_split(f"{contents.place} ({part})", images, numbers, len(CLASSES[labels]))


def published(*, labels: str = "fine") -> Dataset:
    """The published sizes; no file is read."""
    train = unread(50_000, cifar.SHAPE)
    test = unread(10_000, cifar.SHAPE)
    return Dataset(train, test, CLASSES[labels], cifar.MEAN, cifar.STD)
