"""The public names: training from Python, on arrays in memory, and the examples of all of them."""

import asyncio
import doctest
import json
import pkgutil
import signal
import subprocess
import sys
import threading
import tomllib
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

import ldl_jax as ldl
from ldl_jax import config, workdir
from ldl_jax.config import recipes
from ldl_jax.data import in_memory
from ldl_jax.main import main
from ldl_jax.signals import Interrupted
from ldl_jax.training import loop
from ldl_jax.training.run import Run

ROOT = Path(__file__).parent.parent
DRAW = np.random.default_rng(0)
LABELS = np.arange(128) % 4
IMAGES = np.uint8(60 * LABELS[:, None, None, None] + DRAW.integers(0, 20, (128, 8, 8, 1)))
DATA = (IMAGES, LABELS, IMAGES[:40], LABELS[:40])
CLASSES = ("north", "east", "south", "west")
FIELDS = {
    "model.name": "tests.tiny",
    "data.batch_size": np.int64(32),
    "data.holdout": 32,
    "train.epochs": 2,
    "eval.report": False,
}


def go(folder, data=DATA, settings="digits_online", fields=FIELDS, **options):
    options = {"data": data, "classes": CLASSES, "devices": jax.devices()[:1]} | options
    return ldl.train(settings, workdir=folder, overrides=fields, **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on arrays in memory, trained in the main thread; signals are as before."""
    before = signal.getsignal(signal.SIGTERM)
    made = go(str(tmp_path_factory.mktemp("api") / "run"))
    assert signal.getsignal(signal.SIGTERM) is before
    return made


def test_a_run_on_arrays_has_a_directory_a_summary_and_a_network(run):
    assert run.finished
    assert run.summary == json.loads((run.workdir / workdir.SUMMARY).read_text())
    assert run.model is run.model
    probs = run.model.predict_proba(IMAGES[:40], calibrated=False)
    accuracy = np.mean(probs.argmax(1) == LABELS[:40])
    assert run.summary["splits"]["test"]["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert run.model.classes == CLASSES
    assert f"{100 * accuracy:.2f}" in repr(run)
    assert "in_memory, labels online, 6 steps (2 epochs)" in repr(run)
    assert "<table>" in run._repr_html_()
    stored = config.read(run.workdir / workdir.CONFIG)
    assert (stored.data.name, stored.data.root, stored.train.epochs) == ("in_memory", "", 2.0)
    (start,) = json.loads((run.workdir / workdir.VERSIONS).read_text())["starts"]
    assert list(start["inputs"]) == ["data.root = arrays in memory"]


def test_a_run_is_resumed_with_the_same_arrays_alone_and_by_no_command(run, capsys):
    before = (run.workdir / workdir.CONFIG).read_bytes()
    stored = run.workdir / workdir.CONFIG
    changed = (IMAGES, LABELS, IMAGES[:40], LABELS[1:41])
    with pytest.raises(ValueError, match=r"the contents of \['data.root = arrays in memory'\] are"):
        go(None, changed, stored, {})
    brighter = (IMAGES + 1, *DATA[1:])
    with pytest.raises(ValueError, match="was started with other data: mean was"):
        go(None, brighter, stored, {})
    with pytest.raises(ValueError, match=r"classes was .*'north'"):
        go(None, DATA, stored, {}, classes=None)
    for argv in ([f"--workdir={run.workdir}"], [f"--workdir={run.workdir}", "--mode=eval"]):
        assert main(argv) == 2
        assert "arrays in a Python program, which no file holds" in capsys.readouterr().err
    assert stored.read_bytes() == before


@pytest.mark.slow
def test_a_thread_and_a_notebook_s_loop_resume_the_run_as_the_main_thread_does(run):
    before = (run.workdir / workdir.METRICS).read_text()
    found = []

    async def cell():
        found.append(go(None, settings=run.workdir / workdir.CONFIG, fields={}))

    thread = threading.Thread(target=lambda: asyncio.run(cell()))
    thread.start()
    thread.join()
    assert found[0].workdir == run.workdir
    assert found[0].summary == run.summary
    assert (run.workdir / workdir.METRICS).read_text() == before


def test_a_run_that_was_terminated_says_so(tmp_path, monkeypatch):
    def stop(*given, **options):
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(loop, "train", stop)
    made = go(tmp_path)
    assert not made.finished
    assert "terminated before its end; train again to resume" in repr(made)
    assert "terminated" in made._repr_html_()
    with pytest.raises(ValueError, match="is not a run directory"):
        _ = made.model


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_raised_as_it_is(tmp_path):
    fields = {**FIELDS, "optimizer.learning_rate": 1e30, "optimizer.warmup_epochs": 0.0}
    with pytest.raises(loop.NonFinite):
        go(tmp_path / "run", fields=fields)


WRONG = {
    "no field": ({"train.epoch": 1}, r"config.train has no field 'epoch'; .*did you mean"),
    "a type": ({"train.epochs": "many"}, "config.train.epochs cannot be 'many'"),
    "a range": ({"seed": -1}, "config.seed must be between 0 and 4294967295, got -1"),
    "a name": ({"labels.name": "onlin"}, "config.labels.name must be one of .* got 'onlin'"),
    "a block": ({"train": {"epochs": 1}}, "config.train is a block of fields; set train.NAME"),
    "data.name": ({"data.name": "digits"}, "config.data.name must not be set with data="),
    "a batch": (
        {"data.batch_size": 512, "data.holdout": 16},
        "config.data.batch_size must be at most",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_overrides_are_refused_with_the_sentences_of_flags(case, tmp_path):
    fields, sentence = WRONG[case]
    with pytest.raises(ValueError, match=sentence):
        go(tmp_path / "run", fields=FIELDS | fields)
    assert not (tmp_path / "run").exists()


def test_what_cannot_name_or_train_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--config digits_onlin does not exist; similar configs"):
        ldl.train("digits_onlin")
    with pytest.raises(ValueError, match="workdir must be given with a ConfigDict"):
        ldl.train(config.read("digits_online"))
    with pytest.raises(ValueError, match="classes must be given with data="):
        ldl.train("digits_online", classes=CLASSES, workdir=tmp_path)


def test_the_directory_and_the_caller_s_config_are_those_of_the_command(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(loop, "train", lambda c, folder, **options: given.append((c, folder)))
    ldl.train("digits_online", overrides={"config.seed": 3, "optimizer.boundaries": [1.0]})
    c = config.read("digits_online")
    ldl.train(c, workdir=tmp_path, overrides={"seed": 4, "data.root": Path("x")})
    assert [folder for _, folder in given] == [Path("runs/digits_online-seed3"), tmp_path]
    assert given[0][0].optimizer.boundaries == (1.0,)
    assert (given[1][0].seed, given[1][0].data.root, c.seed) == (4, "x", 0)


FLOATS = IMAGES / 255
CONFUSED = {  # place in `data`, what is passed there, the sentence
    "channels first": (0, IMAGES.transpose(0, 3, 1, 2), "look channels-first, pass images.transp"),
    "floats": (0, FLOATS, r"images must be uint8 .* got float64 from 0 to .*; pass \(images \* 255"),
    "0 to 255": (2, IMAGES[:40].astype(int), "test_images must be uint8 .* pass test_images.round"),
    "negative": (0, FLOATS - 1, r"images must be uint8 from 0 to 255, got float64 from -1 to"),
    "no channels": (0, IMAGES[..., 0], r"images must have shape \[N, H, W, C\], .* images\[\.\.\., None"),
    "none": (2, IMAGES[:0], r"test_images must have shape \[N, H, W, C\], got uint8\[0, 8, 8, 1\]"),
    "smaller": (2, IMAGES[:40, 1:], r"\[8, 8, 1\] each, got \[7, 8, 1\]"),
    "from one": (1, LABELS + 1, "labels must count from 0, got 1 to 4; pass labels - 1"),
    "test from one": (3, LABELS[:40] + 1, "test_labels must be from 0 to 3, .* they count from 1"),
    "one-hot": (1, np.eye(4)[LABELS], r"labels must have shape \[128\], .* look one-hot"),
    "nan": (1, np.where(LABELS == 2, np.nan, LABELS), "numbers from 0 to 3 .* got nan in row 2"),
    "ids": (1, LABELS * 1000, "labels must be class numbers from 0, got 0 to 3000 for 128 images"),
    "too few": (1, LABELS[:100], "one class number for each of 128 images, got int64"),
    "halves": (1, LABELS + 0.5, "labels must be whole numbers from 0 to 3 for 4 classes, got 0.5"),
    "beyond": (3, LABELS[:40] + 4, "test_labels must be whole numbers from 0 to 3"),
    "text": (1, LABELS.astype(str), "labels must be an array of numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", CONFUSED)
def test_arrays_that_cannot_be_images_or_labels_are_told(case):
    place, array, sentence = CONFUSED[case]
    data = [*DATA[:place], array, *DATA[place + 1 :]]
    with pytest.raises(ValueError, match=sentence):
        in_memory.dataset(data)


def test_data_are_four_arrays_and_class_names_differ():
    for data, found in ((DATA[:2], "tuple of 2"), (IMAGES, "ndarray of 128"), (7, "int")):
        with pytest.raises(ValueError, match=rf"data must be \(images, .*, got {found}"):
            in_memory.dataset(data)
    with pytest.raises(ValueError, match="classes must be different names"):
        in_memory.dataset(DATA, ["a", "a", "b", "c"])
    with pytest.raises(ValueError, match="labels must be whole numbers from 0 to 2"):
        in_memory.dataset(DATA, ["a", "b", "c"])


def test_the_digest_depends_on_every_array_and_on_the_names_of_classes():
    made = in_memory.dataset(DATA)
    pixels = IMAGES / 255
    np.testing.assert_allclose(made.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(made.std, pixels.std((0, 1, 2)), rtol=1e-12)
    assert made.classes == ("0", "1", "2", "3")
    digests = {made.digest, in_memory.dataset(DATA, CLASSES).digest}
    for place, array in enumerate(DATA):
        other = array.copy()
        other[0], other[1] = array[1], array[0]
        digests.add(in_memory.dataset([*DATA[:place], other, *DATA[place + 1 :]]).digest)
    assert len(digests) == 6
    # Neither the type of the labels nor the layout in memory is part of the data.
    same = (np.asfortranarray(IMAGES), LABELS.astype(float), IMAGES[:40].tolist(), LABELS[:40])
    with pytest.raises(ValueError, match="test_images must be uint8"):
        in_memory.dataset(same)
    same = (*same[:2], jax.numpy.asarray(IMAGES[:40]), same[3])
    assert in_memory.dataset(same).digest == made.digest


def test_tensors_and_frames_are_data_as_well():
    torch = pytest.importorskip("torch")
    pandas = pytest.importorskip("pandas")
    data = (torch.tensor(IMAGES), torch.tensor(LABELS), IMAGES[:40], pandas.Series(LABELS[:40]))
    assert in_memory.dataset(data).digest == in_memory.dataset(DATA).digest


@pytest.mark.slow
def test_the_public_names_stay_callable_whatever_is_imported():
    code = """
import importlib, pkgutil
import ldl_jax

def check():
    for name in ldl_jax.__all__:
        value = getattr(ldl_jax, name)
        assert callable(value) or name in ("calibrate", "config"), (name, value)
    assert callable(ldl_jax.calibrate.fit) and callable(ldl_jax.config.default)

check()
for module in pkgutil.walk_packages(ldl_jax.__path__, "ldl_jax."):
    try:
        importlib.import_module(module.name)
    except ImportError as error:  # of PyTorch and TensorFlow, which are extras
        assert (error.name or "").split(".")[0] != "ldl_jax", error
check()
from ldl_jax import *
assert callable(train) and callable(load) and callable(measure)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_no_public_name_is_the_name_of_a_module():
    modules = {module.name for module in pkgutil.iter_modules(ldl.__path__)}
    assert modules & set(ldl.__all__) == {"calibrate", "config"}
    assert dir(ldl) == sorted(ldl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ldl.nothing
    assert (Path(ldl.__file__).parent / "py.typed").is_file()


def examples(name):
    return doctest.DocTestFinder(recurse=False).find(getattr(ldl, name), name)


@pytest.mark.parametrize("name", sorted({*ldl.__all__} - {"train", "load"}))
def test_the_example_of_a_public_name_runs(name):
    (test,) = examples(name)
    assert test.examples, f"ldl_jax.{name} has no example"
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.slow
def test_the_examples_of_train_and_load_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("train", "load"):
        (test,) = examples(name)
        assert test.examples
        assert doctest.DocTestRunner().run(test).failed == 0


def test_every_folder_of_the_package_is_installed_and_the_configs_inside_it():
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent for path in (ROOT / "ldl_jax").rglob("*.py")}
    folders |= {ROOT / "ldl_jax" / path.parent.relative_to(ROOT) for path in
                (ROOT / "configs").rglob("*.py")}  # fmt: skip
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert sorted(names) == setup["packages"]
    assert setup["package-dir"] == {"ldl_jax.configs": "configs"}


@pytest.mark.nightly
def test_a_wheel_holds_the_configs_inside_the_package_alone(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    copy = ["git", "-C", str(ROOT), "checkout-index", "--all", f"--prefix={tmp_path}/source/"]
    if subprocess.run(copy, check=False).returncode:
        pytest.skip("not a clone")
    code = f"from setuptools import build_meta; print(build_meta.build_wheel({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "source", check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"ldl_jax"}
    shipped = {f"ldl_jax/configs/{name}.py" for name in recipes.shipped()}
    assert shipped <= set(names)
    assert {"ldl_jax/py.typed", "ldl_jax/configs/studies/digits.py"} <= set(names)
    # What is installed finds its own files, from a folder without any.
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "from ldl_jax import config; print(config.read('digits_online').data.name)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site")},
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout == "digits\n"


def test_a_run_shows_what_its_summary_holds():
    scores = {"n": 40.0, "accuracy": 0.5, "ece": 0.25, "ece_floor": 0.1}
    summary = {
        "data": "digits", "labels": "hard", "step": 3, "epochs": 0.5, "finished": True,
        "splits": {"test": scores}, "scaled": {"test": {**scores, "ece": 0.125}},
    }  # fmt: skip
    shown = repr(Run(Path("runs/x"), summary))
    assert shown.startswith("Run runs/x: digits, labels hard, 3 steps (0.5 epochs)\n")
    assert "test recalibrated" in shown
    assert "25.00" in shown
    assert "12.50" in shown
