"""Published data sets in their exact layouts: found, checked, read; what is damaged or hostile is
told, not run.
"""

import hashlib
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from ldl_jax import config
from ldl_jax.data import cifar10, cifar100, stl10
from ldl_jax.data.base import Request
from ldl_jax.data.readers import archive, cifar
from ldl_jax.training import experiment as build

DATA = Path(os.environ.get("LDL_DATA_DIR", "/nowhere"))
LOOSE = {"verify": False}
PER_FILE = 4  # images in a file of the sets that the tests write


def planes(images):
    """uint8 [n, 3072], red plane first, by an element-wise rule."""
    flat = np.empty((len(images), 3072), np.uint8)
    for channel in range(3):
        for row in range(32):
            at = channel * 1024 + row * 32
            flat[:, at : at + 32] = images[:, row, :, channel]
    return flat


def draw(seed, classes):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (PER_FILE, 32, 32, 3)).astype(np.uint8)
    return images, [int(label) for label in random.integers(0, classes, PER_FILE)]


def as_python_2(entries):
    """A pickle of protocol 2 as Python 2 wrote the published ones: byte strings, the array by
    numpy.core.
    """
    out = b"\x80\x02}("
    for name, value in entries.items():
        out += text(name)
        if isinstance(value, np.ndarray):
            out += (
                b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
                + text("b")
                + b"\x87R"
            )
            out += (
                b"(K\x01"
                + pickled(value.shape)
                + b"cnumpy\ndtype\n"
                + text("u1")
                + b"K\x00K\x01\x87R"
            )
            out += b"(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            out += b"\x89" + b"T" + struct.pack("<i", value.size) + value.tobytes() + b"tb"
        elif isinstance(value, str):
            out += text(value)
        else:
            out += (
                b"]("
                + b"".join(text(v) if isinstance(v, str) else pickled(v) for v in value)
                + b"e"
            )
    return out + b"u."


def pickled(value):
    return pickle.dumps(value, 2)[2:-1]  # without the protocol and the full stop


def text(value):
    return b"U" + bytes([len(value)]) + value.encode()


def cifar10_python():
    files, truth = {}, []
    for number, name in enumerate((*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")):
        images, labels = draw(number, 10)
        files[name] = as_python_2(
            {"batch_label": name, "labels": labels, "data": planes(images), "filenames": ["a.png"]}
        )
        truth.append((images, labels))
    files["batches.meta"] = as_python_2({"label_names": list(cifar10.CLASSES)})
    return files, truth


def cifar10_binary():
    truth = [draw(number, 10) for number in range(6)]
    names = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
    files = {
        name: b"".join(
            bytes([y]) + row.tobytes() for y, row in zip(labels, planes(images), strict=True)
        )
        for name, (images, labels) in zip(names, truth, strict=True)
    }
    return files, truth


def cifar100_files():
    """({python files}, {binary files}, [(images, fine, coarse) of train, of test])."""
    truth = [(*draw(50 + number, 100), draw(60 + number, 20)[1]) for number in range(2)]
    python, binary = {}, {}
    for part, (images, fine, coarse) in zip(("train", "test"), truth, strict=True):
        python[part] = as_python_2(
            {"fine_labels": fine, "coarse_labels": coarse, "data": planes(images)}
        )
        rows = zip(coarse, fine, planes(images), strict=True)
        binary[f"{part}.bin"] = b"".join(bytes([c, f]) + row.tobytes() for c, f, row in rows)
    python["meta"] = as_python_2(
        {"fine_label_names": list(cifar100.FINE), "coarse_label_names": list(cifar100.COARSE)}
    )
    return python, binary, truth


def write_folder(root, version, files):
    (root / version.folder).mkdir(parents=True)
    for name, content in files.items():
        (root / version.folder / name).write_bytes(content)
    return root / version.folder


def write_archive(root, version, files, prefix=""):
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / version.archive, "w:gz") as made:
        for name, content in {"readme.html": b"hello", **files}.items():
            member = tarfile.TarInfo(f"{prefix}{version.folder}/{name}")
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return root / version.archive


def check_cifar10(made, truth):
    train_images = np.concatenate([images for images, _ in truth[:5]])
    train_labels = np.concatenate([labels for _, labels in truth[:5]])
    np.testing.assert_array_equal(made.train.images, train_images)
    np.testing.assert_array_equal(made.train.labels, train_labels)
    np.testing.assert_array_equal(made.test.images, truth[5][0])
    np.testing.assert_array_equal(made.test.labels, truth[5][1])
    assert made.train.images.dtype == np.uint8
    assert made.train.labels.dtype == np.int32
    assert made.classes == cifar10.CLASSES
    assert made.mean == (0.5071, 0.4867, 0.4408)


@pytest.mark.parametrize("form", ["python", "binary"])
def test_cifar10_is_read_from_folder_and_archive_by_any_name_of_its_place(tmp_path, form):
    version = cifar10.PYTHON if form == "python" else cifar10.BINARY
    files, truth = cifar10_python() if form == "python" else cifar10_binary()
    folder = write_folder(tmp_path / "extracted", version, files)
    packed = write_archive(tmp_path / "packed", version, files, prefix="./")
    renamed = folder.parent / "mine"
    for root in (tmp_path / "extracted", folder, tmp_path / "packed", packed):
        check_cifar10(cifar10.make(Request(str(root), **LOOSE)), truth)
    folder.rename(renamed)  # a folder of another name that holds all files
    check_cifar10(cifar10.make(Request(str(renamed), **LOOSE)), truth)


@pytest.mark.parametrize("labels", ["fine", "coarse"])
def test_cifar100_has_both_labels_in_both_forms(tmp_path, labels):
    python, binary, truth = cifar100_files()
    write_folder(tmp_path / "python", cifar100.PYTHON, python)
    write_archive(tmp_path / "binary", cifar100.BINARY, binary)
    for form in ("python", "binary"):
        made = cifar100.make(Request(str(tmp_path / form), **LOOSE), labels=labels)
        assert made.classes == {"fine": cifar100.FINE, "coarse": cifar100.COARSE}[labels]
        for split, (images, fine, coarse) in zip((made.train, made.test), truth, strict=True):
            np.testing.assert_array_equal(split.images, images)
            np.testing.assert_array_equal(split.labels, fine if labels == "fine" else coarse)
    with pytest.raises(
        ValueError, match=r"config.data.cifar100.labels must be 'fine' or 'coarse', got 'all'"
    ):
        cifar100.make(Request(str(tmp_path / "python"), **LOOSE), labels="all")


def test_the_python_version_goes_before_the_binary_and_a_folder_before_its_archive(tmp_path):
    python, binary, _ = cifar100_files()
    seen = []
    for write, version, files in (
        (write_archive, cifar100.BINARY, binary), (write_folder, cifar100.BINARY, binary),
        (write_archive, cifar100.PYTHON, python), (write_folder, cifar100.PYTHON, python),
    ):  # fmt: skip
        write(tmp_path, version, files)
        found = archive.read(str(tmp_path), (cifar100.PYTHON, cifar100.BINARY), verify=False)
        seen.append(found.place.name)
    assert seen == [
        "cifar-100-binary.tar.gz",
        "cifar-100-binary",
        "cifar-100-python.tar.gz",
        "cifar-100-python",
    ]


def with_checksums(version, files, packed=None, algorithm="md5"):
    """The version with the checksums of what a test has written."""
    digests = {name: hashlib.new(algorithm, files[name]).hexdigest() for name in version.files}
    return version._replace(
        files=digests, md5=hashlib.md5(packed.read_bytes()).hexdigest() if packed else version.md5
    )


@pytest.mark.parametrize(("form", "algorithm"), [("PYTHON", "md5"), ("BINARY", "sha1")])
def test_each_extracted_file_is_checked_and_a_flipped_bit_is_told(
    tmp_path, monkeypatch, form, algorithm
):
    files, truth = cifar10_python() if form == "PYTHON" else cifar10_binary()
    assert {len(digest) for digest in getattr(cifar10, form).files.values()} == {
        {"md5": 32, "sha1": 40}[algorithm]
    }
    monkeypatch.setattr(
        cifar10, form, with_checksums(getattr(cifar10, form), files, algorithm=algorithm)
    )
    folder = write_folder(tmp_path, getattr(cifar10, form), files)
    check_cifar10(cifar10.make(Request(str(tmp_path))), truth)
    name = "data_batch_3" if form == "PYTHON" else "data_batch_3.bin"
    content = bytearray(files[name])
    content[5000] ^= 1
    (folder / name).write_bytes(content)
    digest = hashlib.new(algorithm, content).hexdigest()
    published = getattr(cifar10, form).files[name]
    with pytest.raises(ValueError, match=rf"{name} has the {algorithm.upper()} {digest}, but the published .* has "
                                         f"{published}; .*config.data.verify=False reads it"):  # fmt: skip
        cifar10.make(Request(str(tmp_path)))
    assert cifar10.make(Request(str(tmp_path), **LOOSE)).train.num_examples == 20


def test_an_archive_is_checked_as_a_whole(tmp_path, monkeypatch):
    files, truth = cifar10_python()
    packed = write_archive(tmp_path, cifar10.PYTHON, files)
    monkeypatch.setattr(cifar10, "PYTHON", with_checksums(cifar10.PYTHON, files, packed))
    check_cifar10(cifar10.make(Request(str(tmp_path))), truth)
    monkeypatch.setattr(cifar10, "PYTHON", cifar10.PYTHON._replace(md5="0" * 32))
    with pytest.raises(
        ValueError, match=r"cifar-10-python.tar.gz has the MD5 \w{32}, but the .* has 0{32};"
    ):
        cifar10.make(Request(str(tmp_path)))


def test_what_is_missing_is_told_with_its_archive_checksum_and_place(tmp_path):
    for root in ("", str(tmp_path), str(tmp_path / "none")):
        with pytest.raises(ValueError, match=r"put there") as told:
            cifar10.make(Request(root))
        for part in (
            repr(root), "cifar-10-python.tar.gz (MD5 c58f30108f718f92721af3b95e74349a)", "data_batch_5",
            "cifar-10-batches-py", "cifar-10-binary.tar.gz (MD5 c32a1d4ab5d03f1284b67883e8d87530)",
        ):  # fmt: skip
            assert part in str(told.value)
        assert "\n" not in str(told.value)
    files, _ = cifar10_python()
    folder = write_folder(tmp_path, cifar10.PYTHON, files)
    (folder / "data_batch_2").unlink()
    with pytest.raises(
        ValueError,
        match=r"data_batch_2 cannot be read \(No such file.*is a file of cifar-10-python",
    ):
        cifar10.make(Request(str(tmp_path), **LOOSE))


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.98])
def test_a_truncated_archive_is_named(tmp_path, keep):
    packed = write_archive(tmp_path, cifar10.PYTHON, cifar10_python()[0])
    content = packed.read_bytes()
    packed.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match=r"cifar-10-python.tar.gz .*truncated") as told:
        cifar10.make(Request(str(tmp_path), **LOOSE))
    assert "\n" not in str(told.value)


def test_an_archive_that_is_none_or_another(tmp_path):
    packed = tmp_path / cifar10.PYTHON.archive
    packed.write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(ValueError, match=r"cannot be read as a .tar.gz archive"):
        cifar10.make(Request(str(packed), **LOOSE))
    files, _ = cifar10_python()
    del files["test_batch"]
    write_archive(tmp_path, cifar10.PYTHON, files)
    with pytest.raises(
        ValueError, match=r"has no cifar-10-batches-py/test_batch; it is truncated, or another"
    ):
        cifar10.make(Request(str(packed), **LOOSE))


def test_a_link_in_an_archive_is_not_followed(tmp_path):
    files, _ = cifar10_python()
    secret = tmp_path / "secret"
    secret.write_bytes(files["test_batch"])
    with tarfile.open(tmp_path / cifar10.PYTHON.archive, "w:gz") as made:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            if name == "test_batch":
                member.type, member.linkname = tarfile.SYMTYPE, str(secret)
                made.addfile(member)
            else:
                member.size = len(content)
                made.addfile(member, io.BytesIO(content))
    with pytest.raises(ValueError, match=r"has no cifar-10-batches-py/test_batch"):
        cifar10.make(Request(str(tmp_path), **LOOSE))


def test_a_member_that_claims_too_much_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "LARGEST", 1000)
    files, _ = cifar10_python()
    write_archive(tmp_path / "packed", cifar10.PYTHON, files)
    with pytest.raises(ValueError, match=r"data_batch_1 claims 1"):
        cifar10.make(Request(str(tmp_path / "packed"), **LOOSE))
    write_folder(tmp_path / "folder", cifar10.PYTHON, files)
    with pytest.raises(
        ValueError, match=r"data_batch_1 has 1.* bytes; no published file is larger than 1,000"
    ):
        cifar10.make(Request(str(tmp_path / "folder"), **LOOSE))


class Hostile:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path):
    mark = tmp_path / "run"
    files, _ = cifar10_python()
    folder = write_folder(tmp_path, cifar10.PYTHON, files)
    for call, arguments, name in (
        (os.system, (f"touch {mark}",), r"posix\.system"),
        (eval, (f"open({str(mark)!r}, 'w')",), r"__builtin__\.eval|builtins\.eval"),
        (np.memmap, (str(mark), "u1", "w+", 0, (4,)), r"numpy\.memmap"),
        (np.frombuffer, (b"abc", "u1"), r"numpy\.frombuffer"),
    ):
        for protocol in (2, 4):
            (folder / "data_batch_4").write_bytes(
                pickle.dumps({"data": Hostile(call, *arguments)}, protocol)
            )
            with pytest.raises(
                ValueError, match=rf"data_batch_4 .*it uses ({name}), .*refused"
            ) as told:
                cifar10.make(Request(str(tmp_path), **LOOSE))
            assert "\n" not in str(told.value)
    assert not mark.exists()


def bomb():
    """Lists of lists of lists ..., each of ten times the one before: written out, 10^40 entries."""
    value = ["x"]
    for _ in range(40):
        value = [value] * 10
    return value


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not a pickle"),
        (b"no pickle at all", "is not a pickle"),
        (pickle.dumps([1, 2]), "must hold a dict, got list"),
        (pickle.dumps({"labels": [1]}), "has no entry 'data', only labels"),
        (
            pickle.dumps({"labels": [1], "data": bomb()}),
            r"'data' must be uint8 \[n, 3072\], got list",
        ),
        (
            pickle.dumps({"labels": [1], "data": np.zeros((1, 3072), np.float32)}),
            "must be uint8, got type 'f4'",
        ),
        (
            pickle.dumps({"labels": [1], "data": np.array([{}], object)}),
            "must be uint8, got type 'O8'",
        ),
        (
            as_python_2({"labels": [1], "data": np.zeros((1, 3071), np.uint8)}),
            r"'data' must be .*, got \[1, 3071\]",
        ),
        (
            as_python_2({"labels": [1], "data": np.zeros((2, 3072), np.uint8)}),
            "'labels' must be a list of 2 integers",
        ),
        (
            as_python_2({"labels": ["a"], "data": np.zeros((1, 3072), np.uint8)}),
            "'labels' must be a list of 1 integers",
        ),
        (
            as_python_2({"labels": [1], "data": np.zeros((1, 3072), np.uint8)})[:-500],
            "is not a pickle",
        ),
        (
            as_python_2({"labels": [10], "data": np.zeros((1, 3072), np.uint8)}),
            "labels must be between 0 and 9, got .* to 10",
        ),
    ],
)
def test_what_is_no_batch_of_images_is_told(tmp_path, content, sentence):
    files, _ = cifar10_python()
    write_folder(tmp_path, cifar10.PYTHON, files | {"data_batch_1": content})
    with pytest.raises(ValueError, match=sentence) as told:
        cifar10.make(Request(str(tmp_path), **LOOSE))
    assert "cifar-10-batches-py" in str(told.value)
    assert "\n" not in str(told.value)


def test_pickles_of_today_are_read_too():
    data = np.arange(2 * 3072, dtype=np.uint32).astype(np.uint8).reshape(2, 3072)
    for protocol in (2, 3, 4):
        for array in (data, np.asfortranarray(data)):
            made = archive.unpickle(
                "file", pickle.dumps({"data": array, b"labels": [1, 2]}, protocol)
            )
            np.testing.assert_array_equal(made["data"], data)
            assert made["labels"] == [1, 2]


def test_a_meta_file_without_its_names(tmp_path):
    files, _ = cifar10_python()
    write_folder(
        tmp_path, cifar10.PYTHON, files | {"batches.meta": as_python_2({"label_names": ["a", "b"]})}
    )
    with pytest.raises(ValueError, match=r"batches.meta: 'label_names' must be a list of 10 names"):
        cifar10.make(Request(str(tmp_path), **LOOSE))


def test_binary_records_that_do_not_fill_the_file(tmp_path):
    files, _ = cifar10_binary()
    folder = write_folder(
        tmp_path, cifar10.BINARY, files | {"test_batch.bin": files["test_batch.bin"][:-1]}
    )
    with pytest.raises(
        ValueError,
        match=r"test_batch.bin has 12,291 bytes, which is not a whole number of records of 3,07",
    ):
        cifar10.make(Request(str(tmp_path), **LOOSE))
    (folder / "test_batch.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"test_batch.bin has 0 bytes"):
        cifar10.make(Request(str(tmp_path), **LOOSE))


STL_NAMES = "airplane\nbird\ncar\ncat\ndeer\ndog\nhorse\nmonkey\nship\ntruck\n"


def stl10_files(train=20, test=8):
    random = np.random.default_rng(0)
    files, truth = {"class_names.txt": STL_NAMES.encode()}, {}
    for part, count in (("train", train), ("test", test)):
        images = random.integers(0, 256, (count, 96, 96, 3)).astype(np.uint8)
        labels = random.integers(0, 10, count)
        flat = np.empty((count, 3, 96 * 96), np.uint8)
        for channel in range(3):
            for column in range(96):
                flat[:, channel, column * 96 : (column + 1) * 96] = images[:, :, column, channel]
        files[f"{part}_X.bin"], files[f"{part}_y.bin"] = (
            flat.tobytes(),
            (labels + 1).astype(np.uint8).tobytes(),
        )
        truth[part] = images, labels
    folds = [random.permutation(train)[:5] for _ in range(10)]
    files["fold_indices.txt"] = "".join(" ".join(map(str, fold)) + " \n" for fold in folds).encode()
    return files, truth, folds


def test_stl10_is_stored_column_by_column_and_counts_from_one(tmp_path):
    files, truth, folds = stl10_files()
    write_folder(tmp_path / "folder", stl10.BINARY, files)
    write_archive(tmp_path / "packed", stl10.BINARY, files | {"unlabeled_X.bin": b"\0" * 1000})
    for place in ("folder", "packed"):
        made = stl10.make(Request(str(tmp_path / place), **LOOSE))
        for split, part in ((made.train, "train"), (made.test, "test")):
            np.testing.assert_array_equal(split.images, truth[part][0])
            np.testing.assert_array_equal(split.labels, truth[part][1])
        assert made.classes == tuple(STL_NAMES.split())
        assert made.subset is None
    chosen = stl10.make(Request(str(tmp_path / "folder"), **LOOSE), fold=3)
    np.testing.assert_array_equal(chosen.subset, sorted(folds[3]))
    assert chosen.train.num_examples == 20  # memories and positions keep the published order


def test_a_fold_of_stl10_is_what_is_trained_on(tmp_path):
    files, _, folds = stl10_files()
    write_folder(tmp_path, stl10.BINARY, files)
    c = config.default()
    c.data.name, c.data.root, c.data.verify, c.data.batch_size = "stl10", str(tmp_path), False, 2
    c.data.stl10.fold, c.data.examples, c.data.holdout = 7, 4, 1
    train, holdout, test = build.positions(c.data, build.make_dataset(c.data))
    assert len(train) == 3
    assert sorted([*train, *holdout]) == sorted(folds[7])[:4]
    np.testing.assert_array_equal(test, np.arange(8))
    c.data.examples = 6
    with pytest.raises(ValueError, match=r"config.data.examples must be at most 5, got 6"):
        build.positions(c.data, build.make_dataset(c.data))
    c.data.train_split = "test"
    with pytest.raises(
        ValueError,
        match=r"config.data.train_split must be 'train' if the data set's own options select",
    ):
        build.make_dataset(c.data)


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("fold_indices.txt", b"1 2 3\n" * 3, "line 8 must be a list of numbers from 0 to 19"),
        ("fold_indices.txt", b"1 2 20\n" * 10, "line 8 must be a list of numbers from 0 to 19"),
        ("fold_indices.txt", b"1 2 -2\n" * 10, "line 8 must be a list of numbers from 0 to 19"),
        ("fold_indices.txt", b"1 2 1\n" * 10, "line 8 lists an image twice"),
        ("fold_indices.txt", b"\xff\xfe" * 10, "is not plain text"),
        ("class_names.txt", b"cat\ndog\n", "must hold 10 class names, got 2"),
        (
            "train_X.bin",
            b"\0" * 27647,
            "has 27,647 bytes, which is not a whole number of images of 27,648",
        ),
        ("train_y.bin", b"\1" * 19, r"labels must be integers \[20\], .*, got int64\[19\]"),
        ("test_y.bin", b"\0" * 8, "labels must be between 0 and 9, got -1 to -1"),
    ],
)
def test_a_damaged_stl10_is_told(tmp_path, file, content, sentence):
    write_folder(tmp_path, stl10.BINARY, stl10_files()[0] | {file: content})
    with pytest.raises(ValueError, match=sentence) as told:
        stl10.make(Request(str(tmp_path), **LOOSE), fold=7)
    assert "stl10_binary" in str(told.value)


def test_stl10_is_checked_and_its_folds_are_ten(tmp_path, monkeypatch):
    files, _, _ = stl10_files()
    write_folder(tmp_path, stl10.BINARY, files)
    with pytest.raises(
        ValueError, match=r"train_X.bin has the MD5 \w+, but the published .* has 918c2871b30a85fa"
    ):
        stl10.make(Request(str(tmp_path)))
    monkeypatch.setattr(stl10, "BINARY", with_checksums(stl10.BINARY, files))
    assert stl10.make(Request(str(tmp_path))).train.num_examples == 20
    with pytest.raises(
        ValueError, match=r"config.data.stl10.fold must be between 0 and 9, or None .*; got 10"
    ):
        stl10.make(Request(str(tmp_path)), fold=10)


def real(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"needs {name} below LDL_DATA_DIR")
    return str(path)


@pytest.mark.data
def test_the_two_published_forms_of_cifar100_are_one_set_of_images():
    python = {
        labels: cifar100.make(Request(real("cifar-100-python")), labels=labels)
        for labels in cifar100.CLASSES
    }
    binary = {
        labels: cifar100.make(Request(real("cifar-100-binary")), labels=labels)
        for labels in cifar100.CLASSES
    }
    for labels in cifar100.CLASSES:
        for part in ("train", "test"):
            one, other = getattr(python[labels], part), getattr(binary[labels], part)
            np.testing.assert_array_equal(one.images, other.images)
            np.testing.assert_array_equal(one.labels, other.labels)
        assert python[labels].classes == binary[labels].classes
    fine = python["fine"]
    assert (fine.train.num_examples, fine.test.num_examples) == (50000, 10000)
    assert set(np.bincount(fine.train.labels)) == {500}
    assert set(np.bincount(python["coarse"].test.labels)) == {500}
    mean = fine.train.images.mean((0, 1, 2), dtype=np.float64) / 255
    np.testing.assert_allclose(mean, cifar.MEAN, atol=2e-4)
    np.testing.assert_allclose(
        fine.train.images.std((0, 1, 2), dtype=np.float64) / 255, cifar.STD, atol=2e-4
    )


@pytest.mark.data
def test_a_cifar10_with_lossy_copies_is_refused_unless_it_may_differ():
    root = real("cifar-10-batches-bin")
    with pytest.raises(
        ValueError, match=r"data_batch_1.bin has the SHA1 \w{40}, but the published file"
    ):
        cifar10.make(Request(root))
    made = cifar10.make(Request(root, verify=False))
    assert (made.train.num_examples, made.test.num_examples) == (50000, 10000)
    assert set(np.bincount(made.train.labels)) == {5000}
    assert made.classes == tuple((Path(root) / "batches.meta.txt").read_text().split())
