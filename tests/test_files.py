"""Files are whole or not there, and arrays are read from them or refused in one sentence."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ldl_jax import cli, config, files, main
from ldl_jax.data.readers import array_cache
from ldl_jax.errors import UnreadableFile
from ldl_jax.evaluation import csv_table


def test_text_bytes_json_and_arrays_come_back(tmp_path):
    assert files.write(tmp_path / "a" / "b.txt", "grüße\n") == tmp_path / "a" / "b.txt"
    assert (tmp_path / "a" / "b.txt").read_bytes() == "grüße\n".encode()
    assert files.write(tmp_path / "raw", b"\x00\xff").read_bytes() == b"\x00\xff"
    assert json.loads(files.write_json(tmp_path / "c.json", {"z": 1, "a": [2.5, None]}).read_text()) == {
        "z": 1, "a": [2.5, None],
    }  # fmt: skip
    path = files.write_npz(tmp_path / "d.npz", one=np.arange(3), two=np.eye(2, dtype=np.float32))
    with np.load(path, allow_pickle=False) as loaded:
        np.testing.assert_array_equal(loaded["one"], [0, 1, 2])
        assert loaded["two"].dtype == np.float32
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "c.json", "d.npz", "raw"]


def test_a_file_is_replaced_and_its_ending_is_kept_while_it_is_written(tmp_path):
    path, seen = files.write(tmp_path / "x.png", "old"), []

    def writer(temporary):
        seen.append((temporary.suffix, temporary.parent, path.read_text()))
        temporary.write_text("new")

    assert files.write_with(path, writer) == path
    assert seen == [(".png", tmp_path, "old")]
    assert path.read_text() == "new"


def half_written(temporary):
    temporary.write_text("half")
    raise RuntimeError("no more room")


def not_written(temporary):
    raise RuntimeError("no more room")


@pytest.mark.parametrize("writer", [half_written, not_written])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_writer_that_fails_leaves_what_was_there_and_no_temporary_file(tmp_path, writer, old):
    if old:
        (tmp_path / "x.txt").write_text(old)
    with pytest.raises(RuntimeError, match="no more room"):
        files.write_with(tmp_path / "x.txt", writer)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == (
        [("x.txt", "old")] if old else []
    )


def test_a_rename_that_fails_leaves_no_temporary_file(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError("read-only")

    monkeypatch.setattr("os.replace", refuse)
    for write in (lambda p: files.write(p, "text"), lambda p: files.write_npz(p, a=np.arange(2))):
        with pytest.raises(OSError, match="read-only"):
            write(tmp_path / "x.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_is_no_json_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "x.json", {"a": object()})
    assert list(tmp_path.iterdir()) == []


def test_a_digest_is_that_of_the_content(tmp_path):
    content = bytes(range(256)) * 300
    assert files.sha256(files.write(tmp_path / "x", content)) == hashlib.sha256(content).hexdigest()


def test_the_digest_of_a_value_does_not_depend_on_the_order_of_its_keys():
    value = [{"b": 1, "a": [2.5, None, "ü"]}, ("x",)]
    expected = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    assert files.digest(value) == files.digest([{"a": [2.5, None, "ü"], "b": 1}, ["x"]]) == expected


def test_the_name_of_what_is_cached_is_what_it_was(tmp_path):
    """Else what older versions have cached would be made again."""
    parts = (1, "11.0", 64, [["a.png", 3, 5]])
    name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    assert array_cache.path_of(tmp_path, *parts) == tmp_path / f"{name}.npz"


def test_caches_lie_below_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_folder("xla") == tmp_path / "ldl_jax" / "xla"
    assert array_cache.folder("") == tmp_path / "ldl_jax" / "images"
    assert array_cache.folder("mine") == Path("mine")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_folder("xla") == tmp_path / ".cache" / "ldl_jax" / "xla"


ARRAYS = {
    "one": np.arange(300),
    "two": np.eye(9, dtype=np.float32),
    "text": np.array(["a", "ü"]),
    "none": np.ones(0),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("mapped", [False, True])
def test_the_arrays_of_an_npz_come_back_all_or_by_name(tmp_path, save, mapped):
    path = tmp_path / "x.npz"
    save(path, **ARRAYS)
    assert files.is_npz(path)
    assert files.npz_names(path) == list(ARRAYS)
    arrays = files.read_npz(path, mapped=mapped)
    assert list(arrays) == list(ARRAYS)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, ARRAYS[name], strict=True)
    assert (files.mapped_file(arrays["one"]) is not None) == (mapped and save is np.savez)
    assert list(files.read_npz(path, names=("two", "three"), mapped=mapped)) == ["two"]


@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.eye(3)), np.int16(5), np.ones(0)]
)
def test_the_array_of_an_npy_comes_back(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    np.testing.assert_array_equal(files.read_npy(tmp_path / "x.npy"), array)
    assert not files.is_npz(tmp_path / "x.npy")


def test_the_numbers_of_a_csv_come_back_with_the_names_of_its_columns(tmp_path):
    path = files.write(tmp_path / "x.csv", "file,a,b\n1.png,0.5,2\n\n2.png,1e3,-1\n")
    table = csv_table.read(path, lambda name: name == "file")
    numbers = np.float32([[0.5, 2], [1000, -1]])
    np.testing.assert_array_equal(table.numbers, numbers, strict=True)
    assert (table.names, table.numeric, table.texts) == (["file", "a", "b"], [1, 2], {})
    texts = csv_table.read(path)
    assert (texts.numeric, texts.texts) == ([1, 2], {0: ["1.png", "2.png"]})
    np.testing.assert_array_equal(texts.column(2), numbers[:, 1])
    assert csv_table.read(files.write(path, "1,2\n")).names is None


READERS = {
    "npz": lambda path: files.read_npz(path, "what it is"),
    "npz mapped": lambda path: files.read_npz(path, "what it is", mapped=True),
    "npz names": lambda path: files.npz_names(path, "what it is"),
    "npy": lambda path: files.read_npy(path, "what it is"),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_is_no_such_arrays_is_refused_by_its_name_and_what_it_should_be(
    tmp_path, reader
):
    path = tmp_path / "x.bin"
    for content in (None, b"", b"text", b"PK\3\4 no archive"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(
            UnreadableFile, match=r"x.bin: cannot be read as what it is \(.+\)$"
        ) as caught:
            READERS[reader](path)
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith(f"({caught.value.reason})")


@pytest.mark.parametrize("reader", [name for name in READERS if name != "npz names"])
def test_pickles_are_never_opened(tmp_path, reader):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    array = np.array([Trap()], object)
    np.savez(tmp_path / "x.npz", x=array)
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(UnreadableFile):
        READERS[reader](tmp_path / f"x.{reader[:3]}")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_flipped_bytes_are_refused_in_a_sentence_or_overlooked(tmp_path, reader, save):
    """Overlooked only where no checksum is compared: in arrays that are mapped."""
    path, draw = tmp_path / "x.bin", np.random.default_rng(0)
    if reader == "npy":
        np.save(tmp_path / "x.npy", ARRAYS["one"])
        whole = (tmp_path / "x.npy").read_bytes()[:160]
    else:
        save(tmp_path / "x.npz", **ARRAYS)
        whole = (tmp_path / "x.npz").read_bytes()
    for _ in range(200):
        broken = bytearray(whole)
        for index in draw.integers(0, len(whole), 4):
            broken[index] = draw.integers(256)
        path.write_bytes(broken)
        try:
            arrays = READERS[reader](path)
        except UnreadableFile as error:
            assert "\n" not in str(error)  # noqa: PT017
            continue
        if reader == "npz":
            for name in set(arrays) & set(ARRAYS):
                np.testing.assert_array_equal(arrays[name], ARRAYS[name])


def test_a_tilde_is_the_home_in_every_path_that_enters(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.home("~/x") == tmp_path / "x"
    assert files.home("a~/x") == Path("a~/x")
    c = config.default()
    c.data.root, c.teachers, c.data.imagenet.cache = "~/data", ("~/t", "u"), "~"
    cli.expand_homes(c)
    assert (c.data.root, c.data.imagenet.cache) == (f"{tmp_path}/data", str(tmp_path))
    assert c.teachers == (f"{tmp_path}/t", "u")
    (tmp_path / "x.py").write_text("from ldl_jax.config import default\nget_config = default\n")
    argv = ["--config=~/x.py", "--workdir=~/runs/a", "--config.data.labels_file=~/l.npy"]
    values, line = main.parse(argv)
    assert main.settings(values, line)[1] == tmp_path / "runs" / "a"
    assert line.config.data.labels_file == f"{tmp_path}/l.npy"


@pytest.mark.slow
def test_commands_need_neither_docstrings_nor_asserts():
    code = (
        "import contextlib\n"
        "from ldl_jax import bench, compare, evaluate, main, predict\n"
        "from ldl_jax.bench.__main__ import parser\n"
        "parser()\nmain.main(['--help'])\n"
        "for command in (compare, evaluate, predict): command.parser().format_help()\n"
    )
    subprocess.run([sys.executable, "-OO", "-c", code], check=True, capture_output=True)
