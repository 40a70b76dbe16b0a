"""The user's own image files: their order, their pixels, their faults, and the cache of what was
decoded.
"""

import json
import os
import unicodedata
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from ldl_jax import config, predict
from ldl_jax.data import imagefolder, order
from ldl_jax.data.base import Request, streamed
from ldl_jax.data.loading import make_dataset
from ldl_jax.data.readers import pillow
from ldl_jax.training import experiment as build
from ldl_jax.training import loop, measure
from ldl_jax.training.programs import device_data, make_programs

DATA = Path(os.environ.get("LDL_DATA_DIR", "/nowhere"))


def noise(seed, height=12, width=12):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def save(path, pixels, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels) if mode == "RGB" else Image.fromarray(pixels).convert(mode)
    image.save(path, **options)
    return path


def two_classes(root, val="val"):
    """Five images to train on and three to test on, of 'a' and 'a-b': {relative path: pixels}."""
    names = ("train/a/2.png", "train/a/10.PNG", "train/a/deep/1.png", "train/a-b/x.png", "train/a-b/y.png",
             f"{val}/a/1.png", f"{val}/a-b/2.png", f"{val}/a-b/3.png")  # fmt: skip
    pixels = {name: noise(number) for number, name in enumerate(names)}
    for name, image in pixels.items():
        save(root / name, image, format="PNG")
    return pixels


@pytest.fixture
def own(tmp_path):
    """A function that makes the data set of tmp_path / 'images'."""

    def make(on_error="raise", **options):
        request = Request(str(tmp_path / "images"), on_error=on_error)
        return imagefolder.make(request, **{"cache": str(tmp_path / "cache"), **options})

    return make


@pytest.mark.parametrize("val", ["val", "test"])
def test_sorted_classes_and_sorted_paths_are_the_published_order(tmp_path, own, val):
    pixels = two_classes(tmp_path / "images", val)
    (tmp_path / "images/train/a/notes.txt").write_text("no image")
    (tmp_path / "images/train/a/.hidden.png").write_text("no image")
    (tmp_path / "images/train/.git").mkdir()
    made = own()
    assert made.classes == ("a", "a-b")
    expected = [
        "train/a/10.PNG",
        "train/a/2.png",
        "train/a/deep/1.png",
        "train/a-b/x.png",
        "train/a-b/y.png",
    ]
    np.testing.assert_array_equal(made.train.images, np.stack([pixels[name] for name in expected]))
    np.testing.assert_array_equal(made.train.labels, [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(made.test.labels, [0, 1, 1])
    assert made.train.mask is None
    assert made.mean == (0.485, 0.456, 0.406)


def test_every_mode_becomes_rgb(tmp_path, own):
    two_classes(tmp_path / "images")
    grey = np.arange(144, dtype=np.uint8).reshape(12, 12)
    wide = (grey.astype(np.uint16) << 8) + 77
    folder = tmp_path / "images/train/a"
    for path in list(folder.rglob("*.*")):
        if path.is_file():
            path.unlink()
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(wide).save(folder / "grey16.png")
    flat = np.full((12, 12, 3), (204, 51, 102), np.uint8)  # a colour of the web palette
    save(folder / "cmyk.jpg", flat, "CMYK", quality=100)
    save(folder / "palette.png", flat, "P")
    save(folder / "alpha.png", flat, "RGBA")
    save(folder / "named_wrongly.JPEG", flat, format="PNG")
    made = own()
    found = dict(
        zip(
            ("alpha", "cmyk", "grey", "grey16", "named", "palette"), made.train.images, strict=False
        )
    )
    for name in ("grey", "grey16"):
        np.testing.assert_array_equal(found[name], np.repeat(grey[..., None], 3, 2))
    for name in ("alpha", "named", "palette"):
        np.testing.assert_array_equal(found[name], flat)
    assert np.abs(found["cmyk"].astype(int) - flat).max() <= 3


def test_the_middle_square_is_resized_with_antialiasing(tmp_path, own):
    two_classes(tmp_path / "images")
    pixels = noise(3, 40, 80)
    save(tmp_path / "images/train/a/1.png", pixels)
    tall = save(tmp_path / "images/train/a-b/1.png", np.zeros((90, 30, 3), np.uint8))
    made = own(size=10)
    assert made.train.shape == made.test.shape == (10, 10, 3)
    # by 4 both ways: each pixel is a bicubic mean (a = -1/2, widened by 4) of 16 x 16, away from
    # the edges
    x = (np.arange(16) - 7.5) / 4
    near = np.abs(x)
    weight = np.where(
        near < 1, 1.5 * near**3 - 2.5 * near**2 + 1, -0.5 * near**3 + 2.5 * near**2 - 4 * near + 2
    )
    weight /= weight.sum()
    row, column = 4, 5
    top, left = 4 * row + 2 - 8, 20 + 4 * column + 2 - 8
    patch = pixels[top : top + 16, left : left + 16].astype(float)
    expected = np.clip(np.einsum("i,j,ijc->c", weight, weight, patch), 0, 255)
    first = made.train.images[0]
    assert np.abs(first[row, column] - expected).max() <= 1.01
    assert made.train.images[list(made.train.labels).index(1)].max() == 0, tall


def test_sizes_that_differ_are_refused_unless_one_is_asked_for(tmp_path, own):
    two_classes(tmp_path / "images")
    save(tmp_path / "images/train/a/5.png", noise(0, 12, 14))
    with pytest.raises(
        ValueError, match=r"a/5.png is 12x14 pixels, but .*a/10.PNG is 12x12 pixels; all images"
    ):
        own()
    (tmp_path / "images/train/a/5.png").unlink()
    for name in ("a/1.png", "a-b/2.png", "a-b/3.png"):
        save(tmp_path / "images/val" / name, noise(0, 8, 8))
    with pytest.raises(
        ValueError,
        match=r"val: images must have the size of those in .*train, 12x12 pixels, got 8x8 pixels",
    ):
        own()
    assert own(size=8).train.shape == (8, 8, 3)
    with pytest.raises(
        ValueError, match=r"config.data.imagefolder.size and eval_resize must be .*, got -1"
    ):
        own(size=-1)


def damage(root):
    """Three images to train on that cannot be read: {name: what is said of it}."""
    cut = save(root / "train/a/cut.jpg", noise(1, 64, 64))
    cut.write_bytes(cut.read_bytes()[:-500])
    (root / "train/a-b/empty.jpg").write_bytes(b"")
    (root / "train/a-b/text.JPEG").write_text("not an image at all")
    return {
        "train/a/cut.jpg": "truncated",
        "train/a-b/empty.jpg": "is empty",
        "train/a-b/text.JPEG": "neither JPEG",
    }


@pytest.mark.parametrize("name", ["train/a/cut.jpg", "train/a-b/empty.jpg", "train/a-b/text.JPEG"])
@pytest.mark.parametrize("size", [0, 6])
def test_an_unreadable_image_is_named(tmp_path, own, name, size):
    root = tmp_path / "images"
    two_classes(root)
    faults = damage(root)
    for other in set(faults) - {name}:
        (root / other).unlink()
    with pytest.raises(
        ValueError, match=f"{name}: .*{faults[name]}.*; repair or remove it"
    ) as told:
        own(size=size)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("size", [0, 6])
def test_skipped_images_keep_their_slot_count_for_nothing_and_are_named_once(
    tmp_path, own, capfd, size
):
    root = tmp_path / "images"
    two_classes(root)
    faults = damage(root)
    (root / "train/a/0.jpg").write_bytes(b"")  # the very first of all
    for again in (False, True):  # decoded, then from the cache
        made = own("skip", size=size)
        said = capfd.readouterr().err
        for name, reason in (faults | {"train/a/0.jpg": "is empty"}).items():
            assert said.count(f"{name}: ") == 1, (again, name)
            assert reason in said
        np.testing.assert_array_equal(made.train.mask, [0, 1, 1, 0, 1, 0, 0, 1, 1])
        np.testing.assert_array_equal(made.train.labels, [0] * 5 + [1] * 4)
        for slot in (0, 3, 5, 6):
            np.testing.assert_array_equal(made.train.images[slot], made.train.images[1])
        assert made.train.num_examples == 9
    with pytest.raises(ValueError, match=r"train/a/0.jpg: is empty; repair or remove it"):
        own("raise", size=size)  # although the cache is there


@pytest.mark.parametrize("size", [0, 6])
def test_a_link_that_leads_nowhere_is_an_unreadable_image(tmp_path, own, capfd, size):
    root = tmp_path / "images"
    two_classes(root)
    link = root / "train/a/0.png"
    link.symlink_to(tmp_path / "gone.png")
    with pytest.raises(
        ValueError, match=r"train/a/0.png: is a link to a missing file; repair or remove it"
    ):
        own(size=size)
    for _ in range(2):  # decoded, then from the cache
        np.testing.assert_array_equal(own("skip", size=size).train.mask, [0, 1, 1, 1, 1, 1])
        assert "train/a/0.png: is a link to" in capfd.readouterr().err
    save(tmp_path / "gone.png", noise(50))
    assert own(size=size).train.mask is None  # the cache knows that it was mended


def test_a_split_of_which_nothing_can_be_read(tmp_path, own):
    two_classes(tmp_path / "images")
    for path in (tmp_path / "images/val").rglob("*.png"):
        path.write_bytes(b"")
    for size in (0, 6):
        with pytest.raises(
            ValueError, match=r"none of the 3 images .*val can be read .*val/a/1.png: is empty"
        ):
            own("skip", size=size)


def test_folders_that_do_not_fit(tmp_path, own):
    root = tmp_path / "images"
    with pytest.raises(
        ValueError,
        match=r"config.data.root must be a folder with .* for data.name='imagefolder', got",
    ):
        own()
    root.mkdir()
    for name in ("train/a/1.png", "train/b/1.png"):
        save(root / name, noise(0))
    with pytest.raises(ValueError, match=r"images has neither val/ nor test/"):
        own()
    save(root / "val/a/1.png", noise(0))
    (root / "val/a").rename(root / "val/c")
    with pytest.raises(
        ValueError, match=r"train lacks the classes c of .*val; all test images must be of classes"
    ):
        own()
    (root / "val/c/1.png").unlink()
    with pytest.raises(
        ValueError, match=r"val must have class folders with images, as .*; got none"
    ):
        own()
    save(root / "val/c/1.png", noise(0))
    (root / "val/c").rename(root / "val/b")
    save(root / "val/d/1.png", noise(0))
    with pytest.raises(ValueError, match=r"train lacks the classes d of .*val"):
        own()
    (root / "train/d").mkdir()
    (root / "train/d/readme.txt").write_text("")
    with pytest.raises(ValueError, match=r"train/d has no images"):
        own()


def test_the_cache_is_used_while_nothing_changed_and_only_then(tmp_path, own, monkeypatch):
    two_classes(tmp_path / "images")
    decoded = []
    decode = pillow.decode
    monkeypatch.setattr(
        pillow,
        "decode",
        lambda path, *size, **options: decoded.append(path.name) or decode(path, *size, **options),
    )
    first = own()
    assert set(decoded) == {"2.png", "10.PNG", "1.png", "x.png", "y.png", "3.png"}
    decoded.clear()
    np.testing.assert_array_equal(own().train.images, first.train.images)
    assert decoded == []
    changed = save(tmp_path / "images/train/a/2.png", noise(99))
    os.utime(changed, ns=(1, 1))
    np.testing.assert_array_equal(own().train.images[1], noise(99))
    decoded.clear()
    assert own(size=6).train.shape == (6, 6, 3)
    assert decoded
    decoded.clear()
    (tmp_path / "images/train/a/2.png").rename(tmp_path / "images/train/a/3.png")
    own()
    assert "3.png" in decoded


@pytest.mark.parametrize("fault", ["flip", "cut", "text", "empty"])
def test_a_damaged_cache_is_warned_about_and_made_again(tmp_path, own, capfd, fault):
    two_classes(tmp_path / "images")
    first = own()
    files = sorted((tmp_path / "cache").iterdir())
    assert len(files) == 2
    for file in files:
        content = bytearray(file.read_bytes())
        content[len(content) // 3] ^= 1
        file.write_bytes(
            {"flip": content, "cut": content[:-30], "text": b"text", "empty": b""}[fault]
        )
    capfd.readouterr()
    again = own()
    assert capfd.readouterr().err.count("is damaged and will be rebuilt") == 2
    np.testing.assert_array_equal(again.train.images, first.train.images)
    own()
    assert "damaged" not in capfd.readouterr().err


def test_a_cache_whose_archive_is_whole_but_says_something_else_is_not_believed(
    tmp_path, own, capfd
):
    two_classes(tmp_path / "images")
    first = own()
    for file in (tmp_path / "cache").iterdir():
        with np.load(file) as content:
            arrays = dict(content)
        np.savez(file, **arrays | {"images": arrays["images"] ^ 1})
    np.testing.assert_array_equal(own().train.images, first.train.images)
    assert "its content has another SHA-256" in capfd.readouterr().err


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, own, capfd):
    pixels = two_classes(tmp_path / "images")
    (tmp_path / "file").write_text("")
    made = own(cache=str(tmp_path / "file" / "cache"))
    np.testing.assert_array_equal(made.train.images[0], pixels["train/a/10.PNG"])
    assert "cannot be written" in capfd.readouterr().err


def test_the_cache_lies_where_the_system_keeps_them(tmp_path, own, monkeypatch):
    two_classes(tmp_path / "images")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    own(cache="")
    assert len(list((tmp_path / "xdg/ldl_jax/images").iterdir())) == 2


def test_what_cannot_be_read_is_not_counted(tmp_path):
    root = tmp_path / "images"
    two_classes(root)
    (root / "val/a-b/0.png").write_bytes(b"")
    c = config.default()
    c.data.name, c.data.root, c.data.on_error, c.data.batch_size = (
        "imagefolder",
        str(root),
        "skip",
        4,
    )
    c.data.imagefolder.cache, c.model.name = str(tmp_path / "cache"), "tests.tiny"
    made = build.make_experiment(c, jax.devices()[:1])
    programs = make_programs(made)
    variables = made.recipe.build.init(jax.random.key(0))
    found = measure.measure_split(
        programs.evaluate, variables, programs.test, made.dataset.test, made.test, metrics=made.metrics,
        mesh=made.mesh, batch_size=3, keep=True,
    )  # fmt: skip
    assert found.scores["n"] == 3  # of four
    np.testing.assert_array_equal(found.predictions["index"], [0, 2, 3])
    hits = found.predictions["logits"].argmax(1) == [0, 1, 1]
    assert found.scores["accuracy"] == pytest.approx(hits.mean())


def test_masks_reach_the_device_and_the_stream(tmp_path):
    root = tmp_path / "images"
    two_classes(root)
    damage(root)
    made = imagefolder.make(Request(str(root), on_error="skip"), cache=str(tmp_path / "cache"))
    there = build.mesh.make_mesh(jax.devices()[:1])
    np.testing.assert_array_equal(
        device_data(made.train, jax.random.key(0), there)["mask"], made.train.mask
    )
    split = streamed(made.train)
    index = order.epoch_order(np.arange(8), 0, 0)
    (batch,) = split.stream([(0, index)], 0)
    np.testing.assert_array_equal(batch["mask"], made.train.mask[index])
    assert "mask" not in device_data(split, jax.random.key(0), there)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_class_without_test_images_is_warned_of_and_keeps_its_number(
    tmp_path, own, capfd, is_there
):
    root = tmp_path / "images"
    two_classes(root)
    for number in range(2):
        save(root / f"train/a-a/{number}.png", noise(90 + number))
    if is_there:
        (root / "val/a-a").mkdir()
    made = own()
    assert made.classes == ("a", "a-a", "a-b")
    np.testing.assert_array_equal(made.test.labels, [0, 2, 2])
    error = capfd.readouterr().err
    assert error.startswith("warning: ")
    assert "val has no images of a-a (trained on: 3 classes)" in error
    assert error.count("\n") == 1


def test_the_same_class_name_in_two_normal_forms_is_one_class(tmp_path, own, capfd):
    root = tmp_path / "images"
    two_classes(root)
    composed = "caf\u00e9"
    save(root / "train" / composed / "1.png", noise(70))
    save(root / "val" / unicodedata.normalize("NFD", composed) / "1.png", noise(71))
    # Sorted by code points, the two forms come before and after this class.
    save(root / "train/caff/1.png", noise(72))
    save(root / "val/caff/1.png", noise(73))
    made = own()
    assert made.classes == ("a", "a-b", "caff", composed)
    np.testing.assert_array_equal(made.test.labels, [0, 1, 1, 2, 3])
    np.testing.assert_array_equal(made.test.images[3], noise(73))
    np.testing.assert_array_equal(made.test.images[4], noise(71))
    assert capfd.readouterr().err == ""


def unsplit(root, names=range(10), reverse=False):
    """Images of three classes, without a split: 10, 4 and, of c, one."""
    paths = [f"a/{name}.png" for name in names]
    paths += ["b/deep/0.png", "b/1.png", "b/2.png", "b/3.png", "c/0.png"]
    for number, path in sorted(enumerate(paths), reverse=reverse):
        save(root / path, noise(number))
    return root


def drawn(root, tmp_path, **fields):
    request = Request(str(root), **fields)
    return imagefolder.make(request, cache=str(tmp_path / "cache"))


def test_without_a_split_a_share_of_each_class_is_drawn_by_the_seed(tmp_path, capfd):
    made = drawn(unsplit(tmp_path / "one"), tmp_path)
    assert "c has a single image, which is trained on" in capfd.readouterr().err
    assert made.classes == ("a", "b", "c")
    np.testing.assert_array_equal(np.bincount(made.train.labels), [8, 3, 1])
    np.testing.assert_array_equal(np.bincount(made.test.labels), [2, 1])
    assert "3 of 15 images (0.2 of each class)" in made.notes[0]
    record = made.record
    assert (record["test_share"], record["test_seed"], record["train"]) == (0.2, 0, 12)
    for name, image in zip(record["test"], made.test.images, strict=True):
        with Image.open(tmp_path / "one" / name) as stored:
            np.testing.assert_array_equal(image, np.asarray(stored))
    both = np.concatenate([made.train.images, made.test.images])
    assert len(np.unique(both, axis=0)) == 15
    # Neither the order in the folder nor where it lies makes a difference.
    other = drawn(unsplit(tmp_path / "two", reverse=True), tmp_path)
    assert (other.record, other.digest) == (record, made.digest)
    np.testing.assert_array_equal(other.test.images, made.test.images)
    seeded = drawn(tmp_path / "one", tmp_path, test_seed=1)
    assert seeded.record["test"] != record["test"]
    assert seeded.digest != made.digest
    half = drawn(tmp_path / "one", tmp_path, test_share=0.5)
    np.testing.assert_array_equal(np.bincount(half.test.labels), [5, 2])
    assert set(record["test"]) <= set(half.record["test"])


def test_a_further_image_leaves_the_draw_of_other_classes_alone(tmp_path):
    few = drawn(unsplit(tmp_path / "few"), tmp_path).record["test"]
    more = drawn(unsplit(tmp_path / "more", names=range(25)), tmp_path).record["test"]
    assert sum(name.startswith("a/") for name in more) == 5
    assert [name for name in more if "b/" in name] == [name for name in few if "b/" in name]


def test_a_train_folder_alone_is_split_only_on_request(tmp_path):
    root = unsplit(tmp_path / "images/train").parent
    with pytest.raises(ValueError, match=r"neither val/ nor test/; .* set config.data.test_share"):
        drawn(root, tmp_path)
    made = drawn(root, tmp_path, test_share=0.2)
    assert (made.train.num_examples, made.test.num_examples) == (12, 3)
    (root / "train").rename(root / "val")
    with pytest.raises(ValueError, match=r"config.data.root must be a folder with <class>"):
        drawn(root, tmp_path)
    two_classes(tmp_path / "other")
    with pytest.raises(ValueError, match=r"test_share must be None, because .* val/; got 0.3"):
        drawn(tmp_path / "other", tmp_path, test_share=0.3)


def test_folders_named_like_splits_are_not_classes(tmp_path):
    for name in ("Training", "Testing"):
        unsplit(tmp_path / "nested" / name)
        save(tmp_path / "flat" / name.lower() / "0.png", noise(0))
    for root in ("nested", "flat"):
        with pytest.raises(ValueError, match=r"got .*, which look like splits: rename them"):
            drawn(tmp_path / root, tmp_path)
    # A class of vehicles.
    for name in ("train/0.png", "train/1.png", "tram/0.png"):
        save(tmp_path / "vehicles" / name, noise(len(name)))
    assert drawn(tmp_path / "vehicles", tmp_path).classes == ("train", "tram")


def test_one_image_per_class_cannot_be_split(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / "images" / name / "0.png", noise(0))
    with pytest.raises(ValueError, match=r"more than one image in some class, .* got one image"):
        drawn(tmp_path / "images", tmp_path)


def test_files_that_are_not_used_are_counted_by_their_ending(tmp_path, own):
    root = tmp_path / "images"
    two_classes(root)
    for name in ("a/1.txt", "a/deep/2.TXT", "a-b/x.heic", "a-b/LICENSE", "a/.hidden", "x.png"):
        (root / "train" / name).write_text("")
    (root / "train/__MACOSX/a").mkdir(parents=True)
    (note,) = own().notes
    kinds = "2 .txt, 1 .heic, 1 .png outside of class folders, 1 without an ending"
    assert f"train: left out {kinds} (files" in note


def test_the_share_to_hold_out_is_rounded_and_excludes_a_number(tmp_path):
    c = config.default()
    c.data.holdout_share = 0.1
    dataset = make_dataset(c.data)
    train, holdout, _ = build.positions(c.data, dataset)
    assert (len(train), len(holdout)) == (1293, 144)  # of 1437
    c.data.holdout_share, c.data.holdout = 0.0, 144
    np.testing.assert_array_equal(build.positions(c.data, dataset)[1], holdout)
    c.data.holdout_share = 0.1
    with pytest.raises(
        ValueError, match=r"only one of config.data.holdout and .*, got 144 and 0.1"
    ):
        config.check(c)
    c.data.holdout, c.data.examples, c.data.holdout_share = 0, 4, 0.1
    with pytest.raises(ValueError, match=r"holdout_share must leave .* of 4, got 0.1, .* out 0"):
        build.positions(c.data, dataset)
    c.data.holdout_share = 1.0
    with pytest.raises(ValueError, match=r"config.data.holdout_share must be in \[0, 1\), got 1"):
        config.check(c)
    c.data.holdout_share, c.data.test_share = 0.0, 0.2
    with pytest.raises(ValueError, match=r"test_share must be None unless .* 'imagefolder'"):
        config.check(c)
    c.data.name, c.data.test_share = "imagefolder", 1.0
    with pytest.raises(ValueError, match=r"config.data.test_share must be in \(0, 1\), got 1"):
        config.check(c)


def test_new_fields_leave_the_identity_of_earlier_runs_alone():
    c = config.default()
    c.data.name = "imagefolder"
    names = ("data.holdout_share", "data.test_share", "data.test_seed", "data.imagefolder.exif")
    assert not set(names) & set(config.decisive(c))
    c.data.test_share, c.data.imagefolder.exif = 0.3, True
    assert {name for name in names if name in config.decisive(c)} == {names[1], names[3]}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_as_exif_says_by_option(tmp_path, orientation):
    upright = noise(1, 4, 6)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "photo.png", np.ascontiguousarray(stored), exif=exif)
    np.testing.assert_array_equal(pillow.decode(path, exif=True), upright)
    np.testing.assert_array_equal(pillow.decode(path), stored)


def test_pixels_of_an_unknown_range_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.full((4, 4), 70_000, np.int32)).save(tmp_path / "wide.tif")
    assert "floating-point numbers, whose range" in pillow.decode(tmp_path / "float.tif")
    assert "must be 16-bit numbers, got 70000" in pillow.decode(tmp_path / "wide.tif")


@pytest.mark.slow
def test_a_run_on_a_folder_without_a_split_records_it_whatever_the_names(tmp_path, capfd):
    root = unsplit(tmp_path / "images")
    strange = os.fsdecode(b"caf\xe9")
    (root / "a").rename(root / strange)
    (root / strange / "0.png").rename(root / strange / os.fsdecode(b"\xff.png"))
    c = config.default()
    c.data.name, c.data.root, c.data.imagefolder.cache = "imagefolder", str(root), str(tmp_path)
    c.data.batch_size, c.data.test_share, c.data.holdout_share = 8, 0.3, 0.25
    c.model.name, c.train.max_steps = "tests.tiny", 2
    loop.train(c, tmp_path / "run")
    made = make_dataset(c.data)
    assert json.loads((tmp_path / "run/split.json").read_text()) == made.record
    out = capfd.readouterr().out
    assert "has no test split: 4 of 15 images (0.3 of each class)" in out
    assert (tmp_path / "run/report.html").stat().st_size > 0
    loop.train(c, tmp_path / "run")  # the same data: nothing is refused
    (written, table) = predict.predict(tmp_path / "run", root, out=tmp_path / "out")
    text = table.read_bytes()
    assert rb"caf\xe9/\xff.png," in text
    assert rb"p(caf\xe9)" in text
    with np.load(written) as file:
        assert f"{strange}/{os.fsdecode(bytes([255]))}.png" in file["name"].tolist()
        np.testing.assert_array_equal(np.bincount(file["label"]), [4, 1, 10])


@pytest.mark.data
def test_tiny_imagenet_is_read_whole(tmp_path):
    root = DATA / "tiny-imagenet"
    if not root.is_dir():
        pytest.skip("needs tiny-imagenet below LDL_DATA_DIR")
    made = imagefolder.make(Request(str(root)), cache=str(tmp_path))
    assert (made.train.num_examples, made.test.num_examples, made.train.shape) == (
        10000,
        5000,
        (64, 64, 3),
    )
    assert set(np.bincount(made.train.labels)) == {50}
    assert set(np.bincount(made.test.labels)) == {25}
    names = sorted(path.name for path in (root / "train").iterdir())
    assert made.classes == tuple(names)
    last = sorted((root / "train" / names[-1]).iterdir(), key=lambda path: path.name)[-1]
    with Image.open(last) as image:
        np.testing.assert_array_equal(made.train.images[-1], np.asarray(image.convert("RGB")))
    again = imagefolder.make(Request(str(root)), cache=str(tmp_path))
    np.testing.assert_array_equal(again.train.images, made.train.images)
