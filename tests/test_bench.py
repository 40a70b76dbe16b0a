"""The benchmarks run and say what they should; their figures are never asserted."""

import itertools
import re
import time

import jax
import numpy as np
import pytest
from PIL import Image

from ldl_jax import config
from ldl_jax.bench import __main__ as bench
from ldl_jax.bench import base, memory, metrics, step
from ldl_jax.training import experiment as build


def test_programs_take_turns_and_ratios_are_of_the_time_for_a_unit():
    calls = []
    programs = {"one": lambda: calls.append("one"), "two": lambda: calls.append("two")}
    times = base.alternate(programs, rounds=4, seconds=1e-9)
    assert {name: len(values) for name, values in times.items()} == {"one": 4, "two": 4}
    assert calls[4:] == ["two", "one", "one", "two"] * 2
    text = base.summary(
        {"one": [1.0, 1.0], "two": [2.0, 4.0]}, "one", "rows/s", {"one": 10, "two": 40}
    )
    assert re.search(r"one +10\.0 +1\.000", text)
    assert re.search(r"two +13\.3 +0\.750 \(0\.500 - 1\.000\)", text)


def test_each_turn_is_settled_first_and_that_is_not_timed():
    calls = []
    programs = {"one": lambda: calls.append("one"), "two": lambda: calls.append("two")}

    def settle(program):
        calls.append("settle")
        program()
        time.sleep(0.05)

    times = base.alternate(programs, rounds=2, seconds=1e-9, settle=settle)
    assert calls[4:] == [
        "settle",
        "two",
        "two",
        "settle",
        "one",
        "one",
        "settle",
        "one",
        "one",
        "settle",
        "two",
        "two",
    ]
    assert max(max(values) for values in times.values()) < 0.04


def tiny():
    c = config.default()
    c.model.name, c.labels.name, c.data.batch_size = "tests.tiny", "online", 32
    return c


@pytest.mark.slow
def test_the_step_is_measured_beside_a_plain_one(capsys, monkeypatch):
    monkeypatch.setattr(config, "read", lambda path: tiny())
    monkeypatch.setattr(memory.measure, "__kwdefaults__", {"sizes": ((300, 10), (600, 10))})
    assert bench.main(["step", "--rounds=1", "--seconds=0.001"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"toolkit step +[\d,]+\.\d +\d+\.\d{3}", said)
    assert "600 x 10 float16" in said


@pytest.mark.nightly
def test_a_network_is_measured_with_what_the_toolkit_adds(capsys, monkeypatch):
    monkeypatch.setattr(step, "SHAPES", {"cifar100": (32, 32, 3, 100, 64)})
    monkeypatch.setattr(step, "settings", lambda model, **_: tiny())
    both = {
        name: c for name, c in step.kinds(tiny()).items() if name in ("bare", "and frozen teacher")
    }
    monkeypatch.setattr(step, "kinds", lambda c: both)
    assert (
        bench.main(["step", "--model=x", "--rounds=1", "--seconds=0.001", "--peak-tflops=100"]) == 0
    )
    said = capsys.readouterr().out
    for kind in ("plain JAX step", "bare", "and frozen teacher"):
        assert re.search(rf"^{kind} +[\d,]+\.\d", said, re.MULTILINE), kind
    assert re.search(r"GFLOP per image, \d.*% of 100", said)


@pytest.mark.slow
def test_a_set_too_large_to_hold_is_one_batch_under_all_indices(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(step, "SHAPES", {"imagenet": (8, 8, 3, 5, 10_000)})
    monkeypatch.setattr(step, "RESIDENT", 1000)
    made = build.make_experiment(tiny(), jax.devices()[:1], dataset=step.synthetic("imagenet", 32))
    assert (made.recipe.build.num_examples, made.recipe.build.rows) == (10_000, 12_288)
    first, second = itertools.islice(step._batches(made, 1), 2)
    assert first["image"] is second["image"]
    assert set(np.asarray(first["index"])) != set(np.asarray(second["index"]))
    both = {name: c for name, c in step.kinds(tiny()).items() if name in ("bare", "online memory")}
    monkeypatch.setattr(step, "settings", lambda model, **_: tiny())
    monkeypatch.setattr(step, "kinds", lambda c: both)
    words = [
        "step",
        "--model=x",
        "--synthetic",
        "--rounds=1",
        "--seconds=0.001",
        f"--trace={tmp_path}",
    ]
    assert bench.main(words) == 0
    assert "online memory" in capsys.readouterr().out
    assert any(tmp_path.rglob("*.pb"))


def test_a_network_is_named_with_its_depth():
    c = step.settings("cifar_resnet56", batch=64, dtype="bfloat16", name="cifar100")
    assert (c.model.name, c.model.cifar_resnet.depth, c.model.dtype) == (
        "cifar_resnet",
        56,
        "bfloat16",
    )
    made = step.kinds(c)
    assert [k.labels.name for k in made.values()] == ["hard", "online", "hard", "online", "teacher"]
    assert [k.mixing.name for k in made.values()] == ["none", "none", "cutmix", "cutmix", "cutmix"]
    assert (
        step.settings("resnet50", batch=64, dtype="bfloat16", name="imagenet").model.resnet.stem
        == "imagenet"
    )


def test_the_share_of_the_peak_is_of_the_median_time():
    lines = step.reached(
        {"bare": [0.5, 1.0, 9.0], "bare, chunks": [4.0]},
        {"bare": 10, "bare, chunks": 160},
        1e11,
        50,
    )
    assert lines[1:] == [
        "bare: 100.00 GFLOP per image, 1.00 TFLOP/s, 2.0 % of 50",
        "bare, chunks: 100.00 GFLOP per image, 4.00 TFLOP/s, 8.0 % of 50",
    ]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--model=vgg16"], "followed by its depth; got 'vgg16'"),
        (["--config=none.py"], "none.py does not exist"),
        (["--model=resnet18", "--kinds=more"], "--kinds must be among bare, "),
    ],
)
def test_what_is_not_there_is_named(capsys, argv, sentence):
    assert bench.main(["step", *argv]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.nightly
def test_the_input_is_measured_beside_the_bare_rate(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench.input, "REFILL", 0)
    draw = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(3):
            pixels = draw.integers(0, 256, (20, 24, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "train" / name / f"{number}.JPEG")
    options = [
        f"--root={tmp_path}",
        "--size=8",
        "--batch=4",
        "--rounds=1",
        "--seconds=0.001",
        "--cores=1",
    ]
    assert bench.main(["input", *options]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^training pipeline +[\d,]+\.\d +\d+\.\d{3}", said, re.MULTILINE)
    assert "6 JPEGs of " in said
    assert re.search(r"training pipeline: \d\.\d+ of the bare rate", said)
    assert bench.main(["input", "--root=/nowhere"]) == 2
    assert (
        "--root must be a folder with train/<class>/*.JPEG, got '/nowhere'"
        in capsys.readouterr().err
    )


@pytest.mark.slow
def test_figures_are_measured_beside_plain_numpy(capsys):
    assert (
        bench.main(["metrics", "--examples=400", "--classes=20", "--rounds=1", "--seconds=0.001"])
        == 0
    )
    said = capsys.readouterr().out
    for name in ("ldl_jax", "ldl_jax streamed", "numpy", "scikit-learn"):
        assert re.search(rf"^{name} +[\d,]+\.\d", said, re.MULTILINE), name
    assert float(re.search(r"metrics agree within (\S+)", said)[1]) < 1e-5
    assert (
        int(re.search(r"all streaming metrics: ([\d,]+) bytes", said)[1].replace(",", "")) < 2**20
    )


def test_figures_that_differ_are_an_error(capsys, monkeypatch):
    monkeypatch.setattr(metrics, "by_numpy", lambda given: {"ece": 0.5, "nll": 0.0, "brier": 0.0})
    assert (
        bench.main(["metrics", "--examples=400", "--classes=20", "--rounds=1", "--seconds=0.001"])
        == 2
    )
    assert "from ours" in capsys.readouterr().err
