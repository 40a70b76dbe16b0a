"""The command on stored predictions: its table, its JSON, its exit status, and the memory that it
takes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from frame import slow_but, softmax
from scipy.special import entr, log_softmax

from ldl_jax import evaluate, files, workdir
from ldl_jax.calibrate import describe
from ldl_jax.evaluation import curves, fitting, passes, predictions
from ldl_jax.evaluation import evaluation as suite
from ldl_jax.evaluation import human as votes
from ldl_jax.metrics import base, marginal
from ldl_jax.report.result import Evaluation, State

N, K = 60, 4
DRAW = np.random.default_rng(0)


def drawn(count=N, scale=1.0):
    """Logits f32[count, K] of a network that is right more often than not, and labels."""
    label = DRAW.integers(0, K, count).astype(np.int32)
    logits = DRAW.standard_normal((count, K))
    logits[np.arange(count), label] += 1.5
    return {"logits": (scale * logits).astype(np.float32), "label": label}


TEST, VAL = drawn(scale=3), drawn(scale=3)


@pytest.fixture
def folder(tmp_path):
    files.write_npz(tmp_path / "test.npz", **TEST, index=np.arange(N))
    files.write_npz(tmp_path / "holdout.npz", **VAL)
    np.save(tmp_path / "odd.npy", DRAW.standard_normal((N, K)).astype(np.float32))
    np.save(
        tmp_path / "votes.npy", DRAW.integers(0, 5, (N, K)) + np.eye(K, dtype=int)[TEST["label"]]
    )
    return tmp_path


def run(*argv):
    return evaluate.main([str(word) for word in argv])


def given(**changed):
    return predictions.Predictions("x", TEST["logits"], TEST["label"], "logits")._replace(**changed)


def measured(name=""):
    """What a measurement gives, without any figure."""
    return Evaluation(name, 0, 0, None, "", "", 0, (), None, State({}, {}), None)


def test_the_command_prints_a_table_and_writes_json(folder, capsys):
    beside = (
        "--val",
        folder / "holdout.npz",
        "--ood",
        folder / "odd.npy",
        "--human",
        folder / "votes.npy",
    )
    assert run(folder / "test.npz", *beside) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "test: 60 examples, 4 classes; logits, from the array name 'logits'" in said.out
    accuracy = np.mean(TEST["logits"].argmax(1) == TEST["label"])
    assert f"{100 * accuracy:.2f}" in next(
        line for line in said.out.splitlines() if line.startswith("accuracy %")
    )
    (found,) = json.loads(
        (folder / "evaluation" / workdir.EVALUATION).read_text(), parse_constant=pytest.fail
    )["suites"]
    figures = found["raw"]["figures"]
    assert figures["accuracy"]["value"] == pytest.approx(accuracy)
    own = softmax(TEST["logits"])[np.arange(N), TEST["label"]]
    assert figures["nll"]["value"] == pytest.approx(-np.log(own).mean(), rel=1e-6)
    low, high = figures["nll"]["interval"]
    assert low < figures["nll"]["value"] < high
    assert figures["ece"]["floor"] > 0
    odd = softmax(np.load(folder / "odd.npy")).max(1)
    known = softmax(TEST["logits"]).max(1)
    auroc = np.mean(known[:, None] > odd) + np.mean(known[:, None] == odd) / 2
    assert figures["ood_auroc"]["value"] == pytest.approx(auroc)
    share = np.load(folder / "votes.npy") / np.load(folder / "votes.npy").sum(1, keepdims=True)
    cross = -np.sum(share * np.log(softmax(TEST["logits"])), 1).mean()
    assert figures["table_cross_entropy"]["value"] == pytest.approx(cross, rel=1e-6)
    assert found["temperature"]["temperature"] > 1.5
    assert found["scaled"]["figures"]["nll"]["value"] < figures["nll"]["value"]
    assert found["scaled"]["figures"]["accuracy"]["value"] == figures["accuracy"]["value"]
    for name, figure in figures.items():
        assert figure["value"] is not None, name
        assert figure["group"] == base.shown()[name].group, name
    assert list(figures) == [name for name in base.shown() if name not in ("top5", "ece_floor")]
    page = (folder / "evaluation" / workdir.REPORT).read_text()
    assert f"{figures['ece']['value'] * 100:.2f}" in page
    sweep = found["scaled"]["curves"]["temperature"]
    assert len(sweep["nll"]) == len(sweep["ece"]) == len(sweep["temperature"])


FAULTS = {  # words of the command -> what the sentence says
    "no file": ([], "required: predictions"),
    "a flag": (["test.npz", "--vla", "x"], "unrecognized arguments: --vla x"),
    "a kind": (["test.npz", "--kind=scores"], "invalid choice: 'scores'"),
    "a seed": (["test.npz", "--seed=one"], "invalid int value: 'one'"),
    "another seed": (["test.npz", "--seed=-1"], "--seed must be at least 0, got -1"),
    "a file twice": (["test.npz", "test.npz"], "test.npz is given twice"),
    "votes twice": (
        ["test.npz", "--human", "odd.npy", "--human", "odd.npy"],
        "--human is given twice",
    ),
    "a file as the folder": (
        ["test.npz", "--out", "odd.npy"],
        "--out must be a folder, got the file odd.npy",
    ),
    "missing": (["none.npz"], "none.npz: does not exist"),
    "a folder": (["."], "must end in .npz, .npy, .csv"),
    "not probabilities": (
        ["test.npz", "--kind=probabilities"],
        "test.npz: probabilities must be between 0 and 1",
    ),
    "labels of others": (
        ["test.npz", "--labels", "short.npy"],
        "got 59 labels for 60 rows",
    ),
    "other classes": (["test.npz", "--val", "wide.npz"], "wide has 5 classes and test 4"),
    "no votes": (["test.npz", "--human", "odd.npy"], "odd.npy: row "),
    "few votes": (["test.npz", "--human", "few.npy"], "got 59 rows for 60 predictions"),
    "votes of others": (
        ["test.npz", "--human", "wide.npz"],
        "wide.npz: must hold one array, or one named",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_one_sentence_and_nothing_is_written(case, folder, capsys, monkeypatch):
    words, sentence = FAULTS[case]
    files.write_npz(
        folder / "wide.npz", logits=np.pad(VAL["logits"], ((0, 0), (0, 1))), label=VAL["label"]
    )
    np.save(folder / "short.npy", TEST["label"][1:])
    np.save(folder / "few.npy", np.ones((N - 1, K)))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(
        suite, "_state", lambda *arguments: pytest.fail("measured before all was read")
    )
    before = sorted(folder.rglob("*"))
    assert run(*words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert sentence in said.err
    assert sorted(folder.rglob("*")) == before


def test_a_result_that_cannot_be_written_is_told(folder, capsys, monkeypatch):
    monkeypatch.setattr(suite, "measure", lambda given, **_: measured(given.name))
    monkeypatch.setattr("ldl_jax.report.figure_tables.evaluation_text", lambda one: one.name)
    monkeypatch.setattr("ldl_jax.report.page.page", lambda suites, **_: "")
    files.write(folder / "taken", "")
    assert run(folder / "test.npz", "--out", folder / "taken" / "below") == 1
    printed = capsys.readouterr()
    assert printed.err == (
        f"error: {folder / 'taken' / 'below'}: Not a directory; the results are only printed\n"
    )
    assert printed.out == "test\n\n"


def test_validation_predictions_that_are_the_test_ones_are_warned_of(folder, capsys, monkeypatch):
    monkeypatch.setattr(suite, "measure", lambda given, **_: measured(given.name))
    monkeypatch.setattr("ldl_jax.report.figure_tables.evaluation_text", lambda one: one.name)
    monkeypatch.setattr("ldl_jax.report.page.page", lambda suites, **_: "")
    files.write(folder / "copy.npz", (folder / "test.npz").read_bytes())
    np.savez_compressed(folder / "packed.npz", **TEST)
    told = "holds the same predictions as test. A calibrator fitted on the reported"
    for val, said in (("copy.npz", told), ("packed.npz", told), ("holdout.npz", "")):
        assert run(folder / "test.npz", "--val", folder / val) == 0
        err = capsys.readouterr().err
        assert said in err
        assert err.startswith("warning: " if said else "")
        assert err.count("\n") == bool(said)


def test_files_are_named_by_what_tells_them_apart():
    assert evaluate.names([Path("a/x/test.npz"), Path("b/x/test.npz"), Path("b/x/other.csv")]) == [
        "a/x/test", "b/x/test", "b/x/other",
    ]  # fmt: skip
    assert evaluate.names([Path("a/test.npz")]) == ["test"]
    assert evaluate.names([Path("a/test.npz"), Path("a/test.csv")]) == ["test.npz", "test.csv"]


def test_one_validation_file_for_several_networks_is_told_and_one_for_each_is_taken(
    folder, capsys, monkeypatch
):
    taken = []
    monkeypatch.setattr(
        suite, "measure", lambda given, val, **_: taken.append((given.name, val.name)) or measured()
    )
    monkeypatch.setattr("ldl_jax.report.figure_tables.evaluation_text", lambda one: one.name)
    monkeypatch.setattr("ldl_jax.report.page.page", lambda suites, **_: "")
    files.write_npz(folder / "second.npz", **TEST)
    files.write_npz(folder / "own.npz", **VAL)
    both = (folder / "test.npz", folder / "second.npz")
    assert run(*both, "--val", folder / "holdout.npz", "--val", folder / "own.npz") == 0
    assert capsys.readouterr().err == ""
    assert run(*both, "--val", folder / "holdout.npz") == 0
    assert "is used for all 2 files" in capsys.readouterr().err
    assert taken == [
        ("test", "holdout"),
        ("second", "own"),
        ("test", "holdout"),
        ("second", "holdout"),
    ]
    assert run(*both, *["--val", folder / "own.npz"] * 3) == 2
    assert (
        "--val must be given once, or once for each of the 2 files, got 3 times"
        in capsys.readouterr().err
    )


@pytest.mark.slow
def test_a_calibrator_is_fitted_once_on_each_validation_file(folder, monkeypatch):
    fits = []

    def counted(val, calibrator="temperature", fit=fitting.fit):
        fits.append(val.name)
        return fit(val, calibrator)

    monkeypatch.setattr(fitting, "fit", counted)
    files.write_npz(folder / "more.npz", **drawn())
    tests = (folder / "test.npz", folder / "more.npz")
    one, other = ("--val", folder / "holdout.npz"), ("--val", folder / "test.npz")
    assert run(*tests, *one) == 0
    assert len(fits) == 1
    shared = json.loads((folder / "evaluation" / workdir.EVALUATION).read_text())["suites"]
    temperatures = [suite["temperature"]["temperature"] for suite in shared]
    assert temperatures[0] == temperatures[1] != 1
    assert run(*tests, *one, *other) == 0
    assert len(fits) == 3


def test_classes_are_named_by_the_file_or_by_a_list(folder, capsys, monkeypatch):
    taken = []
    monkeypatch.setattr(
        suite, "measure", lambda given, **_: taken.append(given.classes) or measured()
    )
    monkeypatch.setattr("ldl_jax.report.figure_tables.evaluation_text", lambda one: one.name)
    monkeypatch.setattr("ldl_jax.report.page.page", lambda suites, **_: "")
    files.write_npz(folder / "named.npz", **TEST, classes=np.array(list("abcd")))
    rows = [
        ",".join(map(str, [*row, label]))
        for row, label in zip(TEST["logits"], TEST["label"], strict=True)
    ]
    files.write(folder / "named.csv", "\n".join(["Ant,bee,cat,dog,label", *rows]))
    files.write(folder / "names.txt", "w\nx\ny\nz\n")
    assert run(folder / "named.npz") == run(folder / "named.csv") == 0
    assert run(folder / "test.npz", "--classes", folder / "names.txt") == 0
    assert taken == [tuple("abcd"), ("Ant", "bee", "cat", "dog"), tuple("wxyz")]
    files.write(folder / "names.txt", "w\nx\n")
    files.write_npz(folder / "named.npz", **TEST, classes=np.arange(4))
    capsys.readouterr()
    assert run(folder / "test.npz", "--classes", folder / "names.txt") == 2
    assert "--classes must name each of 4 classes, got 2" in capsys.readouterr().err
    assert run(folder / "named.npz") == 2
    assert "got int64[4]" in capsys.readouterr().err


def test_a_large_matrix_is_measured_on_a_sample_of_its_rows(monkeypatch):
    large = {
        "logits": DRAW.standard_normal((200, K)).astype(np.float32),
        "label": DRAW.integers(0, K, 200),
    }
    whole = given(values=large["logits"], label=large["label"].astype(np.int32))
    monkeypatch.setattr(suite, "WHOLE", 100)
    monkeypatch.setattr(suite, "SAMPLE", 50 * K)
    places = suite._sample(0, whole)
    assert len(places) == 50
    part = softmax(large["logits"])[places]
    found = suite.measure(whole)
    expected = marginal.ace(marginal.every_class(part.astype(np.float32), whole.label[places]))
    assert found.raw.figures["ace"].value == pytest.approx(expected, abs=1e-6)
    assert found.notes == (
        "ACE, TACE, the marginal errors and the distances to human votes (except CE and KL) use a random "
        "sample of 50 of the 200 examples",
    )


@pytest.mark.parametrize("name", slow_but(["vector"], fitting.names()))
def test_every_calibrator_is_reachable_by_the_command(name, folder, capsys):
    words = (folder / "test.npz", "--val", folder / "holdout.npz", f"--calibrator={name}")
    assert run(*words) == 0
    said = capsys.readouterr()
    assert said.err == ""
    found = json.loads(
        (folder / "evaluation" / workdir.EVALUATION).read_text(), parse_constant=pytest.fail
    )["suites"][0]
    applied = fitting.fit(given(values=VAL["logits"], label=VAL["label"]), name).transform(
        TEST["logits"]
    )
    expected = -log_softmax(np.asarray(applied, np.float64), -1)[np.arange(N), TEST["label"]].mean()
    assert found["scaled"]["figures"]["nll"]["value"] == pytest.approx(expected, rel=1e-5)
    assert ("temperature" in found["scaled"]["curves"]) == describe.is_temperature(name)
    if describe.is_temperature(name):
        assert "calibrator" not in found
        fit = found["temperature"]
        assert fit.get("calibrator", "temperature") == name
        page = (folder / "evaluation" / workdir.REPORT).read_text()
        interval = f"(95 % interval {fit['interval_low']:.4g} to {fit['interval_high']:.4g})"
        source = "fitted on holdout (60 examples)"
        told = f"emperature {fit['temperature']:.4g} {interval}, "
        told += source if name == "temperature" else f"{name} {source}"
        assert told in said.out
        assert told.replace("95 %", "95&nbsp;%") in page
        return
    assert found["temperature"] is None
    fit = found["calibrator"]
    assert (fit["calibrator"], fit["name"], fit["examples"]) == (name, "holdout", N)
    assert not any(isinstance(value, list) for value in fit.values())
    told = f"Recalibrated by the calibrator {name}, fitted on holdout (60 examples)"
    assert told in said.out
    assert told in (folder / "evaluation" / workdir.REPORT).read_text()


def test_calibrators_are_listed_and_need_predictions_to_be_fitted_on(folder, capsys):
    with pytest.raises(SystemExit):
        run("--help")
    listed = capsys.readouterr().out
    assert all(name in listed for name in fitting.names())
    assert run(folder / "test.npz", "--calibrator=platt") == 2
    error = capsys.readouterr().err
    assert all(name in error for name in ("platt", *fitting.names()))
    assert run(folder / "test.npz", "--calibrator=vector") == 2
    assert (
        "--calibrator=vector needs --val, the predictions to fit it on" in capsys.readouterr().err
    )
    with pytest.raises(
        ValueError, match=r"calibrator must be one of safe_temperature, .* got 'platt'"
    ):
        fitting.fit(given(), "platt")


def test_a_quick_look_has_the_figures_of_sums_that_the_full_one_has():
    fitted = fitting.fit(given(values=VAL["logits"], label=VAL["label"]))
    full, quick = (suite.measure(given(), fitted=fitted, full=full) for full in (True, False))
    for state in ("raw", "scaled"):
        whole, part = getattr(full, state), getattr(quick, state)
        assert list(part.curves) == ["reliability"]
        assert part.curves["reliability"] == whole.curves["reliability"]
        for name, figure in part.figures.items():
            assert figure == whole.figures[name]._replace(interval=None), name
    assert {"accuracy", "nll", "brier", "ece"} <= set(quick.raw.figures)
    assert "classwise_ece" in quick.scaled.figures
    assert "aurc" not in quick.scaled.figures


def test_votes_become_distributions_of_the_examples(tmp_path):
    table = DRAW.integers(1, 9, (2 * N, K))
    share = table / table.sum(1, keepdims=True)
    np.save(tmp_path / "all.npy", table)
    files.write_npz(tmp_path / "some.npz", votes=table[:N].astype(np.uint8), other=np.zeros(3))
    files.write(tmp_path / "some.csv", "\n".join(",".join(map(str, row)) for row in table[:N]))
    for name in ("some.npz", "some.csv"):
        np.testing.assert_allclose(votes.read(tmp_path / name, given()), share[:N])
    index = np.arange(N) * 2
    np.testing.assert_allclose(votes.read(tmp_path / "all.npy", given(index=index)), share[index])


def test_votes_are_paired_by_the_index_of_the_predictions_where_it_fits_them(tmp_path):
    table = DRAW.integers(1, 9, (N, K))
    share = table / table.sum(1, keepdims=True)
    np.save(tmp_path / "votes.npy", table)

    def paired(index):
        index = np.asarray(index)
        part = {"values": TEST["logits"][: len(index)], "label": TEST["label"][: len(index)]}
        return votes.read(tmp_path / "votes.npy", given(index=index, **part))

    mixed = np.random.default_rng(0).permutation(N)
    np.testing.assert_array_equal(paired(mixed), share[mixed])
    np.testing.assert_array_equal(paired(mixed[:7]), share[mixed[:7]])
    np.testing.assert_array_equal(paired([N - 1, 3, 3]), share[[N - 1, 3, 3]])
    # a table of these examples of a longer data set
    np.testing.assert_array_equal(paired(mixed + 1000), share)
    with pytest.raises(
        ValueError,
        match=r"votes\.npy: has as many rows as there are predictions \(60\), but the",
    ):
        paired(np.minimum(mixed, N - 2))
    with pytest.raises(
        ValueError, match=r"must have a row .* got 60 rows for 7 predictions with an index up to 60"
    ):
        paired([*mixed[:6], N])
    np.save(tmp_path / "votes.npy", np.where(np.arange(N)[:, None] == 5, 0, table))
    with pytest.raises(ValueError, match=r"votes\.npy: row 5 has no entry above 0; each row"):
        paired(mixed)
    np.save(tmp_path / "votes.npy", table[:3])
    share = share[:3]
    # several predictions of each
    np.testing.assert_array_equal(paired([2, 0, 1, 1, 0]), share[[2, 0, 1, 1, 0]])


def test_the_kl_divergence_is_the_cross_entropy_less_the_entropy_of_the_votes_however_large_the_logits_are():
    """Of probabilities that are 0 in float32 the logarithm is not that of the smallest number."""
    table = DRAW.integers(0, 4, (N, K)) + np.eye(K)[TEST["label"]]
    table /= table.sum(1, keepdims=True)
    for scale in (1, 1000):
        logits = scale * TEST["logits"]
        cross = -(table * log_softmax(logits.astype(np.float64), -1)).sum(1).mean()
        found = suite.measure(given(values=logits), human=table).raw.figures
        assert found["table_cross_entropy"].value == pytest.approx(cross, rel=1e-6)
        assert found["table_kl"].value == pytest.approx(cross - entr(table).sum(1).mean(), rel=1e-6)


def test_curves_are_those_of_the_definitions():
    reduced = passes.reduce(given())
    bins = curves.reliability(reduced)
    number = [next(i for i in range(15) if c <= (i + 1) / 15 + 1e-9) for c in reduced.confidence]
    np.testing.assert_array_equal(bins["count"], np.bincount(number, minlength=15))
    assert sum(bins["confidence"]) == pytest.approx(reduced.confidence.sum())
    classes = curves.classes(reduced, K)
    assert sum(classes["correct"]) == reduced.correct.sum()
    c = reduced.confidence[reduced.predicted == 1]
    pmf = np.ones(1)
    for p in c:
        pmf = np.convolve(pmf, [1 - p, p])  # of the number correct
    off = np.arange(len(pmf)) - c.sum()
    assert [classes[name][1] for name in ("variance", "third")] == pytest.approx(
        [pmf @ off**2, pmf @ off**3]
    )
    fifths = passes.reduce(given(values=np.full((N, 5), 0.2, np.float32), kind="probabilities"))
    assert curves.reliability(fifths)["count"][2] == N  # (2/15, 3/15]
    risk = curves.risk_coverage(reduced)
    assert risk["coverage"][-1] == 1
    assert risk["risk"][-1] == pytest.approx(1 - reduced.correct.mean())
    assert risk["risk"][0] == 1 - reduced.correct[reduced.confidence.argmax()]


PEAK = """
import sys
from ldl_jax import evaluate
assert evaluate.main(sys.argv[1:]) == 0
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_megabytes(folder, count):
    """The most memory, mapped files included, that the command takes for `count` examples of 1,000
    classes.
    """
    path = folder / f"of{count}.npy"
    scores = np.lib.format.open_memmap(path, "w+", np.float32, (count, 1000))
    label = DRAW.integers(0, 1000, count)
    for first in range(0, count, 5000):
        part = DRAW.standard_normal((min(5000, count - first), 1000), dtype=np.float32)
        part[np.arange(len(part)), label[first : first + 5000]] += 4
        scores[first : first + 5000] = part
    del scores
    np.save(folder / f"{path.stem}_labels.npy", label)
    files.write_npz(folder / "val.npz", logits=part[:1000], label=label[first : first + 1000])
    settings = {
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        # A fixed limit: blocks above it return to the system as soon as they are freed.
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_ARENA_MAX": "1",
    }
    command = [
        sys.executable,
        "-c",
        PEAK,
        str(path),
        "--val",
        str(folder / "val.npz"),
        "--out",
        str(folder / "out"),
    ]
    done = subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1]) / 1024


@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_file(tmp_path):
    """150,000 rows are a file of 600 MB; 100,000 and 300,000 rows took 80 and 105 MB more than
    2,000.
    """
    assert peak_megabytes(tmp_path, 150_000) - peak_megabytes(tmp_path, 2_000) < 200
