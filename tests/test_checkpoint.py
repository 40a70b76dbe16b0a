"""Checkpoints are used only when every byte is the one that was written."""

import errno
import os

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from ldl_jax import checkpoint, files
from ldl_jax.checkpoint import Checkpoints
from ldl_jax.checkpoint.checksums import Checksums

EVERY = 5


def state(step):
    return {
        "params": {"w": jnp.arange(400.0) + step},
        "labels": {"rows": jnp.full((6, 3), step, jnp.float16)},
        "ema": {},
    }


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of steps 10, 15 and 17, out of 17 steps with saves at multiples of 5 and a forced
    one at the end.
    """
    checkpoints = Checkpoints(tmp_path, every_steps=EVERY, keep=3)
    for step in range(1, 18):
        checkpoints.save(step, state(step), {"step": step}, force=step == 17)
    checkpoints.close()
    assert checkpoints.steps() == [10, 15, 17]
    assert sorted(path.name for path in tmp_path.glob("*.sha256")) == [
        "10.sha256",
        "15.sha256",
        "17.sha256",
    ]
    return tmp_path


def restored(folder):
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])
        ),
        jax.eval_shape(lambda: state(0)),
    )
    warnings, checkpoints = [], Checkpoints(folder, every_steps=EVERY, keep=3)
    found = checkpoints.restore(abstract, warnings.append)
    checkpoints.close()
    return found, warnings


def largest(folder, step):
    return max(
        (path for path in (folder / str(step)).rglob("*") if path.is_file()),
        key=lambda p: p.stat().st_size,
    )


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_the_newest_is_restored_with_its_notes(folder):
    (found, notes), warnings = restored(folder)
    np.testing.assert_array_equal(found["params"]["w"], state(17)["params"]["w"])
    assert found["labels"]["rows"].dtype == jnp.float16
    assert notes == {"step": 17}
    assert not warnings


@pytest.mark.parametrize(
    "damage", [truncate, flip, lambda path: path.unlink()], ids=["truncated", "flipped", "removed"]
)
def test_a_damaged_one_is_named_and_the_one_before_is_used(folder, damage):
    victim = largest(folder, 17)
    damage(victim)
    (found, notes), warnings = restored(folder)
    np.testing.assert_array_equal(found["params"]["w"], state(15)["params"]["w"])
    assert notes == {"step": 15}
    assert len(warnings) == 1
    assert str(victim) in warnings[0]
    assert (folder / "damaged-17").is_dir()


def test_every_byte_counts(folder):
    for path in [path for path in (folder / "17").rglob("*") if path.is_file()]:
        before = path.read_bytes()
        flip(path) if before else path.write_bytes(b"x")
        assert Checksums(folder).fault(17) is not None, path
        path.write_bytes(before)
    assert Checksums(folder).fault(17) is None


def test_with_none_left_nothing_is_overwritten(folder):
    for step in (10, 15, 17):
        flip(largest(folder, step))
    for _ in range(2):  # the second time, all have been set aside
        with pytest.raises(
            ValueError,
            match=r"has no intact checkpoint, only .*damaged-10.*damaged-17; delete them",
        ):
            restored(folder)


def test_a_run_goes_on_after_a_damaged_one(folder):
    truncate(largest(folder, 17))
    restored(folder)
    checkpoints = Checkpoints(folder, every_steps=EVERY, keep=3)
    checkpoints.save(17, state(99), {"step": 17}, force=True)
    checkpoints.close()
    (found, _), warnings = restored(folder)
    np.testing.assert_array_equal(found["params"]["w"], state(99)["params"]["w"])
    assert not warnings


def test_one_that_was_complete_but_had_no_checksums_yet_is_used(folder):
    (folder / "17.sha256").unlink()
    assert restored(folder)[0][1] == {"step": 17}
    assert (folder / "17.sha256").exists()  # from now on it has


def test_one_without_checksums_that_cannot_be_read_is_named_too(folder):
    (folder / "17.sha256").unlink()
    truncate(largest(folder, 17))
    (_, notes), warnings = restored(folder)
    assert notes == {"step": 15}
    assert "checkpoint 17 is damaged: it cannot be read" in warnings[0]


@pytest.mark.parametrize("part", ["notes", "state"])
def test_one_whose_checksums_match_is_not_set_aside_whatever_its_reader_says(
    folder, monkeypatch, part
):
    read = ocp.CheckpointManager.restore

    def fails(manager, step, args):
        if part in args:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nand a long account of it")
        return read(manager, step, args=args)

    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "restore", fails)
        said = r"/17 cannot be read \(RuntimeError: RESOURCE_EXHAUSTED: out of memory\), although all its checksums"
        with pytest.raises(OSError, match=said):
            restored(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert restored(folder)[0][1] == {"step": 17}


def test_one_whose_files_cannot_be_read_at_the_moment_is_not_set_aside(folder, monkeypatch):
    def fails(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(files, "sha256", fails)
        with pytest.raises(
            OSError, match=r"17 cannot be read .*error.*; no checkpoint was changed"
        ):
            restored(folder)
    assert restored(folder)[0][1] == {"step": 17}


def test_what_another_process_cannot_read_is_raised_here_too(folder, monkeypatch):
    # no file is unreadable, none damaged, but then
    words = iter([None, None, "cannot be read (RuntimeError)"])
    monkeypatch.setattr(checkpoint, "_first", lambda fault: fault or next(words))
    with pytest.raises(
        OSError, match=r"17 cannot be read \(RuntimeError\), although all its checksums"
    ):
        restored(folder)
    assert not list(folder.glob("damaged-*"))


def test_one_that_was_never_completed_is_not_seen(folder):
    (folder / "20.orbax-checkpoint-tmp").mkdir()
    assert restored(folder)[0][1] == {"step": 17}


def test_another_model_is_refused_by_the_leaf_that_differs(folder):
    abstract = jax.eval_shape(
        lambda: state(0) | {"labels": {"rows": jnp.zeros((6, 4), jnp.float16)}}
    )
    checkpoints = Checkpoints(folder, every_steps=EVERY, keep=3)
    with pytest.raises(
        ValueError, match=r"labels/rows is float16\[6, 3\] there and float16\[6, 4\] in this config"
    ):
        checkpoints.restore(abstract, print)
    checkpoints.close()
    assert (folder / "17").is_dir()
