"""Where arrays lie and what moves, read off the compiled programs: a memory is never copied and
never leaves home.
"""

import math
import re
from functools import partial

import frame
import jax
import numpy as np
import pytest
from frame import B, Case, K

from ldl_jax import mesh
from ldl_jax.training import steps

MIB = 2**20
ROWS, CLASSES = 50_000, 1000
COLLECTIVE = re.compile(
    r"= (.+?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter|ragged-all-to-all)(?:-start)?\("
)


def compiled(case, devices):
    """The whole step of a case on so many devices, from shapes alone."""
    there = mesh.make_mesh(jax.devices()[:devices])
    state, frozen, data, batch = frame.arguments(case)
    shardings = mesh.state_shardings(state, there)

    def place(tree, sharding):
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
        )

    state = jax.tree.map(
        lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s), state, shardings
    )
    everywhere = mesh.replicated(there)
    step = jax.jit(
        steps.make_train_step(frame.recipe(case)),
        donate_argnums=0,
        out_shardings=(shardings, everywhere),
    )
    arguments = (
        place(frozen, everywhere),
        place(data, everywhere),
        place(batch, mesh.batch_sharding(there)),
    )
    return step.lower(state, *arguments).compile()


def moved(program):
    """(kind, number of elements) of everything that is sent between devices, one entry an array."""
    found = []
    for types, kind in COLLECTIVE.findall(program.as_text()):
        for dimensions in re.findall(r"\w+\[([\d,]*)\]", types):
            found.append((kind, math.prod(int(n) for n in dimensions.split(",") if n)))
    return found


@pytest.mark.parametrize("dtype", ["logits", "float16"])
@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_a_memory_is_not_copied(dtype, momentum):
    options = (("dtype", dtype), ("momentum", momentum))
    case = Case("online", options=options, num_classes=CLASSES, examples=ROWS)
    table = mesh.padded_rows(ROWS) * CLASSES * (4 if dtype == "logits" else 2)
    assert table > 90 * MIB
    memory = compiled(case, 1).memory_analysis()
    assert memory.alias_size_in_bytes > table
    assert memory.temp_size_in_bytes < 4 * MIB


def test_a_memory_that_is_read_and_overwritten_whole_would_be_copied():
    """The trap that `write_rows` goes round, so that the measure above is known to see it."""

    def update(rows, index, new):
        read = rows[index]
        return rows.at[index].set(new), read.sum()

    struct = jax.ShapeDtypeStruct
    shapes = (
        struct((ROWS, CLASSES), "float32"),
        struct((B,), "int32"),
        struct((B, CLASSES), "float32"),
    )
    trap = jax.jit(update, donate_argnums=0).lower(*shapes).compile().memory_analysis()
    assert trap.temp_size_in_bytes > 100 * MIB


@pytest.mark.parametrize("dtype", ["logits", "float16"])
def test_a_memory_stays_on_its_devices(dtype):
    case = Case("online", options=(("dtype", dtype),), num_classes=CLASSES, examples=ROWS)
    program = compiled(case, 8)
    shard = mesh.padded_rows(ROWS) * CLASSES // 8
    sent = moved(program)
    assert sent  # gradients and rows are sent: the pattern finds them
    assert max(size for _, size in sent) <= B * CLASSES < shard
    gradients = sum(leaf.size for leaf in jax.tree.leaves(frame.arguments(case)[0].params))
    assert sum(size for _, size in sent) <= 2 * gradients + 3 * B * CLASSES + 16 * CLASSES
    assert program.memory_analysis().temp_size_in_bytes < 4 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("mixing", ["none", "mixup"])
def test_no_image_moves_between_devices_but_the_neighbour_in_a_mixed_pair(mixing):
    """With three views; mixing rolls the batch by one, so each device sends its last image's three
    views on.
    """
    views, pixels = 3, math.prod(frame.SHAPE)
    case = Case(
        "online", mixing, auxiliaries=("jsd",), augment=(("pad", 1),), options=(("write", "clean"),)
    )
    sent = [size for _, size in moved(compiled(case, 8)) if size >= pixels]
    assert sum(sent) <= (0 if mixing == "none" else 2 * views * pixels)
    assert (len(sent) > 0) == (mixing != "none")


@pytest.mark.parametrize("count", [5, 7])
def test_a_number_of_devices_that_does_not_divide_the_rows_is_refused(count):
    with pytest.raises(ValueError, match=f"the number of devices must divide 3072 .*, got {count}"):
        mesh.make_mesh(jax.devices()[:count])


def test_rows_are_padded_the_same_for_every_number_of_devices():
    assert [mesh.padded_rows(n) for n in (1, 3072, 3073, 1_281_167)] == [
        3072,
        3072,
        6144,
        1_284_096,
    ]


def test_only_memories_are_split():
    there = mesh.make_mesh(jax.devices())
    state = frame.arguments(Case("online", ema=0.9))[0]
    split = {
        jax.tree_util.keystr(path)
        for path, sharding in jax.tree_util.tree_flatten_with_path(
            mesh.state_shardings(state, there)
        )[0]
        if not sharding.is_fully_replicated
    }
    assert split == {".labels['rows']"}


def test_a_batch_goes_out_and_predictions_come_back_in_order():
    there = mesh.make_mesh(jax.devices())
    batch = {
        "index": np.arange(B, dtype=np.int32),
        "image": np.random.default_rng(0).random((B, 2, 2, 1)),
    }
    placed = mesh.to_global(batch, there)
    assert placed["index"].addressable_shards[3].data.tolist() == [6, 7]
    for name, value in mesh.fetch(placed, there).items():
        np.testing.assert_array_equal(value, batch[name])


def test_the_host_reads_nothing_while_steps_are_sent_off():
    """Under a transfer guard a step is dispatched and its state used again without anything going
    to the host.
    """
    case = Case("online")
    there = mesh.make_mesh(jax.devices()[:1])
    shardings = mesh.state_shardings(frame.fresh(case), there)
    state = jax.jit(partial(steps.init_state, frame.recipe(case)), out_shardings=shardings)(
        jax.random.key(3)
    )
    step = jax.jit(steps.make_train_step(frame.recipe(case)), donate_argnums=0)
    fixed, table = (
        mesh.put_replicated(frame.frozen(), there),
        mesh.put_replicated(frame.data(), there),
    )
    batches = [mesh.to_global(frame.resident(number), there) for number in range(3)]
    with jax.transfer_guard("disallow"):
        for batch in batches:
            state, scalars = step(state, fixed, table, batch)
    assert np.isfinite(float(scalars["loss"]))
    assert state.labels["rows"].shape == (3072, K)
