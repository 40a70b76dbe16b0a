"""Data sets: the digits that come with scikit-learn, the user's own arrays, and splits fed batch by
batch.
"""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ldl_jax import config
from ldl_jax.data import arrays, digits
from ldl_jax.data.base import Request, check_split, streamed
from ldl_jax.data.loading import make_dataset


def own_arrays(**changes):
    draw = np.random.default_rng(0)
    made = {
        "train_images": draw.integers(0, 256, (12, 5, 6, 3)).astype(np.uint8), "train_labels": np.arange(12) % 3,
        "test_images": draw.integers(0, 256, (4, 5, 6, 3)).astype(np.uint8), "test_labels": np.array([2, 0, 1, 2]),
    }  # fmt: skip
    return {name: value for name, value in (made | changes).items() if value is not None}


@pytest.fixture
def stored(tmp_path):
    """Write arrays to a file; returns the request for them."""

    def store(**changes):
        np.savez(tmp_path / "own.npz", **own_arrays(**changes))
        return Request(root=str(tmp_path / "own.npz"))

    return store


def test_the_digits_are_1437_and_360_in_published_order():
    made, published = digits.make(Request()), load_digits()
    assert (made.train.num_examples, made.test.num_examples) == (1437, 360)
    assert made.train.shape == made.test.shape == (8, 8, 1)
    assert made.classes == tuple("0123456789")
    images = np.concatenate([made.train.images, made.test.images])
    assert images.dtype == np.uint8
    assert images.max() == 255
    np.testing.assert_allclose(images[..., 0] / 255, published.images / 16, rtol=0, atol=0.5 / 255)
    labels = np.concatenate([made.train.labels, made.test.labels])
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, published.target)
    assert np.bincount(made.train.labels, minlength=10).min() > 100


def test_statistics_are_those_of_the_training_pixels(stored):
    made, own = arrays.make(stored()), own_arrays()["train_images"] / 255
    np.testing.assert_allclose(made.mean, own.reshape(-1, 3).mean(0), rtol=1e-12)
    np.testing.assert_allclose(made.std, own.reshape(-1, 3).std(0), rtol=1e-12)
    made = digits.make(Request())
    np.testing.assert_allclose(made.mean, [(made.train.images / 255).mean()], rtol=1e-12)
    np.testing.assert_allclose(made.std, [(made.train.images / 255).std()], rtol=1e-12)


def test_own_arrays_come_back_as_they_were(stored):
    made, own = arrays.make(stored()), own_arrays()
    for name, part in (("train", made.train), ("test", made.test)):
        np.testing.assert_array_equal(part.images, own[f"{name}_images"])
        np.testing.assert_array_equal(part.labels, own[f"{name}_labels"])
        assert (part.labels.dtype, part.num_examples, part.shape) == (
            np.int32,
            len(part.labels),
            (5, 6, 3),
        )
    assert made.classes == ("0", "1", "2")


def test_classes_may_be_named_also_those_that_no_image_has(stored):
    made = arrays.make(stored(classes=np.array(["cat", "dog", "eel", "fox"])))
    assert made.classes == ("cat", "dog", "eel", "fox")


def test_images_of_one_colour_have_a_standard_deviation_above_zero(stored):
    made = arrays.make(stored(train_images=np.full((12, 5, 6, 3), 51, np.uint8)))
    np.testing.assert_allclose(made.mean, [0.2] * 3)
    np.testing.assert_allclose(made.std, [1 / 255] * 3)


@pytest.mark.parametrize(("changes", "says"), [
    ({"test_labels": None}, r"own\.npz has no test_labels; it must hold train_images"),
    ({"train_images": np.zeros((12, 5, 6, 3), np.float32)}, r"\(train\): images must .*, got float32\[12, 5, 6, 3\]"),
    ({"train_images": np.zeros((12, 5, 6), np.uint8)}, r"\(train\): images must be .*, got uint8\[12, 5, 6\]"),
    ({"train_labels": np.arange(11) % 3}, r"\(train\): labels must be integers \[12\], .*, got int64\[11\]"),
    ({"train_labels": np.zeros(12)}, r"\(train\): labels must be integers .*, got float64\[12\]"),
    ({"test_labels": np.array([0, 1, 2, 3])}, r"\(test\): labels must be between 0 and 2, got 0 to 3"),
    ({"train_labels": np.arange(12) % 3 - 1}, r"\(train\): labels must be between 0 and 1, got -1 to 1"),
    ({"test_images": np.zeros((4, 5, 7, 3), np.uint8)}, r"test images must have the shape of .*, got \(5, 7, 3\)"),
    ({"test_images": np.zeros((0, 5, 6, 3), np.uint8), "test_labels": np.zeros(0, int)}, r"\(test\) holds no images"),
    ({"train_labels": np.array([{}] * 12, object)}, r"own\.npz: cannot be read as an \.npz file of plain arrays"),
    ({"classes": np.array(["one", "two"])}, r"\(train\): labels must be between 0 and 1, got 0 to 2"),
    ({"classes": np.array("one")}, r"own\.npz: classes must be a list .*, got"),
])  # fmt: skip
def test_own_arrays_that_do_not_fit_are_refused_in_a_sentence(stored, changes, says):
    with pytest.raises(ValueError, match=says):
        arrays.make(stored(**changes))


@pytest.mark.parametrize(("pixels", "says"), [
    (np.zeros((12, 3, 32, 32), np.uint8), r"height 3, width 32 and 32 channels; if .*transpose\(0, 2, 3, 1\)"),
    (np.zeros((12, 1, 28, 20), np.uint8), r"height 1, width 28 and 20 channels"),
    (np.ones((12, 5, 6, 3), np.float32), r"all are in \[0, 1\], so store \(images \* 255\)"),
    (np.full((12, 5, 6, 3), 254.0), r"all are in \[0, 255\] \(up to 254\), so store images.round"),
    (np.full((12, 5, 6, 3), -1.5), r"from -1.5 to -1.5; store the pixels, before normalisation"),
    (np.full((12, 5, 6, 3), 200), r"got int64\[12, 5, 6, 3\]; store images.astype"),
    (np.zeros((12, 5, 6), np.uint8), r"store images\[..., None\]"),
])  # fmt: skip
def test_images_of_another_kind_are_refused_with_what_makes_them_right(stored, pixels, says):
    with pytest.raises(ValueError, match=says) as told:
        arrays.make(stored(train_images=pixels))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("shape", [(12, 4, 4, 8), (12, 40, 3, 16), (12, 3, 32, 3), (12, 8, 8, 1)])
def test_images_of_few_rows_or_many_channels_are_taken(shape):
    check_split("own", np.zeros(shape, np.uint8), np.zeros(12, int), 2)


def test_labels_that_count_from_one_are_told(stored):
    labels = {"train_labels": np.arange(12) % 3 + 1, "test_labels": np.array([3, 1, 2, 3])}
    with pytest.raises(ValueError, match=r"got 1 to 3: they count from 1; store labels - 1, or"):
        arrays.make(stored(**labels))
    with pytest.raises(ValueError, match=r"0 and 2, got 1 to 3; they count from 1"):
        arrays.make(stored(**labels, classes=np.array(["x", "y", "z"])))
    # All classes are named, so the first one has no images on purpose.
    made = arrays.make(stored(**labels, classes=np.array(["none", "x", "y", "z"])))
    assert made.train.labels.min() == 1
    np.testing.assert_array_equal(
        arrays.make(stored(train_labels=np.arange(12) % 3 + 2)).train.labels, np.arange(12) % 3 + 2
    )


def test_images_to_predict_in_pytorchs_order_are_told(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 3, 8, 8), np.uint8))
    with pytest.raises(ValueError, match=r"got uint8\[2, 3, 8, 8\]; store images.transpose"):
        arrays.read_images(tmp_path / "x.npz", (8, 8, 3), 2)


def test_images_of_a_single_class_are_refused(stored):
    c = config.default()
    c.data.name, c.data.root = (
        "arrays",
        stored(train_labels=np.zeros(12, int), test_labels=np.zeros(4, int)).root,
    )
    with pytest.raises(
        ValueError, match=r"data\.root '.*own\.npz' must hold images of at least two classes"
    ):
        make_dataset(c.data)


def test_own_arrays_are_known_by_what_the_file_holds(stored):
    one, same, other = (
        arrays.make(stored(test_labels=np.array([0, 1, 2, n]))).digest for n in (0, 0, 1)
    )
    assert one == same != other


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_with_flipped_bytes_is_read_or_refused_in_a_sentence(tmp_path, save):
    path, draw = tmp_path / "own.npz", np.random.default_rng(0)
    save(path, **own_arrays())
    whole, refused = path.read_bytes(), 0
    for _ in range(150):
        broken = bytearray(whole)
        for place in draw.integers(0, len(whole), 8):
            broken[place] = draw.integers(256)
        path.write_bytes(broken)
        try:
            arrays.make(Request(root=str(path)))
        except ValueError as error:
            assert "own.npz" in str(error)  # noqa: PT017
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken", None])
def test_a_file_that_is_no_archive_is_refused_in_a_sentence(tmp_path, content):
    path = tmp_path / "own.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"own\.npz"):
        arrays.make(Request(root=str(path)))


def test_an_archive_that_was_cut_or_holds_one_bare_array_is_refused(stored, tmp_path):
    request, path = stored(), tmp_path / "own.npz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(
        ValueError, match=r"own\.npz: cannot be read as an \.npz file of plain arrays"
    ):
        arrays.make(request)
    np.save(tmp_path / "bare.npy", np.arange(3))
    with pytest.raises(ValueError, match=r"bare\.npy"):
        arrays.make(Request(root=str(tmp_path / "bare.npy")))


def test_pickles_are_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.savez(tmp_path / "own.npz", **own_arrays(), classes=np.array([Trap()], object))
    with pytest.raises(ValueError, match="plain arrays"):
        arrays.make(Request(root=str(tmp_path / "own.npz")))
    assert not (tmp_path / "sprung").exists()


def test_a_streamed_split_gives_the_very_examples_asked_for():
    resident = digits.make(Request()).train
    split = streamed(resident)
    assert split.images is None
    assert split.labels is None
    assert (split.num_examples, split.shape) == (1437, (8, 8, 1))
    asked = [(0, np.array([5, 0, 1436, 5])), (0, np.array([7, 8])), (1, np.array([3, 2, 1]))]
    found = list(split.stream(iter(asked), 0))
    assert len(found) == 3
    for (_, index), batch in zip(asked, found, strict=True):
        np.testing.assert_array_equal(batch["index"], index)
        np.testing.assert_array_equal(batch["image"], resident.images[index])
        np.testing.assert_array_equal(batch["label"], resident.labels[index])
        np.testing.assert_array_equal(batch["mask"], np.ones(len(index)))
        assert [batch[name].dtype for name in ("image", "label", "index", "mask")] == [
            "u1",
            "i4",
            "i4",
            "f4",
        ]


def test_a_stream_reads_no_further_than_it_is_asked():
    def endless():
        while True:
            yield 0, np.arange(4)

    stream = streamed(digits.make(Request()).test).stream(endless(), None)
    assert next(stream)["image"].shape == next(stream)["image"].shape == (4, 8, 8, 1)


def test_a_checked_split_is_contiguous_and_of_int32():
    images = np.zeros((4, 6, 5, 1), np.uint8).transpose(0, 2, 1, 3)
    made = check_split("mine", images, np.array([0, 1, 2, 1], np.uint8), 3)
    assert made.images.flags.c_contiguous
    assert (made.num_examples, made.shape, made.labels.dtype, made.stream) == (
        4,
        (5, 6, 1),
        np.int32,
        None,
    )
