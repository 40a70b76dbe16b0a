"""The loop from the outside: what a run writes, and that other ways to the same run are the same
run.
"""

import contextlib
import json
import shutil
import signal
import time
import warnings

import chex
import jax
import numpy as np
import pytest
from frame import slow_but

import ldl_jax
from ldl_jax import config
from ldl_jax import workdir as run
from ldl_jax.calibrate import base as calibrators
from ldl_jax.calibrate import safe_temperature
from ldl_jax.checkpoint import Checkpoints
from ldl_jax.evaluation.load import load_weights
from ldl_jax.signals import Interrupted
from ldl_jax.training import dry_run, start, steps
from ldl_jax.training import experiment as build
from ldl_jax.training import loop as train
from ldl_jax.training import schedule as plan
from ldl_jax.training.batches import Feed
from ldl_jax.training.programs import make_programs
from ldl_jax.training.remeasure import measure_again
from ldl_jax.training.schedule import restore
from ldl_jax.workdir import finished


def settings(**fields):
    c = config.default()
    c.model.name, c.labels.name = "tests.tiny", "online"
    c.augment.pad, c.augment.flip = 1, True
    c.data.batch_size, c.data.eval_batch_size, c.data.holdout = 96, 128, 137
    c.optimizer.learning_rate, c.optimizer.schedule = 0.2, "cosine"
    c.train.epochs, c.train.log_every_steps, c.eval.report = 3.0, 5, False
    with c.model.options.unlocked():
        c.model.options.channels = 8
    c.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return c


def go(workdir, c, devices=1, **options):
    return train.train(c, workdir, devices=jax.devices()[:devices], **options)


def stopping(asked):
    """In place of `_stopping`: SIGTERM arrives after the first step for which asked(steps) is true."""

    @contextlib.contextmanager
    def block(total):
        arrived = []

        def stop(steps):
            arrived.extend([steps] if asked(steps) else [])
            return bool(arrived)

        yield stop
        if arrived:
            raise Interrupted(signal.SIGTERM)

    return block


def measured(workdir, c):
    return measure_again(c, workdir, jax.devices()[:1])


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_digests(workdir):
    """A copied run as older versions left it, whose files may differ from its summary."""
    summary = json.loads((workdir / "summary.json").read_text())
    del summary["digests"]
    (workdir / "summary.json").write_text(json.dumps(summary))
    return workdir


def predictions(workdir, split="test"):
    with np.load(workdir / "predictions" / f"{split}.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("calm")
    go(workdir, settings(optimizer__ema=0.9))
    return workdir


def test_a_run_leaves_every_file(calm):
    names = {str(path.relative_to(calm)) for path in calm.rglob("*") if path.is_file()}
    assert {
        "config.json", "network.json", "versions.json", "metrics.jsonl", "timing.jsonl", "model.npz", "best.npz",
        "summary.json", "reliability.png", "curves.png", "predictions/test.npz", "predictions/holdout.npz",
        "calibration.json",
    } <= names  # fmt: skip
    assert any(name.startswith("tensorboard/events") for name in names)
    assert {path.name for path in (calm / "checkpoints").iterdir()} == {
        "26",
        "39",
        "26.sha256",
        "39.sha256",
    }
    assert not [name for name in names if ".tmp" in name]
    assert (calm / "reliability.png").read_bytes()[:4] == b"\x89PNG"


def test_scores_are_those_of_the_predictions_that_were_written(calm):
    for split, count in (("test", 360), ("holdout", 137)):
        said = predictions(calm, split)
        assert said["logits"].dtype == np.float32
        assert len(set(said["index"])) == len(said["index"]) == count
        z = said["logits"].astype(np.float64)
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        truth = np.eye(10)[said["label"]]
        confidence, correct = p.max(1), p.argmax(1) == said["label"]
        bins = np.clip(np.ceil(confidence * 15) - 1, 0, 14)
        gaps = [abs((confidence[bins == b] - correct[bins == b]).sum()) for b in range(15)]
        expected = {
            "n": count, "accuracy": correct.mean(), "nll": -np.log((p * truth).sum(1)).mean(),
            "brier": ((p - truth) ** 2).sum(1).mean(), "ece": sum(gaps) / count,
        }  # fmt: skip
        scores = json.loads((calm / "summary.json").read_text())["splits"][split]
        for name, value in expected.items():
            assert scores[name] == pytest.approx(value, abs=2e-6), (split, name)
        assert 0 < scores["ece_floor"] < 0.2


def test_labels_of_the_predictions_are_those_of_the_published_order(calm):
    dataset = build.make_dataset(settings().data)
    for split, part in (("test", dataset.test), ("holdout", dataset.train)):
        said = predictions(calm, split)
        np.testing.assert_array_equal(said["label"], part.labels[said["index"]])


def test_metrics_have_a_row_for_every_log_and_evaluation_and_only_numbers_that_repeat(calm):
    rows = run.read_log(calm / "metrics.jsonl")
    assert [row["step"] for row in rows if "train/loss" in row] == [5, 10, 15, 20, 25, 30, 35, 39]
    assert [row["step"] for row in rows if "test/nll" in row] == [13, 26, 39]
    assert rows[-1]["labels/rows_written"] == pytest.approx(1300, abs=60)
    assert not any("second" in name for row in rows for name in row)
    timing = run.read_log(calm / "timing.jsonl")
    assert timing
    assert all(row["images_per_second"] > 0 and 0 <= row["input_wait"] < 1 for row in timing)


def test_the_best_weights_are_those_of_the_lowest_holdout_nll(calm):
    rows = run.read_log(calm / "metrics.jsonl")
    lowest = min((row["holdout/nll"], row["step"]) for row in rows if "holdout/nll" in row)
    assert tuple(run.read_weights(calm / "best.npz")[1][name] for name in ("nll", "step")) == lowest


def test_a_loaded_run_says_what_was_predicted(calm):
    apply, variables = ldl_jax.load(calm)
    images = build.make_dataset(settings().data).test.images
    logits = jax.jit(apply)(variables, images).logits
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, predictions(calm)["logits"], atol=1e-5)
    with jax.enable_x64(False), warnings.catch_warnings():
        warnings.simplefilter("error")  # such as of float64, which there is none of
        eager = apply(variables, images[:4]).logits
    np.testing.assert_allclose(eager, logits[:4], atol=1e-5)


def test_the_best_weights_can_be_loaded_where_images_were_held_out(calm, tmp_path):
    apply, variables = ldl_jax.load(calm, best=True)
    held = predictions(calm, "holdout")
    logits = jax.jit(apply)(
        variables, build.make_dataset(settings().data).train.images[held["index"]]
    ).logits
    nll = -np.mean(np.take_along_axis(jax.nn.log_softmax(logits), held["label"][:, None], axis=1))
    assert nll == pytest.approx(run.read_weights(calm / "best.npz")[1]["nll"], rel=1e-5)
    shutil.copytree(
        calm, tmp_path / "none", ignore=shutil.ignore_patterns("best.npz", "checkpoints")
    )
    with pytest.raises(
        ValueError, match=r"none has no best\.npz; only runs with config.data.holdout above 0 keep"
    ):
        ldl_jax.load(tmp_path / "none", best=True)


def test_the_same_command_on_a_finished_run_changes_no_number(calm, tmp_path):
    again = shutil.copytree(calm, tmp_path / "again")
    go(again, settings(optimizer__ema=0.9, train__log_every_steps=5))
    assert (again / "metrics.jsonl").read_text() == (calm / "metrics.jsonl").read_text()
    chex.assert_trees_all_equal(predictions(again), predictions(calm))


def test_a_run_has_its_scores_before_and_after_a_temperature_fitted_on_its_holdout(calm):
    summary = json.loads((calm / "summary.json").read_text())
    fitted, scaled = summary["temperature"], summary["scaled"]["test"]
    said, held = predictions(calm), predictions(calm, "holdout")
    z = said["logits"].astype(np.float64) / fitted["temperature"]
    log_p = (
        z
        - np.log(np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True))
        - z.max(1, keepdims=True)
    )
    assert scaled["nll"] == pytest.approx(-log_p[np.arange(len(z)), said["label"]].mean(), rel=1e-5)
    assert set(scaled) == set(summary["splits"]["test"])
    assert "holdout" not in summary["scaled"]  # it was fitted there

    def nll(temperature):
        z = held["logits"].astype(np.float64) / temperature
        return (np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), held["label"]]).mean()

    best = nll(fitted["maximum_likelihood"])
    assert best <= min(nll(fitted["maximum_likelihood"] * factor) for factor in (0.99, 1.01))
    gain = 2 * len(held["label"]) * (nll(1) - best)
    assert fitted["likelihood_ratio"] == pytest.approx(gain, rel=1e-4, abs=1e-4)
    name, options, params = calibrators.load(calm / "calibration.json")
    assert (name, params["temperature"]) == ("safe_temperature", fitted["temperature"])
    again = safe_temperature.make(**options).fit(held["logits"], held["label"])
    assert again["temperature"] == pytest.approx(fitted["temperature"], rel=1e-9)
    assert tuple(said["classes"]) == tuple("0123456789")


@pytest.mark.slow
def test_another_measurement_ends_with_the_report(calm, tmp_path, capsys):
    again = shutil.copytree(calm, tmp_path / "again")
    measure_again(settings(optimizer__ema=0.9, eval__report=True), again, jax.devices()[:1])
    said = capsys.readouterr().out
    assert "test recalibrated" in said
    assert f"{again / 'report.html'}" in said
    (found,) = json.loads((again / "evaluation.json").read_text())["suites"]
    before = json.loads((calm / "summary.json").read_text())
    assert found["raw"]["figures"]["ece"]["value"] == pytest.approx(
        before["splits"]["test"]["ece"], abs=2e-6
    )
    assert found["scaled"]["figures"]["nll"]["value"] == pytest.approx(
        before["scaled"]["test"]["nll"], abs=2e-6
    )
    assert found["class_names"] == list("0123456789")
    page = (again / "report.html").read_text()
    assert f"{100 * before['splits']['test']['ece']:.2f}" in page
    assert "tests.tiny on digits, labels: online" in page


@pytest.mark.slow
def test_another_evaluation_says_the_same_and_another_average_something_else(calm, tmp_path):
    again = shutil.copytree(calm, tmp_path / "again")
    measure_again(settings(optimizer__ema=0.9, data__eval_batch_size=50), again, jax.devices()[:1])
    np.testing.assert_allclose(predictions(again)["logits"], predictions(calm)["logits"], atol=1e-5)
    measure_again(settings(optimizer__ema=0.9, eval__weights="ema"), again, jax.devices()[:1])
    assert np.abs(predictions(again)["logits"] - predictions(calm)["logits"]).max() > 1e-3


def test_a_run_that_was_terminated_and_went_on_is_bitwise_the_calm_one_whatever_the_way_in(
    calm, tmp_path, monkeypatch
):
    """Streamed instead of resident, and stopped in the middle of an epoch and of a line of the log."""
    c = settings(optimizer__ema=0.9, data__resident=False)
    with monkeypatch.context() as patch:
        calls = iter(range(100))
        patch.setattr(train, "_stopping", stopping(lambda steps: next(calls) == 16))
        with pytest.raises(Interrupted, match="terminated: saved at step 17"):
            go(tmp_path, c)
    assert (
        max(int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.is_dir()) == 17
    )
    assert not (tmp_path / "summary.json").exists()
    go(tmp_path, c)
    assert (tmp_path / "metrics.jsonl").read_text() == (calm / "metrics.jsonl").read_text()
    chex.assert_trees_all_equal(predictions(tmp_path), predictions(calm))


@pytest.mark.slow
def test_an_array_that_would_be_sent_to_the_devices_in_every_step_is_refused(tmp_path, monkeypatch):
    def numpy_batches(experiment, plan, first):
        return ((1, {"index": np.arange(96, dtype=np.int32)}) for _ in range(first, plan.total))

    monkeypatch.setattr(train, "Feed", numpy_batches)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        go(tmp_path, settings())


@pytest.mark.slow
def test_a_longer_run_needs_the_word_and_is_recorded(calm, tmp_path):
    longer = shutil.copytree(calm, tmp_path / "longer")
    with pytest.raises(ValueError, match=r"train.epochs was 3.0, is now 4.0.*--extend"):
        go(longer, settings(optimizer__ema=0.9, train__epochs=4.0))
    summary = go(longer, settings(optimizer__ema=0.9, train__epochs=4.0), extend=True)
    assert summary["step"] == 52
    assert len(json.loads((longer / "versions.json").read_text())["starts"]) == 2
    assert run.read_config(longer).train.epochs == 4.0


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"labels__online__alpha": 0.5}, "labels.online.alpha"),
        ({"seed": 1}, "seed"),
        ({"labels__name": "hard"}, "labels.name"),
    ],
)
def test_another_config_is_refused_by_the_names_of_the_fields(calm, fields, name):
    before = (calm / "config.json").read_bytes()
    with pytest.raises(ValueError, match=rf"a run with a different config: {name} was .*, is now "):
        go(calm, settings(optimizer__ema=0.9, **fields))
    assert (calm / "config.json").read_bytes() == before


def test_another_model_behind_the_same_config_is_refused_by_the_leaf_that_differs(calm, tmp_path):
    other = shutil.copytree(calm, tmp_path / "other")
    text = json.loads((other / "config.json").read_text())
    text["model"]["options"]["channels"] = 6
    (other / "config.json").write_text(json.dumps(text))
    c = settings(optimizer__ema=0.9)
    c.model.options.channels = 6
    with pytest.raises(
        ValueError,
        match=r"checkpoints/39 was saved by a different model: params/model/bn/bias is float32\[8\]",
    ):
        go(other, c)
    assert (other / "checkpoints" / "39").is_dir()


@pytest.mark.slow
def test_chunks_of_steps_are_the_same_steps(tmp_path):
    fields = {"model__dtype": "float64", "train__epochs": 2.0, "labels__online__momentum": 0.5}
    for name, chunk in (("one", 1), ("four", 4)):
        go(tmp_path / name, settings(train__chunk_steps=chunk, **fields))
    one, four = (run.read_log(tmp_path / name / "metrics.jsonl") for name in ("one", "four"))
    chex.assert_trees_all_close(one, four, rtol=1e-10)


@pytest.mark.nightly
def test_a_run_moves_from_one_device_to_eight_and_back(tmp_path):
    constant = {
        "optimizer__schedule": "constant",
        "labels__online__schedule": "constant",
        "model__dtype": "float64",
    }
    go(tmp_path / "one", settings(**constant))
    for devices, epochs in ((1, 1.0), (8, 2.0), (1, 3.0)):
        go(tmp_path / "moved", settings(train__epochs=epochs, **constant), devices, extend=True)
    one, moved = ({row["step"]: row for row in run.read_log(tmp_path / name / "metrics.jsonl") if "test/nll" in row}
                  for name in ("one", "moved"))  # fmt: skip
    chex.assert_trees_all_close(one, moved, rtol=1e-9)


def test_a_loss_that_is_no_number_ends_the_run_and_no_checkpoint_holds_it(tmp_path):
    c = settings(
        optimizer__learning_rate=1e38, train__save_every_epochs=0.08, optimizer__schedule="constant"
    )
    with pytest.raises(train.NonFinite, match=r"step \d+: loss .* at learning rate 1e\+38"):
        go(tmp_path, c)
    checkpoints = Checkpoints(tmp_path / "checkpoints", every_steps=1, keep=2)
    made = build.make_experiment(c, jax.devices()[:1])
    _, notes = restore(made, checkpoints)
    assert np.isfinite([row["loss"] for row in notes["window"]]).all()
    checkpoints.close()
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.slow
def test_a_finished_run_teaches_and_is_remembered_by_its_weights(calm, tmp_path):
    c = settings(labels__name="teacher", teachers=(str(calm),), train__epochs=1.0)
    summary = go(tmp_path / "student", c)
    assert list(summary["teachers"]) == [str(calm)]
    other = without_digests(shutil.copytree(calm, tmp_path / "other"))
    variables, _ = run.read_weights(calm / "model.npz")
    run.save_weights(other / "model.npz", jax.tree.map(lambda x: x + 1, variables), step=39)
    with pytest.raises(ValueError, match=r"started with .*calm.* are different"):
        go(
            tmp_path / "student",
            settings(labels__name="teacher", teachers=(str(other),), train__epochs=1.0),
        )


def test_a_teacher_that_does_not_fit_is_refused(calm, tmp_path):
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.json").write_text("{}")
    with pytest.raises(
        ValueError,
        match=r"unfinished is not finished: it has no model.npz; train it with python -m",
    ):
        build.make_experiment(
            settings(labels__name="teacher", teachers=(str(tmp_path / "unfinished"),))
        )
    (tmp_path / "unfinished" / "versions.json").write_text(
        json.dumps(
            {
                "starts": [
                    {"command": ["/there/ldl_jax/main.py", "--config=a b.py", "--workdir=runs/t"]}
                ]
            }
        )
    )
    with pytest.raises(
        ValueError,
        match=r"train it with python -m ldl_jax.main '--config=a b.py' --workdir=runs/t$",
    ):
        build.make_experiment(
            settings(labels__name="teacher", teachers=(str(tmp_path / "unfinished"),))
        )
    with pytest.raises(
        ValueError, match=r"ldl_jax.main --config=x.py --config.data.root=d --workdir=runs/none$"
    ):
        build.make_experiment(
            settings(
                labels__name="teacher",
                teachers=("runs/none",),
                teachers_from="--config=x.py",
                data__root="d",
            )
        )
    other = without_digests(shutil.copytree(calm, tmp_path / "other"))
    spec = json.loads((other / "network.json").read_text())
    (other / "network.json").write_text(
        json.dumps({**spec, "num_classes": 7, "classes": list("abcdefg")})
    )
    with pytest.raises(ValueError, match="must have the student's classes, 10, got 7"):
        build.make_experiment(settings(labels__name="teacher", teachers=(str(other),)))
    (other / "model.npz").write_bytes(b"PK damaged")
    with pytest.raises(ValueError, match=r"model.npz: cannot be read as the weights"):
        build.make_experiment(settings(labels__name="teacher", teachers=(str(other),)))


def test_sizes_are_told_before_anything_starts():
    text = dry_run.sizes(settings(), 1)
    assert "39 = 3 epochs of 13" in text
    assert f"{3072 * 10 * 4:,}" in text
    assert ".0\n" not in text  # bytes are whole numbers
    # images of both splits  # the label memory: 1,437 rows padded to 3,072, f32
    assert f"{1797 * 64:,}" in text
    eighth = dry_run.sizes(settings(), 8)
    assert f"{3072 * 10 * 4 // 8:,}" in eighth


@pytest.mark.slow
def test_the_ema_starts_at_the_parameters_and_moves_with_updates_only(tmp_path):
    c = settings(optimizer__ema=0.5, optimizer__accumulate=2, train__max_steps=3, data__holdout=0)
    go(tmp_path, c)
    made = build.make_experiment(c, jax.devices()[:1])
    checkpoints = Checkpoints(tmp_path / "checkpoints", every_steps=1, keep=2)
    state, _ = restore(made, checkpoints)
    checkpoints.close()
    fresh = steps.init_state(made.recipe, jax.random.key(0))
    # steps 0 and 1 make the one update; step 2 waits for its partner
    expected = jax.tree.map(lambda a, b: (a + b) / 2, fresh.params["model"], state.params["model"])
    chex.assert_trees_all_close(state.ema["params"], expected, atol=1e-6)


@pytest.mark.slow
def test_a_trace_of_the_steps_asked_for_is_written(tmp_path):
    go(tmp_path, settings(train__max_steps=5, data__holdout=0), profile=(2, 3))
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


@pytest.mark.nightly
def test_a_trace_that_the_run_ends_in_is_written_and_one_that_never_began_is_told(tmp_path, capsys):
    c = settings(train__max_steps=5, data__holdout=0)
    go(tmp_path / "short", c, profile=(3, 9))
    assert list((tmp_path / "short" / "profile").rglob("*.xplane.pb"))
    go(tmp_path / "short", c, profile=(3, 9))
    assert "no trace was written: step 3 was not run" in capsys.readouterr().out


@pytest.mark.slow
def test_other_data_behind_the_same_config_are_refused_and_nothing_is_overwritten(tmp_path):
    def arrays(classes, images=128, seed=0, first=0):
        draw = np.random.default_rng(seed)
        parts = {
            f"{part}_images": draw.integers(0, 256, (images, 8, 8, 3), np.uint8)
            for part in ("train", "test")
        }
        labels = {
            f"{part}_labels": (np.arange(images) + first) % classes for part in ("train", "test")
        }
        np.savez(tmp_path / "own.npz", **parts, **labels)

    c = settings(
        data__name="arrays",
        data__root=str(tmp_path / "own.npz"),
        data__holdout=0,
        train__max_steps=2,
    )
    arrays(4)
    go(tmp_path / "run", c)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.json")}
    for work, name, *others in (
        (go, "num_classes", 5),
        (measured, "num_examples", 4, 160),
        (go, "mean", 4, 128, 1),
    ):
        arrays(*others)
        with pytest.raises(ValueError, match=f"started with other data: {name} was "):
            work(tmp_path / "run", c)
    arrays(4, first=1)  # other labels of the same images
    with pytest.raises(
        ValueError, match=r"started with \['data.root = .*own.npz'\]; the contents of"
    ):
        go(tmp_path / "run", c)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.json")}
    made, versions = build.make_experiment(c), json.loads(before["versions.json"])
    versions["starts"][-1]["inputs"] = {}  # as before it was noted what the file holds
    (tmp_path / "run" / "versions.json").write_text(json.dumps(versions))
    assert len(run.check_data(tmp_path / "run", made.spec, made.inputs)) == 1


def test_other_teachers_or_tables_than_the_last_starts_are_not_measured(calm, tmp_path):
    other = shutil.copytree(calm, tmp_path / "other")
    made = json.loads((other / "versions.json").read_text())
    made["starts"].append(
        {**made["starts"][0], "inputs": {"data.labels_file = noisy.npy": "0" * 64}}
    )
    (other / "versions.json").write_text(json.dumps(made))
    before = contents(other)
    for work in (go, measured):
        with pytest.raises(
            ValueError,
            match=r"started with \['data.labels_file = noisy.npy'\]; the contents of",
        ):
            work(other, settings(optimizer__ema=0.9))
    assert contents(other) == before


@pytest.mark.slow
def test_a_finished_run_without_checkpoints_is_not_begun_anew_and_can_be_measured(calm, tmp_path):
    kept = shutil.copytree(calm, tmp_path / "kept", ignore=shutil.ignore_patterns("checkpoints"))
    before = contents(kept)
    for epochs, extend in ((3.0, False), (4.0, True)):
        with pytest.raises(
            ValueError,
            match=r"kept holds a run that finished at step 39 and has no checkpoints left",
        ):
            go(kept, settings(optimizer__ema=0.9, train__epochs=epochs), extend=extend)
    with pytest.raises(
        ValueError,
        match=r"weights must be 'raw', since .* model.npz holds those weights, got 'ema'",
    ):
        measured(kept, settings(optimizer__ema=0.9, eval__weights="ema"))
    assert contents(kept) == before
    summary = measured(kept, settings(optimizer__ema=0.9))
    assert (summary["step"], summary["epochs"], summary["finished"]) == (39, 3.0, True)
    chex.assert_trees_all_equal(predictions(kept), predictions(calm))
    assert (kept / "metrics.jsonl").read_bytes() == before[kept / "metrics.jsonl"]
    # a student that has it for a teacher goes on
    assert load_weights(kept)[2] == load_weights(calm)[2]


@pytest.mark.slow
def test_an_evaluation_that_is_killed_is_made_again(calm, tmp_path):
    """Without a checkpoint, so that the weights in the directory are all there is."""
    kept = shutil.copytree(calm, tmp_path / "kept", ignore=shutil.ignore_patterns("checkpoints"))
    c = settings(optimizer__ema=0.9)
    before = json.loads((kept / "summary.json").read_text())

    class Killed(BaseException):
        pass

    def put_in_place(staging, folder, last):
        (folder / last).unlink()
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finished, "_put_in_place", put_in_place)
        with pytest.raises(Killed):
            measured(kept, c)
    with pytest.raises(ValueError, match=r"it has weights but no summary.json, .* --mode=eval$"):
        load_weights(kept)
    with pytest.raises(ValueError, match=r"results are incomplete; it has no checkpoints left"):
        go(kept, c)
    assert measured(kept, c) == before
    assert finished.is_finished(kept)
    assert finished.is_measured(kept)
    chex.assert_trees_all_equal(predictions(kept), predictions(calm))


def deleting(path, at):
    """In place of `_stopping`: no signal arrives, but `path` is deleted after step `at`."""

    def delete(steps):
        # again as long as a save in the background adds files
        while at in steps and path.exists():
            shutil.rmtree(path, ignore_errors=True)
        return False

    return stopping(delete)


@pytest.mark.slow
def test_a_run_whose_directory_is_deleted_ends_with_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "_stopping", deleting(tmp_path / "run", 5))
    c = settings(optimizer__ema=0.9, train__epochs=1.0)
    with pytest.raises(start.Deleted, match=r"run was deleted or moved during training"):
        go(tmp_path / "run", c)
    assert not list(tmp_path.rglob("*.npz"))
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.slow
def test_a_run_whose_checkpoints_are_deleted_saves_others(calm, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(train, "_stopping", deleting(tmp_path / "checkpoints", 20))
        summary = go(tmp_path, settings(optimizer__ema=0.9))
    said = capsys.readouterr().err
    # The save in the background at step 13 may still be writing: then that one is lost, and said.
    assert (
        "checkpoints was deleted during training; checkpoint 26 starts" in said
        or "checkpoint 13 cannot be written" in said
    )
    assert summary["finished"]
    assert finished.is_finished(tmp_path)
    assert (tmp_path / "checkpoints" / "39.sha256").exists()
    assert (tmp_path / "metrics.jsonl").read_text() == (calm / "metrics.jsonl").read_text()
    assert go(tmp_path, settings(optimizer__ema=0.9)) == summary


@pytest.mark.slow
def test_a_run_measured_half_way_is_no_teacher(calm, tmp_path):
    half = shutil.copytree(calm, tmp_path / "half")
    c = settings(optimizer__ema=0.9, train__epochs=4.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_stopping", stopping(lambda steps: True))
        with pytest.raises(Interrupted):
            go(half, c, extend=True)
    assert not measure_again(c, half, jax.devices()[:1])["finished"]
    with pytest.raises(ValueError, match=r"half is not finished: it has no model.npz"):
        build.make_experiment(settings(labels__name="teacher", teachers=(str(half),)))


def test_a_directory_belongs_to_one_process(tmp_path):
    with (
        run.locked(tmp_path),
        pytest.raises(ValueError, match="is in use by another process"),
    ):
        go(tmp_path, settings())


def test_an_extension_that_cannot_begin_keeps_the_finished_run(calm, tmp_path, monkeypatch):
    kept = shutil.copytree(calm, tmp_path / "kept")
    before = contents(kept)
    with pytest.raises(
        ValueError, match="kept is already at step 39, but this config has only 20 steps"
    ):
        go(kept, settings(optimizer__ema=0.9, train__max_steps=20), extend=True)
    assert contents(kept) == before

    def full(*_, **__):
        raise OSError("no memory")

    monkeypatch.setattr(train, "restore", full)
    with pytest.raises(OSError, match="no memory"):
        go(kept, settings(optimizer__ema=0.9, train__epochs=4.0), extend=True)
    assert contents(kept) == before


def test_checkpoints_that_cannot_be_seen_are_not_taken_for_none(calm, tmp_path):
    kept = shutil.copytree(calm, tmp_path / "kept", ignore=shutil.ignore_patterns("checkpoints"))
    (kept / "checkpoints").write_text("")
    before = contents(kept)
    with pytest.raises(ValueError, match=r"kept/checkpoints cannot be read: Not a directory"):
        go(kept, settings(optimizer__ema=0.9))
    assert contents(kept) == before


def test_a_run_is_not_extended_to_less(calm):
    with pytest.raises(
        ValueError,
        match=r"--extend can only make a run longer: config.train.epochs was 3.0, got 1.0",
    ):
        go(calm, settings(optimizer__ema=0.9, train__epochs=1.0), extend=True)


@pytest.mark.parametrize("name", slow_but([], ["peer", "mean_teacher"], ["mean_teacher"]))
def test_a_second_network_that_is_no_number_ends_the_run_too(name):
    made = build.make_experiment(settings(labels__name=name, data__holdout=0), jax.devices()[:1])
    device, state = make_programs(made), plan.fresh_state(made)
    broken = (
        jax.tree.map(lambda x: x * np.nan, state.labels["params"])
        if name == "peer"
        else state.labels["params"]
    )
    if name == "mean_teacher":
        broken = {**broken, "fc": jax.tree.map(lambda x: x + np.inf, broken["fc"])}
    state = state.replace(labels={**state.labels, "params": broken})
    (_, batch), *_ = [next(Feed(made, plan.make_plan(made), 0))]
    assert not device.step(state, device.frozen, device.train, batch)[1]["finite"]


def test_batches_are_ahead_of_their_steps_and_the_wait_for_them_is_known():
    made, read = build.make_experiment(settings(data__resident=False), jax.devices()[:1]), []
    stream = made.dataset.train.stream

    def slow(batches, seed):
        for batch in stream(batches, seed):
            time.sleep(0.02)
            read.append(batch["index"])
            yield batch

    made = made._replace(
        dataset=made.dataset._replace(train=made.dataset.train._replace(stream=slow))
    )
    feed = Feed(made, plan.make_plan(made), 36)  # of 39 steps
    assert not read
    (count, batch), *rest = next(feed), len(read)
    assert (count, rest, feed.take_wait() > 0.05) == (1, [3], True)
    np.testing.assert_array_equal(batch["index"], read[0])
    assert [len(found[1]["index"]) for found in feed] == [len(read[0])] * 2
    assert feed.take_wait() < 0.05
