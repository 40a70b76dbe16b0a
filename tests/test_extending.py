"""docs/extending.md: its plugs of every kind train together, and each computes what it says."""

import importlib
import json
import re
import sys
from pathlib import Path

import frame
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ldl_jax
from ldl_jax import config, workdir
from ldl_jax.augment.base import Pixels
from ldl_jax.contract import Outputs
from ldl_jax.data.base import Request
from ldl_jax.evaluation.load import load_weights
from ldl_jax.main import main, parse
from ldl_jax.metrics.base import Seen

ROOT = Path(__file__).parent.parent
SECTIONS = (ROOT / "docs" / "extending.md").read_text().split("\n## ")


def examples():
    """{name: source} of the page's modules: the first block of each section that names a file."""
    found = {}
    for section in SECTIONS:
        named = re.match(r".*?`mine/(\w+)\.py`.*?```python\n(.*?)```", section, re.DOTALL)
        if named:
            found[named[1]] = named[2]
    return found


MODULES = examples()


@pytest.fixture
def mine(save):
    """The module of the page with a name, imported."""
    folder = save(**MODULES)
    sys.path.append(str(folder))
    return lambda name: importlib.import_module(f"mine.{name}")


def test_there_is_one_of_every_kind():
    assert set(MODULES) == {
        "memory", "squared", "penalty", "halves", "brightness", "stripes", "margin", "small", "shrink",
    }  # fmt: skip


FLAGS = {
    "data.name": "mine.stripes",
    "data.mine.stripes.noise": "30.0",
    "data.batch_size": "16",
    "data.holdout": "16",
    "model.name": "mine.small",
    "model.options.width": "4",
    "labels.name": "blend",
    "labels.blend.parts": "('hard','mine.memory')",
    "labels.mine.memory.share": "0.4",
    "losses.name": "mine.squared",
    "auxiliary.names": "mine.penalty",
    "auxiliary.mine.penalty.decay": "0.5",
    "mixing.name": "mine.halves",
    "augment.names": "mine.brightness",
    "augment.mine.brightness.strength": "0.1",
    "eval.metrics": "mine.margin",
    "eval.report": "False",
    "train.max_steps": "2",
}


@pytest.mark.slow
def test_they_train_together_and_resume(save, tmp_path, capsys):
    save(**MODULES)
    argv = [f"--config={ROOT / 'configs' / 'digits_online.py'}", f"--workdir={tmp_path / 'run'}"]
    argv += [f"--config.{field}={value}" for field, value in FLAGS.items()]
    assert main(argv) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert re.search(r"^margin +-?0?\.\d+", said, re.MULTILINE), said

    # The checkpoint holds the states of plugs with dotted names.
    run = tmp_path / "run"
    assert main([*argv[:-1], "--config.train.max_steps=3", "--extend"]) == 0
    assert "resuming at step 2" in capsys.readouterr().out
    rows = [row for row in workdir.read_log(run / "metrics.jsonl") if "test/nll" in row]
    assert 0.5 <= rows[-1]["auxiliary/mine.penalty/confidence"] / (1 - 0.5**3) <= 1
    assert "labels/mine.memory/rows_written" in rows[-1]

    stored = config.from_json((run / "config.json").read_text())
    assert stored.labels.mine.memory.to_dict() == {"share": 0.4, "momentum": 0.9}
    assert stored.auxiliary.mine.penalty.to_dict() == {
        "weight": 0.1, "decay": 0.5, "start_epoch": 0.0, "ramp_epochs": 0.0,
    }  # fmt: skip
    with np.load(run / "predictions" / "test.npz") as file:
        probs = frame.softmax(file["logits"])
        label = file["label"]
    own = np.eye(2, dtype=bool)[label]
    margin = (probs[own] - probs[~own]).mean()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["splits"]["test"]["margin"] == pytest.approx(margin, abs=1e-6)
    assert rows[-1]["test/margin"] == pytest.approx(margin, abs=1e-6)

    # One's own run is read without a question, until the source of a module is another one.
    assert parse(["--mode=eval", f"--workdir={run}"])[1].config.losses.name == "mine.squared"
    assert load_weights(run)[0]["model"]["name"] == "mine.small"
    save(squared=MODULES["squared"] + "\n")
    assert main(["--mode=eval", f"--workdir={run}"]) == 2
    assert "losses.name is 'mine.squared', a module" in (refused := capsys.readouterr().err)
    assert "its source has changed since you trained or trusted this run; pass --trust" in refused


def test_the_memory_is_the_average_of_the_predictions(mine):
    build = frame.plain_build()
    source = mine("memory").make(build, share=0.25, momentum=0.75)
    draw = np.random.default_rng(0)
    label = np.array([0, 1, 4])
    batch = frame.plain_batch(label, index=[3, 5, 7])
    state = source.init(jax.random.key(0), None)
    hard = np.eye(frame.K)[label]
    (target,) = source.targets(state, batch, frame.says(np.zeros((3, frame.K))))
    np.testing.assert_array_equal(target.probs, hard)
    logits = draw.normal(size=(2, 3, frame.K))
    for one in logits:
        state = source.update(state, batch, frame.after(one))
    (target,) = source.targets(state, batch, frame.says(logits[0]))
    first, second = frame.softmax(logits[0]), frame.softmax(logits[1])
    average = (0.75 * 0.25 * first + 0.25 * second) / (0.75 * 0.25 + 0.25)
    np.testing.assert_allclose(target.probs, 0.75 * hard + 0.25 * average, rtol=1e-6)
    assert source.report(state)["rows_written"] == 3


def test_the_loss_is_the_squared_distance(mine):
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(6, 4))
    probs = draw.dirichlet(np.ones(4), 6)
    expected = 3 * ((frame.softmax(logits) - probs) ** 2).sum(1)
    np.testing.assert_allclose(mine("squared").make(scale=3.0)(logits, probs), expected, rtol=1e-12)


def test_the_penalty_is_the_negative_entropy_and_its_state_the_confidence(mine):
    made = mine("penalty").make(frame.plain_build(), weight=2.0, decay=0.75)
    logits = np.random.default_rng(0).normal(size=(4, frame.K))
    mask = np.array([1, 1, 0, 1.0])
    batch = frame.plain_batch([0, 1, 2, 3], mask=mask)
    params, state = made.init(jax.random.key(0))
    outputs = Outputs(jnp.asarray(logits)[None], (), None)
    loss, state = made.loss(params, state, batch, outputs, ())
    probs = frame.softmax(logits)
    entropy = -(probs * np.log(probs)).sum(1)
    np.testing.assert_allclose(made.weight * loss, -2 * entropy[mask > 0].mean(), rtol=1e-6)
    expected = 0.25 * probs.max(1)[mask > 0].mean()
    np.testing.assert_allclose(made.report(state)["confidence"], expected, rtol=1e-6)


def test_the_mixed_images_are_two_halves(mine):
    image = np.random.default_rng(0).random((2, 3, 4, 8, 1))
    mixed, partner, share = mine("halves").make(part=0.25).mix(jax.random.key(0), image)
    np.testing.assert_array_equal(mixed[..., :6, :], image[..., :6, :])
    np.testing.assert_array_equal(mixed[..., 6:, :], np.roll(image, 1, axis=1)[..., 6:, :])
    np.testing.assert_allclose(share, [[0.75, 0.25]] * 3)
    np.testing.assert_array_equal(partner, [[0, 2], [1, 0], [2, 1]])


def test_the_brightness_is_a_factor(mine):
    change = mine("brightness").make(Pixels((4, 4, 1), (0.5,)), strength=0.5)
    image = np.random.default_rng(0).random((4, 4, 1)) / 2
    factors = []
    for seed in range(8):
        ratio = np.asarray(change(jax.random.key(seed), jnp.asarray(image))) / image
        np.testing.assert_allclose(ratio, ratio[0, 0, 0], rtol=1e-6)
        factors.append(ratio[0, 0, 0])
    assert 0.5 <= min(factors) < 1 < max(factors) <= 1.5


def test_the_stripes_are_told_apart_by_their_direction(mine):
    made = mine("stripes").make(Request(), size=6)
    images = made.test.images[..., 0].astype(float)
    across = np.abs(np.diff(images, axis=1)).mean((1, 2))
    along = np.abs(np.diff(images, axis=2)).mean((1, 2))
    np.testing.assert_array_equal((across < along).astype(int), made.test.labels)
    assert (made.train.num_examples, made.test.num_examples) == (64, 32)


def test_the_margin_adds_up_over_batches(mine):
    metric = mine("margin").make(4)
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(10, 4))
    label = draw.integers(0, 4, 10)
    parts = []
    for part in (slice(6), slice(6, 10)):
        parts.append(metric.sums(logits[part], Seen(label[part], np.ones(len(label[part])))))
    total = jax.tree.map(lambda *sums: sum(sums), *parts)
    probs = frame.softmax(logits)
    own = np.eye(4, dtype=bool)[label]
    expected = probs[own] - np.where(own, 0, probs).max(1)
    np.testing.assert_allclose(metric.value(total)["margin"], expected.mean(), rtol=1e-5)


def test_the_shrinkage_and_the_margin_measure_arrays(mine):
    mine("shrink")
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(200, 3))
    label = np.array([draw.choice(3, p=row) for row in frame.softmax(logits)])
    logits = 4 * logits  # overconfident
    probs = frame.softmax(logits)
    weights = np.arange(100) / 100
    nll = [-np.log((1 - w) * probs + w / 3)[np.arange(200), label].mean() for w in weights]
    fitted = ldl_jax.calibrate.fit("mine.shrink", logits=logits, labels=label)
    best = weights[np.argmin(nll)]
    assert fitted.params == {"weight": pytest.approx(best)}
    np.testing.assert_allclose(fitted(logits), (1 - best) * probs + best / 3, rtol=1e-9)
    result = ldl_jax.measure(
        logits=logits,
        labels=label,
        val=(logits, label),
        calibrator="mine.shrink",
        metrics=("mine.margin",),
    )
    own = np.eye(3, dtype=bool)[label]
    margin = (probs[own] - np.where(own, 0, probs).max(1)).mean()
    assert result.raw["margin"].value == pytest.approx(margin, abs=1e-6)
    assert result.scaled["margin"].value == pytest.approx((1 - best) * margin, abs=1e-6)
    assert "margin" in repr(result)
