"""The one train step, under every label source, every mixing and every auxiliary."""

from functools import partial

import chex
import frame
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frame import B, Case, K

from ldl_jax import config, mesh
from ldl_jax.contract import Outputs
from ldl_jax.training import steps

SOURCES, AUXILIARIES = config.plugs("labels"), config.plugs("auxiliary")
WAYS = {"none": 1, "mixup": 2, "cutmix": 2, "ricap": 4}
# two-fold mixing by either, so that each is met by half of the sources
MEETINGS = [
    (name, mixing)
    for number, name in enumerate(SOURCES)
    for mixing in ("none", ("mixup", "cutmix")[number % 2], "ricap")
]
# the linear network meets all members
SLOW = [("online", "ricap"), ("mean_teacher", "cutmix"), ("blend", "mixup")]


FOLDERS = ("labels", "losses", "auxiliary", "mixing")
MEMBERS = [(folder, name) for folder in FOLDERS for name in config.plugs(folder)]
# Draws of views and of mixtures take long to compile; `regmixup` stands for all that mix.
HEAVY = [("auxiliary", name) for name in ("augmix", *frame.MIXES) if name != "regmixup"]
HEAVY += [("mixing", "switch"), ("mixing", "ricap")]
QUICK = [member for member in MEMBERS if member not in HEAVY]
# Penalties differ in their formula alone, which `test_penalties` knows; `mmce` and `lspp` stand for
# them.
PENALTIES = (
    *("acls", "confidence_penalty", "cpc", "dca", "logit_penalty", "maxsup", "mbls", "mdca"),
    *("mmce_weighted", "pairwise_confusion", "soft_ece"),
)
QUICK = [member for member in QUICK if member[1] not in PENALTIES]


def member(folder, name):
    """(the case that a member of a plug folder is met in, what makes its batches)."""
    plain = Case(dtype="float64", network="linear")
    if folder == "labels":
        return plain._replace(labels=name), frame.mixed
    if folder == "losses":
        return plain._replace(criterion=name), frame.streamed
    if folder == "mixing":
        return plain._replace(mixing=name), frame.streamed
    return plain._replace(
        labels="online", auxiliaries=(name,), augment=(("flip", True),)
    ), frame.streamed


@pytest.mark.parametrize(("folder", "name"), frame.slow_but(QUICK, MEMBERS))
def test_a_member_keeps_the_contract(folder, name):
    """One step of a linear network, compiled once, on eight devices: a new member costs about a
    second.
    """
    case, make = member(folder, name)
    state, run, jitted = frame.program(case, frame.watched_step(case), 8)
    first = make(0, masked=(5,))
    (after, scalars), seen = run(state, first)
    assert_kept(state, after, scalars, *seen)
    assert_written_only(state.labels, after.labels, first)
    # A slot that counts for nothing may hold anything.
    other = {name: np.array(value) for name, value in first.items()}
    other["label"][5] = (first["label"][5] + 1) % K
    if not case.augment:  # which draws by the index, and a network's averages count masked images
        # another slot's row: its memory must not be written twice
        other["index"][5] = first["index"][2]
    chex.assert_trees_all_equal(run(state, other)[0], (after, scalars))
    # In the second epoch memories are read.
    losses = {float(scalars["loss"])}
    for number in (1, 2):
        (after, scalars), seen = run(after, make(number))
        assert_kept(state, after, scalars, *seen)
        losses.add(float(scalars["loss"]))
    assert jitted._cache_size() == 1  # no weak type or new shape comes out of a step
    assert len(losses) == 3


def assert_kept(before, after, scalars, seen, targets, outputs):
    """What holds of each step: shapes, types, finite values, and targets that are distributions."""
    chex.assert_trees_all_equal_shapes_and_dtypes(before, after)
    assert bool(scalars["finite"])
    chex.assert_tree_all_finite((after, scalars, targets))
    leaves = frame.float_leaves((after, scalars["loss"], targets, outputs, seen.image, seen.share))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float64)}
    assert seen.partner.shape == seen.share.shape
    assert outputs.logits.shape == (len(seen.image), B, K)
    for target in targets:
        chex.assert_shape(target.probs, (B, K))
        assert (np.asarray(target.probs) >= 0).all()
        np.testing.assert_allclose(target.probs.sum(-1), 1, rtol=1e-6)
        assert target.mixed or seen.partner.shape[1] == 1


def assert_written_only(before, after, batch):
    """No row of a memory changes but those of the examples that counted."""
    written = batch["index"][batch["mask"] > 0]
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        if old.ndim > 1 and old.shape[0] == mesh.padded_rows(frame.N):
            changed = np.flatnonzero((np.asarray(old) != np.asarray(new)).any(-1))
            assert set(changed) <= set(written.tolist())
            assert len(changed) > 0


@pytest.mark.parametrize(
    ("folder", "name"), frame.slow_but([("labels", "online")], MEMBERS, MEMBERS)
)
def test_a_member_on_eight_devices_is_that_on_one(folder, name):
    case, make = member(folder, name)
    step, ends = frame.watched_step(case), []
    for devices in (1, 8):
        state, run, _ = frame.program(case, step, devices)
        history = []
        for number, masked in enumerate([(5,), (), ()]):
            (state, scalars), _ = run(state, make(number, masked=masked))
            history.append(scalars)
        ends.append(jax.device_get((state, history)))
    chex.assert_trees_all_close(*ends, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "mixing"), frame.slow_but([], MEETINGS, SLOW))
def test_a_source_keeps_the_contract_in_the_step(name, mixing):
    case = Case(name, mixing)
    step, batch = frame.observed(case), frame.streamed(0)
    state = frame.fresh(case)
    (new, scalars), (seen, targets, outputs) = step(state, frame.frozen(), frame.data(), batch)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, new)
    assert bool(scalars["finite"])
    assert seen.partner.shape == seen.share.shape == (B, WAYS[mixing])
    assert outputs.logits.shape == (1, B, K)
    for target in targets:
        chex.assert_shape(target.probs, (B, K))
        assert (np.asarray(target.probs) >= 0).all()
        np.testing.assert_allclose(target.probs.sum(-1), 1, rtol=1e-6)
        assert target.mixed or mixing == "none"
    (later, scalars), _ = step(new, frame.frozen(), frame.data(), frame.streamed(1))
    chex.assert_trees_all_equal_shapes_and_dtypes(state, later)
    assert bool(scalars["finite"])
    assert step._cache_size() == 1  # no weak type or new shape comes out of a step


@pytest.mark.parametrize(("name", "mixing"), frame.slow_but([], MEETINGS, SLOW))
def test_a_masked_slot_changes_no_term_and_no_memory(name, mixing):
    case = Case(name, mixing)
    batch = frame.streamed(0, masked=(5,))
    other = {name: np.array(value) for name, value in batch.items()}
    other["label"][5] = (batch["label"][5] + 1) % K
    # another slot's row: its memory must not be written twice
    other["index"][5] = batch["index"][2]
    one, two = (
        frame.observed(case)(frame.fresh(case), frame.frozen(), frame.data(), b)[0]
        for b in (batch, other)
    )
    chex.assert_trees_all_equal(one, two)


@pytest.mark.parametrize("name", ["hard", "online", "classwise"])
def test_a_slot_that_counts_changes_the_loss(name):
    case, batch = Case(name, network="linear"), frame.streamed(0)
    other = batch | {"label": np.where(np.arange(B) == 5, (batch["label"] + 1) % K, batch["label"])}
    step, frozen = frame.observed(case), frame.frozen(name="linear")
    one, two = (
        step(frame.fresh(case), frozen, frame.data(), b)[0][1]["loss"] for b in (batch, other)
    )
    assert abs(one - two) > 1e-3


def test_an_example_mixed_with_a_masked_one_counts_for_nothing():
    recipe = frame.recipe(Case("hard", "mixup", network="linear"))
    prepare = jax.jit(partial(steps.prepare, recipe))
    first = jnp.zeros((), jnp.int32)
    seen = prepare(frame.frozen(name="linear"), frame.data(), frame.streamed(0, masked=(5,)), first)
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(seen.mask) == 0), [5, 6])


@pytest.mark.parametrize(
    "dtype", frame.slow_but(["bfloat16"], ["float32", "bfloat16", "float64"], [])
)
@pytest.mark.parametrize("name", sorted({*SOURCES, *AUXILIARIES}.difference(PENALTIES)))
def test_types_of_a_whole_step(name, dtype):
    labels, auxiliaries = ("hard", (name,)) if name in AUXILIARIES else (name, ())
    wide = jnp.float64 if dtype == "float64" else jnp.float32
    for mixing in ("none",) if name in frame.MIXES else ("none", "ricap"):
        case = Case(labels, mixing, dtype, auxiliaries, ema=0.9, network="linear")
        given = frame.arguments(case)
        made, (seen, targets, outputs) = jax.eval_shape(frame.watched_step(case), *given)
        chex.assert_trees_all_equal_shapes_and_dtypes(given[0], made[0])
        leaves = frame.float_leaves((made, targets, outputs.logits, outputs.embedding, seen.image))
        assert {leaf.dtype for leaf in leaves} == {jnp.dtype(wide)}
        assert {stage.dtype for stage in outputs.stages} == {jnp.dtype(frame.DTYPES[dtype])}
        assert (
            jax.tree.leaves(jax.eval_shape(frame.recipe(case).source.report, given[0].labels))
            is not None
        )


NUMBERED = {name: (number, name) for number, name in enumerate(SOURCES)}


@pytest.mark.parametrize(
    ("number", "name"),
    frame.slow_but([NUMBERED["online"]], NUMBERED.values(), [NUMBERED["peer"]]),
)
def test_eight_devices_are_one_device(number, name):
    mixing = frame.MIXINGS[number % 4]
    assert_same_on_eight(
        Case(
            name, mixing, "float64", mix_options=(("probability", 0.5),) if number % 8 == 5 else ()
        )
    )


@pytest.mark.parametrize("name", frame.slow_but([], AUXILIARIES, ["hint"]))
def test_eight_devices_are_one_device_with_an_auxiliary(name):
    assert_same_on_eight(
        Case("online", dtype="float64", auxiliaries=(name,), augment=(("pad", 1), ("flip", True)))
    )


@pytest.mark.slow
def test_a_teacher_with_statistics_of_its_own_is_the_same_on_eight_devices():
    assert_same_on_eight(
        Case("mean_teacher", "cutmix", "float64", options=(("statistics", "own"),))
    )


def assert_same_on_eight(case, count=5):
    (one, before), (eight, after) = (frame.train(case, count, devices) for devices in (1, 8))
    np.testing.assert_allclose(
        [s["loss"] for s in after], [s["loss"] for s in before], rtol=0, atol=1e-10
    )
    assert len({float(s["loss"]) for s in before}) == count
    chex.assert_trees_all_close(one.labels, eight.labels, rtol=0, atol=1e-10)
    chex.assert_trees_all_close(one.params, eight.params, rtol=0, atol=1e-10)
    chex.assert_trees_all_close(one.auxiliary, eight.auxiliary, rtol=0, atol=1e-10)


def test_a_memory_lies_split_over_the_devices():
    case = Case("online", dtype="float64")
    there = mesh.make_mesh(jax.devices())
    shardings = mesh.state_shardings(frame.fresh(case), there)
    placed = jax.device_put(frame.fresh(case).labels["rows"], shardings.labels["rows"])
    assert {shard.data.shape for shard in placed.addressable_shards} == {(3072 // 8, K)}
    assert all(
        s.is_fully_replicated for s in jax.tree.leaves((shardings.params, shardings.opt_state))
    )


def test_a_chunk_is_its_steps():
    case = Case("online", dtype="float64", network="linear")
    single, scalars = frame.train(case, 4)
    batches = jax.tree.map(
        lambda *leaves: np.stack(leaves), *(frame.resident(number) for number in range(4))
    )
    chunk = jax.jit(steps.make_chunk(steps.make_train_step(frame.recipe(case))))
    state, stacked = chunk(
        frame.fresh(case), frame.frozen("float64", name="linear"), frame.data(), batches
    )
    chex.assert_trees_all_close(state, single, rtol=0, atol=1e-12)
    chex.assert_trees_all_close(
        stacked, jax.tree.map(lambda *leaves: np.stack(leaves), *scalars), rtol=0, atol=1e-12
    )


@pytest.mark.slow
def test_averages_move_only_where_parameters_move():
    case = Case("mean_teacher", accumulate=2, ema=0.9)
    start, (one, _), (two, _) = frame.fresh(case), frame.train(case, 1), frame.train(case, 2)
    for name in ("params", "ema"):
        chex.assert_trees_all_equal(getattr(one, name), getattr(start, name))
    chex.assert_trees_all_equal(one.labels["params"], start.labels["params"])
    assert [int(s.labels["updates"]) for s in (one, two)] == [0, 1]
    kernel = [
        s["conv"]["kernel"] for s in (start.params["model"], two.params["model"], two.ema["params"])
    ]
    assert np.abs(kernel[1] - kernel[0]).max() > 1e-5
    np.testing.assert_allclose(kernel[2], 0.9 * kernel[0] + 0.1 * kernel[1], rtol=0, atol=1e-7)
    statistics = [
        s["bn"]["var"] for s in (start.batch_stats, two.batch_stats, two.ema["batch_stats"])
    ]
    np.testing.assert_allclose(
        statistics[2], 0.9 * statistics[0] + 0.1 * statistics[1], rtol=0, atol=1e-7
    )


def test_streamed_and_resident_batches_train_alike():
    case = Case("online", network="linear")
    (one, a), (two, b) = (
        frame.train(case, 3, make=make) for make in (frame.resident, frame.streamed)
    )
    np.testing.assert_allclose([s["loss"] for s in a], [s["loss"] for s in b], rtol=1e-6)
    chex.assert_trees_all_close(one.labels, two.labels, rtol=0, atol=1e-6)


def test_the_initial_state_is_a_function_of_the_key():
    made = partial(steps.init_state, frame.recipe(Case("peer")))
    chex.assert_trees_all_close(
        jax.jit(made)(jax.random.key(3)), frame.fresh(Case("peer")), rtol=1e-6
    )
    assert np.any(
        frame.fresh(Case("peer")).labels["params"]["fc"]["bias"]
        != frame.fresh(Case()).params["model"]["fc"]["bias"]
    )


def test_views_pass_as_one_example_major_batch():
    image = jnp.arange(3 * 4 * 2.0).reshape(3, 4, 2, 1, 1)

    def apply(x):
        return Outputs(x[:, :, 0, 0], (x,), x.sum((2, 3))), x.shape

    outputs, merged = steps.forward(apply, image)
    assert merged == (12, 2, 1, 1)
    np.testing.assert_array_equal(outputs.logits, image[..., 0, 0])
    np.testing.assert_array_equal(outputs.stages[0], image)
    order = steps.forward(lambda x: (Outputs(jnp.arange(12), (), x), ()), image)[0].logits
    np.testing.assert_array_equal(order[:, 0], [0, 1, 2])  # the views of one example are neighbours


def test_an_evaluation_counts_each_example_once():
    apply, variables = frame.network("float32")[1], frame.frozen()[0]
    metrics = {name: frame.plug("metrics", name).make(K) for name in config.plugs("metrics")}
    step = jax.jit(steps.make_eval_step(apply, metrics, jnp.float32))
    index = np.arange(B, dtype=np.int32)
    mask = np.where(index < 11, 1, 0).astype(np.float32)
    wrong = frame.data() | {"images": frame.data()["images"].copy()}
    wrong["images"][11:B] = 255
    one, said = step(variables, frame.data(), {"index": index, "mask": mask})
    two, _ = step(
        variables, wrong, {"index": np.where(mask > 0, index, 0).astype(np.int32), "mask": mask}
    )
    chex.assert_trees_all_equal(one, two)
    assert float(one["accuracy"]["n"]) == 11
    hits = np.argmax(said["logits"][:11], -1) == frame.data()["labels"][:11]
    assert float(one["accuracy"]["top1"]) == hits.sum()
