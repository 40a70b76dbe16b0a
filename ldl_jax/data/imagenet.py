"""ImageNet (ILSVRC 2012): 1,281,167 + 50,000 images in 1,000 classes."""

from pathlib import Path

from ldl_jax.data.base import Dataset, Request, Split
from ldl_jax.data.readers import array_cache, crops, folder, tfdata, tfrecord
from ldl_jax.data.readers.base import IMAGENET
from ldl_jax.errors import warn

TRAIN, TEST, CLASSES = 1_281_167, 50_000, 1000
BLOCK = "config.data.imagenet"


def make(
    request: Request,
    *,
    size: int = 224,  # pixels: side of an image as the network sees it
    eval_resize: int = 256,  # pixels: shorter side before the middle `size` is cut out, in evaluation
    scale: tuple[float, float] = (
        0.08,
        1.0,
    ),  # share of the image's area in a random box, lowest and highest
    ratio: tuple[float, float] = (
        0.75,
        1.3333333333333333,
    ),  # width / height of a random box, lowest and highest
    antialias: bool = True,  # of the bilinear filter, as Pillow's; False: images come faster, and a little other
    cache: str = "",  # folder for the index; '' = ldl_jax/images below $XDG_CACHE_HOME or ~/.cache
) -> Dataset:
    """ImageNet, streamed: an image folder <root>/{train,val}/<WordNet id>/*.JPEG, or a prepared
    TFDS directory.

    Training shows a random box of each image, evaluation its middle (crops as torchvision's). A
    folder's published order is class by class, in each the sorted names; that of a TFDS directory
    (the version's folder or one above it, local or gs://) is the order of its records, shard after
    shard. mean and std are those usual for ImageNet. Raises ValueError in one sentence where the
    data are missing or damaged, or an option is not allowed.
    """
    if request.resident:
        raise ValueError(
            "config.data.resident is True; allowed for ImageNet, which is streamed, is False"
        )
    view = _view(size, eval_resize, scale, ratio, antialias)
    index = array_cache.folder(cache)
    if (Path(request.root) / "train").is_dir():
        listings = folder.listings(request.root, "imagenet", index=index)
        sources = [folder.Files(listing) for listing in listings]
        classes, digest = listings[0].classes, folder.digest(*listings)
    else:
        prepared = tfrecord.prepared(request.root, "imagenet")
        options = {
            "field": "the split of ImageNet",
            "order": "stored",
            "index": index,
            "on_error": request.on_error,
        }
        sources = [tfrecord.source(prepared, name, **options) for name in ("train", "validation")]
        classes, digest = prepared.classes, tfrecord.digest(*sources)
    counts = [source.num_examples for source in sources]
    if request.verify and (counts != [TRAIN, TEST] or len(classes) != CLASSES):
        warn(
            f"{request.root} holds {counts[0]:,} + {counts[1]:,} images in {len(classes):,} classes; the published "
            f"ImageNet has {TRAIN:,} + {TEST:,} in {CLASSES:,}"
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
    """The published sizes, with no file read; its streams raise ValueError, its classes have
    numbers for names.
    """
    del cache
    _view(size, eval_resize, scale, ratio, antialias)

    def stream(batches, seed):
        raise ValueError("config.data.root holds no ImageNet: only its published sizes are known")

    train, test = (Split(count, (size, size, 3), stream=stream) for count in (TRAIN, TEST))
    return Dataset(train, test, tuple(map(str, range(CLASSES))), *IMAGENET)


def _view(size, eval_resize, scale, ratio, antialias) -> crops.View:
    if not size or not eval_resize:
        raise ValueError(
            f"{BLOCK}.size is {size} and eval_resize {eval_resize}; allowed are numbers from 1, in pixels"
        )
    return crops.check(
        crops.View(size, True, eval_resize, tuple(scale), tuple(ratio), antialias), BLOCK
    )
