"""Files are whole or not there."""

import hashlib
import json

import numpy as np
import pytest

from ldl_jax import files


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
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == ([("x.txt", "old")] if old else [])


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
