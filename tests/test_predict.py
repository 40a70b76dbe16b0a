"""The command that predicts: any images through a finished run, by its calibrator, to files that
others read.
"""

import csv
import os
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from scipy.special import log_softmax, softmax

from ldl_jax import config, files, predict
from ldl_jax import workdir as run
from ldl_jax.calibrate import base as calibrators
from ldl_jax.calibrate import temperature
from ldl_jax.config import trust
from ldl_jax.data.readers import pillow
from ldl_jax.evaluation import images, predictions
from ldl_jax.evaluation.load import load
from ldl_jax.models.spec import make_network

CLASSES, SIZE = ("ant", "bee", "<cat>"), 6
PIXELS = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3)).astype(np.uint8)
LABEL = np.array([0, 2, 1, 0, 2])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A run's directory as a finished one leaves it: its network, its weights, a temperature of 2."""
    path = tmp_path_factory.mktemp("runs") / "own"
    model = {"name": "tests.tiny", "dtype": "float32", "norm_group": 0, "options": {"channels": 4}}
    spec = {
        "num_classes": len(CLASSES), "classes": list(CLASSES), "shape": [SIZE, SIZE, 3], "num_examples": 5,
        "mean": [0.5] * 3, "std": [0.25] * 3, "model": model,
    }  # fmt: skip
    init, _ = make_network(spec)
    files.write_json(path / run.NETWORK, spec)
    run.save_weights(path / run.WEIGHTS, jax.tree.map(np.asarray, init(jax.random.key(0))), step=1)
    files.write(path / run.CONFIG, config.to_json(config.default()))
    trust.remember(path / run.NETWORK, spec, ["tests.tiny"])
    files.write_json(path / run.SUMMARY, {})
    calibrators.save(path / run.CALIBRATION, "temperature", {}, {"temperature": 2.0})
    return path


@pytest.fixture
def folder(tmp_path):
    """The five images in folders named like their classes; paths in another order than the array's."""
    for number, (pixels, label) in enumerate(zip(PIXELS, LABEL, strict=True)):
        place = tmp_path / "images" / CLASSES[label] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
    return tmp_path / "images"


def said(path):
    apply, variables = load(path)
    return np.asarray(apply(variables, PIXELS).logits)


def test_a_folder_and_an_array_of_the_same_images_are_predicted_alike(model, folder, tmp_path):
    np.savez(tmp_path / "all.npz", images=PIXELS, labels=LABEL)
    options = {"batch_size": 2}  # the last batch is padded
    of_folder = predict.predict(model, folder, out=tmp_path / "out/folder", **options)
    predict.predict(model, tmp_path / "all.npz", out=tmp_path / "out/array", **options)
    expected = log_softmax(said(model) / 2, -1)
    with np.load(tmp_path / "out/array.npz") as file:
        np.testing.assert_allclose(file["logits"], expected, atol=1e-5)
        np.testing.assert_array_equal(file["label"], LABEL)
        assert tuple(file["classes"]) == CLASSES
    with np.load(tmp_path / "out/folder.npz") as file:
        order = [int(name[-5]) for name in file["name"]]
        assert order == sorted(order, key=lambda i: f"{CLASSES[LABEL[i]]}/{i}.png")
        np.testing.assert_allclose(file["logits"], expected[order], atol=1e-5)
        np.testing.assert_array_equal(file["label"], LABEL[order])
    rows = list(csv.reader(of_folder[1].read_text().splitlines()))
    assert rows[0] == ["image", "predicted", "confidence", *(f"p({name})" for name in CLASSES)]
    probs = np.array([[float(p) for p in row[3:]] for row in rows[1:]])
    np.testing.assert_allclose(probs, np.exp(expected[order]), atol=1e-5)
    assert [row[1] for row in rows[1:]] == [CLASSES[i] for i in expected[order].argmax(1)]


def test_its_file_is_one_that_the_measurement_reads(model, tmp_path):
    np.savez(tmp_path / "all.npz", images=PIXELS, labels=LABEL)
    found = predictions.read(predict.predict(model, tmp_path / "all.npz", out=tmp_path / "x")[0])
    assert (found.kind, found.classes) == ("logits", CLASSES)
    np.testing.assert_array_equal(found.label, LABEL)


def test_raw_leaves_the_temperature_out(model, tmp_path):
    np.savez(tmp_path / "all.npz", test_images=PIXELS)
    raw = predict.predict(model, tmp_path / "all.npz", out=tmp_path / "raw", raw=True)[0]
    with np.load(raw) as file:
        np.testing.assert_allclose(softmax(file["logits"], -1), softmax(said(model), -1), atol=1e-5)
        assert "label" not in file.files


@pytest.mark.parametrize(
    ("logits", "T", "words"), [(5.0, 0.001, "close to 0 or 1"), (-5.0, 1000.0, "nearly equal")]
)
def test_a_temperature_at_a_bound_of_its_search_is_applied_and_warned_of(
    model, tmp_path, capsys, logits, T, words
):
    """A holdout without a single error, and one without a single hit."""
    label = np.arange(9) % 3
    fitted = temperature.make().fit(np.float32(logits * np.eye(3)[label]), label)
    own = shutil.copytree(model, tmp_path / "own")
    calibrators.save(own / run.CALIBRATION, "temperature", {}, fitted)
    np.savez(tmp_path / "all.npz", images=PIXELS)
    with np.load(predict.predict(own, tmp_path / "all.npz", out=tmp_path / "out")[0]) as file:
        np.testing.assert_allclose(
            file["logits"], log_softmax(said(model) / T, -1), rtol=1e-4, atol=1e-5
        )
    error = capsys.readouterr().err
    for text in (str(own / run.CALIBRATION), f"limit ({T:g})", words, "--raw"):
        assert text in error
    assert error.startswith("warning: ")
    assert error.count("\n") == 1
    predict.predict(own, tmp_path / "all.npz", out=tmp_path / "raw", raw=True)
    fit = {"temperature": 0.8, "interval_low": 0.1, "interval_high": 0.9, "errors": 2}
    calibrators.save(own / run.CALIBRATION, "safe_temperature", {}, fit)
    assert capsys.readouterr().err == ""
    recalibrated = predict.calibrated(own, np.eye(3))
    np.testing.assert_allclose(recalibrated, log_softmax(np.eye(3) / 0.8, -1))
    assert "rests on 2 errors in the holdout, fewer than 10" in capsys.readouterr().err
    predict.predict(model, tmp_path / "all.npz", out=tmp_path / "within")
    assert capsys.readouterr().err == ""


def test_an_image_that_cannot_be_read_is_named_or_left_out(model, folder, tmp_path, capsys):
    (folder / "ant" / "0.png").write_bytes(b"no image")
    with pytest.raises(
        ValueError, match=r"ant/0\.png: is neither JPEG nor PNG, nor .*; repair or remove it"
    ):
        predict.predict(model, folder, out=tmp_path / "out")
    assert not list(tmp_path.glob("out*"))
    with np.load(predict.predict(model, folder, out=tmp_path / "out", skip=True)[0]) as file:
        assert len(file["logits"]) == 4
    assert "skipped" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": PIXELS}, "it has no images or test_images"),
        (
            {"images": PIXELS[:, :4]},
            r"images must be uint8\[N, 6, 6, 3\] with N >= 1, got uint8\[5, 4, 6, 3\]",
        ),
        ({"images": PIXELS[:0]}, "with N >= 1"),
        ({"images": PIXELS / 255}, "got float64"),
        (
            {"images": PIXELS, "labels": LABEL[:3]},
            r"labels must be integers \[5\], .*, got int64\[3\]",
        ),
        ({"images": PIXELS, "labels": LABEL + 1}, "labels must be between 0 and 2, got 1 to 3"),
        ({"images": np.array([None])}, "cannot be read as an .npz file of images"),
    ],
)
def test_images_of_another_form_are_refused(model, tmp_path, arrays, sentence):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=sentence):
        predict.predict(model, tmp_path / "bad.npz", out=tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_the_command_says_in_one_sentence_what_is_wrong(model, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.npz").write_bytes(b"PK\3\4")
    cases = {
        (model, tmp_path / "empty"): "must hold images",
        (model, tmp_path / "nowhere"): "does not exist",
        (model, tmp_path / "cut.npz"): "cannot be read as an .npz",
        (tmp_path / "empty", tmp_path / "empty"): "is not a run directory",
        (model, tmp_path / "empty", "--batch=0"): "--batch must be at least 1, got 0",
    }
    for words, sentence in cases.items():
        assert predict.main([str(word) for word in words]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert sentence in error
        assert error.count("\n") == 1


def test_predictions_are_printed_where_they_cannot_be_written(
    model, folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(predict, "MOST_LINES", 2)
    (tmp_path / "file").write_bytes(b"")
    out = tmp_path / "file" / "x"
    assert predict.main([str(model), str(folder), f"--out={out}"]) == 1
    printed = capsys.readouterr()
    assert printed.err == (
        f"error: {tmp_path / 'file'}: Not a directory; the results are only printed\n"
    )
    assert len(printed.out.splitlines()) == len(PIXELS) + 1  # and the accuracy

    # A disk that is full only in the end.
    def full(*_, **__):
        raise OSError(28, "No space left on device", "x.npz")

    monkeypatch.setattr(files, "write_npz", full)
    assert predict.main([str(model), str(folder), f"--out={tmp_path / 'x'}"]) == 1
    printed = capsys.readouterr()
    assert printed.err == "error: x.npz: No space left on device\n"
    assert len(printed.out.splitlines()) == len(PIXELS) + 1
    assert not list(tmp_path.glob("x*"))
    with pytest.raises(OSError, match="Not a directory"):
        predict.predict(model, folder, out=out)


def test_predictions_do_not_follow_a_link_in_the_run(model, folder, tmp_path, capsys):
    run_folder = tmp_path / "run"
    shutil.copytree(model, run_folder)
    shutil.rmtree(run_folder / run.PREDICTED, ignore_errors=True)
    (tmp_path / "outside").mkdir()
    (run_folder / run.PREDICTED).symlink_to(tmp_path / "outside")
    assert predict.main([str(run_folder), str(folder)]) == 2
    assert "predicted must not be a symbolic link" in capsys.readouterr().err
    assert not list((tmp_path / "outside").iterdir())


def test_a_large_image_is_shown_as_evaluation_shows_it(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    shown = pillow.decode(tmp_path / "x.png", 24, shorter=32)
    resized = Image.fromarray(pixels).resize((48, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(shown, np.asarray(resized)[4:28, 12:36])


def test_single_files_are_predicted_and_shown_to_a_person(model, folder, tmp_path, capsys):
    files_ = [folder / CLASSES[label] / f"{i}.png" for i, label in enumerate(LABEL)]
    out = tmp_path / "out"
    assert predict.main([str(model), *map(str, files_), f"--out={out}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    expected = softmax(said(model) / 2, -1)
    for line, file, row in zip(lines, files_, expected, strict=False):
        best = np.argsort(-row, kind="stable")
        assert line.split("  ")[0] == str(file)
        assert line.endswith("  ".join(f"{CLASSES[k]} {row[k]:.3f}" for k in best))
    hits = (expected.argmax(1) == LABEL).mean()
    assert lines[5].startswith(f"accuracy {100 * hits:.2f} % of 5 images")
    assert lines[6:] == [f"wrote {out}.npz", f"wrote {out}.csv"]
    assert predict.main([str(model), str(files_[1]), f"--out={tmp_path / 'one'}"]) == 0
    with np.load(tmp_path / "one.npz") as file:
        np.testing.assert_allclose(file["logits"][0], np.log(expected[1]), atol=1e-5)
        np.testing.assert_array_equal(file["label"], LABEL[1:2])


def test_labels_are_kept_only_if_folders_name_classes_of_all_images(model, folder, tmp_path):
    deep = folder / "bee" / "more" / "x.png"
    deep.parent.mkdir()
    shutil.copy(folder / "bee" / "2.png", deep)
    spec = {"shape": [SIZE, SIZE, 3], "classes": list(CLASSES), "num_classes": 3}
    found = images.find([folder], spec, 0)
    assert found.names[-1] == "bee/more/x.png"
    assert [CLASSES[label] for label in found.label] == [n.split("/")[0] for n in found.names]
    (folder / "eel").mkdir()
    shutil.copy(deep, folder / "eel" / "y.png")
    assert images.find([folder], spec, 0).label is None
    with pytest.raises(ValueError, match=r"must be an image \(.*\) or an .npz file"):
        images.find([model / run.NETWORK], spec, 0)


def test_names_are_safe_in_spreadsheets_and_survive_if_not_utf8(model, folder, tmp_path):
    names = [b"=cmd().png", b"-3.png", b"@x.png", b"\xc4.png", b"plain.png"]
    (tmp_path / "photos").mkdir()
    for name in names:
        shutil.copy(folder / "ant" / "0.png", os.path.join(os.fsencode(tmp_path / "photos"), name))
    npz, table = predict.predict(model, tmp_path / "photos", out=tmp_path / "out")
    rows = list(csv.reader(table.read_text(encoding="utf-8").splitlines()))[1:]
    assert {row[0] for row in rows} == {
        "'=cmd().png",
        "'-3.png",
        "'@x.png",
        "\\xc4.png",
        "plain.png",
    }
    assert all(0 <= float(p) <= 1 for row in rows for p in row[2:])
    with np.load(npz) as file:
        assert sorted(map(os.fsencode, file["name"].tolist())) == sorted(names)
