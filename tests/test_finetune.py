"""Starting from another run's weights: what is taken over, frozen and slowed, and what is refused."""

import json
import shutil

import chex
import frame
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frame import Case

from ldl_jax import config, convert, files
from ldl_jax import workdir as run
from ldl_jax.config import trust
from ldl_jax.data.base import Dataset, Split
from ldl_jax.evaluation import class_names
from ldl_jax.evaluation.load import load_teacher, load_weights
from ldl_jax.models.spec import head_axes, make_network, network_spec
from ldl_jax.training import experiment as build
from ldl_jax.training import initial, steps, updates
from ldl_jax.training import loop as train
from ldl_jax.training.schedule import fresh_state
from ldl_jax.training.updates import Body

HEAD = frozenset({("params", "fc", "kernel"), ("params", "fc", "bias")})


def settings(**fields):
    c = config.default()
    c.model.name, c.data.batch_size, c.data.eval_batch_size = "tests.tiny", 96, 360
    c.optimizer.schedule, c.optimizer.learning_rate, c.eval.report = "constant", 0.1, False
    c.train.epochs, c.train.eval_every_epochs, c.train.save_every_epochs = 2.0, 0.0, 0.5
    with c.model.options.unlocked():
        c.model.options.channels = 8
    c.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return c


def images(classes, *, mean=(0.3,), shape=(8, 8, 1)):
    """A data set of one image per split, to build with."""
    split = Split(1, shape, np.zeros((1, *shape), np.uint8), np.zeros(1, np.int32))
    return Dataset(split, split, tuple(classes), mean * shape[2], (0.2,) * shape[2])


def spec_of(c, dataset):
    return network_spec(c, dataset, dataset.mean, dataset.std)


def written(directory, c, dataset, seed=3):
    """A finished run with fresh weights of a config's network, and statistics of its own."""
    spec = spec_of(c, dataset)
    variables = jax.device_get(make_network(spec)[0](jax.random.key(seed)))
    variables["batch_stats"]["bn"]["mean"] = np.linspace(0, 1, c.model.options.channels)
    run.claim(directory, c, spec, {}, total=0)
    trust.remember_run(c, (directory / run.CONFIG, directory / run.NETWORK))
    run.save_weights(directory / run.WEIGHTS, variables, step=0)
    files.write_json(directory / run.SUMMARY, {})
    return directory


@pytest.fixture
def source(tmp_path):
    return written(tmp_path / "source", settings(), images("abcde"))


def fitted(source, c, dataset):
    """(spec, variables to start from, notes) of a config that starts from a run."""
    c.model.init_from = str(source)
    loaded = initial.load(c.model)
    spec = network_spec(c, dataset, *initial.normalisation(c.model, dataset, loaded))
    return spec, *initial.fit(loaded, spec)


def test_the_same_classes_take_over_everything(source):
    spec, start, notes = fitted(source, settings(), images("abcde", mean=(0.9,)))
    _, theirs, _ = load_weights(source)
    chex.assert_trees_all_equal(start, jax.tree.map(np.float32, theirs))
    # what the weights saw, not the new data set's
    assert spec["mean"] == [0.3]
    assert any("the head is kept, since its classes are the same" in note for note in notes)
    spec, _, notes = fitted(source, settings(model__mean=(0.5,)), images("abcde"))
    assert (spec["mean"], spec["std"]) == ([0.5], [0.2])
    assert any("not as the weights saw them" in note for note in notes)


@pytest.mark.parametrize(
    ("classes", "note"),
    [
        ("abcdef", "the head is drawn anew, since 5 classes become 6"),
        (
            "vwxyz",
            "anew, since its classes are others: got 'a', 'b', 'c' and 2 more instead of 'v'",
        ),
    ],
)
def test_the_head_is_drawn_anew_for_other_classes(source, classes, note):
    spec, start, notes = fitted(source, settings(), images(classes))
    assert "fc" not in start["params"]
    assert any(note in line for line in notes)
    fresh = make_network(spec)[0](jax.random.key(0))
    merged = updates.replaced(fresh, start)
    chex.assert_trees_all_equal(merged["params"]["fc"], fresh["params"]["fc"])
    chex.assert_trees_all_equal(merged["batch_stats"], start["batch_stats"])
    chex.assert_trees_all_equal(merged["params"]["conv"], start["params"]["conv"])


def test_columns_of_the_head_follow_the_names_of_the_classes(source):
    spec, start, notes = fitted(source, settings(), images("caebd"))
    theirs = load_weights(source)[1]["params"]["fc"]
    for place, name in enumerate("caebd"):
        column = "abcde".index(name)
        np.testing.assert_array_equal(
            start["params"]["fc"]["kernel"][:, place], theirs["kernel"][:, column]
        )
        assert start["params"]["fc"]["bias"][place] == theirs["bias"][column]
    assert any("reordered by class name" in note for note in notes)
    assert spec["classes"] == list("caebd")


def test_numbers_for_names_say_nothing_and_names_in_another_order_are_mapped():
    assert class_names.order(list("012"), list("abc")) == [0, 1, 2]
    assert class_names.order(list("abc"), list("012")) == [0, 1, 2]
    assert class_names.order(list("cab"), list("abc")) == [1, 2, 0]
    # folders sorted as text
    there, here = list(map(str, range(12))), sorted(map(str, range(12)))
    assert [there[place] for place in class_names.order(there, here)] == here
    assert class_names.order(["caf\u00e9", "b"], ["b", "cafe\u0301"]) == [1, 0]
    assert class_names.order(list("abc"), list("abd")) is None
    assert class_names.order(list("aab"), list("aba")) is None
    assert class_names.difference(list("abc"), list("abd")) == "got 'c' instead of 'd'"


def test_another_network_is_refused_by_its_first_leaf(source):
    wide = settings()
    wide.model.options.channels = 16
    with pytest.raises(ValueError, match=r"source must .* its params/bn/bias is \[8\], not \[16\]"):
        fitted(source, wide, images("abcde"))
    other = settings(model__name="cifar_resnet")
    other.model.cifar_resnet.depth = 8
    with pytest.raises(ValueError, match=r"its params/bn1/bias is missing, which is \[16\] there"):
        fitted(source, other, images("abcde"))
    with pytest.raises(ValueError, match=r"trained on images with 1 channels, but .* have 3"):
        fitted(source, settings(), images("abcde", shape=(8, 8, 3)))
    # a network without fully connected layers before the pooling takes images of any size
    assert fitted(source, settings(), images("abcde", shape=(32, 24, 1)))[0]["shape"] == [32, 24, 1]
    variables = load_weights(source)[1]
    run.save_weights(source / run.WEIGHTS, variables | {"batch_stats": {}}, step=0)
    with pytest.raises(ValueError, match=r"its batch_stats/bn/mean is missing"):
        fitted(source, settings(), images("abcde"))
    variables["params"]["conv"]["kernel"][0, 0, 0, 0] = np.nan
    run.save_weights(source / run.WEIGHTS, variables, step=0)
    with pytest.raises(ValueError, match="its params/conv/kernel has values that are not finite"):
        fitted(source, settings(), images("abcde"))
    with pytest.raises(ValueError, match=r"config.model.init_from: none is not a run directory"):
        fitted("none", settings(), images("abcde"))


def test_the_head_is_what_depends_on_the_number_of_classes():
    spec = spec_of(settings(), images("abcde"))
    assert head_axes(spec) == {("params", "fc", "kernel"): (1,), ("params", "fc", "bias"): (0,)}


def test_sources_of_labels_start_where_the_student_starts_and_a_peer_does_not():
    _, start = jax.tree.map(jnp.asarray, frame.frozen("float64", name="linear"))
    for labels in ("mean_teacher", "peer"):
        recipe = frame.recipe(Case(labels, dtype="float64", network="linear", ema=0.9))
        state = steps.init_state(recipe, jax.random.key(3), start)
        chex.assert_trees_all_equal(state.params["model"], start["params"])
        chex.assert_trees_all_equal(state.ema, dict(start))
        if labels == "mean_teacher":
            chex.assert_trees_all_equal(state.labels["params"], start["params"])
        else:
            fresh = steps.init_state(recipe, jax.random.key(3))
            chex.assert_trees_all_equal(state.labels, fresh.labels)


def stepped(case, body, count, start=None):
    """The states from the initial one on, after each of `count` steps."""
    recipe = frame.recipe(case)._replace(body=body)
    states = [start or steps.init_state(recipe, jax.random.key(3), frame.frozen(case.dtype)[1])]
    step = jax.jit(steps.make_train_step(recipe))
    frozen = frame.frozen(case.dtype)
    for number in range(count):
        states.append(step(states[-1], frozen, frame.data(), frame.resident(number))[0])
    return jax.device_get(states)


def body_of(params):
    return {name: value for name, value in params.items() if name != "fc"}


def test_a_frozen_body_stays_as_it_is_while_the_head_and_auxiliaries_learn():
    case = Case("hard", dtype="float64", auxiliaries=("hint",), ema=0.9)
    before, one, two, three = stepped(case, Body(HEAD, 2, 1.0), 3)
    for state in (one, two):
        chex.assert_trees_all_equal(body_of(state.params["model"]), body_of(before.params["model"]))
        chex.assert_trees_all_equal(state.batch_stats, before.batch_stats)
        chex.assert_trees_all_equal(state.ema["batch_stats"], before.ema["batch_stats"])
        chex.assert_trees_all_equal(body_of(state.ema["params"]), body_of(before.ema["params"]))
    (momentum,) = [
        trace["model"] for trace in jax.tree.leaves(
            two.opt_state, is_leaf=lambda leaf: isinstance(leaf, dict) and "model" in leaf
        ) if isinstance(trace, dict)
    ]  # fmt: skip
    for leaf in jax.tree.leaves(body_of(momentum)):
        assert not leaf.any()
    assert momentum["fc"]["kernel"].any()
    assert (two.params["model"]["fc"]["kernel"] != one.params["model"]["fc"]["kernel"]).all()
    assert any(
        (a != b).any()
        for a, b in zip(
            *(jax.tree.leaves(s.params["auxiliary"]) for s in (before, one)), strict=True
        )
    )
    for old, new in (
        (two.params["model"], three.params["model"]),
        (two.batch_stats, three.batch_stats),
    ):
        changed = [
            (a != b).any() for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
        ]
        assert all(changed)


@pytest.mark.slow
def test_a_head_on_a_frozen_body_learns_from_the_network_that_is_evaluated():
    case = Case("hard", dtype="float64")
    before, after = stepped(case, Body(HEAD, 1, 1.0), 1)
    apply = frame.network("float64")[1]
    index = frame.resident(0)["index"]
    variables = {"params": before.params["model"], "batch_stats": before.batch_stats}
    outputs, _ = apply(variables, frame.data()["images"][index] / 255.0, train=False)
    error = frame.softmax(outputs.logits) - np.eye(frame.K)[frame.data()["labels"][index]]
    head = before.params["model"]["fc"]
    gradients = {
        "kernel": np.asarray(outputs.embedding).T @ error / frame.B,
        "bias": error.mean(0),
    }
    rate = float(frame.sgd()[0](0))
    for name, gradient in gradients.items():
        gradient = gradient + 5e-4 * head[name]
        # Nesterov's first step: the gradient, and 0.9 of the buffer that holds it
        expected = head[name] - rate * 1.9 * gradient
        np.testing.assert_allclose(after.params["model"]["fc"][name], expected, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_a_factor_slows_the_body_alone():
    case = Case("hard", dtype="float64")
    before, plain = stepped(case, None, 1)
    _, slow = stepped(case, Body(HEAD, 0, 0.25), 1)
    model = [state.params["model"] for state in (before, plain, slow)]
    chex.assert_trees_all_equal(model[1]["fc"], model[2]["fc"])
    moves = jax.tree.map(lambda a, b: 0.25 * (b - a), *map(body_of, model[:2]))
    found = jax.tree.map(lambda a, b: b - a, body_of(model[0]), body_of(model[2]))
    chex.assert_trees_all_close(found, moves, rtol=0, atol=1e-15)


def test_what_is_frozen_and_slowed_is_read_off_the_config():
    recipe = lambda **fields: build.make_experiment(settings(**fields), jax.devices()[:1]).recipe  # noqa: E731
    assert recipe().body is None
    assert recipe(train__freeze_epochs=1.5).body == Body(HEAD, 21, 1.0)
    assert recipe(optimizer__body_factor=0.1).body == Body(HEAD, 0, 0.1)
    # whole updates of two steps, seven of them in an epoch
    made = recipe(train__freeze_epochs=0.5, optimizer__accumulate=2)
    assert made.body.freeze_steps == 8
    for value in (0.0, -1.0):
        with pytest.raises(ValueError, match="body_factor must be "):
            config.check(settings(optimizer__body_factor=value))
    with pytest.raises(ValueError, match=r"train.freeze_epochs must be at least 0"):
        config.check(settings(train__freeze_epochs=-1.0))


def test_new_fields_leave_identities_as_they_were():
    plain = config.decisive(settings())
    assert not {"model.init_from", "train.freeze_epochs", "optimizer.body_factor"} & set(plain)
    tuned = config.decisive(settings(model__init_from="runs/x", train__freeze_epochs=1.0))
    assert tuned == plain | {"model.init_from": "x", "train.freeze_epochs": 1.0}


@pytest.mark.slow
def test_a_fine_tuned_run_starts_there_resumes_bitwise_and_knows_its_weights(tmp_path, capsys):
    digits = build.make_dataset(settings().data)
    source = written(tmp_path / "source", settings(), digits._replace(mean=(0.4,)))
    fields = {"model__init_from": str(source), "train__freeze_epochs": 1.0, "optimizer__ema": 0.9}
    c = settings(**fields, labels__name="teacher", teachers=(str(source),))
    devices = jax.devices()[:1]
    made = build.make_experiment(c, devices)
    assert made.spec["mean"] == [0.4]
    state = fresh_state(made)
    chex.assert_trees_all_equal(
        jax.device_get(state.params["model"]), load_weights(source)[1]["params"]
    )
    compiled = {}
    train.train(c, tmp_path / "whole", devices=devices, compiled=compiled)
    assert f"model.init_from: weights and statistics start from {source}" in capsys.readouterr().out
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    for path in (tmp_path / "again").glob("checkpoints/28*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in (run.WEIGHTS, run.SUMMARY):
        (tmp_path / "again" / name).unlink()
    train.train(c, tmp_path / "again", devices=devices, compiled=compiled)
    for name in (run.WEIGHTS, run.METRICS):
        ours, theirs = tmp_path / "again" / name, tmp_path / "whole" / name
        if name == run.METRICS:
            assert ours.read_text() == theirs.read_text()
        else:
            chex.assert_trees_all_equal(run.read_weights(ours)[0], run.read_weights(theirs)[0])
    # other weights under the same path
    written(source, settings(), digits._replace(mean=(0.4,)), seed=4)
    with pytest.raises(ValueError, match=r"contents of .*model.init_from = .* are different"):
        train.train(c, tmp_path / "whole", devices=devices)


def test_a_teacher_is_mapped_by_name_or_refused(source):
    image = np.random.default_rng(0).random((2, 8, 8, 1))
    spec = spec_of(settings(), images("abcde"))
    plain = load_teacher(source, spec)
    assert plain.note == ""
    logits = plain.apply(plain.variables, image).logits
    other = load_teacher(source, spec | {"classes": list("caebd")})
    assert "class name" in other.note
    order = ["abcde".index(name) for name in "caebd"]
    np.testing.assert_array_equal(
        other.apply(other.variables, image).logits, np.asarray(logits)[:, order]
    )
    for classes in (list("01234"), list("abcde")):
        unnamed = load_teacher(source, spec | {"classes": classes})
        np.testing.assert_array_equal(unnamed.apply(unnamed.variables, image).logits, logits)
    with pytest.raises(
        ValueError, match=r"must have the student's classes, got 'a', 'b' instead of 'x', 'y'$"
    ):
        load_teacher(source, spec | {"classes": list("cdexy")})


def test_an_imported_network_is_a_start(tmp_path):
    c = settings(model__mean=(0.3,), model__std=(0.2,))
    draw = np.random.default_rng(0)
    state = {name: draw.random(8) + 0.5 for name in ("bn.weight", "bn.bias", "bn.running_mean")}
    state |= {"bn.running_var": draw.random(8) + 0.5, "conv.weight": draw.random((8, 1, 3, 3))}
    state |= {"fc.weight": draw.random((5, 8)), "fc.bias": draw.random(5)}
    path = files.write_npz(tmp_path / "w.npz", **{f"net.{name}": x for name, x in state.items()})
    convert.import_run(path, c, tmp_path / "run", classes=5, shape=(8, 8, 1))
    assert "imported" in json.loads((tmp_path / "run" / run.NETWORK).read_text())
    _, start, notes = fitted(tmp_path / "run", settings(), images("abcde"))
    np.testing.assert_array_equal(
        start["params"]["fc"]["bias"], state["fc.bias"].astype(np.float32)
    )
    assert any("the head is kept" in note for note in notes)
