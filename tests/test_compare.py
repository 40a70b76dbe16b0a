"""Runs side by side: which belong together, what their differences are, and the tables they make."""

import csv
import json
import re

import numpy as np
import pytest
from frame import softmax
from scipy import stats

from ldl_jax import compare, config, files
from ldl_jax import workdir as run
from ldl_jax.calibrate import base as calibrators
from ldl_jax.evaluation import runs
from ldl_jax.evaluation.comparison import FIGURES
from ldl_jax.report import figure_tables, recorded
from ldl_jax.report.tables import as_csv, as_latex, as_markdown, as_text

N, K = 200, 3
LABEL = np.random.default_rng(0).integers(0, K, N).astype(np.int32)


def logits(seed, strength):
    drawn = np.random.default_rng(seed).standard_normal((N, K))
    drawn[np.arange(N), LABEL] += strength
    return (2 * drawn).astype(np.float32)


def make(path, seed=0, labels="hard", strength=1.0, temperature=2.0, **fields):
    """A run's directory as far as it is read here."""
    c = config.default()
    c.seed, c.labels.name = seed, labels
    c.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    files.write(path / run.CONFIG, config.to_json(c))
    files.write_json(path / run.SUMMARY, {})
    files.write_npz(
        path / "predictions/test.npz",
        logits=logits(seed, strength),
        label=LABEL,
        index=np.arange(N),
    )
    if temperature:
        params = {"temperature": temperature, "at_bound": labels == "online" and seed == 1}
        calibrators.save(path / run.CALIBRATION, "temperature", {}, params)
    return path


@pytest.fixture
def six(tmp_path):
    """Three seeds of hard labels, three of the online memory, which is better."""
    return [
        make(tmp_path / f"{labels}-{seed}", seed, labels, strength)
        for labels, strength in (("hard", 1.0), ("online", 1.6))
        for seed in range(3)
    ]


def figures(seed, strength, temperature=1.0):
    probs = softmax(logits(seed, strength) / temperature)
    return (probs.argmax(1) == LABEL).mean(), -np.log(probs[np.arange(N), LABEL]).mean()


def test_seeds_of_a_config_are_one_row_and_differences_have_both_intervals(six, tmp_path, capsys):
    assert compare.main([*map(str, six), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    made = json.loads((tmp_path / "out/comparison.json").read_text(), parse_constant=pytest.fail)
    assert [group["name"] for group in made["groups"]] == ["labels=hard", "labels=online"]
    assert [group["at_bound"] for group in made["groups"]] == [0, 1]
    assert "labels=online: in 1 of 3 runs the fitted temperature hit a limit" in printed
    for state, temperature in (("raw", 1.0), ("scaled", 2.0)):
        hard, online = (
            np.array([figures(seed, strength, temperature) for seed in range(3)])
            for strength in (1.0, 1.6)
        )
        for place, name in enumerate(("accuracy", "nll")):
            if name not in FIGURES[state]:
                continue
            found = made["groups"][1][state][name]
            assert found["mean"] == pytest.approx(online[:, place].mean(), rel=1e-5)
            assert found["std"] == pytest.approx(online[:, place].std(ddof=1), rel=1e-4)
            assert found["n"] == 3
            (difference,) = made["differences"]
            apart = online[:, place] - hard[:, place]
            half = stats.t.ppf(0.975, 2) * apart.std(ddof=1) / np.sqrt(3)
            assert difference[state][name]["mean"] == pytest.approx(apart.mean(), rel=1e-4)
            np.testing.assert_allclose(
                difference[state][name]["seeds"],
                [apart.mean() - half, apart.mean() + half],
                rtol=1e-3,
            )
            low, high = difference[state][name]["images"]
            assert low < apart.mean() < high
    accuracy = np.array([figures(seed, 1.0)[0] for seed in range(3)])
    assert f"{100 * accuracy.mean():.2f} ± {100 * accuracy.std(ddof=1):.2f}" in printed
    assert "ECE % (recalibrated)" in printed
    assert "accuracy % (recalibrated)" not in printed


def test_the_same_numbers_stand_in_csv_markdown_and_latex(six, tmp_path):
    made = compare.compare(runs.groups([runs.read(path) for path in six]))
    rows = list(csv.DictReader(as_csv(figure_tables.comparison_numbers(made)).splitlines()))
    assert len(rows) == 2 * (4 + 3) + (4 + 3)
    (row,) = [
        r for r in rows if (r["what"], r["state"], r["figure"]) == ("difference", "raw", "nll")
    ]
    assert float(row["mean"]) == made["differences"][0]["raw"]["nll"]["mean"]
    assert float(row["seeds_low"]) < float(row["mean"]) < float(row["seeds_high"])
    cell = figure_tables.comparison(made)[0].rows()[0][2]
    assert f"| {cell} |" in as_markdown(*figure_tables.comparison(made))
    latex = as_latex(*figure_tables.comparison(made))
    assert cell.replace("±", r"$\pm$") in latex
    assert r"accuracy \%" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2


def test_names_that_latex_and_markdown_read_otherwise_are_escaped(tmp_path):
    paths = [make(tmp_path / name, model__name=name)
             for name in ("a_b", "c_d")]  # fmt: skip
    made = compare.compare(runs.groups([runs.read(path) for path in paths]))
    assert r"model=a\_b" in as_latex(*figure_tables.comparison(made))
    made["groups"][0]["name"] = "x|y\\"
    assert r"x\|y" in as_markdown(*figure_tables.comparison(made))
    assert r"x|y\textbackslash{}" in as_latex(*figure_tables.comparison(made))


def test_one_seed_has_no_interval_over_seeds(tmp_path):
    paths = [make(tmp_path / name, labels=name, temperature=None) for name in ("hard", "online")]
    made = compare.compare(runs.groups([runs.read(path) for path in paths]))
    assert made["groups"][0]["scaled"] is None
    assert made["groups"][0]["raw"]["ece"]["std"] is None
    found = made["differences"][0]["raw"]["ece"]
    assert found["seeds"] is None
    np.testing.assert_allclose(found["images"], 0, atol=1e-12)  # of one network and itself
    assert "(recalibrated)" not in as_text(*figure_tables.comparison(made))


def test_other_seeds_are_compared_as_independent_ones(tmp_path):
    groups = {"hard": range(3), "online": range(5, 9)}
    paths = [
        make(tmp_path / f"{n}{s}", s, n, 1 + s / 10) for n, seeds in groups.items() for s in seeds
    ]
    found = compare.compare(runs.groups([runs.read(path) for path in paths]))["differences"][0][
        "raw"
    ]["nll"]
    one, other = (
        [figures(s, 1 + s / 10)[1] for s in seeds] for seeds in (groups["online"], groups["hard"])
    )
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval()
    np.testing.assert_allclose(found["seeds"], expected, rtol=1e-4)
    low, high = found["images"]  # of the difference of the means over all runs of each
    assert low < found["mean"] < high
    assert found["mean"] == pytest.approx(np.mean(one) - np.mean(other), rel=1e-4)


def test_teachers_of_another_seed_leave_runs_in_one_group(tmp_path):
    teachers = [make(tmp_path / f"t{seed}", seed) for seed in range(2)]
    other = make(tmp_path / "other", 7, train__epochs=3.0)
    students = [
        make(tmp_path / f"s{s}", s, "teacher", teachers=(str(teachers[s]),)) for s in range(2)
    ]
    odd = make(tmp_path / "s3", 2, "teacher", teachers=(str(other),))
    found = runs.groups([runs.read(path) for path in (*students, odd)])
    assert [len(group.runs) for group in found] == [2, 1]


@pytest.mark.parametrize("kind", ["unfinished", "no run", "twice", "images", "baseline", "damaged"])
def test_runs_that_cannot_be_compared_are_named_and_nothing_is_written(tmp_path, capsys, kind):
    paths, more = [make(tmp_path / "a"), make(tmp_path / "b", 1)], []
    if kind == "unfinished":
        (paths[1] / run.SUMMARY).unlink()
    elif kind == "no run":
        (paths[1] / run.CONFIG).unlink()
    elif kind == "twice":
        paths[1] = make(tmp_path / "b", 0)
    elif kind == "images":
        files.write_npz(
            paths[1] / "predictions/test.npz", logits=logits(1, 1.0)[:50], label=LABEL[:50]
        )
    elif kind == "baseline":
        more = ["--baseline", str(tmp_path / "c")]
    else:
        file = paths[1] / "predictions/test.npz"
        file.write_bytes(file.read_bytes()[:100])
    sentences = {
        "unfinished": "is not finished", "no run": "is not a run directory", "twice": "and the same seed, 0",
        "images": "measured on 50 images", "baseline": "--baseline must be one of", "damaged": "cannot be read",
    }  # fmt: skip
    assert compare.main([*map(str, paths), *more, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert sentences[kind] in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_comparison_is_printed_where_it_cannot_be_written(six, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"")
    out = tmp_path / "file" / "below"
    assert compare.main([*map(str, six[2:4]), "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert printed.err == f"error: {out}: Not a directory; the results are only printed\n"
    assert "over seeds" in printed.out


def test_files_of_any_framework_stand_beside_runs_with_floors_and_verdicts(tmp_path, capsys):
    run_ = make(tmp_path / "hard", temperature=None)
    np.savez(tmp_path / "other.npz", probs=softmax(logits(0, 3.0)), labels=LABEL)
    rows = [",".join(f"{p:.9g}" for p in row) for row in softmax(logits(0, 1.0))]
    lines = [f"{n},{row},{'abc'[y]}" for n, (row, y) in enumerate(zip(rows, LABEL, strict=True))]
    (tmp_path / "same.csv").write_text("\n".join([",a,b,c,y_true", *lines]))
    paths = [run_, tmp_path / "other.npz", tmp_path / "same.csv"]
    assert compare.main([*map(str, paths), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    made = json.loads((tmp_path / "out/comparison.json").read_text())
    assert [group["name"] for group in made["groups"]] == ["hard", "other.npz", "same.csv"]
    better, same = made["differences"]
    assert better["raw"]["nll"]["verdict"] == better["raw"]["accuracy"]["verdict"] == "better"
    assert same["raw"]["nll"]["verdict"] is None
    assert same["raw"]["nll"]["mean"] == pytest.approx(0, abs=1e-6)
    probs = softmax(logits(0, 3.0))
    expected = -np.log(probs[np.arange(N), LABEL]).mean()
    assert made["groups"][1]["raw"]["nll"]["mean"] == pytest.approx(expected, rel=1e-5)
    # The noise floor by another simulation, in float64.
    confidence = probs.max(1)
    place = np.clip(np.ceil(confidence * 15).astype(int) - 1, 0, 14)
    draws = np.random.default_rng(5).random((2000, N)) < confidence
    floors = [abs(np.bincount(place, confidence - hit, 15)).sum() / N for hit in draws]
    floor = made["groups"][1]["raw"]["ece"]["floor"]
    assert floor == pytest.approx(np.mean(floors), rel=0.1)
    assert "floor %" in printed
    assert f"{100 * floor:.2f}" in printed
    assert "better, worse: than the baseline, where the intervals exclude 0" in printed


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [((LABEL + 1) % K, r": label \d and \d in row 0"), (LABEL[:-1], "199 images of 3 classes")],
)
def test_files_of_other_examples_are_refused(tmp_path, labels, sentence):
    np.savez(tmp_path / "x.npz", logits=logits(0, 1.0)[: len(labels)], labels=labels)
    entries = [runs.read(make(tmp_path / "a")), runs.read_file(tmp_path / "x.npz")]
    with pytest.raises(ValueError, match=sentence):
        runs.groups(entries)
    with pytest.raises(ValueError, match="is given twice"):
        runs.groups([entries[1], entries[1]])


def test_a_comparison_is_the_baseline_of_further_runs(six, tmp_path, capsys):
    assert compare.main([*map(str, six), f"--out={tmp_path}"]) == 0
    capsys.readouterr()
    baseline = recorded.read(str(tmp_path / "comparison.json"))
    assert (baseline.name, baseline.runs) == ("labels=hard", 3)
    raw = np.array([figures(seed, 1.0) for seed in range(3)])
    scaled = np.array([figures(seed, 1.0, 2.0)[1] for seed in range(3)])
    for (mean, std), values in (
        (baseline.figures["raw"]["accuracy"], raw[:, 0]),
        (baseline.figures["raw"]["nll"], raw[:, 1]),
        (baseline.figures["scaled"]["nll"], scaled),
    ):
        assert (mean, std) == pytest.approx((values.mean(), values.std(ddof=1)), rel=1e-5)
    summary = {"splits": {"test": {"accuracy": 0.875, "nll": 0.5}}, "scaled": {}}
    table = as_text(figure_tables.beside(summary, baseline))
    assert "labels=hard, 3 runs" in table
    mean, std = 100 * raw[:, 0].mean(), 100 * raw[:, 0].std(ddof=1)
    assert re.search(rf"accuracy % +87\.50 +{mean:.2f} ± {std:.2f}\n", table), table
    assert re.search(r"NLL \(recalibrated\) +- ", table), table


@pytest.mark.parametrize("kind", ["absent", "another", "text", "nan", "no state"])
def test_a_baseline_must_be_a_comparison(six, tmp_path, capsys, kind):
    path = tmp_path / "comparison.json"
    if kind != "absent":
        assert compare.main([*map(str, six), f"--out={tmp_path}"]) == 0
        capsys.readouterr()
        content = json.loads(path.read_text())
        broken = {
            "another": {"splits": {}},
            "text": "groups",
            "nan": {**content, "groups": [{**content["groups"][0], "raw": {"accuracy": {}}}]},
            "no state": {**content, "groups": [{**content["groups"][0], "raw": None}]},
        }[kind]
        path.write_text(json.dumps(broken))
    with pytest.raises(ValueError, match=r"python -m ldl_jax\.compare wrote") as caught:
        recorded.read(str(path))
    assert str(path) in str(caught.value)
