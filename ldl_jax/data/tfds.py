"""Any labelled image set in a prepared TFDS directory."""

from ldl_jax.data.base import Dataset, Request
from ldl_jax.data.readers import array_cache, crops, tfdata, tfrecord
from ldl_jax.data.readers.base import IMAGENET

BLOCK = "config.data.tfds"
GREY = (0.449,), (0.226,)  # mean and std of images with one channel: the means of ImageNet's three


def make(
    request: Request,
    *,
    train: str = "train",  # published split that is trained on
    test: str = "test",  # published split that is evaluated
    order: str = "stored",  # of the examples: 'stored', shard after shard, or 'id', the numbers their ids end in
    size: int = 0,  # pixels: the middle square (the whole shorter side) is resized to it; 0 = all are of one size
    crop: bool = False,  # streamed, in training: a random box of the image, resized to `size`
    scale: tuple[float, float] = (
        0.08,
        1.0,
    ),  # share of the image's area in a random box, lowest and highest
    ratio: tuple[float, float] = (
        0.75,
        1.3333333333333333,
    ),  # width / height of a random box, lowest and highest
    eval_resize: int = 0,  # pixels: shorter side before the middle `size` is cut out; 0 = the middle square
    antialias: bool = True,  # of the bilinear filter after a random box or eval_resize
    cache: str = "",  # folder for the index; '' = ldl_jax/images below $XDG_CACHE_HOME or ~/.cache
) -> Dataset:
    """A set prepared by TensorFlow Datasets, as TFRecord files: the version's folder or one above
    it, local or gs://.

    Example i is the i-th record of the shards one after another, an order that preparing has
    shuffled; order='id' gives back that of the source where the ids end in its numbers, as those of
    CIFAR do. Resident images are decoded at every start. mean and std are ImageNet's;
    config.model.mean and std are for others. Raises ValueError in one sentence where the data are
    missing or damaged, or an option is not allowed.
    """
    view = crops.check(
        crops.View(size, crop, eval_resize, tuple(scale), tuple(ratio), antialias), BLOCK
    )
    if request.resident and crop:
        raise ValueError(
            f"{BLOCK}.crop is True with config.data.resident=True; allowed for resident images is False"
        )
    if order not in ("stored", "id"):
        raise ValueError(f"{BLOCK}.order is {order!r}; allowed are 'stored', 'id'")
    prepared = tfrecord.prepared(request.root, "tfds")
    options = {"order": order, "index": array_cache.folder(cache), "on_error": request.on_error}
    sources = [
        tfrecord.source(prepared, split, field=f"{BLOCK}.{field}", **options)
        for field, split in (("train", train), ("test", test))
    ]
    splits = [tfdata.split(source, view, request.on_error) for source in sources]
    if splits[0].shape != splits[1].shape:
        raise ValueError(
            f"{prepared.folder}: images of {test} are {splits[1].shape}, those of {train} {splits[0].shape}; allowed "
            f"is one size, or a size in {BLOCK}.size"
        )
    if request.resident:
        titles = (f"{prepared.folder} ({name})" for name in (train, test))
        splits = [
            tfdata.resident(split, title) for split, title in zip(splits, titles, strict=True)
        ]
    mean, std = IMAGENET if prepared.channels == 3 else GREY
    return Dataset(*splits, prepared.classes, mean, std, digest=tfrecord.digest(*sources))
