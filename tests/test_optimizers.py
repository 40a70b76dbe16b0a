"""Optimizers by name: against optax called directly or written out in numpy, and in the step."""

import inspect
import json
import shutil
from functools import partial

import chex
import frame
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from frame import Case
from test_finetune import settings

from ldl_jax import config, optimizer
from ldl_jax import workdir as run
from ldl_jax.config import optimizers
from ldl_jax.config.options import options_of
from ldl_jax.training import experiment as build
from ldl_jax.training import loop as train
from ldl_jax.training import remeasure, steps

NAMES = tuple(name for name in optimizers.optimizers() if name != "sgd")
QUICK = ("adamw", "muon", "rmsprop", "schedule_free")
DECAY = 0.03
RATE = 0.1
STEPS = 3


def factory(name):
    return getattr(optax, name, None) or getattr(optax.contrib, name)


def fields(name, **changes):
    """`config.optimizer` with an optimizer at a constant rate."""
    c = config.default().optimizer
    c.name, c.learning_rate, c.schedule, c.weight_decay = name, RATE, "constant", DECAY
    for field, value in changes.items():
        block, _, option = field.rpartition("__")
        (c[block] if block else c)[option] = value
    return c


def made(name, **changes):
    return optimizer.from_settings(fields(name, **changes), 4, 40)[1]


def start():
    draw = np.random.default_rng(0)
    shapes = {"conv": {"kernel": (3, 3, 2, 4)}, "fc": {"kernel": (4, 5), "bias": (5,)}}
    return jax.tree.map(draw.standard_normal, shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))


def gradients():
    draw = np.random.default_rng(1)
    return [jax.tree.map(lambda leaf: draw.standard_normal(leaf.shape), start()) for _ in range(3)]


def pull(params, number=0):
    """The gradient that a second look at the batch gives: it depends on the parameters."""
    return jax.tree.map(lambda leaf, grad: 0.3 * leaf**3 + grad, params, gradients()[number])


def moved(transformation, *, shift=0.0, still=False):
    """The updates of three steps, compiled as one program, and the last state and parameters."""

    def steps_of(params):
        state, history = transformation.init(params), []
        for number, grad in enumerate(gradients()):
            grad = jax.tree.map(lambda g, p: g + shift * p, grad, params)
            extra = {}
            if isinstance(transformation, optax.GradientTransformationExtraArgs):
                extra = {"value": jnp.asarray(1.5), "grad_fn": lambda p, _, n=number: pull(p, n)}
            updates, state = transformation.update(grad, state, params, **extra)
            history.append(updates)
            if not still:
                params = optax.apply_updates(params, updates)
        return history, state, params

    return jax.jit(steps_of)(jax.tree.map(jnp.asarray, start()))


def dimensions(params):
    """What optax's Muon is told about the parameters of `start`."""
    del params
    kernel = optax.contrib.MuonDimensionNumbers
    return {"conv": {"kernel": kernel((0, 1, 2), 3)}, "fc": {"kernel": kernel(0, 1), "bias": None}}


def directly(name, options):
    """The optimizer by optax alone."""
    parameters = inspect.signature(factory(name)).parameters
    rate = "scaling" if name == "polyak_sgd" else "learning_rate"
    # A schedule, as the config makes one; a few take a number alone.
    options = dict(options) | {rate: RATE if name in ("sm3", "rprop") else lambda count: RATE}
    if name == "muon":
        options |= {"muon_weight_dimension_numbers": dimensions, "adam_weight_decay": DECAY}
    if name == "schedule_free":
        base = optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(lambda count: RATE))
        return optax.contrib.schedule_free(base, **options)
    for decay in ("weight_decay", "weight_decay_rate"):
        if decay in parameters:
            return factory(name)(**options, **{decay: DECAY})
    return optax.chain(optax.add_decayed_weights(DECAY), factory(name)(**options))


@pytest.mark.parametrize("name", NAMES)
def test_options_are_those_of_the_signature(name):
    block = options_of(config.default().optimizer, name)
    if name == "sam":
        assert (block.pop("rho"), block.pop("base")) == (0.05, "sgd")
    parameters = inspect.signature(factory(name)).parameters
    for option, value in block.items():
        assert parameters[option].default == value, option
    plain = {
        option
        for option, parameter in parameters.items()
        if isinstance(parameter.default, bool | int | float | str)
    }
    # The rest are fields of all optimizers.
    others = {"weight_decay", "weight_decay_rate", "learning_rate", "scaling"}
    others |= {"weight_decay_mask", "trust_ratio_mask", "opaque_mode", "adam_weight_decay"}
    assert plain - set(block) <= others | ({"nesterov"} if name.startswith("nadam") else set())


def test_every_optimizer_of_optax_can_be_named_or_says_why_not():
    """All that has a learning rate and makes a transformation, in the two modules."""
    for module in (optax, optax.contrib):
        for name, function in vars(module).items():
            is_factory = inspect.isfunction(function) or isinstance(function, partial)
            if not is_factory or name.startswith(("_", "scale_by")):
                continue
            if "learning_rate" in inspect.signature(function).parameters:
                assert name in optimizers.optimizers() or name in optimizers.REFUSED, name
    assert {"adamw", "lamb", "lion", "sam", "muon", "ademamix", "prodigy"} < set(NAMES)


@pytest.mark.parametrize("name", frame.slow_but(QUICK, [name for name in NAMES if name != "sam"]))
def test_updates_are_those_of_optax(name):
    """With an option of another value than the default, where there is a number between 0 and 1."""
    block = options_of(config.default().optimizer, name)
    free = [key for key, value in block.items() if isinstance(value, float) and 0 < value < 1]
    changes = {f"{name}__{key}": 0.8 * block[key] for key in free[:1]}
    options = {key: 0.8 * block[key] for key in free[:1]}
    ours, state, _ = moved(made(name, **changes))
    chex.assert_trees_all_close(ours, moved(directly(name, options))[0], rtol=1e-12, atol=1e-15)
    chex.assert_tree_all_finite((ours, state))
    assert int(optimizer.count(state)) == STEPS
    leaves = jax.tree.leaves(ours)
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float64)}


@pytest.mark.parametrize("name", ["adamw", "prodigy", "sam", "schedule_free", "muon", "galore"])
def test_a_state_keeps_its_types_and_its_arrays_are_its_own(name):
    transformation = made(name)
    params = jax.tree.map(jnp.float32, start())

    def step(params):
        state = transformation.init(params)
        extra = {"grad_fn": lambda p, _: p}
        return state, transformation.update(params, state, params, **extra)

    before, (updates, after) = jax.eval_shape(step, params)
    kinds = [jax.tree.map(lambda leaf: (leaf.dtype, leaf.weak_type), s) for s in (before, after)]
    assert kinds[0] == kinds[1]
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(jnp.float32)}
    # A donated state must not hold an array twice, nor one of the parameters.
    jaxpr = jax.make_jaxpr(transformation.init)(params).jaxpr
    kept = [id(out) for out in jaxpr.outvars]
    assert len(kept) == len(set(kept))
    assert not set(kept) & {id(variable) for variable in jaxpr.invars}


def flat(updates):
    """All updates of all steps as one array."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(updates)])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "sam"])
def test_what_is_said_about_an_optimizer_holds(name):
    """Whether weight decay is coupled, and whether updates are proportional to the rate."""
    plain = moved(made(name, weight_decay=0.0), still=True)[0]
    if name in optimizers.PROPORTIONAL:
        half = moved(made(name, weight_decay=0.0, learning_rate=RATE / 2), still=True)[0]
        np.testing.assert_allclose(flat(plain), 2 * flat(half), rtol=1e-9, atol=1e-14)
    decayed = flat(moved(made(name), still=True)[0])
    shifted = flat(moved(made(name, weight_decay=0.0), still=True, shift=DECAY)[0])
    assert optimizers.is_coupled(name) == np.allclose(decayed, shifted, rtol=1e-10, atol=1e-14)
    assert np.abs(decayed - flat(plain)).max() > 0


def test_decay_of_kernels_reaches_the_optimizer_s_own():
    """AdamW's first step, from g / |g| and the decay of kernels alone."""
    updates = moved(made("adamw", decay="kernels", adamw__eps=0.0))[0][0]
    for layer, leaves in start().items():
        for name, leaf in leaves.items():
            grad = gradients()[0][layer][name]
            expected = -RATE * (np.sign(grad) + (DECAY * leaf if name == "kernel" else 0))
            np.testing.assert_allclose(updates[layer][name], expected, rtol=1e-12)


def test_sam_takes_the_gradient_uphill_of_the_same_batch():
    """Foret et al. 2021 in numpy: SGD with momentum and coupled decay by the gradient at
    w + rho g / |g|.
    """
    rho, params, trace, history = 0.2, start(), None, []
    for number, grad in enumerate(gradients()):
        norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(grad)))
        uphill = jax.tree.map(lambda p, g, n=norm: p + rho * g / n, params, grad)
        second = jax.tree.map(lambda g, p: g + DECAY * p, pull(uphill, number), params)
        trace = second if trace is None else jax.tree.map(lambda t, g: 0.9 * t + g, trace, second)
        history.append(jax.tree.map(lambda t: -RATE * t, trace))
        params = jax.tree.map(np.add, params, history[-1])
    ours, state, _ = moved(made("sam", sam__rho=rho))
    chex.assert_trees_all_close(ours, history, rtol=1e-12, atol=1e-15)
    assert int(optimizer.count(state)) == STEPS


def test_a_gradient_of_zeros_leaves_sam_where_it_is():
    transformation = made("sam", weight_decay=0.0)
    params = jax.tree.map(jnp.asarray, start())
    zeros = jax.tree.map(jnp.zeros_like, params)

    def update(p):
        state = transformation.init(p)
        return transformation.update(zeros, state, p, grad_fn=lambda *_: zeros)[0]

    chex.assert_trees_all_equal(jax.jit(update)(params), zeros)


def test_a_schedule_free_optimizer_is_measured_at_its_average():
    """Defazio et al. 2024 in numpy: z by SGD at y, x the mean of the z, y between them."""
    x = z = y = start()
    for number, grad in enumerate(gradients()):
        z = jax.tree.map(lambda z, g, y: z - RATE * (g + DECAY * y), z, grad, y)
        share = 1 / (number + 1)
        x = jax.tree.map(lambda x, z, c=share: (1 - c) * x + c * z, x, z)
        y = jax.tree.map(lambda x, z: 0.7 * x + 0.3 * z, x, z)
    _, state, params = moved(made("schedule_free", schedule_free__b1=0.7))
    chex.assert_trees_all_close(params, y, rtol=1e-12, atol=1e-14)
    chex.assert_trees_all_close(optimizer.evaluated(state, params), x, rtol=1e-12, atol=1e-14)
    plain = made("adamw")
    assert optimizer.evaluated(plain.init(params), params) is params


def test_accumulated_gradients_are_one_update():
    """Of three gradients, the mean; the parameters to measure stay in between."""
    _, state, params = moved(made("schedule_free", accumulate=3))
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, 0), *gradients())
    expected = jax.tree.map(lambda p, g: p - RATE * (g + DECAY * p), start(), mean)
    chex.assert_trees_all_close(params, expected, rtol=1e-12, atol=1e-14)
    chex.assert_trees_all_close(
        optimizer.evaluated(state, params), expected, rtol=1e-12, atol=1e-14
    )
    assert bool(optimizer.updated(state, 3))
    assert int(optimizer.count(state)) == 1


REFUSALS = {
    "optimizer.name must be one of acprop, .*, yogi; got 'adm'": {"optimizer.name": "adm"},
    "must not be 'sophia': it needs a second loss": {"optimizer.name": "sophia"},
    "accumulate must be 1 if config.optimizer.name is 'sam', which needs a second gradient":
        {"optimizer.name": "sam", "optimizer.accumulate": 2},
    "accumulate must be 1 if config.optimizer.name is 'momo', which needs the loss":
        {"optimizer.name": "momo", "optimizer.accumulate": 2},
    "labels.name must not be 'peer' if config.optimizer.name is 'sam'":
        {"optimizer.name": "sam", "labels.name": "peer"},
    "sam.base must be an optimizer that works by one gradient alone, .* got 'sam'":
        {"optimizer.name": "sam", "optimizer.sam.base": "sam"},
    "sam.base must be one of acprop, .*; got 'x'":
        {"optimizer.name": "sam", "optimizer.sam.base": "x"},
    "sam.rho must be above 0, got 0.0": {"optimizer.name": "sam", "optimizer.sam.rho": 0.0},
    "sam.sync_period must be at least 2, .* got 1":
        {"optimizer.name": "sam", "optimizer.sam.sync_period": 1},
    "ema must be 0 if config.optimizer.name is 'schedule_free'":
        {"optimizer.name": "schedule_free", "optimizer.ema": 0.9},
    r"schedule_free.b1 must be in \(0, 1\], got 0.0":
        {"optimizer.name": "schedule_free", "optimizer.schedule_free.b1": 0.0},
    "body_factor must be 1 if config.optimizer.name is 'prodigy'":
        {"optimizer.name": "prodigy", "optimizer.body_factor": 0.1},
    "freeze_epochs must be 0 if config.optimizer.name is 'adamw'":
        {"optimizer.name": "adamw", "train.freeze_epochs": 1.0},
    "decay must be 'all' if config.optimizer.name is 'prodigy'":
        {"optimizer.name": "prodigy", "optimizer.decay": "kernels"},
    "schedule must be 'constant', without warm-up, if config.optimizer.name is 'rprop'":
        {"optimizer.name": "rprop"},
    "optimizer.cycle_epochs must be above 0, got 0.0": {"optimizer.cycle_epochs": 0.0},
    r"optimizer.rise must be in \(0, 1\), got 1.0": {"optimizer.rise": 1.0},
    "optimizer.cycle_factor must be at least 1, got 0.5": {"optimizer.cycle_factor": 0.5},
}  # fmt: skip


@pytest.mark.parametrize("sentence", REFUSALS)
def test_what_does_not_fit_is_refused_in_a_sentence(sentence):
    c = config.default()
    c.update_from_flattened_dict(REFUSALS[sentence])
    with pytest.raises(ValueError, match=sentence) as error:
        config.check(c)
    assert "\n" not in str(error.value)


def test_what_optax_refuses_is_found_before_the_run():
    with pytest.raises(ValueError, match=r"config.optimizer.muon: .*preconditioning x"):
        made("muon", muon__preconditioning="x")


def test_a_label_source_that_takes_steps_itself_cannot_use_sam():
    transformation = made("sam")
    params = jax.tree.map(jnp.asarray, start())
    with pytest.raises(ValueError, match="is 'sam', whose update needs grad_fn; a label source"):
        jax.eval_shape(lambda p: transformation.update(p, transformation.init(p), p), params)


def test_a_run_says_how_its_weights_decay():
    assert optimizers.note(fields("sgd")) == ""
    assert optimizers.note(fields("adamw")) == (
        "optimizer adamw of optax, weight decay 0.03 of all parameters, adamw's own (decoupled)"
    )
    assert optimizers.note(fields("sam", decay="kernels")) == (
        "optimizer sam around sgd of optax, weight decay 0.03 of kernels parameters, added to the "
        "gradient (coupled)"
    )


def test_identities_of_older_runs_stay_and_idle_blocks_are_not_written():
    plain, named = config.default(), config.default()
    assert not [field for field in config.decisive(plain) if field.startswith("optimizer.name")]
    plain.optimizer.adamw.b1 = 0.5
    assert config.decisive(plain) == config.decisive(config.default())
    named.optimizer.name = "adamw"
    assert config.decisive(named) == config.decisive(plain) | {"optimizer.name": "adamw"}
    named.optimizer.adamw.b1 = 0.5
    assert config.differences(plain, named) == {
        "optimizer.name": ("sgd", "adamw"),
        **{
            f"optimizer.adamw.{name}": (None, value)
            for name, value in named.optimizer.adamw.items()
        },
    }
    written = json.loads(config.to_json(named))["optimizer"]
    assert {name for name, value in written.items() if isinstance(value, dict)} == {"adamw"}
    again = config.from_json(config.to_json(named))
    assert again.optimizer.adamw.b1 == 0.5
    assert not config.differences(named, again)
    named.optimizer.name = "sam"
    named.optimizer.sam.base = "adamw"
    assert config.decisive(named)["optimizer.adamw.b1"] == 0.5


@pytest.mark.parametrize("name", frame.slow_but(["sam"], ["sam", "adamw", "schedule_free", "muon"]))
def test_a_step_on_eight_devices_is_that_on_one(name):
    case = Case("online", dtype="float64", network="linear", optimizer=name)
    (one, before), (eight, after) = (frame.train(case, 3, devices) for devices in (1, 8))
    chex.assert_trees_all_close(one, eight, rtol=0, atol=1e-10)
    assert len({float(scalars["loss"]) for scalars in before}) == 3
    np.testing.assert_allclose(
        [scalars["loss"] for scalars in before], [scalars["loss"] for scalars in after], atol=1e-10
    )


@pytest.mark.slow
def test_sam_moves_statistics_and_memories_once():
    """By the first gradient, as SGD does; the parameters by the second, of the very same batch."""
    sgd = Case("online", "cutmix", dtype="float64", network="linear")
    sam = sgd._replace(optimizer="sam")
    recipe, state = frame.recipe(sgd), frame.fresh(sgd)
    frozen, data = frame.frozen("float64", name="linear"), frame.data()

    def expected(state):
        """SAM by hand: SGD's step by the gradient of the same loss at the higher point."""
        batch = steps.prepare(recipe, frozen, data, frame.resident(0), state.step)
        grad = jax.grad(lambda params: steps._loss(recipe, state, batch, params)[0])
        first = grad(state.params)
        norm = optax.tree.norm(first)
        uphill = jax.tree.map(lambda p, g: p + 0.05 * g / norm, state.params, first)
        updates, _ = recipe.build.optimizer.update(grad(uphill), state.opt_state, state.params)
        return optax.apply_updates(state.params, updates)

    plain, _ = jax.jit(steps.make_train_step(recipe))(state, frozen, data, frame.resident(0))
    second = jax.jit(steps.make_train_step(frame.recipe(sam)))
    found, scalars = second(frame.fresh(sam), frozen, data, frame.resident(0))
    for name in ("batch_stats", "labels", "auxiliary", "step"):
        chex.assert_trees_all_close(getattr(found, name), getattr(plain, name), rtol=1e-12)
    chex.assert_trees_all_close(found.params, jax.jit(expected)(state), rtol=1e-12, atol=1e-14)
    moved = np.abs(found.params["model"]["maps"] - plain.params["model"]["maps"]).max()
    assert moved > 1e-9
    assert bool(scalars["finite"])


RUNS = {
    "sgd": {},
    "adamw": {"optimizer__learning_rate": 1e-3},
    "sam": {},
    "schedule_free": {"optimizer__warmup_epochs": 0.5},
    "muon": {"optimizer__learning_rate": 0.02, "optimizer__muon__adam_learning_rate": 1e-3},
}


@pytest.mark.parametrize("name", frame.slow_but([], list(RUNS), ["schedule_free"]))
def test_a_run_resumes_bitwise_and_keeps_the_weights_that_it_measured(tmp_path, name):
    c = settings(optimizer__name=name, labels__name="online", **RUNS[name])
    c.train.epochs, c.train.save_every_epochs = 1.0, 0.5
    devices, compiled = jax.devices()[:1], {}
    train.train(c, tmp_path / "whole", devices=devices, compiled=compiled)
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    for path in (tmp_path / "again").glob("checkpoints/14*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for file in (run.WEIGHTS, run.SUMMARY):
        (tmp_path / "again" / file).unlink()
    train.train(c, tmp_path / "again", devices=devices, compiled=compiled)
    weights = [run.read_weights(tmp_path / end / run.WEIGHTS)[0] for end in ("whole", "again")]
    chex.assert_trees_all_equal(*weights)
    logs = [(tmp_path / end / run.METRICS).read_text() for end in ("whole", "again")]
    assert logs[0] == logs[1]

    # From its checkpoint, and from its weights alone, the run measures the same network.
    summary = json.loads((tmp_path / "whole" / run.SUMMARY).read_text())["splits"]
    for _ in ("checkpoint", "weights"):
        again = remeasure.measure_again(c, tmp_path / "again", devices)
        assert again["splits"]["test"]["nll"] == pytest.approx(summary["test"]["nll"], rel=1e-12)
        chex.assert_trees_all_close(
            run.read_weights(tmp_path / "again" / run.WEIGHTS)[0], weights[0], rtol=1e-12
        )
        shutil.rmtree(tmp_path / "again" / "checkpoints", ignore_errors=True)


def test_the_optimizer_of_a_config_is_built(tmp_path):
    c = settings(optimizer__name="lion", optimizer__body_factor=0.5)
    experiment = build.make_experiment(c, jax.devices()[:1])
    assert any("optimizer lion of optax" in note for note in experiment.notes)
    state = jax.eval_shape(experiment.recipe.build.optimizer.init, {"kernel": jnp.zeros((2, 2))})
    assert state.inner[0][0].mu["kernel"].shape == (2, 2)
