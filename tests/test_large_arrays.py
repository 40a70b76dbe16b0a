"""Large arrays of a checkpoint are written and read in parts, and no more of them than is needed."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore
from jax.sharding import NamedSharding, PartitionSpec

from ldl_jax import mesh
from ldl_jax.checkpoint import Checkpoints, large

ROWS = 3072
BYTES = 4 * 5 * ROWS  # of a memory


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Limits at which the arrays of this test count as large: 15 chunks, of which 4 are a part."""
    monkeypatch.setattr(large, "LARGE", BYTES // 2)
    monkeypatch.setattr(large, "CHUNK", BYTES // 15)
    monkeypatch.setattr(large, "PART", BYTES // 3)


def state():
    draw = np.random.default_rng(0)
    rows = jnp.asarray(draw.normal(size=(ROWS, 5)), jnp.float32)
    half = jnp.asarray(draw.normal(size=(ROWS, 2, 5)), jnp.bfloat16)
    return {
        "step": jnp.asarray(7),
        "labels": ({"rows": rows}, {"half_rows": half, "mean": rows[0]}),
    }


def abstract(made, devices):
    on = mesh.make_mesh(jax.devices()[:devices])
    placed = mesh.state_shardings(made, on)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        made,
        placed,
    )


def save(folder, made):
    checkpoints = Checkpoints(folder, every_steps=1, keep=1)
    checkpoints.save(7, made, {"step": 7}, force=True)
    checkpoints.close()


def restore(folder, made, devices=1, **options):
    checkpoints = Checkpoints(folder, every_steps=1, keep=1)
    restored, _ = checkpoints.restore(abstract(made, devices), pytest.fail, **options)
    checkpoints.close()
    return restored


def check_same(restored, made):
    for one, other in zip(jax.tree.leaves(restored), jax.tree.leaves(made), strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("devices", [1, 8])
def test_they_are_restored_bitwise_on_any_number_of_devices(tmp_path, devices):
    made = jax.device_put(state(), mesh.state_shardings(state(), mesh.make_mesh(jax.devices()[:2])))
    save(tmp_path, made)
    restored = restore(tmp_path, made, devices)
    check_same(restored, made)
    assert restored["labels"][0]["rows"].sharding.num_devices == devices


def test_checkpoints_of_earlier_versions_are_read(tmp_path, monkeypatch):
    made = state()
    monkeypatch.setattr(large, "save_arguments", ocp.args.StandardSave)
    save(tmp_path, made)
    check_same(restore(tmp_path, made), made)


def test_no_more_than_a_part_is_in_memory_twice(tmp_path, monkeypatch):
    made = state()
    save(tmp_path, made)
    read = []
    assembled = mesh.assembled

    def counted(leaf, reads, rows):
        def one(start, stop):
            value = reads(start, stop)
            read.append(value.nbytes)
            return value

        return assembled(leaf, one, rows)

    monkeypatch.setattr(mesh, "assembled", counted)
    restore(tmp_path, made)
    assert sum(read) == 2 * BYTES  # each array once
    assert max(read) <= large.PART
    assert len(read) == 8


def test_they_are_compressed_in_chunks(tmp_path):
    save(tmp_path, state())
    base = {"driver": "file", "path": f"{tmp_path}/7/state/"}
    kvstore = {"driver": "ocdbt", "base": base, "path": "labels.0.rows/"}
    store = tensorstore.open({"driver": "zarr", "kvstore": kvstore}).result()
    assert 4 * math.prod(store.chunk_layout.read_chunk.shape) <= large.CHUNK


def test_a_part_costs_as_much_as_its_chunk_so_none_is_read_twice(tmp_path, monkeypatch):
    """The chunks of an earlier version are larger than a part."""
    made = state()
    monkeypatch.setattr(large, "save_arguments", ocp.args.StandardSave)
    save(tmp_path, made)
    parts = []
    assembled = mesh.assembled
    monkeypatch.setattr(
        mesh,
        "assembled",
        lambda leaf, read, rows: (parts.append(rows), assembled(leaf, read, rows))[1],
    )
    restore(tmp_path, made)
    assert parts == [ROWS, ROWS]


def test_parts_begin_at_chunks_wherever_the_shard_begins():
    values = np.arange(24).reshape(12, 2)
    asked = []

    def read(start, stop):
        asked.append((start, stop))
        return values[start:stop]

    on = mesh.make_mesh(jax.devices()[:2])
    leaf = jax.ShapeDtypeStruct(
        (12, 2), values.dtype, sharding=NamedSharding(on, PartitionSpec("data"))
    )
    np.testing.assert_array_equal(mesh.assembled(leaf, read, 4), values)
    assert asked == [(0, 4), (4, 6), (6, 8), (8, 12)]
    asked.clear()
    whole = jax.ShapeDtypeStruct((12, 2), values.dtype, sharding=mesh.replicated(on))
    np.testing.assert_array_equal(mesh.assembled(whole, read, 12), values)
    assert asked == [(0, 12)]  # read once for all devices


def test_a_save_of_them_has_finished_before_the_next_step_on_a_cpu(tmp_path):
    checkpoints = Checkpoints(tmp_path, every_steps=1, keep=1)
    made = state()
    checkpoints.save(7, made, {}, force=True)
    assert not checkpoints._manager.is_saving_in_progress()
    # So a step that is given the state may use its memory again.
    before = made["labels"][0]["rows"].unsafe_buffer_pointer()
    step = partial(jax.jit, donate_argnums=0)(lambda rows: rows.at[3].set(0.5 * rows[3]))
    assert step(made["labels"][0]["rows"]).unsafe_buffer_pointer() == before
    checkpoints.close()


def test_what_is_unused_is_not_read(tmp_path, monkeypatch):
    made = state()
    save(tmp_path, made)
    monkeypatch.setattr(mesh, "assembled", lambda *_: pytest.fail("read"))
    notes = []
    restored = restore(tmp_path, made, unused=lambda told: notes.append(told) or ("labels",))
    assert notes == [{"step": 7}]
    assert int(restored["step"]) == 7
    assert set(jax.tree.leaves(restored["labels"])) == {...}
