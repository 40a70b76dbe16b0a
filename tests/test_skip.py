"""A step that is not finite, where it is skipped: the state is what it was, and all else is as
without the option.
"""

from functools import lru_cache

import chex
import frame
import jax
import numpy as np
import pytest
from frame import Case
from test_mesh import CLASSES, MIB, ROWS, compiled

from ldl_jax import config, mesh
from ldl_jax import workdir as run
from ldl_jax.training import loop as train
from ldl_jax.training import steps

SOURCES = config.plugs("labels")
MEETINGS = [(name, mixing) for name in SOURCES for mixing in ("none", "mixup")]
SLOW = [("online", "mixup"), ("peer", "none")]


def poisoned(step):
    """The batch of a step with a pixel of one image that is no number."""
    batch = frame.streamed(step)
    image = (batch["image"] / 255).astype(np.float32)
    image[5, 3, 3, 0] = np.nan
    return batch | {"image": image}


@lru_cache(None)
def program(case):
    """The jitted step of a case."""
    return jax.jit(steps.make_train_step(frame.recipe(case)))


def after(case, state, batch):
    """(state, scalars) after a step."""
    return program(case)(state, frame.frozen(name=case.network), frame.data(), batch)


@pytest.mark.parametrize(("name", "mixing"), frame.slow_but([("online", "none")], MEETINGS, SLOW))
def test_a_poisoned_batch_changes_nothing_but_the_count_and_the_others_are_as_without_the_option(
    name, mixing
):
    case = Case(name, mixing, accumulate=2, ema=0.9, skip=True, network="linear")
    state = other = frame.fresh(case)
    for number in range(3):  # in the middle of an update
        state, scalars = after(case, state, frame.streamed(number))
        assert bool(scalars["finite"])
        other, _ = after(case._replace(skip=False), other, frame.streamed(number))
    chex.assert_trees_all_equal(state, other)
    skipped, scalars = after(case, state, poisoned(3))
    assert not bool(scalars["finite"])
    assert int(skipped.step) == 4
    chex.assert_trees_all_equal(skipped.replace(step=state.step), state)
    later, scalars = after(case, skipped, frame.streamed(4))
    assert bool(scalars["finite"])
    assert np.any(later.params["model"]["fc"]["bias"] != state.params["model"]["fc"]["bias"])


def test_a_part_that_breaks_alone_leaves_the_memory_beside_it_as_it_was():
    """The student's loss is finite, the peer's step is not: the row that `online` would write is
    not written.
    """
    options = (("parts", ("online", "peer")), ("weights", (1.0, 0.0)))
    case = Case("blend", options=options, skip=True, network="linear")
    state = frame.fresh(case)
    online, peer = state.labels
    broken = jax.tree.map(lambda leaf: leaf * np.inf, peer["opt_state"])
    state = state.replace(labels=(online, {**peer, "opt_state": broken}))
    skipped, scalars = after(case, state, frame.streamed(0))
    assert np.isfinite(scalars["loss"])
    assert not bool(scalars["finite"])
    chex.assert_trees_all_equal(skipped.replace(step=state.step), state)


def test_the_rate_that_is_logged_is_the_one_in_use():
    """Updates that were skipped do not count for the schedule."""
    case = Case("hard", skip=True, network="linear")
    state, rates = frame.fresh(case), []
    for make in (frame.streamed, poisoned, poisoned, frame.streamed, frame.streamed):
        state, scalars = after(case, state, make(len(rates)))
        rates.append(float(scalars["learning_rate"]))
    assert rates[1] == rates[2] == rates[3]
    assert rates[4] == pytest.approx(float(frame.recipe(case).schedule(2)))


@pytest.mark.parametrize(
    ("momentum", "devices"),
    [(0.0, 1), *(pytest.param(*both, marks=pytest.mark.slow) for both in ((0.6, 1), (0.6, 8)))],
)
def test_a_memory_is_not_copied(momentum, devices):
    case = Case(
        "online", options=(("momentum", momentum),), num_classes=CLASSES, examples=ROWS, skip=True
    )
    memory = compiled(case, devices).memory_analysis()
    assert memory.alias_size_in_bytes > mesh.padded_rows(ROWS) * CLASSES * 4 / devices
    assert memory.temp_size_in_bytes < 4 * MIB


@pytest.mark.slow
def test_a_run_leaves_steps_out_counts_them_and_ends_where_it_leaves_out_too_many(tmp_path, capsys):
    """From step 14 on the learning rate is beyond all numbers: 11 steps are skipped, and in a
    longer run 100.
    """

    def settings(steps):
        c = config.default()
        c.model.name, c.train.on_nonfinite, c.optimizer.decay = "tests.tiny", "skip_step", "all"
        c.data.batch_size, c.train.max_steps, c.train.log_every_steps = 110, steps, 10
        c.eval.report = False
        c.optimizer.boundaries, c.optimizer.factor = (1.0,), 1e300
        return c

    there = jax.devices()[:1]
    train.train(settings(24), tmp_path / "run", devices=there)
    said = capsys.readouterr().out
    assert [line.split(":")[0] for line in said.splitlines() if "; skipped" in line] == [
        f"step {n}" for n in range(14, 19)
    ]
    assert "step 14: loss 2." in said
    assert "step 18: loss 2." in said
    assert "further skipped steps are only counted (train/skipped)" in said
    rows = [row for row in run.read_log(tmp_path / "run" / run.METRICS) if "train/skipped" in row]
    assert [(row["step"], row["train/skipped"]) for row in rows] == [(10, 0), (20, 7), (24, 4)]
    assert np.isfinite(rows[1]["train/loss"])
    assert "train/loss" not in rows[2]
    with pytest.raises(
        train.NonFinite,
        match=r"step 113: loss .*; the last 100 steps were all skipped",
    ):
        train.train(settings(130), tmp_path / "long", devices=there)
