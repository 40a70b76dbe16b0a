"""The optimizer against PyTorch's SGD written out in numpy, and schedules at exact updates."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ldl_jax import optimizer
from ldl_jax.optimizer import schedules

DEFAULTS = {
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 0.0,
    "decay": "all",
    "clip_norm": 0.0,
    "accumulate": 1,
}


def start():
    draw = np.random.default_rng(0)
    return {"kernel": draw.standard_normal((3, 4)), "bias": draw.standard_normal(4)}


def gradients(count=6):
    draw = np.random.default_rng(1)
    return [
        {"kernel": draw.standard_normal((3, 4)), "bias": draw.standard_normal(4)}
        for _ in range(count)
    ]


def moved(grads, schedule=lambda count: 0.1, **options):
    """The parameters after each step by the optimizer under test."""
    made, params, history = optimizer.make(schedule, **DEFAULTS | options), start(), []
    state, step = made.init(params), jax.jit(made.update)
    for grad in grads:
        updates, state = step(grad, state, params)
        params = optax.apply_updates(params, updates)
        history.append((params, bool(optimizer.updated(state, options.get("accumulate", 1)))))
    return history


def torch_sgd(
    grads,
    rate=lambda count: 0.1,
    momentum=0.9,
    nesterov=False,
    weight_decay=0.0,
    decayed=("kernel", "bias"),
):
    """torch.optim.SGD as its documentation writes it down, in numpy: the parameters after each
    step.
    """
    params, buffer, history = start(), None, []
    for count, grad in enumerate(grads):
        grad = {n: g + weight_decay * params[n] * (n in decayed) for n, g in grad.items()}
        if momentum:  # the first buffer is the first gradient
            buffer = grad if buffer is None else {n: momentum * buffer[n] + grad[n] for n in grad}
            grad = {n: grad[n] + momentum * buffer[n] for n in grad} if nesterov else buffer
        params = {n: params[n] - rate(count) * grad[n] for n in params}
        history.append(params)
    return history


def assert_same(history, expected):
    assert len(history) == len(expected)
    for (params, _), other in zip(history, expected, strict=True):
        for name in other:
            np.testing.assert_allclose(params[name], other[name], rtol=0, atol=1e-13)


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_steps_are_those_of_pytorch(momentum, nesterov, weight_decay):
    options = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    assert_same(moved(gradients(), **options), torch_sgd(gradients(), **options))


def test_a_changing_rate_multiplies_the_buffer_and_is_not_kept_in_it():
    rates = [0.1, 0.1, 0.01, 0.5, 0.2, 0.3]
    schedule = lambda count: jnp.asarray(rates)[count]  # noqa: E731
    options = {"nesterov": True, "weight_decay": 0.05}
    assert_same(
        moved(gradients(), schedule, **options),
        torch_sgd(gradients(), lambda count: rates[count], **options),
    )


def test_decay_of_kernels_leaves_biases_and_scales_alone():
    options = {"weight_decay": 0.05, "nesterov": True}
    history = moved(gradients(), decay="kernels", **options)
    assert_same(history, torch_sgd(gradients(), decayed=("kernel",), **options))
    tree = {
        "conv": {"kernel": np.ones((3, 3, 2, 2))},
        "bn": {"scale": np.ones(2), "bias": np.ones(2)},
    }
    assert optimizer.kernels_only(tree) == {
        "conv": {"kernel": True},
        "bn": {"scale": False, "bias": False},
    }


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_the_gradient_is_clipped_by_its_global_norm_before_the_decay(limit):
    clipped = []
    for grad in gradients():
        norm = np.sqrt(sum((leaf**2).sum() for leaf in grad.values()))
        clipped.append({name: leaf * min(1, limit / norm) for name, leaf in grad.items()})
    history = moved(gradients(), clip_norm=limit, weight_decay=0.05)
    assert_same(history, torch_sgd(clipped, weight_decay=0.05))


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulated_steps_are_one_step_by_their_mean(accumulate):
    options = {"nesterov": True, "weight_decay": 0.05}
    grads, rates = gradients(), jnp.asarray([0.1, 0.02, 0.3])
    history = moved(grads, lambda count: rates[count], accumulate=accumulate, **options)
    assert [flag for _, flag in history] == [(number + 1) % accumulate == 0 for number in range(6)]
    groups = [grads[i : i + accumulate] for i in range(0, 6, accumulate)]
    means = [
        {name: np.mean([grad[name] for grad in group], 0) for name in group[0]} for group in groups
    ]
    assert_same(
        history[accumulate - 1 :: accumulate],
        torch_sgd(means, lambda count: float(rates[count]), **options),
    )
    for number, (params, flag) in enumerate(history):
        before = history[number - 1][0] if number else start()
        assert all((params[name] == before[name]).all() != flag for name in params)


def test_every_step_moves_without_accumulation():
    assert bool(optimizer.updated((), 1)) is True


def test_a_float32_optimizer_stays_float32():
    params = jax.tree.map(jnp.float32, start())
    schedule = make_schedule(schedule="cosine", warmup_epochs=1.0)
    made = optimizer.make(
        schedule, **DEFAULTS | {"weight_decay": 1e-3, "clip_norm": 1.0, "accumulate": 2}
    )
    updates, state = made.update(params, made.init(params), params)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(jnp.float32)}
    assert jax.tree.map(lambda leaf: leaf.dtype, state) == jax.tree.map(
        lambda leaf: leaf.dtype, made.init(params)
    )


def make_schedule(**changes):
    settings = {
        "schedule": "constant", "boundaries": (), "factor": 0.1, "warmup_epochs": 0.0, "updates_per_epoch": 4,
        "total_updates": 40,
    }  # fmt: skip
    return optimizer.make_schedule(0.2, **settings | changes)


def rates(schedule, counts):
    return [float(schedule(jnp.asarray(count))) for count in counts]


def test_a_piecewise_rate_falls_at_the_update_that_begins_an_epoch():
    schedule = make_schedule(schedule="piecewise", boundaries=(1.0, 2.5, 7), factor=0.2)
    counts = [0, 3, 4, 9, 10, 27, 28, 39]
    expected = [0.2, 0.2, 0.04, 0.04, 0.008, 0.008, 0.0016, 0.0016]
    np.testing.assert_allclose(rates(schedule, counts), expected, rtol=1e-6)


def test_boundaries_within_one_update_both_count():
    schedule = make_schedule(schedule="piecewise", boundaries=(2.0, 2.1), factor=0.5)
    np.testing.assert_allclose(rates(schedule, [7, 8, 20]), [0.2, 0.05, 0.05], rtol=1e-6)


def test_a_cosine_rate_falls_to_zero_over_the_run():
    counts = [0, 1, 10, 20, 39, 40]
    expected = [0.2 * (1 + math.cos(math.pi * count / 40)) / 2 for count in counts]
    found = rates(make_schedule(schedule="cosine"), counts)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    assert found[0] == pytest.approx(0.2)
    assert found[3] == pytest.approx(0.1)


@pytest.mark.parametrize(("warmup_epochs", "updates"), [(2.0, 8), (0.75, 3), (0.0, 0)])
@pytest.mark.parametrize("name", ["constant", "piecewise", "cosine"])
def test_a_warm_up_multiplies_the_rate(name, warmup_epochs, updates):
    plain = make_schedule(schedule=name, boundaries=(1,))
    warm = make_schedule(schedule=name, boundaries=(1,), warmup_epochs=warmup_epochs)
    expected = [
        rate * min(1, (u + 1) / updates if updates else 1)
        for u, rate in enumerate(rates(plain, range(12)))
    ]
    np.testing.assert_allclose(rates(warm, range(12)), expected, rtol=1e-6)


def test_a_cosine_restarts_at_the_peak_in_cycles_that_grow():
    assert schedules.cycle_lengths(4, 2.0, 40) == [4, 8, 16, 32]
    assert schedules.cycle_lengths(4, 1e300, 40) == [4, 2**31 - 1]
    made = make_schedule(schedule="cosine_restarts", cycle_epochs=1.0, cycle_factor=2.0)
    expected = []
    for length in (4, 8, 16, 32):
        expected += [0.1 * (1 + math.cos(math.pi * count / length)) for count in range(length)]
    found = jax.jit(jax.vmap(made))(np.arange(40))
    np.testing.assert_allclose(found, expected[:40], rtol=1e-10, atol=1e-12)


def test_a_run_that_ends_within_a_cycle_is_told_and_too_many_cycles_are_refused():
    told = optimizer.cut_cycle
    assert told("cosine_restarts", 4, 2.0, 28) == told("cosine", 4, 2.0, 30) == ""
    assert "ends 30 updates before the end of its last cycle of 32" in told(
        "cosine_restarts", 4, 2.0, 30
    )
    with pytest.raises(ValueError, match=r"cycle_epochs must give at most 1000 cycles in a run"):
        make_schedule(schedule="cosine_restarts", cycle_epochs=1e-9, total_updates=10**6)


def test_one_cycle_rises_and_falls_by_cosines():
    options = {"rise": 0.25, "start_divisor": 20.0, "end_divisor": 100.0}
    made = make_schedule(schedule="onecycle", **options)
    counts = np.arange(41)
    rising = 0.01 + 0.19 * (1 - np.cos(np.pi * counts / 10)) / 2
    falling = 0.0001 + 0.1999 * (1 + np.cos(np.pi * (counts - 10) / 30)) / 2
    expected = np.where(counts <= 10, rising, falling)
    np.testing.assert_allclose(jax.jit(jax.vmap(made))(counts), expected, rtol=1e-10)
    # One update is too few to rise; no rate is a NaN.
    for total in (1, 2, 3):
        short = make_schedule(schedule="onecycle", total_updates=total)
        assert all(0 < rate <= 0.2 for rate in rates(short, range(total)))


def test_a_constant_rate_is_constant():
    assert rates(make_schedule(), [0, 17, 40]) == [pytest.approx(0.2)] * 3


@pytest.mark.parametrize("options", [{"decay": "some"}, {"accumulate": 0}, {"weight_decay": -1e-4}, {"momentum": 1.0},
                                     {"momentum": -0.1}])  # fmt: skip
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=rf"optimizer\.{next(iter(options))} must be"):
        optimizer.make(lambda count: 0.1, **DEFAULTS | options)


def test_a_rate_that_is_never_lowered_is_told():
    told = optimizer.never_lowered
    assert told("piecewise", (100.0, 150.0), 0.1, 100.5) == ""
    assert told("cosine", (100.0,), 0.1, 3) == told("constant", (), 0.1, 3) == ""
    assert "(100.0, 150.0) are not reached in 100 epochs" in told(
        "piecewise", (100.0, 150.0), 0.1, 100.0
    )
    assert "boundaries is empty" in told("piecewise", (), 0.1, 3)
    assert "factor is 1;" in told("piecewise", (1.0,), 1.0, 3)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(
        ValueError,
        match=r"optimizer.schedule must be one of 'piecewise', .*, 'onecycle'; got 'step'",
    ):
        make_schedule(schedule="step")
