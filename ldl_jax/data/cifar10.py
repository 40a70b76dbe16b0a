"""CIFAR-10: 50,000 + 10,000 images of 32x32 pixels in 10 classes."""

from ldl_jax.data.base import Dataset, Request, Split, check_split, unread
from ldl_jax.data.readers import archive, cifar
from ldl_jax.data.readers.archive import Found, Published

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# MD5 checksums from torchvision.
PYTHON = Published(
    "cifar-10-python.tar.gz",
    "c58f30108f718f92721af3b95e74349a",
    "cifar-10-batches-py",
    {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    },
)
# SHA-1 checksums from MXNet.
BINARY = Published(
    "cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
    "cifar-10-batches-bin",
    {
        "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
        "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
        "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
        "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
        "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
        "test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c",
    },
)


def make(request: Request) -> Dataset:
    """CIFAR-10, from the python or the binary version, as a folder or as the published .tar.gz.

    If `data.root` holds several, the first of these is read: python folder, python archive,
    binary folder, binary archive. mean and std are CIFAR-100's, as in the code of arXiv
    2301.13444's authors. Raises ValueError with one sentence if nothing is found, or a file is
    damaged or has another checksum.
    """
    contents = archive.read(request.root, (PYTHON, BINARY), verify=request.verify)
    train = _split(contents, "data_batch")
    test = _split(contents, "test_batch")
    classes = CLASSES
    # The python version names its classes, so the names come from the data.
    if contents.version is PYTHON:
        classes = cifar.names(contents, "batches.meta", "label_names", len(CLASSES))
    return Dataset(train, test, classes, cifar.MEAN, cifar.STD)


def _split(contents: Found, part: str) -> Split:
    files = tuple(name for name in contents.version.files if name.startswith(part))
    if contents.version is PYTHON:
        images, labels = cifar.pickled(contents, files, "labels")
    else:
        images, labels = cifar.binary(contents, files, 1, 0)
    return check_split(f"{contents.place} ({part})", images, labels, len(CLASSES))


def published() -> Dataset:
    """The published sizes; no file is read."""
    train = unread(50_000, cifar.SHAPE)
    test = unread(10_000, cifar.SHAPE)
    return Dataset(train, test, CLASSES, cifar.MEAN, cifar.STD)
