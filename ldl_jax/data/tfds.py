"""Any labelled image set in a prepared TFDS directory."""

from ldl_jax.data.base import Dataset, Request
from ldl_jax.data.readers import array_cache, crops, tfdata, tfrecord
from ldl_jax.data.readers.base import IMAGENET

BLOCK = "config.data.tfds"
GREY = (0.449,), (0.226,)  # mean and std of images with one channel: the means of ImageNet's three


def make(
    request: Request,
    *,
    train: str = "train",  # name of the split to train on
    test: str = "test",  # name of the split to evaluate
    order: str = "stored",  # order of examples: 'stored' (by shard) or 'id' (by the number at the end of the id)
    size: int = 0,  # side in pixels to resize the center square to (0: stored sizes, all equal)
    crop: bool = False,  # streamed training: resize a random box of each image to `size`
    scale: tuple[float, float] = (0.08, 1.0),  # random box: share of the image's area, min, max
    ratio: tuple[float, float] = (0.75, 1.3333333333333333),  # random box: width / height, min, max
    eval_resize: int = 0,  # evaluation: shorter side in pixels before the center crop (0: center square)
    antialias: bool = True,  # antialias the bilinear filter of random boxes and eval_resize
    cache: str = "",  # folder for the index ('': ldl_jax/images in $XDG_CACHE_HOME or ~/.cache)
) -> Dataset:
    """A set prepared by TensorFlow Datasets, as TFRecord files, local or gs://.

    `data.root` is the version's folder or one above it. Example i is the i-th record of the shards
    one after another, an order that preparing has shuffled; order='id' restores that of the source
    if the ids end in its numbers, as those of CIFAR do. Resident images are decoded at every start.
    mean and std are ImageNet's; set config.model.mean and std to use others. Raises ValueError with
    one sentence if the data are missing or damaged, or an option is out of range.
    """
    view = crops.check(
        crops.View(size, crop, eval_resize, tuple(scale), tuple(ratio), antialias), BLOCK
    )
    if request.resident and crop:
        raise ValueError(
            f"{BLOCK}.crop must be False with config.data.resident=True, because resident images "
            "are decoded only once; got True"
        )
    if order not in ("stored", "id"):
        raise ValueError(f"{BLOCK}.order must be 'stored' or 'id', got {order!r}")
    prepared = tfrecord.prepared(request.root, "tfds")
    sources = []
    for field, name in (("train", train), ("test", test)):
        sources.append(
            tfrecord.source(
                prepared,
                name,
                field=f"{BLOCK}.{field}",
                order=order,
                index=array_cache.folder(cache),
                on_error=request.on_error,
            )
        )
    splits = [tfdata.split(source, view, request.on_error) for source in sources]
    # Compare shapes before the images are decoded, which may take minutes.
    if splits[0].shape != splits[1].shape:
        raise ValueError(
            f"{prepared.folder}: images of {test} must have the shape of those of {train}, "
            f"{splits[0].shape}, got {splits[1].shape}; set {BLOCK}.size to resize them"
        )
    if request.resident:
        splits[0] = tfdata.resident(splits[0], f"{prepared.folder} ({train})")
        splits[1] = tfdata.resident(splits[1], f"{prepared.folder} ({test})")
    mean, std = IMAGENET if prepared.channels == 3 else GREY
    return Dataset(*splits, prepared.classes, mean, std, digest=tfrecord.digest(*sources))
