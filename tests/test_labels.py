"""Label sources against references written in numpy, over several epochs of several steps, without
the step around.
"""

from functools import lru_cache, partial

import chex
import frame
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from frame import after, plain_batch, plain_build, plug, says, softmax

from ldl_jax import config
from ldl_jax.contract import Forward
from ldl_jax.labels import base
from ldl_jax.labels.base import term_loss
from ldl_jax.losses.base import cross_entropy

K, N, SIZE, STEPS, EPOCHS = 5, 40, 8, 4, 5  # 32 of 40 examples come in an epoch
LABELS = np.random.default_rng(1).integers(0, K, N)
EYE = np.eye(K)


@lru_cache(None)
def build(**changes):
    return plain_build(
        **{"steps_per_epoch": STEPS, "total_steps": STEPS * EPOCHS, "mix_prob": 0.5} | changes
    )


def make(name, made=None, **options):
    return plug("labels", name).make(made or build(), **options)


def walk(epochs=EPOCHS, mixed=False):
    """(epoch, step, index, logits, mask, share) of every step: each example at most once an epoch."""
    draw = np.random.default_rng(2)
    for epoch in range(epochs):
        order = draw.permutation(N)
        for place in range(STEPS):
            index = order[place * SIZE : (place + 1) * SIZE]
            logits = 2 * draw.standard_normal((SIZE, K)) + 1.5 * EYE[LABELS[index]]
            mask = (draw.random(SIZE) > 0.15).astype(float)
            own = (
                np.where(draw.random(SIZE) < 0.5, 1, draw.uniform(0, 1, SIZE))
                if mixed
                else np.ones(SIZE)
            )
            share = np.stack([own, 1 - own], 1) if mixed else None
            yield epoch, epoch * STEPS + place, index, logits, mask, share


def run(source, steps):
    """What a source says in each of the steps, and its last state; targets and update are compiled
    once.
    """
    state, said = source.init(jax.random.key(0), None), []
    targets, update = jax.jit(source.targets), jax.jit(source.update)
    for _, step, index, logits, mask, share in steps:
        batch = plain_batch(
            LABELS[index], index=index, share=share, mask=jnp.asarray(mask), step=step
        )
        said.append(jax.device_get(targets(state, batch, says(logits))))
        state = update(state, batch, after(logits, clean=jnp.asarray(logits[::-1])))
    return said, jax.device_get(state)


# ---- one row for every class


CLASSWISE = {
    "cifar": {"first": "zeros"},
    "fine-grained": {"hard_weight": 1.0, "weight": 1.0, "first": "uniform", "freeze": 0.88},
    "mixed": {"first": "uniform"},
}


def surer(steps):
    """Class 0 is always recognised, with certainty in the first epochs only; class 4 no more after
    the third step.
    """
    for epoch, step, index, logits, mask, share in steps:
        label = LABELS[index]
        logits = np.where(label == 0, 1.0 if epoch < 2 else 0.3, 1)[:, None] * logits
        logits = logits + np.where(label == 0, 9.0 if epoch < 2 else 1.5, 0)[:, None] * EYE[0]
        logits = logits - np.where((label == 4) & (step > 2), 20.0, 0)[:, None] * EYE[4]
        yield epoch, step, index, logits, mask, share


def online_smoothing(steps, first, freeze=1.0):
    """The rows [B, K] that each step learns from: OLS as its paper and its code tell it, example by
    example.
    """
    table, said = None, []
    sums, count = np.zeros((K, K)), np.zeros(K)
    for _, step, index, logits, mask, share in steps:
        if step and step % STEPS == 0:
            old = np.full((K, K), 1 / K) if table is None else table
            table = np.array(
                [sums[c] / count[c] if count[c] else np.full(K, 1 / K) for c in range(K)]
            )
            for c in range(K):
                # without a correct example: uniform
                if freeze < 1 and old[c].max() >= freeze and count[c]:
                    table[c] = old[c]
            sums, count = np.zeros((K, K)), np.zeros(K)
        for i, label in enumerate(LABELS[index]):
            whole = share is None or share[i, 0] == 1
            if mask[i] and whole and logits[i].argmax() == label:
                sums[label] += softmax(logits[i])
                count[label] += 1
        uniform = None if first == "zeros" else np.full((SIZE, K), 1 / K)
        said.append(uniform if table is None else table[LABELS[index]])
    return said


@pytest.mark.parametrize("form", CLASSWISE)
def test_classwise_rows_are_the_mean_of_the_correct_predictions_of_the_last_epoch(form):
    options = CLASSWISE[form]
    steps = list(surer(walk(mixed=form == "mixed")))
    said, state = run(make("classwise", **options), steps)
    expected = online_smoothing(steps, options["first"], options.get("freeze", 1.0))
    hard_weight, weight = options.get("hard_weight", 0.5), options.get("weight", 0.5)
    for (_, step, index, *_), (hard, own), rows in zip(steps, said, expected, strict=True):
        np.testing.assert_array_equal(hard.probs, EYE[LABELS[index]])
        np.testing.assert_allclose(
            own.probs, np.full((SIZE, K), 1 / K) if rows is None else rows, rtol=1e-12
        )
        assert (hard.weight, own.weight) == (hard_weight, 0 if rows is None else weight)
        assert (rows is None) == (options["first"] == "zeros" and step < STEPS)
    assert (state["sums"] == 0).all()
    assert (state["count"] == 0).all()
    np.testing.assert_array_equal(state["table"][4], 1 / K)  # not recognised once in the last epoch


def test_a_sure_row_is_frozen_and_only_that():
    steps = list(surer(walk()))
    free, frozen = (
        run(make("classwise", freeze=freeze), steps)[1]["table"] for freeze in (1.0, 0.88)
    )
    first = run(make("classwise"), steps[:STEPS])[1]["table"]
    assert first[0].max() >= 0.88 > free[0].max()
    np.testing.assert_array_equal(frozen[0], first[0])
    np.testing.assert_array_equal(frozen[1:], free[1:])


def test_an_epoch_ends_though_its_last_step_and_the_next_ones_first_are_left_out():
    """A step that is not finite is skipped: its update does not happen, and the count of steps goes
    on.
    """
    steps = list(surer(walk()))
    gone = [STEPS - 1, STEPS, 3 * STEPS - 1]
    said, state = run(make("classwise"), [one for one in steps if one[1] not in gone])
    # seen, but not written
    masked = [(*one[:4], np.zeros(SIZE), one[5]) if one[1] in gone else one for one in steps]
    expected, kept = run(make("classwise"), masked)
    expected = [one for one, (_, step, *_) in zip(expected, steps, strict=True) if step not in gone]
    chex.assert_trees_all_equal(said, expected)
    chex.assert_trees_all_equal(state, kept)


def test_predictions_of_the_clean_pass_count_where_every_example_is_mixed():
    source = make("classwise", build(mix_prob=1.0), write="clean")
    assert source.clean
    state = source.init(jax.random.key(0), None)
    label, clean = np.array([0, 0, 1, 2]), np.array([3.0, 2, 5, 9])[:, None] * EYE[[0, 0, 0, 2]]
    batch = plain_batch(label, share=np.full((4, 2), 0.5), mask=jnp.array([1.0, 1, 1, 0]))
    state = jax.jit(source.update)(state, batch, after(-clean, clean=jnp.asarray(clean)))
    np.testing.assert_allclose(state["sums"][0], softmax(clean[:2]).sum(0), rtol=1e-12)
    np.testing.assert_array_equal(state["count"], [2, 0, 0, 0, 0])  # one is wrong, one is masked


# ---- one row for every example


def memory(steps, momentum=0.0, clean=False):
    """What an example's memory holds where it is read, bias corrected; the hard label where
    unwritten: [B, K].
    """
    rows, writes, said = np.zeros((N, K)), np.zeros(N, int), []
    for _, _, index, logits, mask, share in steps:
        said.append(
            np.array(
                [
                    rows[i] / (1 - momentum ** writes[i]) if writes[i] else EYE[LABELS[i]]
                    for i in index
                ]
            )
        )
        for place, i in enumerate(index):
            if mask[place] and (clean or share is None or share[place, 0] == 1):
                rows[i] = momentum * rows[i] + (1 - momentum) * softmax(
                    (logits[::-1] if clean else logits)[place]
                )
                writes[i] += 1
    return said, rows, writes


def test_ps_kd_learns_from_the_prediction_one_epoch_ago():
    steps = list(walk())
    said, state = run(make("online", alpha=0.8), steps)
    expected, rows, writes = memory(steps)
    for (epoch, _, index, *_), (target,), row in zip(steps, said, expected, strict=True):
        alpha = 0.8 * (epoch + 1) / EPOCHS
        np.testing.assert_allclose(
            target.probs, (1 - alpha) * EYE[LABELS[index]] + alpha * row, rtol=1e-12, atol=1e-15
        )
        assert epoch or (target.probs == EYE[LABELS[index]]).all()
        assert (target.weight, target.temperature, target.soft, target.mixed) == (
            1,
            1,
            False,
            False,
        )
    assert len(set(writes)) > 2  # some were skipped, by the order or by the mask
    np.testing.assert_allclose(state["rows"][:N], rows, rtol=1e-12)
    assert (state["rows"][N:] == 0).all()


@pytest.mark.parametrize("dtype", ["logits", "float16"])
def test_temporal_ensembling_averages_and_corrects_whatever_was_skipped(dtype):
    steps = list(walk(mixed=True))
    said, state = run(
        make("online", alpha=1.0, schedule="constant", momentum=0.6, dtype=dtype), steps
    )
    expected, rows, writes = memory(steps, 0.6)
    near = {"rtol": 1e-12, "atol": 1e-15} if dtype == "logits" else {"rtol": 0, "atol": 2e-3}
    for (target,), row in zip(said, expected, strict=True):
        np.testing.assert_allclose(target.probs, row, **near)
        np.testing.assert_allclose(target.probs.sum(-1), 1, rtol=1e-12)
        assert target.probs.dtype == np.float64
    assert set(writes) >= {0, 1, 2, 3}
    assert state["rows"].dtype == (np.float64 if dtype == "logits" else np.float16)
    np.testing.assert_allclose(state["rows"][:N], rows, **near)
    np.testing.assert_array_equal((state["rows"][:N] > 0).any(-1), writes > 0)


def test_an_average_that_was_never_skipped_is_corrected_as_published():
    source, total = make("online", alpha=1.0, schedule="constant", momentum=0.6), np.zeros((3, K))
    state, label, update = source.init(jax.random.key(0), None), [0, 1, 2], jax.jit(source.update)
    for epoch, logits in enumerate(np.random.default_rng(3).standard_normal((4, 3, K))):
        state = update(state, plain_batch(label, step=epoch * STEPS), after(logits))
        total = 0.6 * total + 0.4 * softmax(logits)
        (target,) = source.targets(
            state, plain_batch(label, step=(epoch + 1) * STEPS), says(logits)
        )
        np.testing.assert_allclose(target.probs, total / (1 - 0.6 ** (epoch + 1)), rtol=1e-12)


def test_the_clean_rule_writes_every_example_from_its_own_pass():
    steps = list(walk(mixed=True))
    said, state = run(
        make("online", build(mix_prob=1.0), alpha=0.5, schedule="constant", write="clean"), steps
    )
    expected, rows, writes = memory(steps, clean=True)
    for (*_, index, _, _, _), (target,), row in zip(steps, said, expected, strict=True):
        np.testing.assert_allclose(
            target.probs, 0.5 * EYE[LABELS[index]] + 0.5 * row, rtol=1e-12, atol=1e-15
        )
    np.testing.assert_allclose(state["rows"][:N], rows, rtol=1e-12)
    assert writes.sum() == sum(mask.sum() for *_, mask, _ in steps)
    assert make("online", write="clean").clean
    assert not make("online").clean


def test_a_row_not_written_yet_is_its_hard_label_and_others_are_divided_by_their_sum():
    rows = jnp.zeros((6, 3), jnp.float16).at[2].set(jnp.array([0.25, 0.125, 0.125], jnp.float16))
    read = jax.jit(base.read_rows)(rows, jnp.array([2, 5]), jnp.asarray(np.eye(3)[:2]))
    np.testing.assert_array_equal(read, [[0.5, 0.25, 0.25], [0, 1, 0]])
    slope = jax.jit(
        jax.grad(lambda r: base.read_rows(r, jnp.array([5]), jnp.asarray(np.eye(3)[:1])).sum())
    )(rows)
    assert np.isfinite(slope).all()


def test_a_row_is_written_where_it_may_be_and_nowhere_else():
    rows, new = jnp.arange(12.0).reshape(4, 3), jnp.full((3, 3), 2.0)
    written = base.write_rows(
        rows, jnp.array([3, 0, 3]), new, momentum=0.25, write=jnp.array([True, False, False])
    )
    expected = np.arange(12.0).reshape(4, 3)
    expected[3] = 0.25 * expected[3] + 0.75 * 2
    np.testing.assert_array_equal(written, expected)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_report_counts_the_written_rows_and_their_mean_entropy(dtype):
    probs = np.array([[0.5, 0.5, 0], [1, 0, 0], [0.25, 0.25, 0.5]])
    rows = (
        jnp.zeros((8, 3), dtype)
        .at[jnp.array([1, 4, 6])]
        .set(jnp.asarray(probs * [[1], [0.5], [0.25]], dtype))
    )
    found = jax.jit(base.row_report)(rows)
    assert found["rows_written"] == 3
    np.testing.assert_allclose(
        found["row_entropy"], (np.log(2) + 0 + 1.5 * np.log(2)) / 3, rtol=1e-6
    )
    assert found["row_entropy"].dtype == (np.float64 if dtype == "float64" else np.float32)
    assert {name: float(value) for name, value in base.row_report(jnp.zeros((8, 3))).items()} == {
        "rows_written": 0, "row_entropy": 0,
    }  # fmt: skip


# ---- other networks


def linear(variables, image, *, train, key=None):
    """A network that one can differentiate by hand: (image - mean) w, the mean of the batch or the
    running one.
    """
    del key
    here, kept = image.mean(0), variables["batch_stats"]["mean"]
    logits = (image - (here if train else kept)) @ variables["params"]["w"]
    return says(logits)._replace(logits=logits), {
        "mean": 0.9 * kept + 0.1 * here if train else kept
    }


def variables(seed):
    draw = np.random.default_rng(seed)
    return {
        "params": {"w": draw.standard_normal((3, K))},
        "batch_stats": {"mean": draw.standard_normal(3)},
    }


def seen(label, image, **changes):
    return plain_batch(label, **changes)._replace(image=jnp.asarray(image)[None])


@pytest.mark.parametrize("statistics", ["averaged", "batch"])
@pytest.mark.parametrize("warm_up", [True, False])
def test_a_mean_teacher_is_the_average_of_the_networks_so_far(warm_up, statistics):
    options = {"statistics": statistics, "hard_weight": 0.4, "weight": 2.0, "temperature": 3.0}
    source = make("mean_teacher", build(apply=linear), decay=0.7, warm_up=warm_up, **options)
    update = jax.jit(source.update)
    averaged, image, label = (
        variables(0),
        np.random.default_rng(9).standard_normal((4, 3)),
        [0, 1, 2, 4],
    )
    state, updates = source.init(jax.random.key(0), jax.tree.map(jnp.asarray, averaged)), 0
    for number, updated in enumerate([True, False, True, True, False, True, True]):
        now = variables(number + 1)
        state = update(state, None, Forward(None, (), None, **now, updated=jnp.asarray(updated)))
        if updated:
            updates += 1
            decay = min(1 - 1 / (updates + 1), 0.7) if warm_up else 0.7
            averaged = jax.tree.map(lambda a, b, m=decay: m * a + (1 - m) * b, averaged, now)
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-12),
            {n: state[n] for n in averaged},
            averaged,
        )
        assert int(state["updates"]) == updates
    hard, other = source.targets(state, seen(label, image), says(np.zeros((4, K))))
    mean = image.mean(0) if statistics == "batch" else averaged["batch_stats"]["mean"]
    np.testing.assert_allclose(
        other.probs, softmax((image - mean) @ averaged["params"]["w"] / 3), rtol=1e-12
    )
    np.testing.assert_array_equal(hard.probs, EYE[label])
    assert (hard.weight, hard.temperature, hard.mixed) == (0.4, 1, False)
    assert (other.weight, other.temperature, other.mixed, other.soft) == (2, 3, True, False)


def test_a_teacher_with_statistics_of_the_batch_has_dropout_of_its_own():
    keys = []

    def apply(variables, image, *, train, key=None):
        keys.append(key)
        return linear(variables, image, train=train)

    source = make("mean_teacher", build(apply=apply), statistics="batch")
    batch = seen([0, 1, 2, 4], np.zeros((4, 3)))
    source.targets(source.init(jax.random.key(0), variables(0)), batch, says(np.zeros((4, K))))
    assert not (jax.random.key_data(keys[0]) == jax.random.key_data(batch.key)).all()


def test_with_warm_up_a_long_memory_is_the_plain_mean():
    source, all_of_them = (
        make("mean_teacher", build(apply=linear), decay=0.999),
        [variables(n) for n in range(5)],
    )
    state = source.init(jax.random.key(0), jax.tree.map(jnp.asarray, all_of_them[0]))
    for now in all_of_them[1:]:
        state = source.update(
            state, None, Forward(None, (), None, **now, updated=jnp.asarray(True))
        )
    expected = np.mean([one["params"]["w"] for one in all_of_them], 0)
    np.testing.assert_allclose(state["params"]["w"], expected, rtol=1e-12)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_peer_takes_the_gradient_step_written_by_hand(mixed):
    made = build(apply=linear, init=lambda key: {
        "params": {"w": jax.random.normal(key, (3, K))}, "batch_stats": {"mean": jnp.zeros(3)},
    }, optimizer=optax.sgd(0.2, momentum=0.9))  # fmt: skip
    source, label = make("peer", made, hard_weight=0.7, weight=0.4), np.array([0, 1, 2, 4])
    state, update, targets = (
        source.init(jax.random.key(5), None),
        jax.jit(source.update),
        jax.jit(source.targets),
    )
    draw, mask = np.random.default_rng(4), np.array([1, 1, 0, 1.0])
    w, mean, speed = np.array(state["params"]["w"]), np.zeros(3), np.zeros((3, K))
    share = np.array([[0.7, 0.3], [1, 0], [0.5, 0.5], [0.2, 0.8]])
    hard = (
        share[:, :1] * EYE[label] + share[:, 1:] * EYE[label[[3, 0, 1, 2]]] if mixed else EYE[label]
    )
    for _ in range(3):
        image, logits = draw.standard_normal((4, 3)), draw.standard_normal((4, K))
        batch = seen(label, image, share=share if mixed else None, mask=jnp.asarray(mask))
        own = image - image.mean(0)
        p, student = softmax(own @ w), softmax(logits)
        to_label, to_peer = targets(state, batch, says(logits))
        np.testing.assert_array_equal(to_label.probs, EYE[label])
        np.testing.assert_allclose(to_peer.probs, p, rtol=1e-12)
        assert (to_label.weight, to_peer.weight, to_label.soft, to_peer.soft) == (
            0.7,
            0.4,
            False,
            True,
        )
        assert (to_label.mixed, to_peer.mixed) == (False, True)
        state = update(state, batch, after(logits))
        slope = own.T @ (mask[:, None] * (0.7 * (p - hard) + 0.4 * (p - student))) / 3
        speed = slope + 0.9 * speed
        w, mean = w - 0.2 * speed, 0.9 * mean + 0.1 * image.mean(0)
        np.testing.assert_allclose(state["params"]["w"], w, rtol=1e-10)
        np.testing.assert_allclose(state["batch_stats"]["mean"], mean, rtol=1e-12)


def test_a_peer_starts_from_parameters_of_its_own():
    source = make(
        "peer", build(init=lambda key: {"params": jax.random.normal(key, (4,)), "batch_stats": {}})
    )
    one, again, other = (source.init(jax.random.key(seed), None)["params"] for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, again)
    assert (one != other).all()
    assert (one != jax.random.normal(jax.random.key(5), (4,))).all()


TEACHERS = 2 * np.random.default_rng(6).standard_normal((3, 4, K))
STUDENT = np.random.default_rng(7).standard_normal((4, K))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("average", ["probs", "logits"])
def test_teachers_are_averaged_at_their_temperature(average, count, temperature):
    source = make("teacher", average=average, temperature=temperature, weight=0.3, soft=True)
    batch = plain_batch([0, 1, 2, 3], teacher=TEACHERS[:count])
    (target,) = source.targets((), batch, says(STUDENT))
    each = TEACHERS[:count] / temperature
    expected = softmax(each).mean(0) if average == "probs" else softmax(each.mean(0))
    np.testing.assert_allclose(target.probs, expected, rtol=1e-12)
    assert (target.weight, target.temperature, target.soft, target.mixed) == (
        0.3,
        temperature,
        True,
        True,
    )
    assert not make("teacher").targets((), batch, says(STUDENT))[0].soft


def test_one_averaged_term_of_weight_k_pulls_like_k_terms():
    def pull(weight, teachers):
        (target,) = make("teacher", weight=weight).targets(
            (), plain_batch([0] * 4, teacher=teachers), says(STUDENT)
        )
        return jax.grad(lambda z: term_loss(target, z, cross_entropy).sum())(jnp.asarray(STUDENT))

    np.testing.assert_allclose(
        pull(3.0, TEACHERS), sum(pull(1.0, [one]) for one in TEACHERS), rtol=1e-10
    )


# ---- sums of sources


def blend(options=None, **settings):
    """A blend whose parts have these options of their own."""
    made = build()
    parts = lambda name: make(name, made, **(options or {}).get(name, {}))  # noqa: E731
    return make("blend", made._replace(part=parts), **settings)


def test_hinton_distillation_is_a_blend_of_the_label_and_a_soft_teacher():
    source = blend({"teacher": {"temperature": 4.0, "soft": True}})
    batch = plain_batch([0, 1, 2, 3], teacher=TEACHERS[:1])
    targets = source.targets(((), ()), batch, says(STUDENT))
    p, q, label = softmax(STUDENT / 4), softmax(TEACHERS[0] / 4), np.arange(4)
    expected = -0.1 * np.log(softmax(STUDENT)[label, label]) + 0.9 * 16 * (q * np.log(q / p)).sum(
        -1
    )
    found = sum(term_loss(target, STUDENT, cross_entropy) for target in targets)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    slope = jax.grad(
        lambda z: sum(term_loss(target, z, cross_entropy).sum() for target in targets)
    )(STUDENT)
    np.testing.assert_allclose(
        slope, 0.1 * (softmax(STUDENT) - EYE[label]) + 0.9 * 4 * (p - q), rtol=1e-10
    )


@pytest.mark.parametrize("ramp", [0.0, 0.75, 2.0])
def test_a_ramp_starts_all_parts_but_the_first_at_nothing(ramp):
    source = blend(parts=("hard", "smooth", "classwise"), weights=(0.1, 0.5, 2.0), ramp_epochs=ramp)
    state = source.init(jax.random.key(0), None)
    for step in (0, 1, 2, 3, 8, 11):
        share = min(1, step / (ramp * STEPS)) if ramp else 1
        targets = source.targets(state, plain_batch([0, 1], step=step), says(np.zeros((2, K))))
        np.testing.assert_allclose(
            [t.weight for t in targets],
            [0.1, 0.5 * share, 2 * 0.5 * share, 2 * 0.5 * share],
            rtol=1e-12,
        )


def test_the_parts_of_a_blend_keep_their_own_memories():
    steps = list(walk(epochs=2, mixed=True))
    source = blend(
        {"online": {"write": "clean"}},
        parts=("smooth", "online", "classwise"),
        weights=(1.0, 0.5, 2.0),
    )
    said, state = run(source, steps)
    assert source.clean
    assert not blend(parts=("smooth", "classwise"), weights=(1.0, 1.0)).clean
    for place, (name, options) in enumerate(
        [("smooth", {}), ("online", {"write": "clean"}), ("classwise", {})]
    ):
        alone, kept = run(make(name, **options), steps)
        jax.tree.map(np.testing.assert_array_equal, state[place], kept)
        for together, own in zip(said, alone, strict=True):
            part = {0: together[:1], 1: together[1:2], 2: together[2:]}[place]
            for one, other in zip(part, own, strict=True):
                np.testing.assert_array_equal(one.probs, other.probs)
                np.testing.assert_allclose(one.weight, (1.0, 0.5, 2.0)[place] * other.weight)
    report = jax.device_get(source.report(state))
    assert set(report) == {"online/rows_written", "online/row_entropy", "classwise/row_entropy"}
    assert report["online/rows_written"] == len(
        {i for *_, index, _, mask, _ in steps for i in index[mask > 0]}
    )
    table = state[2]["table"]
    np.testing.assert_allclose(
        report["classwise/row_entropy"], -(table * np.log(table)).sum(-1).mean(), rtol=1e-12
    )


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0])
def test_smoothing_spreads_its_mass_over_all_classes(epsilon):
    (target,) = make("smooth", epsilon=epsilon).targets(
        (), plain_batch([3, 1]), says(np.zeros((2, K)))
    )
    expected = np.full((2, K), epsilon / K)
    expected[[0, 1], [3, 1]] = 1 - epsilon + epsilon / K
    np.testing.assert_allclose(target.probs, expected, rtol=1e-14)


def test_a_hard_label_is_all_on_its_class():
    (target,) = make("hard").targets((), plain_batch([3, 1]), says(np.zeros((2, K))))
    np.testing.assert_array_equal(target.probs, EYE[[3, 1]])
    assert (target.weight, target.temperature, target.soft) == (1, 1, False)


# ---- every source


@pytest.mark.parametrize("name", config.plugs("labels"))
def test_a_source_takes_a_single_example_and_logits_without_bound(name):
    made = build(mix_prob=0.0)
    source, variables = make(name, made), made.init(jax.random.key(1))
    state = first = source.init(jax.random.key(0), variables)

    @jax.jit
    def step(state, logits, number):
        image = jnp.ones((1, *frame.SHAPE))
        batch = plain_batch([2], teacher=[logits] * 2, step=number)
        given = {"table": EYE[[2]], **frame.stored_rows(EYE[[[2, 1]]])}
        batch = batch._replace(
            image=image[None], clean=image, given=jax.tree.map(jnp.asarray, given)
        )
        targets = source.targets(state, batch, says(logits))
        return targets, source.update(state, batch, after(logits, clean=logits, **variables))

    for number, logits in enumerate(
        (1e4 * EYE[[1]], -1e4 * EYE[[1]], np.zeros((1, K)), 1e4 * EYE[[2]])
    ):
        targets, state = step(state, logits, STEPS * number)
        for target in targets:
            assert target.probs.shape == (1, K)
            assert (np.asarray(target.probs) >= 0).all()
            np.testing.assert_allclose(target.probs.sum(-1), 1, rtol=1e-6)
        chex.assert_tree_all_finite((targets, state))
        chex.assert_trees_all_equal_shapes_and_dtypes(state, first)


# ---- what is refused


REFUSED = [
    ("classwise", {"first": "ones"}, {}, r"classwise\.first must be one of 'uniform', 'zeros'; got 'ones'"),
    ("classwise", {"freeze": 0.0}, {}, r"classwise\.freeze must be in \(0, 1\], got 0\.0"),
    ("classwise", {"freeze": 1.5}, {}, r"classwise\.freeze must be in \(0, 1\], got 1\.5"),
    ("classwise", {"write": "all"}, {}, r"classwise\.write must be one of 'unmixed', 'clean'; got 'all'"),
    ("classwise", {}, {"mix_prob": 1.0}, r"classwise\.write is 'unmixed', but every .*; set .*'clean'"),
    ("online", {"write": "all"}, {}, r"online\.write must be one of 'unmixed', 'clean'; got 'all'"),
    ("online", {}, {"mix_prob": 1.0}, r"online\.write is 'unmixed', but every .*; set .*'clean'"),
    ("online", {"schedule": "cosine"}, {}, r"online\.schedule must be one of 'linear', 'constant'; got 'cosine'"),
    ("online", {"dtype": "int8"}, {}, r"online\.dtype must be one of 'logits', 'float16'; got 'int8'"),
    ("online", {"alpha": 1.1}, {}, r"online\.alpha must be in \[0, 1\], got 1\.1"),
    ("online", {"alpha": -0.1}, {}, r"online\.alpha must be in \[0, 1\], got -0\.1"),
    ("online", {"momentum": 1.0}, {}, r"online\.momentum must be in \[0, 1\), got 1\.0"),
    ("mean_teacher", {"statistics": "no"}, {}, r"mean_teacher\.statistics must be .*'own'; got 'no'"),
    ("mean_teacher", {"decay": 1.0}, {}, r"mean_teacher\.decay must be in \[0, 1\), got 1\.0"),
    ("mean_teacher", {"temperature": 0.0}, {}, r"mean_teacher\.temperature must be above 0, got 0\.0"),
    ("teacher", {"average": "votes"}, {}, r"teacher\.average must be one of 'probs', 'logits'; got 'votes'"),
    ("teacher", {"temperature": 0.0}, {}, r"teacher\.temperature must be above 0, got 0\.0"),
    ("teacher", {}, {"teachers": ()}, r"'teacher' needs teachers, but config\.teachers is empty; name run directories"),
    ("table", {}, {"tables": ("label",)}, r"'table' needs a distribution for .* config\.data\.train_table"),
    ("smooth", {"epsilon": 1.1}, {}, r"smooth\.epsilon must be in \[0, 1\], got 1\.1"),
    ("smooth", {"epsilon": -0.1}, {}, r"smooth\.epsilon must be in \[0, 1\], got -0\.1"),
    ("similarity", {"alpha": 1.1}, {}, r"similarity\.alpha must be in \[0, 1\], got 1\.1"),
    ("similarity", {"temperature": 0.0}, {}, r"similarity\.temperature must be above 0, got 0\.0"),
    ("similarity", {"start_epoch": -1.0}, {}, r"similarity\.start_epoch must be finite and at least 0, got -1\.0"),
    ("tf_kd", {"alpha": -0.1}, {}, r"tf_kd\.alpha must be in \[0, 1\], got -0\.1"),
    ("tf_kd", {"temperature": 0.0}, {}, r"tf_kd\.temperature must be above 0, got 0\.0"),
    ("tf_kd", {"correct": 0.0}, {}, r"tf_kd\.correct must be in \(0, 1\], got 0\.0"),
    ("tf_kd", {"multiplier": np.nan}, {}, r"tf_kd\.multiplier must be finite and at least 0, got nan"),
    ("online", {"temperature": 0.0}, {}, r"online\.temperature must be above 0, got 0\.0"),
    ("online", {"start_epoch": -1.0}, {}, r"online\.start_epoch must be finite and at least 0, got -1\.0"),
    ("blend", {"starts": (1.0,)}, {}, r"blend\.starts must be empty or have one epoch for each .*, got \(1\.0,\) for"),
    ("blend", {"starts": (0.0, -1.0)}, {}, r"blend\.starts must be finite and at least 0, got -1\.0"),
    ("dps", {"decay": 1.1}, {}, r"dps\.decay must be in \[0, 1\], got 1\.1"),
    ("dps", {"label_count": 0.0}, {}, r"dps\.label_count must be between 1e-12 and 10,000, got 0\.0"),
    ("dps", {"label_count": 1e-40}, {}, r"dps\.label_count must be between 1e-12 and 10,000, got 1e-40"),
    ("dps", {"label_count": 1e39}, {}, r"dps\.label_count must be between 1e-12 and 10,000, got 1e\+39"),
    ("dps", {"other_count": -1.0}, {}, r"dps\.other_count must be between 0 and 10,000, got -1\.0"),
    ("dps", {"other_count": 1e38}, {}, r"dps\.other_count must be between 0 and 10,000, got 1e\+38"),
    ("dps", {"start_epoch": np.nan}, {}, r"dps\.start_epoch must be finite and at least 0, got nan"),
    ("dps", {"dtype": "float16", "decay": 1.0}, {}, r"dps\.dtype 'float16' needs a decay of at most 0\.99"),
    ("dps", {"write": "all"}, {}, r"dps\.write must be one of 'unmixed', 'clean'; got 'all'"),
    ("stored", {}, {"stored": None}, r"'stored' needs a file; name one in config\.data\.train_store"),
    ("blend", {"weights": (1.0,)}, {}, r"blend\.weights must have one weight for each .*; got \(1\.0,\) for"),
    ("blend", {"parts": (), "weights": ()}, {}, r"blend\.weights must have one weight for each .*; got \(\) for \(\)"),
    ("blend", {"parts": ("hard", "blend")}, {}, r"blend\.parts must not contain 'blend' itself"),
    ("blend", {"ramp_epochs": -1.0}, {}, r"blend\.ramp_epochs must be at least 0, got -1\.0"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "changes", "sentence"), REFUSED)
def test_a_wrong_option_is_refused_with_a_sentence(name, options, changes, sentence):
    with pytest.raises(ValueError, match=rf"^(config\.)?labels.*{sentence}") as caught:
        make(name, build(**changes), **options)
    assert "\n" not in str(caught.value)


def test_every_source_that_says_it_raises_is_refused_something():
    says_so = {
        name
        for name in config.plugs("labels")
        if "Raises ValueError" in plug("labels", name).make.__doc__
    }
    assert says_so == {name for name, *_ in REFUSED}


@pytest.mark.parametrize("name", config.plugs("labels"))
def test_a_word_that_is_not_on_offer_is_refused(name):
    for option, value in frame.options_of(f"labels/{name}.py").items():
        if isinstance(value, str):
            sentence = rf"labels\.{name}\.{option} must be one of .*'{value}'.*; got 'nonsense'"
            with pytest.raises(ValueError, match=sentence):
                make(name, **{option: "nonsense"})


# ---- options of the memories


def test_rows_are_written_at_a_temperature_where_they_are_right_and_used_from_an_epoch_on():
    options = {"temperature": 2.0, "correct_only": True, "start_epoch": 2.0, "schedule": "constant"}
    steps = list(walk(mixed=True))
    said, state = run(make("online", alpha=0.8, **options), steps)
    rows, used, skipped = {}, 0, 0
    for (epoch, _, index, logits, mask, share), (target,) in zip(steps, said, strict=True):
        for place, i in enumerate(index):
            hard = EYE[LABELS[i]]
            part = 0.8 * (epoch >= 2) * (i in rows)
            used += part > 0
            expected = (1 - part) * hard + part * rows.get(i, hard)
            np.testing.assert_allclose(target.probs[place], expected, rtol=1e-12, atol=1e-15)
        for place, i in enumerate(index):
            right = logits[place].argmax() == LABELS[i]
            skipped += not right
            if right and mask[place] and share[place, 0] == 1:
                rows[i] = softmax(logits[place] / 2)
    assert used > SIZE
    assert skipped > SIZE
    np.testing.assert_allclose(state["rows"][sorted(rows)], [rows[i] for i in sorted(rows)])


@pytest.mark.parametrize("start", [0.0, 2.0])
@pytest.mark.parametrize("other", [0.0, 0.5])
def test_counts_decay_and_grow_by_the_predictions(other, start):
    steps = list(walk(mixed=True))
    options = {"decay": 0.8, "label_count": 3.0, "other_count": other, "start_epoch": start}
    said, state = run(make("dps", **options), steps)
    counts = np.full((N, K), other)
    counts[np.arange(N), LABELS] = 3.0
    written = np.zeros(N, bool)
    for (epoch, _, index, logits, mask, share), (target,) in zip(steps, said, strict=True):
        now = counts[index] / counts[index].sum(1, keepdims=True)
        expected = now if epoch >= start else EYE[LABELS[index]]
        np.testing.assert_allclose(target.probs, expected, rtol=1e-12, atol=1e-15)
        for place, i in enumerate(index):
            if mask[place] and share[place, 0] == 1:
                counts[i] = 0.8 * counts[i] + softmax(logits[place])
                written[i] = True
    np.testing.assert_allclose(state["rows"][:N][written], counts[written], rtol=1e-12)
    assert (state["rows"][:N][~written] == 0).all()
    assert 0 < written.sum() <= N


def test_counts_without_decay_are_the_label_s_and_the_sum_of_the_predictions():
    source = make("dps", decay=1.0, label_count=1.0)
    state, total = source.init(jax.random.key(0), None), EYE[[0, 1, 2]]
    for epoch, logits in enumerate(np.random.default_rng(3).standard_normal((4, 3, K))):
        state = source.update(state, plain_batch([0, 1, 2], step=epoch * STEPS), after(logits))
        total = total + softmax(logits)
    (target,) = source.targets(state, plain_batch([0, 1, 2], step=4 * STEPS), says(total))
    np.testing.assert_allclose(target.probs, total / 5, rtol=1e-12)


def test_parts_of_a_blend_start_at_their_epochs_and_rise_from_there():
    options = {"parts": ("hard", "smooth"), "weights": (0.4, 2.0), "starts": (1.0, 2.0)}
    source = make("blend", ramp_epochs=2.0, **options)
    for step in range(STEPS * EPOCHS):
        hard, smooth = source.targets(((), ()), plain_batch([0], step=step), says(EYE[[0]]))
        epoch = step / STEPS
        np.testing.assert_allclose(hard.weight, 0.4 * (epoch >= 1))
        np.testing.assert_allclose(smooth.weight, 2 * np.clip((epoch - 2) / 2, 0, 1))


def test_a_teacher_s_own_statistics_are_those_that_its_own_passes_leave():
    source = make("mean_teacher", build(apply=linear), decay=0.7, statistics="own")
    averaged, image = variables(0), np.random.default_rng(9).standard_normal((3, 4, 3))
    state = source.init(jax.random.key(0), jax.tree.map(jnp.asarray, averaged))
    mean = averaged["batch_stats"]["mean"]
    for number in range(3):
        batch = seen([0, 1, 2, 4], image[number])
        _, other = source.targets(state, batch, says(np.zeros((4, K))))
        centred = image[number] - image[number].mean(0)
        expected = softmax(centred @ np.asarray(state["params"]["w"]))
        np.testing.assert_allclose(other.probs, expected, rtol=1e-12)
        now = variables(number + 1)
        state = source.update(
            state, batch, Forward(None, (), None, **now, updated=jnp.asarray(True))
        )
        mean = 0.9 * mean + 0.1 * image[number].mean(0)
        np.testing.assert_allclose(state["batch_stats"]["mean"], mean, rtol=1e-12)


# ---- similarity


def similar_by_numpy(sums, count, temperature):
    """Row by row: cosines of the classes that occur, softmax over those."""
    rows = np.eye(len(sums))
    there = [k for k in range(len(sums)) if count[k] > 0 and np.abs(sums[k]).sum() > 0]
    for k in there:
        cosines = [
            sums[k] @ sums[j] / np.linalg.norm(sums[k]) / np.linalg.norm(sums[j]) for j in there
        ]
        rows[k] = 0
        rows[k, there] = softmax(np.array(cosines) / temperature)
    return rows


@pytest.mark.parametrize("mixed", [False, True])
def test_similar_classes_are_those_of_the_last_epoch_s_mean_embeddings(mixed):
    source = make("similarity", alpha=0.3, temperature=0.2, start_epoch=2.0)
    targets, update = jax.jit(source.targets), jax.jit(source.update)
    draw = np.random.default_rng(5)
    width = build().outputs.embedding.shape[-1]
    state, table = source.init(jax.random.key(0), None), np.eye(K)
    sums, count = np.zeros((K, width)), np.zeros(K)
    for epoch, step, index, logits, mask, share in walk(mixed=mixed):
        if step % STEPS == 0 and step:
            table = similar_by_numpy(sums, count, 0.2)
            sums, count = np.zeros((K, width)), np.zeros(K)
        # No example of the last class counts in the first epoch.
        mask = mask * (LABELS[index] != K - 1) if epoch == 0 and not mixed else mask
        batch = plain_batch(LABELS[index], index=index, share=share, mask=mask, step=step)
        (target,) = targets(state, batch, says(logits))
        hard = EYE[LABELS[index]]
        part = 0.3 * (epoch >= 2)
        expected = (1 - part) * hard + part * table[LABELS[index]]
        np.testing.assert_allclose(target.probs, expected, rtol=1e-10, atol=1e-15)
        embedding = draw.standard_normal((SIZE, width)) + LABELS[index][:, None]
        shown = np.where(mask[:, None] > 0, embedding, np.nan)
        passed = after(logits)
        passed = passed._replace(
            outputs=passed.outputs._replace(embedding=jnp.asarray(shown)[None])
        )
        state = update(state, batch, passed)
        partner = np.asarray(batch.partner)
        for i in range(SIZE):
            for m in range(partner.shape[1]):
                part = mask[i] * np.asarray(batch.share)[i, m]
                sums[LABELS[index][partner[i, m]]] += part * embedding[i]
                count[LABELS[index][partner[i, m]]] += part
        if epoch == 0 and not mixed and step == STEPS - 1:
            assert count[K - 1] == 0
    # The last step has closed the epoch.
    np.testing.assert_allclose(state["table"], similar_by_numpy(sums, count, 0.2), rtol=1e-10)
    assert (state["sums"] == 0).all()
    np.testing.assert_allclose(np.asarray(state["table"]).sum(1), 1, rtol=1e-12)


# ---- TF-KD


@pytest.mark.parametrize("temperature", [0.5, 20.0])
def test_the_virtual_teacher_is_the_softmax_of_its_probabilities(temperature):
    options = {"alpha": 0.3, "temperature": temperature, "correct": 0.9, "multiplier": 2.0}
    logits = 2 * np.random.default_rng(0).standard_normal((6, K))
    label = np.arange(6) % K
    terms = make("tf_kd", **options).targets((), plain_batch(label), says(logits))
    found = sum(term_loss(term, jnp.asarray(logits), cross_entropy) for term in terms)
    p = softmax(logits)
    virtual = np.full((6, K), 0.1 / (K - 1))
    virtual[np.arange(6), label] = 0.9
    q = softmax(virtual / temperature)
    hard = -np.log(p[np.arange(6), label])
    kl = (q * np.log(q / p)).sum(1)
    np.testing.assert_allclose(found, 0.7 * hard + 0.3 * 2 * kl / K, rtol=1e-12)
