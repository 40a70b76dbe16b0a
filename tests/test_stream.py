"""Streamed images: the very examples asked for, their crops, faults on disk, and resuming in the
middle.
"""

import math
import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldl_jax.data import cifar10, cifar100, imagefolder, imagenet, stl10, tfds
from ldl_jax.data.base import Request
from ldl_jax.data.readers import base, crops, folder, records, tfdata, tfrecord
from ldl_jax.evaluation.images import find

DATA = Path(os.environ.get("LDL_DATA_DIR", "/nowhere"))
CLASSES = ("n01", "n02", "n03")


def photo(seed, height=40, width=56):
    """A smooth image with some noise, which JPEG keeps about as it is."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (5, 7, 3)).astype(np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def sizes(number):
    """Sides of the number-th image: all kinds of them."""
    return 30 + 7 * (number % 5), 34 + 11 * (number % 4)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """An image folder of 3 classes, 5 + 2 JPEGs each."""
    root, number = tmp_path_factory.mktemp("images"), 0
    for part, count in (("train", 5), ("val", 2)):
        for name in CLASSES:
            (root / part / name).mkdir(parents=True)
            for k in range(count):
                Image.fromarray(photo(number, *sizes(number))).save(
                    root / part / name / f"{k}.JPEG", quality=92
                )
                number += 1
    return root


@pytest.fixture
def copied(images, tmp_path):
    """The folder again, to be damaged."""
    subprocess.run(["cp", "-r", str(images), str(tmp_path / "images")], check=True)
    return tmp_path / "images"


def opened(root, tmp_path, on_error="raise", **options):
    request = Request(str(root), resident=False, on_error=on_error)
    return imagenet.make(
        request, **{"cache": str(tmp_path / "cache"), "size": 16, "eval_resize": 20, **options}
    )


def plan(number, size=5, examples=15):
    """(epoch, index) of the number-th batch: three make an epoch."""
    epoch, place = divmod(number, 3)
    order = np.random.default_rng(epoch).permutation(examples)
    return epoch, order[place * size : (place + 1) * size].astype(np.int32)


def joined(batches):
    batches = list(batches)
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def same(one, other):
    assert one.keys() == other.keys() == {"image", "label", "index", "mask"}
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
        assert one[name].dtype == other[name].dtype


@pytest.mark.slow
def test_the_examples_asked_for_come_in_their_order_at_any_batch_size(images, tmp_path):
    made = opened(images, tmp_path)
    assert (made.train.num_examples, made.test.num_examples, made.train.shape) == (
        15,
        6,
        (16, 16, 3),
    )
    assert made.classes == CLASSES
    whole = joined(made.train.stream([plan(k) for k in range(6)], 3))
    kinds = {"image": np.uint8, "label": np.int32, "index": np.int32, "mask": np.float32}
    assert {name: array.dtype for name, array in whole.items()} == kinds
    np.testing.assert_array_equal(whole["index"], np.concatenate([plan(k)[1] for k in range(6)]))
    np.testing.assert_array_equal(whole["label"], whole["index"] // 5)
    assert whole["mask"].all()
    uneven = [(k // 3, part) for k in range(6) for part in np.split(plan(k)[1], [k % 4])]
    same(
        joined(made.train.stream([(epoch, part) for epoch, part in uneven if len(part)], 3)), whole
    )
    other_seed = joined(made.train.stream([plan(k) for k in range(3)], 4))
    assert (other_seed["image"] != whole["image"][:15]).any((1, 2, 3)).all()
    by_epoch = [
        whole["image"][half][np.argsort(whole["index"][half])]
        for half in (slice(15), slice(15, 30))
    ]
    assert (by_epoch[0] != by_epoch[1]).any((1, 2, 3)).all()


def test_a_stream_begun_at_any_batch_and_the_slices_of_processes_are_the_same_bytes(
    images, tmp_path
):
    made = opened(images, tmp_path)
    whole = list(made.train.stream((plan(k) for k in range(6)), 3))
    assert len(whole) == 6
    for one, other in zip(
        made.train.stream((plan(k) for k in range(4, 6)), 3), whole[4:], strict=True
    ):
        same(one, other)
    parts = (slice(0, 3), slice(3, 5))
    slices = [
        list(made.train.stream(((e, i[part]) for e, i in map(plan, range(6))), 3)) for part in parts
    ]
    for number, pair in enumerate(zip(*slices, strict=True)):
        same(joined(pair), whole[number])


@pytest.mark.slow
def test_the_stream_does_not_read_far_ahead_and_what_the_batches_raise_is_raised(images, tmp_path):
    made, asked = opened(images, tmp_path), []

    def endless():
        for number in range(10**9):
            asked.append(number)
            yield plan(number)

    stream = made.train.stream(endless(), 0)
    next(stream)
    time.sleep(0.3)
    assert len(asked) < 60
    stream.close()

    def broken():
        yield plan(0)
        raise KeyError("mine")

    stream = made.train.stream(broken(), 0)
    assert next(stream)["mask"].all()
    with pytest.raises(KeyError, match="mine"):
        next(stream)


def reference_box(draws, height, width, scale, ratio):
    """The algorithm of torchvision's RandomResizedCrop, with the uniform numbers given."""
    for area, shape, row, column in draws:
        area = height * width * (scale[0] + area * (scale[1] - scale[0]))
        shape = math.exp(math.log(ratio[0]) + shape * (math.log(ratio[1]) - math.log(ratio[0])))
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            return int(row * (height - h + 1)), int(column * (width - w + 1)), h, w
    if width / height < min(ratio):
        w, h = width, round(width / min(ratio))
    elif width / height > max(ratio):
        w, h = round(height * max(ratio)), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


def test_random_boxes_are_those_of_torchvisions_algorithm():
    tf = base.tensorflow()
    draw = np.random.default_rng(0)
    shapes = [(375, 500), (500, 333), (64, 64), (30, 900), (900, 30), (1, 7), (20, 20)]
    options = [
        ((0.08, 1.0), (3 / 4, 4 / 3)),
        ((0.9, 1.0), (3 / 4, 4 / 3)),
        ((0.5, 0.6), (1.0, 1.0)),
    ]
    for scale, ratio in options:
        box = tf.function(lambda *tried, r=ratio: crops.random_box(*tried, r), autograph=False)
        for height, width in shapes:
            for _ in range(20):
                u = draw.random((crops.ATTEMPTS, 4))
                sides, places = crops.attempts(u[None], scale, ratio)
                found = box(
                    tf.constant(sides[0]), tf.constant(places[0]), tf.constant([height, width])
                ).numpy()
                assert tuple(found) == reference_box(u, height, width, scale, ratio), (
                    height,
                    width,
                    scale,
                )


def crop_of(path, box, size, antialias=True):
    """What Pillow makes of a box of a file."""
    top, left, height, width = box
    with Image.open(path) as image:
        part = image.convert("RGB").crop((left, top, left + width, top + height))
    return np.asarray(part.resize((size, size), Image.Resampling.BILINEAR)).astype(int)


def test_training_crops_are_drawn_from_seed_epoch_and_index_and_are_pillows_pixels(
    images, tmp_path
):
    made = opened(images, tmp_path)
    epoch, index = plan(4)
    (batch,) = made.train.stream([(epoch, index)], 2**32 - 1)
    for position, image in zip(index, batch["image"], strict=True):
        path = images / "train" / CLASSES[position // 5] / f"{position % 5}.JPEG"
        (u,) = crops.uniform(2**32 - 1, epoch, [position])
        box = reference_box(u, *sizes(position), (0.08, 1.0), (3 / 4, 4 / 3))
        difference = np.abs(image - crop_of(path, box, 16))
        # a JPEG decoded in part has colours at the edges of the part that are made up from fewer
        # neighbours
        assert difference.max() <= 16, (position, box)
        assert difference[1:-1, 1:-1].max() <= 6
        assert difference.mean() < 1


def test_evaluation_crops_are_torchvisions(images, tmp_path):
    made = opened(images, tmp_path)
    whole = joined(
        made.test.stream(
            [(0, np.arange(4, dtype=np.int32)), (0, np.array([4, 5, 0], np.int32))], None
        )
    )
    for position, image in zip(whole["index"], whole["image"], strict=True):
        path = images / "val" / CLASSES[position // 2] / f"{position % 2}.JPEG"
        with Image.open(path) as stored:
            width, height = stored.size
            short = min(width, height)
            resized = stored.resize(
                (20 * width // short, 20 * height // short), Image.Resampling.BILINEAR
            )
        left, top = (round((length - 16) / 2) for length in resized.size)
        expected = np.asarray(resized.crop((left, top, left + 16, top + 16))).astype(int)
        assert np.abs(image - expected).max() <= 1


@pytest.mark.parametrize("size", [0, 24])
def test_streamed_and_resident_folders_are_the_same(tmp_path, size):
    root, number = tmp_path / "own", 0
    for part in ("train", "val"):
        for name in ("a", "b"):
            for k in range(3):
                (root / part / name).mkdir(parents=True, exist_ok=True)
                height, width = sizes(number) if size else (32, 32)
                kind, options = ("jpg", {"quality": 90}) if k else ("png", {})
                Image.fromarray(photo(number, height, width)).save(
                    root / part / name / f"{k}.{kind}", **options
                )
                number += 1
    held, fed = (
        imagefolder.make(
            Request(str(root), resident=resident), size=size, cache=str(tmp_path / "cache")
        )
        for resident in (True, False)
    )
    assert held.digest == fed.digest
    assert len(held.digest) == 64
    index = np.array([4, 0, 5, 3, 1, 2], np.int32)
    for one, other in ((held.train, fed.train), (held.test, fed.test)):
        assert one.shape == other.shape
        for seed in (0, None):
            (batch,) = other.stream([(1, index)], seed)
            np.testing.assert_array_equal(batch["label"], one.labels[index])
            difference = np.abs(batch["image"].astype(int) - one.images[index])
            assert difference.max() <= (2 if size else 0)  # Pillow rounds between rows and columns
    (root / "train/a/0.png").rename(root / "train/a/9.png")
    assert (
        imagefolder.make(Request(str(root)), size=size, cache=str(tmp_path / "cache")).digest
        != held.digest
    )


def test_every_format_is_the_same_resident_streamed_and_predicted(tmp_path):
    """Also files with a wrong ending, and photos to be turned."""
    endings = {
        "png": {}, "WEBP": {"lossless": True}, "bmp": {}, "tif": {"compression": "tiff_lzw"}, "TIFF": {}, "gif": {},
        "ppm": {}, "jpg": {"quality": 90}, "jpe": {"quality": 90}, "wrong.jpg": {"format": "WEBP"},
    }  # fmt: skip
    number = 0
    for label in ("a", "b"):
        (tmp_path / "own" / label).mkdir(parents=True)
        for ending, options in endings.items():
            exif = Image.Exif()
            exif[0x0112] = 1 + number % 8
            if ending not in ("bmp", "gif", "ppm"):
                options = {**options, "exif": exif}
            image = Image.fromarray(photo(number, 24, 24))
            image.save(tmp_path / "own" / label / f"{number}.{ending}", **options)
            number += 1
    frames = [Image.fromarray(photo(number, 24, 24)) for number in range(2)]
    frames[0].save(tmp_path / "own/a/frames.gif", save_all=True, append_images=frames[1:])
    grey = Image.fromarray(photo(1, 24, 24)[..., 0].astype(np.uint16) << 8)
    grey.save(tmp_path / "own/b/grey.tif")
    for exif in (False, True):
        held, fed = (
            imagefolder.make(
                Request(str(tmp_path / "own"), resident=resident),
                cache=str(tmp_path / "cache"),
                exif=exif,
            )
            for resident in (True, False)
        )
        assert (held.digest, held.record) == (fed.digest, fed.record)
        assert held.train.num_examples + held.test.num_examples == 22
        for one, other in ((held.train, fed.train), (held.test, fed.test)):
            np.testing.assert_array_equal(one.labels, other.labels)
            (batch,) = other.stream([(0, np.arange(one.num_examples, dtype=np.int32))], None)
            assert batch["mask"].all()
            np.testing.assert_array_equal(batch["image"], one.images)
        for name, image in zip(held.record["test"], held.test.images, strict=True):
            spec = {"shape": [24, 24, 3], "classes": held.classes, "num_classes": 2}
            shown = find([tmp_path / "own"], spec, 0, exif)
            place = shown.names.index(name)
            np.testing.assert_array_equal(list(shown.pixels)[place], image)
    faulty = tmp_path / "own/a/faulty.webp"
    faulty.write_bytes((tmp_path / "own/a/1.WEBP").read_bytes()[:60])
    fed = imagefolder.make(
        Request(str(tmp_path / "own"), resident=False, on_error="skip"), cache=str(tmp_path / "c")
    )
    masks = []
    for split in (fed.train, fed.test):
        (batch,) = split.stream([(0, np.arange(split.num_examples, dtype=np.int32))], None)
        masks.append(batch["mask"])
    assert (np.concatenate(masks) == 0).sum() == 1


def faults(root):
    """Damaged images among the training ones: {index: (path, what is said of it)}."""
    first, second = root / "train/n01", root / "train/n02"
    whole = (first / "0.JPEG").read_bytes()
    (first / "0.JPEG").write_bytes(whole[:300])
    (first / "3.JPEG").write_bytes(b"")
    (second / "0.JPEG").write_text("not an image at all")
    (second / "2.JPEG").unlink()
    (second / "2.JPEG").symlink_to("nowhere")
    return {
        0: (first / "0.JPEG", "cannot be decoded"), 3: (first / "3.JPEG", "is empty"),
        5: (second / "0.JPEG", "is neither JPEG nor PNG"), 7: (second / "2.JPEG", "does not exist"),
    }  # fmt: skip


@pytest.mark.slow
def test_an_image_that_cannot_be_read_is_named(copied, tmp_path):
    bad = faults(copied)
    made, good = opened(copied, tmp_path), (0, np.array([1, 2, 4], np.int32))
    for place, (path, reason) in bad.items():
        stream = made.train.stream(
            [good, good, (0, np.array([6, place, 8], np.int32)), good], place
        )
        assert next(stream)["mask"].all()
        assert next(stream)["mask"].all()
        with pytest.raises(ValueError, match=f"{path}: .*{reason}.*; repair or remove it") as told:
            next(stream)
        assert "\n" not in str(told.value)
        assert len(str(told.value)) < 400


@pytest.mark.slow
def test_skipped_images_keep_their_slot_and_change_nothing_else(images, copied, tmp_path, capfd):
    bad = faults(copied)
    sound = opened(images, tmp_path / "sound")
    made = opened(copied, tmp_path, "skip")
    capfd.readouterr()
    expected = list(sound.train.stream((plan(k) for k in range(9)), 3))
    found = list(made.train.stream((plan(k) for k in range(9)), 3))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one["index"], other["index"])
        broken = np.isin(one["index"], list(bad))
        np.testing.assert_array_equal(one["mask"], ~broken)
        for name in ("image", "label"):
            np.testing.assert_array_equal(one[name][~broken], other[name][~broken])
        for image in one["image"][broken]:
            assert (image == other["image"][~broken]).all((1, 2, 3)).any()
    said = capfd.readouterr().err
    for path, reason in bad.values():
        assert said.count(f"{path}: ") == 1
        assert f"{path}: {reason}" in said
    assert "4 so far" in said
    ours = " ".join(line for line in said.splitlines() if line.startswith("warning: "))
    assert not any(word in ours for word in ("Detected at node", "function_node", "[Op:"))
    for one, other in zip(
        made.train.stream((plan(k) for k in range(5, 9)), 3), found[5:], strict=True
    ):
        same(one, other)
    assert "warning" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_batch_without_a_good_image_counts_for_nothing_in_evaluation_and_ends_training(
    copied, tmp_path, monkeypatch
):
    """Such as the last batch of an evaluation, which may be one bad image and its copies."""
    bad = np.array(sorted(faults(copied)), np.int32)
    made = opened(copied, tmp_path, "skip")
    good = np.setdiff1d(np.arange(15, dtype=np.int32), bad)[:4]
    first, last = made.train.stream([(0, good), (0, bad[[0, 0, 0, 0]])], None)
    assert first["mask"].all()
    assert not last["mask"].any()
    assert not last["image"].any()
    np.testing.assert_array_equal(last["index"], bad[[0, 0, 0, 0]])
    monkeypatch.setattr(tfdata, "AHEAD", (20, 2))
    found = made.train.stream(((0, good if n == 2 else bad) for n in range(10**9)), None)
    for _ in range(3 + tfdata.LOST - 1):
        next(found)
    with pytest.raises(
        ValueError, match=rf"n0./.*; no image of {tfdata.LOST} batches in a row can be read"
    ):
        next(found)
    found = made.train.stream([(0, good), (0, bad)], 0)
    next(found)
    with pytest.raises(ValueError, match=r"n0./.*; no image of its batch can be read"):
        next(found)


def test_reasons_are_without_what_tensorflow_adds():
    graph = (
        "Graph execution error:\n\nDetected at node DecodeJpeg defined at (most recent call last):\n"
        '  File "a.py", line 3, in decode\n    decode()\n'
        "<stack traces unavailable>\nInvalid JPEG data\n\t [[{{node DecodeJpeg}}]] [Op:__inference_f_1]"
    )
    assert base.reason_of(ValueError(graph)) == "Invalid JPEG data"
    plain = "{{function_node __wrapped__DecodeImage_device_/job:localhost}} Unknown format. [Op:DecodeImage] name: "
    assert base.reason_of(ValueError(plain)) == "Unknown format."


@pytest.mark.slow
def test_a_fault_that_passes_is_healed_to_the_bit(copied, tmp_path, monkeypatch):
    path = copied / "train/n01/1.JPEG"
    content = path.read_bytes()
    made = opened(copied, tmp_path)
    expected = joined(made.train.stream((plan(k) for k in range(3)), 3))
    path.unlink()
    read = folder.Files.content
    monkeypatch.setattr(
        folder.Files,
        "content",
        lambda self, index: (path.write_bytes(content), read(self, index))[1],
    )
    same(joined(made.train.stream((plan(k) for k in range(3)), 3)), expected)
    assert path.exists()


def test_every_kind_of_file_becomes_rgb(copied, tmp_path):
    flat = np.full((40, 40, 3), (204, 51, 102), np.uint8)
    place = copied / "train/n01"
    Image.fromarray(flat).convert("CMYK").save(place / "0.JPEG", "JPEG", quality=100)
    Image.fromarray(photo(3)[..., 0]).save(place / "1.JPEG", "JPEG", quality=95)
    Image.fromarray(photo(4)).save(place / "2.JPEG", "PNG")
    Image.fromarray(flat).convert("P").save(place / "3.JPEG", "PNG")
    Image.fromarray(np.dstack([photo(5), photo(6)[..., :1]])).save(place / "4.JPEG", "PNG")
    made = opened(copied, tmp_path, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    (batch,) = made.train.stream([(0, np.arange(5, dtype=np.int32))], 0)
    for number, image in enumerate(batch["image"]):
        path = place / f"{number}.JPEG"
        with Image.open(path) as stored:
            box = reference_box((), *stored.size[::-1], (1.0, 1.0), (1.0, 1.0))
        assert np.abs(image - crop_of(path, box, 16)).max() <= 4, number


def write_prepared(root, source, shard=4, ids=None, encoding="jpeg"):
    """The image folder as TFDS's own writer leaves it, in shards of at most `shard` records."""
    import tensorflow_datasets as tf_datasets

    root.mkdir(parents=True)
    features = {
        "image": tf_datasets.features.Image(encoding_format=encoding),
        "label": tf_datasets.features.ClassLabel(names=list(CLASSES)),
    } | ({"id": tf_datasets.features.Text()} if ids else {})
    identity = tf_datasets.core.DatasetIdentity("own", "1.0.0", str(root), "own")
    info = tf_datasets.core.DatasetInfo(
        builder=identity, features=tf_datasets.features.FeaturesDict(features)
    )
    writer = tf_datasets.core.SequentialWriter(info, max_examples_per_shard=shard)
    writer.initialize_splits(["train", "validation"])
    for split, part in (("train", "train"), ("validation", "val")):
        paths = sorted((source / part).glob("*/*"))
        order = ids if ids and split == "train" else range(len(paths))
        examples = [{"image": str(paths[k]), "label": paths[k].parent.name} for k in order]
        named = [
            one | ({"id": f"{split}_{k:05d}"} if ids else {})
            for one, k in zip(examples, order, strict=True)
        ]
        writer.add_examples({split: named})
    writer.close_all()
    return root


@pytest.fixture(scope="module")
def stored(images, tmp_path_factory):
    """The image folder as a TFDS directory: shards of 4, 4, 4 and 3 records, and of 4 and 2."""
    return write_prepared(tmp_path_factory.mktemp("tfds") / "own" / "1.0.0", images)


@pytest.mark.slow
def test_a_tfds_directory_streams_the_folders_images(images, stored, tmp_path):
    one, other = opened(images, tmp_path), opened(stored.parent.parent, tmp_path)
    assert len(list(stored.glob("own-train.tfrecord-*"))) == 4
    assert (other.train.num_examples, other.test.num_examples, other.classes) == (15, 6, CLASSES)
    assert one.digest != other.digest == opened(stored, tmp_path).digest
    batches = [plan(k) for k in range(4)]
    same(joined(other.train.stream(batches, 5)), joined(one.train.stream(batches, 5)))
    same(
        joined(other.test.stream([(0, np.arange(6))], None)),
        joined(one.test.stream([(0, np.arange(6))], None)),
    )


@pytest.mark.slow
def test_records_are_found_in_the_order_of_their_ids_by_option(images, tmp_path):
    ids = [int(k) for k in np.random.default_rng(1).permutation(15)]
    root = write_prepared(tmp_path / "own" / "1.0.0", images, shard=6, ids=ids)
    options = {"test": "validation", "size": 16, "cache": str(tmp_path / "cache")}
    folders = opened(images, tmp_path)
    straight = imagefolder.make(
        Request(str(images), resident=False), size=16, cache=str(tmp_path / "cache")
    )
    expected = joined(straight.train.stream([(0, np.arange(15))], None))
    for order, places in (("stored", ids), ("id", np.arange(15))):
        for resident in (True, False) if order == "id" else (True,):
            made = tfds.make(Request(str(root), resident=resident), order=order, **options)
            if resident:
                images_, labels = made.train.images, made.train.labels
                assert made.train.mask is None
            else:
                batch = joined(made.train.stream([(0, np.arange(15))], None))
                images_, labels = batch["image"], batch["label"]
            np.testing.assert_array_equal(images_, expected["image"][places])
            np.testing.assert_array_equal(labels, expected["label"][places])
    assert folders.classes == made.classes
    with pytest.raises(
        ValueError, match=r"config.data.tfds.test must be one of train, validation .*, got 'test'"
    ):
        tfds.make(Request(str(root)), size=16)
    with pytest.raises(ValueError, match=r"config.data.tfds.order must be .*, got 'rank'"):
        tfds.make(Request(str(root)), order="rank")


def test_ids_that_are_no_permutation_are_refused(images, stored, tmp_path):
    doubled = write_prepared(tmp_path / "own" / "1.0.0", images, ids=[0, 0, *range(1, 14)])
    for root, says in (
        (doubled, "do not end in the numbers 0 to 14"),
        (stored, "has no text feature 'id'"),
    ):
        with pytest.raises(ValueError, match=says):
            tfds.make(
                Request(str(root)),
                order="id",
                test="validation",
                size=16,
                cache=str(tmp_path / "cache"),
            )


def test_grey_images_of_one_size_are_resident_as_they_are_stored(tmp_path):
    import tensorflow_datasets as tf_datasets

    root, grey = tmp_path, [photo(k)[..., :1] for k in range(6)]
    features = {
        "image": tf_datasets.features.Image(shape=(40, 56, 1)), "label": tf_datasets.features.ClassLabel(num_classes=2)
    }  # fmt: skip
    identity = tf_datasets.core.DatasetIdentity("own", "1.0.0", str(root), "own")
    info = tf_datasets.core.DatasetInfo(
        builder=identity, features=tf_datasets.features.FeaturesDict(features)
    )
    writer = tf_datasets.core.SequentialWriter(info, max_examples_per_shard=100)
    writer.initialize_splits(["train", "test"])
    examples = [{"image": image, "label": k % 2} for k, image in enumerate(grey)]
    writer.add_examples({"train": examples[:4], "test": examples[4:]})
    writer.close_all()
    made = tfds.make(Request(str(root)), cache=str(tmp_path / "cache"))
    np.testing.assert_array_equal(made.train.images, np.stack(grey[:4]))
    np.testing.assert_array_equal(made.test.labels, [0, 1])
    assert (made.train.shape, len(made.mean), made.classes) == ((40, 56, 1), 1, ("0", "1"))


@pytest.fixture
def shards(stored, tmp_path):
    """The TFDS directory again, to be damaged: its first train shard."""
    subprocess.run(["cp", "-r", str(stored), str(tmp_path / "tfds")], check=True)
    return sorted((tmp_path / "tfds").glob("own-train*"))


def crc32c(data):
    """CRC-32C bit by bit: the remainder by 0x1EDC6F41, of and with reversed bits."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked_crc(data):
    """The four bytes that follow data in a TFRecord file."""
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32)


def test_checksums_are_those_of_the_format():
    assert crc32c(b"123456789") == 0xE3069283  # the published check value
    for data in (b"", b"\0" * 8, b"123456789", bytes(range(256))):
        assert records.matches(data, masked_crc(data))
        assert not records.matches(data + b"\0", masked_crc(data))


@pytest.mark.parametrize(
    "place",
    ["label", *(pytest.param(place, marks=pytest.mark.slow) for place in ("image", "checksum"))],
)
def test_a_flipped_bit_in_a_record_is_found(shards, tmp_path, capfd, place):
    """Without a checksum the label would be another, and the image have other pixels."""
    batch = (0, np.arange(4, 8, dtype=np.int32))
    (sound,) = opened(shards[1].parent, tmp_path / "sound").train.stream([batch], None)
    content = bytearray(shards[1].read_bytes())
    size = int.from_bytes(content[:8], "little")
    # A label is a packed list of one varint: fields of 3 and 1 bytes, then the number.
    label = content.index(b"\x1a\x03\x0a\x01", content.index(b"label")) + 4
    assert content[label] == sound["label"][0] == 0
    content[{"label": label, "image": 12 + size // 2, "checksum": 12 + size}[place]] ^= 1
    shards[1].write_bytes(content)
    says = f"{shards[1]}, record 0: is damaged: its data do not match their checksum (CRC-32C)"
    with pytest.raises(ValueError, match=re.escape(says)):
        next(opened(shards[1].parent, tmp_path).train.stream([batch], None))
    capfd.readouterr()
    (found,) = opened(shards[1].parent, tmp_path, "skip").train.stream([batch], None)
    np.testing.assert_array_equal(found["mask"], [0, 1, 1, 1])
    np.testing.assert_array_equal(found["label"][1:], sound["label"][1:])
    assert f"warning: {says}; skipped (1 so far" in capfd.readouterr().err


def test_metadata_and_shards_that_are_no_files_do_not_hang(shards, tmp_path):
    shards[1].unlink()
    os.mkfifo(shards[1])
    with pytest.raises(ValueError, match=r"00001.* cannot be read \(.*it is a FIFO, not a regular"):
        opened(shards[0].parent, tmp_path)
    features = shards[0].parent / "features.json"
    features.unlink()
    os.mkfifo(features)
    with pytest.raises(ValueError, match=r"features.json cannot be read \(it is a FIFO"):
        opened(shards[0].parent, tmp_path)


@pytest.mark.parametrize("bit", [0, 12, 40])
def test_a_flipped_bit_in_a_length_is_found(shards, tmp_path, bit):
    """Also one that points into the file: what follows would be read as a record."""
    content = bytearray(shards[1].read_bytes())
    size = int.from_bytes(content[:8], "little")
    content[16 + size + bit // 8] ^= 1 << bit % 8
    shards[1].write_bytes(content)
    with pytest.raises(ValueError, match="is cut off or damaged after 1 records; 4 were published"):
        opened(shards[1].parent, tmp_path)


@pytest.mark.parametrize("kind", ["cut", "gone", "longer", "length"])
def test_a_damaged_shard_is_named_or_what_is_lost_counts_for_nothing(shards, tmp_path, capfd, kind):
    shard, content = shards[1], shards[1].read_bytes()
    size = int.from_bytes(content[:8], "little") + 16
    damaged, says, lost = {
        "cut": (content[:-5], "is cut off or damaged after 3 records", [7]),
        "gone": (None, "does not exist", [4, 5, 6, 7]),
        "longer": (content + content[:size], "holds 5 records", []),
        "length": (
            content[:size] + b"\xff" * 8 + content[size + 8 :],
            "is cut off or damaged after 1",
            [5, 6, 7],
        ),
    }[kind]
    shard.unlink() if damaged is None else shard.write_bytes(damaged)
    made = tfrecord.prepared(str(shard.parent), "imagenet")
    common = {"field": "split", "order": "stored", "index": tmp_path / "cache"}
    with pytest.raises(ValueError, match=f"{shard} {says}.*; 4 were published. Prepare it again"):
        tfrecord.source(made, "train", on_error="raise", **common)
    source = tfrecord.source(made, "train", on_error="skip", **common)
    assert f"warning: {shard} {says}" in capfd.readouterr().err
    np.testing.assert_array_equal(np.flatnonzero(source.shards.offset < 0), lost)
    if kind == "cut":
        split = tfdata.split(source, crops.View(16), "skip")
        found = joined(split.stream((plan(k) for k in range(3)), 1))
        assert list(found["index"][found["mask"] == 0]) == lost
        assert (
            f"{shard}, record 3: is lost, because its shard ends before it"
            in capfd.readouterr().err
        )
    shard.write_bytes(content)
    assert (tfrecord.source(made, "train", on_error="raise", **common).shards.offset >= 0).all()


@pytest.mark.slow
def test_a_record_that_holds_no_image_is_named_and_a_shard_that_changes_is_noticed(
    shards, tmp_path
):
    made = opened(shards[0].parent, tmp_path)
    content = bytearray(shards[2].read_bytes())
    size = int.from_bytes(content[:8], "little")
    content[12 : 12 + size] = b"\xff" * size
    for checksum, says in (
        (b"1234", "its data do not match"),
        (masked_crc(b"\xff" * size), "it holds no"),
    ):
        content[12 + size : 16 + size] = checksum
        shards[2].write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"own-train.tfrecord-00002, record 0: is damaged: {says}"
        ):
            next(made.train.stream([(0, np.arange(7, 11))], 0))
    shards[2].write_bytes(content[4:])
    with pytest.raises(ValueError, match=r"record 3: has changed since its shard was indexed"):
        next(made.train.stream([(0, np.array([11, 1]))], 0))


def settle(root):
    """Let all folders be older than what may change unnoticed."""
    for place in [root, *root.rglob("*")]:
        if place.is_dir():
            os.utime(place, ns=(10**18, 10**18))


def test_indices_are_kept_and_used_while_nothing_has_changed(copied, tmp_path, monkeypatch):
    walked, listed = [], folder._images_in
    monkeypatch.setattr(folder, "_images_in", lambda *place: walked.append(place) or listed(*place))
    opened(copied, tmp_path)
    opened(copied, tmp_path)
    assert len(walked) == 12  # folders that have just changed are listed again
    settle(copied)
    first = opened(copied, tmp_path)
    walked.clear()
    again = opened(copied, tmp_path)
    assert walked == []
    assert (again.digest, again.classes, again.train.num_examples) == (
        first.digest,
        first.classes,
        15,
    )
    (copied / "train/n02/1.JPEG").rename(copied / "train/n02/7.JPEG")
    assert opened(copied, tmp_path).digest != first.digest
    settle(copied)
    before = opened(copied, tmp_path)
    (copied / "train/n03/new").mkdir()
    settle(copied)
    (copied / "train/n03/0.JPEG").rename(copied / "train/n03/new/0.JPEG")
    assert opened(copied, tmp_path).digest != before.digest


def test_walks_are_kept_while_no_shard_has_changed(shards, tmp_path, monkeypatch):
    walks, walk = [], tfrecord.walk
    monkeypatch.setattr(tfrecord, "walk", lambda path: walks.append(path) or walk(path))
    opened(shards[0].parent, tmp_path)
    assert len(walks) == 6
    opened(shards[0].parent, tmp_path)
    assert len(walks) == 6
    os.utime(shards[3], ns=(1, 1))
    opened(shards[0].parent, tmp_path)
    assert len(walks) == 10


def test_tiny_imagenets_own_folders_are_read(tmp_path):
    root, lines = tmp_path / "tiny", []
    for number, name in enumerate(("n2", "n1")):
        (root / "train" / name / "images").mkdir(parents=True)
        (root / "train" / name / f"{name}_boxes.txt").write_text("")
        Image.fromarray(photo(number, 8, 8)).save(
            root / "train" / name / "images" / f"{name}_0.JPEG"
        )
    (root / "val/images").mkdir(parents=True)
    for number, name in enumerate(("n1", "n2", "n1")):
        Image.fromarray(photo(10 + number, 8, 8)).save(root / "val/images" / f"val_{number}.JPEG")
        lines.append(f"val_{number}.JPEG\t{name}\t0\t0\t8\t8\n")
    annotations = root / "val/val_annotations.txt"
    annotations.write_text("".join(lines))
    made = imagefolder.make(Request(str(root)), cache=str(tmp_path / "cache"))
    assert made.classes == ("n1", "n2")
    np.testing.assert_array_equal(made.train.labels, [0, 1])
    np.testing.assert_array_equal(made.test.labels, [0, 0, 1])
    with Image.open(root / "val/images/val_2.JPEG") as image:
        np.testing.assert_array_equal(made.test.images[1], np.asarray(image))
    for text, says in (
        (lines[:2], "has no line for images/val_2.JPEG"), ([*lines, "val_9.JPEG\tn1\n"], "lists val_9.JPEG, which"),
        (["val_0.JPEG n1\n"], "has a line without a tab"),
    ):  # fmt: skip
        annotations.write_text("".join(text))
        with pytest.raises(ValueError, match=f"val_annotations.txt {says}"):
            imagefolder.make(Request(str(root)), cache=str(tmp_path / "cache"))


@pytest.mark.parametrize(("options", "says"), [
    ({"size": -1}, r"imagefolder.size and eval_resize must be .*, got -1"),
    ({"crop": True}, r"imagefolder.size must be above 0 pixels if crop is True"),
    ({"size": 32, "eval_resize": 16}, r"imagefolder.eval_resize must be .*; got eval_resize 16 and size 32"),
    ({"size": 8, "scale": (0.0, 1.0)}, r"imagefolder.scale must be two numbers .*, got \(0.0, 1.0\)"),
    ({"size": 8, "ratio": (2.0, 1.0)}, r"imagefolder.ratio must be two numbers .*, got \(2.0, 1.0\)"),
])  # fmt: skip
def test_options_that_do_not_fit_are_named(images, options, says):
    with pytest.raises(ValueError, match=says):
        imagefolder.make(Request(str(images), resident=False), **options)


def test_what_is_not_there_is_named(images, tmp_path):
    with pytest.raises(ValueError, match=r"config.data.resident must be False for ImageNet"):
        imagenet.make(Request(str(images)))
    with pytest.raises(ValueError, match=r"must be a prepared TFDS directory .*; found in: none"):
        imagenet.make(Request(str(tmp_path), resident=False))
    with pytest.raises(
        ValueError, match=r"imagefolder.crop must be False .* with config.data.resident=True"
    ):
        imagefolder.make(Request(str(images)), size=8, crop=True)
    with pytest.raises(
        ValueError,
        match=r"val: images must have the size of those in .*train, 30x34 pixels, got 30x67 pixels",
    ):
        imagefolder.make(Request(str(images), resident=False), cache=str(tmp_path))
    split = tfdata.split(folder.Files(folder.listing(images / "train")), crops.View(), "raise")
    with pytest.raises(
        ValueError, match=r"/n01/1.JPEG: is 37x45 pixels, but all images must be 30x34"
    ):
        next(split.stream([(0, np.arange(15))], 0))


def test_published_sizes_need_no_files():
    for made, counts, shape, classes in (
        (imagenet.published(size=160), (1_281_167, 50_000), (160, 160, 3), 1000),
        (cifar10.published(), (50_000, 10_000), (32, 32, 3), 10),
        (cifar100.published(labels="coarse"), (50_000, 10_000), (32, 32, 3), 20),
        (stl10.published(fold=3), (5000, 8000), (96, 96, 3), 10),
    ):
        assert (made.train.num_examples, made.test.num_examples, len(made.classes)) == (
            *counts,
            classes,
        )
        assert made.train.shape == made.test.shape == shape
        if made.train.images is not None:
            assert made.train.images.nbytes == np.prod([counts[0], *shape])
            assert made.train.images.strides == (0, 0, 0, 0)
            assert len(made.test.labels) == counts[1]
    assert len(stl10.published(fold=3).subset) == 1000
    with pytest.raises(ValueError, match="only its published sizes are known"):
        imagenet.published().train.stream([], 0)


def test_resident_folders_work_without_tensorflow_and_streamed_ones_say_what_is_missing(tmp_path):
    for part in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / "own" / part / name).mkdir(parents=True)
            Image.fromarray(photo(1)).save(tmp_path / "own" / part / name / "1.png")
    code = f"""
import sys
sys.modules["tensorflow"] = sys.modules["tensorflow_datasets"] = None
from ldl_jax.data import imagefolder, imagenet, tfds
from ldl_jax.data.base import Request
made = imagefolder.make(Request({str(tmp_path / "own")!r}), cache={str(tmp_path / "cache")!r})
print(made.train.images.shape)
for data, resident in ((imagefolder, False), (imagenet, False), (tfds, True)):
    try:
        data.make(Request({str(tmp_path / "own")!r}, resident=resident), cache={str(tmp_path / "cache")!r}, size=8)
        print("no error")
    except ValueError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, *others = done.stdout.splitlines()
    assert first == "(2, 40, 56, 3)"
    assert len(others) == 3
    for line in others:
        assert "needs TensorFlow, which cannot be imported" in line
        assert line.endswith("pip install -e '.[stream]'")


@pytest.mark.data
def test_real_jpegs_are_those_that_pillow_decodes(tmp_path):
    if not (DATA / "imagenet").is_dir() or not (DATA / "tiny-imagenet").is_dir():
        pytest.skip("needs imagenet and tiny-imagenet below LDL_DATA_DIR")
    for part in ("train", "val"):  # the sample's two parts have other classes: both get all of them
        (tmp_path / "in" / part).mkdir(parents=True)
        for place in (DATA / "imagenet").glob("*/*"):
            (tmp_path / "in" / part / place.name).symlink_to(place)
    made = opened(tmp_path / "in", tmp_path, size=224, eval_resize=256)
    found = folder.listing(tmp_path / "in" / "train")
    batches = [(epoch, np.arange(125, dtype=np.int32)) for epoch in (0, 1)]
    whole = joined(made.train.stream(batches, 1))
    assert whole["mask"].all()
    for number in range(0, 250, 7):
        epoch, index = divmod(number, 125)
        (u,) = crops.uniform(1, epoch, [index])
        with Image.open(found.path(index)) as image:
            box = reference_box(u, *image.size[::-1], (0.08, 1.0), (3 / 4, 4 / 3))
        difference = np.abs(whole["image"][number] - crop_of(found.path(index), box, 224))
        assert difference.mean() < 0.75
        assert np.quantile(difference, 0.99) <= 4
    middle = joined(made.test.stream(batches[:1], None))["image"][::9]
    for image, index in zip(middle, range(0, 125, 9), strict=True):
        with Image.open(found.path(index)) as stored:
            width, height = stored.size
            short = min(width, height)
            resized = stored.convert("RGB").resize(
                (256 * width // short, 256 * height // short), Image.Resampling.BILINEAR
            )
        left, top = (round((length - 224) / 2) for length in resized.size)
        assert (
            np.abs(
                image - np.asarray(resized.crop((left, top, left + 224, top + 224))).astype(int)
            ).max()
            <= 1
        )
    fed = imagefolder.make(
        Request(str(DATA / "tiny-imagenet"), resident=False), cache=str(tmp_path / "cache")
    )
    found = folder.listing(DATA / "tiny-imagenet" / "train")
    index = np.arange(0, 10_000, 25, dtype=np.int32)
    (batch,) = fed.train.stream([(0, index)], 0)
    for image, place in zip(batch["image"], index, strict=True):
        with Image.open(found.path(place)) as stored:
            np.testing.assert_array_equal(image, np.asarray(stored.convert("RGB")))
