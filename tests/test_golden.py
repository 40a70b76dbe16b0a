"""Run directories, cards and figures that an earlier version wrote: loaded, resumed, measured and
printed the same.

The fixtures are made by golden/make.py, which says when to make them again.
"""

import csv
import json
import math
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from frame import slow_but

import ldl_jax
from ldl_jax import compare, evaluate, main
from ldl_jax.study import __main__ as study_command

GOLDEN = Path(__file__).parent / "golden"
RELATIVE = 1e-10
SIMULATED = 1e-5  # noise floors are simulated in float32
COMPARED = ("hard-0", "hard-1", "smooth-0")


@pytest.fixture
def golden(tmp_path, monkeypatch):
    """A copy of the fixtures, which is the current folder; the configs in it are named as when they
    were made.
    """
    folder = tmp_path / "golden"
    shutil.copytree(GOLDEN, folder)
    monkeypatch.chdir(folder)
    return folder


def unpacked(run):
    """A run directory with its checkpoints."""
    with tarfile.open(run / "checkpoints.tar.xz") as archive:
        archive.extractall(run, filter="data")
    (run / "checkpoints.tar.xz").unlink()
    return run


def assert_same(here, there, where="", *, more=False):
    """Equal JSON values: keys in their order, texts, and numbers to RELATIVE.

    more: there may be further keys, and they may stand in another order, as the blocks of plugs
    follow their names.
    """
    if isinstance(there, dict):
        assert (set(there) <= set(here)) if more else (list(here) == list(there)), where
        for name, value in there.items():
            assert_same(here[name], value, f"{where}.{name}", more=more)
    elif isinstance(there, list):
        assert len(here) == len(there), where
        for number, (one, other) in enumerate(zip(here, there, strict=True)):
            assert_same(one, other, f"{where}[{number}]", more=more)
    elif isinstance(there, float):
        tolerance = SIMULATED if "floor" in where else RELATIVE
        assert isinstance(here, float), where
        assert math.isclose(here, there, rel_tol=tolerance, abs_tol=1e-12), (where, here, there)
    else:
        assert here == there, where
        assert type(here) is type(there), where


def assert_same_arrays(here, there):
    with np.load(here, allow_pickle=False) as one, np.load(there, allow_pickle=False) as other:
        assert one.files == other.files
        for name in other.files:
            assert one[name].dtype == other[name].dtype, name
            if one[name].dtype.kind == "f":
                np.testing.assert_allclose(
                    one[name], other[name], rtol=RELATIVE, atol=1e-10, err_msg=name
                )
            else:
                np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def assert_same_csv(here, there):
    """Equal texts, and numbers to RELATIVE, but for noise floors: rows and columns of that name."""
    with open(here, newline="") as one, open(there, newline="") as other:
        header, *rows = csv.reader(one)
        expected_header, *expected_rows = csv.reader(other)
    assert header == expected_header
    for number, (row, expected) in enumerate(zip(rows, expected_rows, strict=True)):
        assert len(row) == len(expected), number
        # Rows end with their last figure.
        for column, a, b in zip(header, row, expected, strict=False):
            if a != b:
                is_floor = column == "floor" or "floor" in expected
                tolerance = SIMULATED if is_floor else RELATIVE
                assert math.isclose(float(a), float(b), rel_tol=tolerance), (number, column)


def read(path):
    return json.loads(path.read_text())


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_same_results(run, name):
    """What a finished run holds, against the fixture of that name."""
    there = GOLDEN / "runs" / name
    summary = read(run / "summary.json")
    # of files that may differ in their last bits
    assert {"network.json", "predictions/test.npz"} <= summary.pop("digests").keys()
    assert_same(summary, read(there / "summary.json"))
    # fields may join
    assert_same(read(run / "config.json"), read(there / "config.json"), more=True)
    assert_same(read(run / "network.json"), read(there / "network.json"))
    for path in sorted(there.glob("predictions/*.npz")):
        assert_same_arrays(run / "predictions" / path.name, path)
    assert_same_arrays(run / "model.npz", there / "model.npz")
    for file in ("calibration.json", "evaluation.json"):
        assert (run / file).exists() == (there / file).exists()
    if (there / "evaluation.json").exists():
        assert_same(read(run / "evaluation.json"), read(there / "evaluation.json"))


def layout(run, step):
    """Names, shapes and types of a checkpoint's leaves."""
    return read(run / "checkpoints" / str(step) / "notes" / "metadata")["layout"]


@pytest.mark.parametrize(
    ("name", "argument", "saved"),
    slow_but(
        [], [("online", "online", 22), ("holdout", "classwise", 30)], [("online", "online", 22)]
    ),
)
def test_a_run_goes_on_from_its_checkpoint_to_the_same_end(golden, capsys, name, argument, saved):
    run = unpacked(golden / "runs" / name)
    before = layout(run, 33)
    for path in (run / "checkpoints" / "33", run / "predictions"):
        shutil.rmtree(path)
    for file in ("model.npz", "summary.json", "checkpoints/33.sha256"):
        (run / file).unlink()
    assert main.main([f"--config=digits.py:{argument}", f"--workdir=runs/{name}"]) == 0
    printed = capsys.readouterr().out
    assert f"resuming at step {saved}" in printed
    assert_same_results(run, name)
    assert_same(lines(run / "metrics.jsonl"), lines(GOLDEN / "runs" / name / "metrics.jsonl"))
    ours = {path.name for path in run.iterdir()} - {"files.txt", "output.txt"}
    # kept where it is better
    assert ours | {"best.npz"} == {*(run / "files.txt").read_text().split(), "best.npz"}
    assert layout(run, 33) == before
    assert printed.partition("\n\n")[2] == (run / "output.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["holdout", "imported"])
def test_a_run_is_measured_again_with_the_same_figures(golden, capsys, name):
    run = golden / "runs" / name
    if name != "imported":
        unpacked(run)
    (run / "summary.json").unlink()
    shutil.rmtree(run / "predictions")
    assert main.main([f"--workdir=runs/{name}", "--mode=eval"]) == 0
    capsys.readouterr()
    assert_same_results(run, name)


def test_a_run_is_loaded(golden):
    from sklearn.datasets import load_digits

    apply, variables = ldl_jax.load(golden / "runs" / "online")
    with np.load(golden / "runs" / "online" / "predictions" / "test.npz") as file:
        logits, label, index = file["logits"], file["label"], file["index"]
    assert index.tolist() == list(range(360))
    assert label.tolist() == load_digits().target[-360:].tolist()
    images = (load_digits().images[-360:] * 255 / 16).round().astype(np.uint8)[..., None]
    np.testing.assert_allclose(apply(variables, images).logits, logits, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_a_study_is_collected_from_its_cards(golden, capsys):
    cards = {path.name: path.read_bytes() for path in (golden / "study" / "cards").iterdir()}
    for name in ("results.json", "results.csv"):
        (golden / "study" / name).unlink()
    assert study_command.main(["studies/golden.py", "--workdir=study", "--collect"]) == 0
    assert capsys.readouterr().out == (golden / "study" / "output.txt").read_text()
    assert_same(read(golden / "study" / "results.json"), read(GOLDEN / "study" / "results.json"))
    assert_same_csv(golden / "study" / "results.csv", GOLDEN / "study" / "results.csv")
    assert {
        path.name: path.read_bytes() for path in (golden / "study" / "cards").iterdir()
    } == cards
    assert study_command.main(["studies/golden.py", "--workdir=study", "--print"]) == 0
    assert capsys.readouterr().out == (golden / "study" / "commands.txt").read_text()


@pytest.mark.nightly
def test_a_study_makes_the_same_card_again(golden):
    card = golden / "study" / "cards" / "hard-0.json"
    before = read(card)
    card.unlink()
    assert (
        study_command.main(["studies/golden.py", "--workdir=study", "--only=hard/0", "--no-report"])
        == 0
    )
    after = read(card)
    # Cards have recorded it since.
    assert after.pop("holdout_nll") > 0
    # The card was made when the default calibrator was plain maximum likelihood.
    for changes in (before, after):
        del changes["seconds"], changes["versions"]
        assert set(changes.pop("scaled")) == {"figures", "floor", "reliability"}
        assert changes.pop("temperature") > 0
    assert_same(after, before)
    with (
        np.load(card.with_suffix(".npz")) as new,
        np.load(GOLDEN / "study" / "cards" / "hard-0.npz") as old,
    ):
        assert new.files == old.files
        for name in filter(lambda name: name.startswith("raw/"), old.files):
            np.testing.assert_array_equal(new[name], old[name])


@pytest.mark.slow
@pytest.mark.parametrize("case", ["plain", "beside"])
def test_predictions_have_the_same_figures(golden, capsys, case):
    beside = (
        ["--val=inputs/val.npz", "--ood=inputs/ood.npy", "--human=inputs/votes.npy"]
        if case == "beside"
        else []
    )
    (golden / "evaluation" / case / "evaluation.json").unlink()
    words = ["inputs/first.npz", "inputs/second.npz", *beside, f"--out=evaluation/{case}"]
    assert evaluate.main(words) == 0
    assert capsys.readouterr().out == (GOLDEN / "evaluation" / case / "output.txt").read_text()
    there = GOLDEN / "evaluation" / case / "evaluation.json"
    assert_same(read(golden / "evaluation" / case / "evaluation.json"), read(there))


@pytest.mark.parametrize("lacking", [False, True], ids=["whole", "a config without a field"])
def test_runs_are_compared_the_same(golden, capsys, lacking):
    shutil.rmtree(golden / "comparison")
    if lacking:  # as a run of before the field was there
        file = golden / "runs" / "hard-1" / "config.json"
        config = read(file)
        del config["model"]["norm_group"], config["data"]["folds"]
        file.write_text(json.dumps(config))
    assert compare.main([*(f"runs/{name}" for name in COMPARED), "--out=comparison"]) == 0
    there = GOLDEN / "comparison"
    assert capsys.readouterr().out == (there / "output.txt").read_text()
    assert_same(read(golden / "comparison" / "comparison.json"), read(there / "comparison.json"))
    assert_same_csv(golden / "comparison" / "comparison.csv", there / "comparison.csv")
    for ending in ("md", "tex"):
        name = f"comparison.{ending}"
        assert (golden / "comparison" / name).read_text() == (there / name).read_text()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("help", ["--help"]),
        ("dry_run", ["--config=digits.py:online", "--dry-run"]),
        (
            "dry_run_32",
            [
                "--config=digits.py:teacher",
                "--config.labels.name=peer",
                "--dry-run",
                "--devices=32",
            ],
        ),
    ],
)
@pytest.mark.usefixtures("golden")
def test_the_command_says_the_same(capsys, name, words):
    assert main.main(words) == 0
    # The options of optax's optimizers, the last part of --help, depend on its version.
    said = capsys.readouterr().out.partition("\noptimizer.name, by their names in optax")[0]
    assert said == (GOLDEN / "texts" / f"{name}.txt").read_text()
