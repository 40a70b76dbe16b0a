"""Stored distributions: what the command writes, that training repeats the very views, and what is
refused.
"""

import json
import re

import frame
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frame import softmax

from ldl_jax import config, main, store
from ldl_jax.contract import Stored
from ldl_jax.data import stored_rows
from ldl_jax.evaluation.load import load
from ldl_jax.labels.base import dense_rows
from ldl_jax.training import examples, experiment

TINY = (
    "--config.model.name=tests.tiny", "--config.data.examples=96", "--config.data.holdout=32",
    "--config.data.batch_size=32", "--config.train.epochs=2", "--config.eval.report=False",
    "--config.augment.pad=2", "--config.augment.flip=True", "--config.seed=3",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run with an online memory."""
    path = tmp_path_factory.mktemp("store") / "run"
    flags = [*TINY, "--config.labels.name=online", f"--workdir={path}"]
    assert main.main(["--config=digits_online", *flags]) == 0
    return path


def stored(run, name, *words):
    out = run.parent / f"{name}.npz"
    if not out.exists():
        assert store.main([str(run), f"--out={out}", *words]) == 0
    return out


def student(out, **fields):
    c = config.read(str(out.parent / "run" / "config.json"))
    c.labels.name, c.data.train_store = "stored", str(out)
    for field, value in fields.items():
        config.set_field(c, field.replace("__", "."), value)
    return c


def prepared(made, step, seed=0):
    """The batch that a step works on, of the first images."""
    split = made.dataset.train
    data = {"images": split.images, "labels": split.labels, "given": split.given}
    data["key"] = jax.random.key(seed)
    batch = {"index": np.arange(32, dtype=np.int32) * 3}
    return examples.prepare(made.recipe, (), data, batch, jnp.asarray(step, jnp.int32))


@pytest.mark.slow
@pytest.mark.parametrize("mixing", ["none", "cutmix"])
def test_training_sees_the_very_views_that_were_stored(run, mixing):
    """The network on the student's own images gives the stored rows, whatever the student's seed."""
    out = stored(run, "whole", "--views=3", "--dtype=float32", "--temperature=2")
    made = experiment.make_experiment(student(out, seed=8, mixing__name=mixing), jax.devices()[:1])
    model = load(run)
    per_epoch = made.recipe.build.steps_per_epoch
    seen = []
    for epoch in (0, 1, 2, 3):
        batch = prepared(made, epoch * per_epoch, seed=8)
        views = examples.draw_views(
            examples.draw_key(jax.random.key(3), epoch % 3), made.recipe.augment,
            examples.scaled(jnp.asarray(made.dataset.train.images[batch.index]), jnp.float32), batch.index,
        )  # fmt: skip
        if mixing == "none":
            np.testing.assert_allclose(batch.image[0], views[0], atol=1e-6)
        logits = model.apply(model.variables, views[0]).logits
        (target,) = made.recipe.source.targets((), batch, frame.says(logits))
        assert not target.mixed
        np.testing.assert_allclose(target.probs, softmax(np.asarray(logits) / 2), atol=2e-6)
        seen.append(np.asarray(target.probs))
    np.testing.assert_array_equal(seen[0], seen[3])
    assert np.abs(seen[0] - seen[1]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("remainder", stored_rows.REMAINDERS)
def test_the_most_probable_classes_are_kept_and_the_distance_is_told(run, dtype, remainder, capsys):
    capsys.readouterr()
    words = ("--topk=3", f"--dtype={dtype}", f"--remainder={remainder}", "--views=2")
    out = stored(run, f"top-{dtype}-{remainder}", *words)
    said = capsys.readouterr().out
    whole = stored(run, "whole2", "--dtype=float32", "--views=2")
    classes, probs, header = stored_rows.read(out)
    all_classes, all_probs, _ = stored_rows.read(whole)
    full = np.zeros(all_probs.shape)
    np.put_along_axis(full, all_classes.astype(int), all_probs.astype(np.float64), 2)
    np.testing.assert_array_equal(classes, all_classes[:, :, :3])
    kept = probs.astype(np.float64) * stored_rows.SCALES[dtype]
    errors = {"float32": 1e-7, "float16": 5e-4, "uint8": 0.5 / 255 + 1e-3}
    np.testing.assert_allclose(kept, all_probs[:, :, :3], atol=errors[dtype])
    # What training makes of them, by numpy.
    rows = np.zeros(full.shape)
    if remainder == "spread":
        rows += np.maximum(1 - kept.sum(2, keepdims=True), 0) / (full.shape[2] - 3)
    np.put_along_axis(rows, classes.astype(int), kept.astype(np.float64), 2)
    rows /= rows.sum(2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        kl = np.where(rows > 0, rows * np.log(rows / full), 0).sum(2)
    assert header["kl"] == pytest.approx(kl.mean(), rel=1e-3, abs=1e-6)
    told = float(re.search(r"mean (\S+) nat", said)[1])
    assert told == pytest.approx(kl.mean(), rel=1e-2, abs=1e-6)
    assert f"{out.stat().st_size:,} bytes" in said
    known = Stored(2, 0, stored_rows.SCALES[dtype], remainder == "spread")
    found = dense_rows(jnp.asarray(classes[:, 0]), jnp.asarray(probs[:, 0]), known, full.shape[2])
    np.testing.assert_allclose(found, rows[:, 0], atol=1e-6)


@pytest.mark.slow
def test_a_run_learns_from_the_file_without_the_teacher(run, tmp_path):
    out = stored(run, "whole", "--views=3", "--dtype=float32", "--temperature=2")
    flags = [*TINY, "--config.labels.name=stored", f"--config.data.train_store={out}"]
    work = tmp_path / "student"
    assert main.main(["--config=digits_online", *flags, f"--workdir={work}"]) == 0
    summary = json.loads((work / "summary.json").read_text())
    assert summary["finished"]
    # Resuming with other distributions under the same name is refused.
    recorded = json.loads((work / "versions.json").read_text())
    assert "train_store" in json.dumps(recorded)


@pytest.mark.slow
def test_a_memory_becomes_a_table(run, tmp_path, capsys):
    out = tmp_path / "memory.npz"
    assert store.main([str(run), f"--out={out}", "--memory"]) == 0
    assert "64 written" in capsys.readouterr().out
    with np.load(out) as file:
        probs = file["probs"]
    made = experiment.make_experiment(config.read(str(run / "config.json")), jax.devices()[:1])
    assert probs.shape == (made.dataset.train.num_examples, 10)
    np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-6)
    hard = np.eye(10)[made.dataset.train.labels]
    learned = np.abs(probs - hard).max(1) > 0
    np.testing.assert_array_equal(np.flatnonzero(learned), made.train)
    c = config.read(str(run / "config.json"))
    c.labels.name, c.data.train_table = "table", str(out)
    c.data.table_name = "probs"
    table = experiment.make_experiment(c, jax.devices()[:1]).dataset.train.given["table"]
    np.testing.assert_allclose(table, probs, rtol=1e-6)


# ---- what is refused


def file(path, **changes):
    """A small file, or one that somebody has changed."""
    classes = np.tile(np.array([[1, 0], [2, 1]], np.uint8), (5, 1, 1))
    probs = np.full(classes.shape, 0.5, np.float16)
    header = {
        "views": 2, "seed": 0, "remainder": "spread", "classes": ["a", "b", "c"], "images": "x", "mean": [0.5],
        "augment": {"augment.pad": 4},
    }  # fmt: skip
    arrays = {name: changes.pop(name) for name in ("classes_", "probs_") if name in changes}
    classes, probs = arrays.get("classes_", classes), arrays.get("probs_", probs)
    stored_rows.write(path, classes, probs, {**header, **changes})
    return path


def test_a_file_is_read_as_it_was_written(tmp_path):
    classes, probs, header = stored_rows.read(file(tmp_path / "x.npz"))
    assert (classes.dtype, probs.dtype, header["views"]) == (np.uint8, np.float16, 2)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"views": 3}, "the arrays of .* do not fit each other"),
        ({"views": "2"}, "views"),
        ({"remainder": "all"}, "the arrays of .* do not fit each other"),
        ({"classes": ["a"]}, "the arrays of .* do not fit each other"),
        ({"probs_": np.full((5, 2, 2), np.nan, np.float16)}, "do not fit each other"),
        ({"probs_": np.full((5, 2, 2), -1, np.float32)}, "do not fit each other"),
        ({"probs_": np.zeros((5, 2, 2), np.float32)}, "a view without a probability above 0"),
        ({"probs_": np.full((5, 2, 2), 0.5)}, "do not fit each other"),
        ({"classes_": np.full((5, 2, 2), 7, np.uint8)}, "do not fit each other"),
        ({"version": 2}, "must have version 1 of the format, got 2"),
        ({"format": "other"}, "must be an .npz that python -m ldl_jax.store wrote"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_its_name(tmp_path, changes, sentence):
    path = file(tmp_path / "x.npz", **changes)
    with pytest.raises(ValueError, match=sentence) as told:
        stored_rows.read(path)
    assert "x.npz" in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("kept", [0, 40, 0.5, -1])
def test_a_file_that_was_cut_or_changed_is_refused(tmp_path, kept):
    path = file(tmp_path / "x.npz")
    content = bytearray(path.read_bytes())
    if kept == -1:
        place = content.index(np.full((5, 2, 2), 0.5, np.float16).tobytes()[:8])
        content[place] ^= 1
    else:
        content = content[: int(len(content) * kept) if kept == 0.5 else kept]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.npz") as told:
        stored_rows.read(path)
    assert "\n" not in str(told.value)


@pytest.mark.slow
def test_a_file_of_other_images_or_augmentation_is_refused(run, tmp_path):
    out = stored(run, "whole2", "--dtype=float32", "--views=2")

    def refused(sentence, c):
        with pytest.raises(ValueError, match=sentence) as told:
            experiment.make_experiment(c, jax.devices()[:1])
        assert "\n" not in str(told.value)

    refused(r"another augmentation \(config\.augment\.pad 2, not 3\)", student(out, augment__pad=3))
    refused("set config.data.resident=True", student(out, data__resident=False))
    refused("labels 'stored' needs a file", student(out, data__train_store=""))
    images = np.zeros((1437, 8, 8, 1), np.uint8)
    labels = np.arange(1437) % 10
    train = {"train_images": images, "train_labels": labels}
    test = {"test_images": images[:50], "test_labels": labels[:50]}
    np.savez(tmp_path / "other.npz", **train, **test)
    fields = {"data__name": "arrays", "data__root": str(tmp_path / "other.npz")}
    refused("made from other training images", student(out, **fields))


def test_the_command_refuses_what_it_cannot_do(tmp_path, capsys):
    out = tmp_path / "x.npz"
    for words, sentence in (
        (["--views=0"], "--views must be at least 1, got 0"),
        (["--temperature=0"], "--temperature must be finite and above 0, got 0.0"),
        (["--temperature=nan"], "--temperature must be finite and above 0, got nan"),
        (["--dtype=int8"], "invalid choice"),
        ([], "is not a run directory"),
    ):
        assert store.main([str(tmp_path), f"--out={out}", *words]) == 2
        assert sentence in capsys.readouterr().err
    out.touch()
    assert store.main([str(tmp_path), f"--out={out}"]) == 2
    assert "exists already; pass --overwrite" in capsys.readouterr().err
    assert store.main([str(tmp_path), f"--out={tmp_path / 'x.csv'}"]) == 2
    assert "--out must end in .npz" in capsys.readouterr().err


@pytest.mark.slow
def test_more_classes_than_there_are_cannot_be_kept(run, tmp_path, capsys):
    assert store.main([str(run), f"--out={tmp_path / 'x.npz'}", "--topk=11"]) == 2
    assert "--topk must be between 1 and 10" in capsys.readouterr().err
    assert not (tmp_path / "x.npz").exists()
