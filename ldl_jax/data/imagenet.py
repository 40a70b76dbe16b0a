"""ImageNet (ILSVRC 2012): 1,281,167 + 50,000 images in 1,000 classes."""

from pathlib import Path

from ldl_jax.data.base import Dataset, Request, Split
from ldl_jax.data.readers import array_cache, crops, folder, splits, tfdata, tfrecord
from ldl_jax.data.readers.base import IMAGENET
from ldl_jax.errors import warn

TRAIN = 1_281_167  # images
TEST = 50_000
CLASSES = 1000
BLOCK = "config.data.imagenet"


def make(
    request: Request,
    *,
    size: int = 224,  # side in pixels of an image as the network sees it
    eval_resize: int = 256,  # evaluation: shorter side in pixels before the center crop to `size`
    scale: tuple[float, float] = (0.08, 1.0),  # random box: share of the image's area, min, max
    ratio: tuple[float, float] = (0.75, 1.3333333333333333),  # random box: width / height, min, max
    antialias: bool = True,  # antialias the bilinear filter, as Pillow does (False: faster, slightly different)
    cache: str = "",  # folder for the index ('': ldl_jax/images in $XDG_CACHE_HOME or ~/.cache)
) -> Dataset:
    """ImageNet, streamed from an image folder <root>/{train,val}/<WordNet id>/*.JPEG or from TFDS.

    Training shows a random box of each image, evaluation its middle (torchvision's crops). A
    folder's published order is class by class, each with its sorted names; that of a prepared TFDS
    directory (the version's folder or one above it, local or gs://) is the order of its records,
    shard by shard. mean and std are the usual ones for ImageNet. Raises ValueError with one
    sentence if the data are missing or damaged, or an option is out of range.
    """
    if request.resident:
        raise ValueError(
            "config.data.resident must be False for ImageNet, which is always streamed; got True"
        )
    view = _view(size, eval_resize, scale, ratio, antialias)
    index = array_cache.folder(cache)
    if (Path(request.root) / "train").is_dir():
        listed = splits.read(request.root, "imagenet", index=index)
        sources = [folder.Files(listing) for listing in (listed.train, listed.test)]
        classes = listed.train.classes
        digest = folder.digest(listed.train, listed.test)
    else:
        prepared = tfrecord.prepared(request.root, "imagenet")
        sources = []
        for split in ("train", "validation"):
            sources.append(
                tfrecord.source(
                    prepared,
                    split,
                    field="the split of ImageNet",
                    order="stored",
                    index=index,
                    on_error=request.on_error,
                )
            )
        classes = prepared.classes
        digest = tfrecord.digest(*sources)
    # Subsets of ImageNet are common and useful, so a different size is no error.
    counts = [source.num_examples for source in sources]
    if request.verify and (counts != [TRAIN, TEST] or len(classes) != CLASSES):
        warn(
            f"{request.root} holds {counts[0]:,} + {counts[1]:,} images in {len(classes):,} "
            f"classes; the published ImageNet has {TRAIN:,} + {TEST:,} in {CLASSES:,}"
        )
    train, test = (tfdata.split(source, view, request.on_error) for source in sources)
    return Dataset(train, test, classes, *IMAGENET, digest=digest)


def published(
    *,
    size: int = 224,
    eval_resize: int = 256,
    scale=(0.08, 1.0),
    ratio=(3 / 4, 4 / 3),
    antialias=True,
    cache="",
) -> Dataset:
    """The published sizes; no file is read. Classes are named by their numbers.

    Its streams raise ValueError.
    """
    del cache
    # Options that `make` would refuse are refused here too.
    _view(size, eval_resize, scale, ratio, antialias)

    def stream(batches, seed):
        raise ValueError("config.data.root holds no ImageNet: only its published sizes are known")

    train = Split(TRAIN, (size, size, 3), stream=stream)
    test = Split(TEST, (size, size, 3), stream=stream)
    return Dataset(train, test, tuple(map(str, range(CLASSES))), *IMAGENET)


def _view(size, eval_resize, scale, ratio, antialias) -> crops.View:
    if not size or not eval_resize:
        raise ValueError(
            f"{BLOCK}.size and eval_resize must be at least 1 pixel, got {size} and {eval_resize}"
        )
    return crops.check(
        crops.View(size, True, eval_resize, tuple(scale), tuple(ratio), antialias), BLOCK
    )
