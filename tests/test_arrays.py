"""The Python API for arrays: values of numpy in float64, and one sentence for what is confused."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from frame import softmax

import ldl_jax as ldl
from ldl_jax import arrays, distributions
from ldl_jax.evaluation import predictions

DRAW = np.random.default_rng(0)
N, K = 400, 6
LABELS = DRAW.integers(0, K, N)
LOGITS = 2 * DRAW.standard_normal((N, K)) + 2 * np.eye(K)[LABELS]
PROBS = softmax(LOGITS)


def numpy_ece(probs, labels, bins=15):
    """Gaps of bins (lo, hi] by their shares, in float64."""
    confidence, correct = probs.max(1), probs.argmax(1) == labels
    place = np.clip(np.ceil(confidence * bins - 1e-9).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(place, confidence - correct, bins)
    return abs(gap).sum() / len(labels)


@pytest.mark.parametrize("bins", [1, 10, 15, 40])
def test_the_ece_of_arrays_is_that_of_numpy(bins):
    expected = numpy_ece(PROBS, LABELS, bins)
    assert ldl.ece(probs=PROBS, labels=LABELS, bins=bins) == pytest.approx(expected, abs=1e-12)
    assert ldl.ece(logits=LOGITS, labels=LABELS, bins=bins) == pytest.approx(expected, abs=1e-12)


def test_other_conventions_have_their_own_bins():
    assert ldl.ece(probs=PROBS, labels=LABELS, convention="netcal10") > 0
    with pytest.raises(ValueError, match="bins can be chosen for the convention guo15 only"):
        ldl.ece(probs=PROBS, labels=LABELS, convention="netcal10", bins=12)
    with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
        ldl.ece(probs=PROBS, labels=LABELS, bins=0)


@pytest.mark.parametrize(
    "convert", [np.asarray, jnp.asarray, np.ndarray.tolist, lambda x: x.astype(np.longdouble)]
)
def test_arrays_of_many_kinds_are_taken(convert):
    found = ldl.ece(logits=convert(LOGITS), labels=convert(LABELS.astype(float)).__class__(LABELS)
                    if convert is np.ndarray.tolist else LABELS)  # fmt: skip
    assert found == pytest.approx(numpy_ece(PROBS, LABELS), abs=1e-6)


def test_bfloat16_and_tensors_are_taken():
    half = jnp.asarray(LOGITS, jnp.bfloat16)
    expected = numpy_ece(softmax(np.asarray(half, np.float64)), LABELS)
    assert ldl.ece(logits=half, labels=jnp.asarray(LABELS)) == pytest.approx(expected, abs=1e-6)
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(LOGITS, requires_grad=True)
    assert ldl.ece(logits=tensor, labels=torch.tensor(LABELS)) == pytest.approx(
        numpy_ece(PROBS, LABELS), abs=1e-12
    )


def test_tensors_that_require_grad_halves_and_lists_of_them_are_taken():
    torch = pytest.importorskip("torch")
    rows = [torch.tensor(row, requires_grad=True) for row in LOGITS[:3]]
    with pytest.raises(ValueError, match=r"logits must be an array of numbers; .*grad"):
        ldl.ece(logits=rows, labels=LABELS[:3])
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        tensor = torch.tensor(LOGITS, dtype=kind, requires_grad=True)
        exact = softmax(tensor.detach().double().numpy())
        expected = numpy_ece(exact, LABELS)
        labels = torch.tensor(LABELS)
        assert ldl.ece(logits=tensor, labels=labels) == pytest.approx(expected, abs=1e-6)
        result = ldl.measure(logits=tensor, labels=labels, val=(tensor, labels), human=exact)
        own = -np.log(exact[np.arange(N), LABELS]).mean()
        assert result.raw["nll"].value == pytest.approx(own, rel=1e-5)
        calibrator = ldl.calibrate.fit("temperature", logits=tensor, labels=labels)
        np.testing.assert_allclose(calibrator(tensor).sum(1), 1, rtol=1e-6)
    meta = torch.empty(N, K, device="meta")
    with pytest.raises(ValueError, match="logits must be on the CPU, got a tensor on meta; pass"):
        ldl.ece(logits=meta, labels=LABELS)


def test_frames_are_taken_and_results_become_frames():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(PROBS, columns=list("abcdef"), index=range(7, N + 7))
    result = ldl.measure(probs=frame, labels=pandas.Series(LABELS, dtype="Int64"))
    assert result.class_names == tuple("abcdef")
    assert result.raw["ece"].value == pytest.approx(numpy_ece(PROBS, LABELS), abs=1e-6)
    figures = result.to_frame()
    assert figures.loc["ece", "raw value"] == result.raw["ece"].value
    assert tuple(figures.loc["ece", ["raw low", "raw high"]]) == result.raw["ece"].interval
    assert figures.loc["ece", "raw floor"] == result.raw["ece"].floor
    assert set(figures.dtypes.map(str)) == {"float64"}
    scaled = ldl.measure(probs=frame, labels=LABELS, val=(frame, LABELS)).to_frame()
    assert len(scaled.columns) == 8
    missing = pandas.Series([*LABELS[:-1], None], dtype="Int64")
    # It becomes an object or NaN, by the version of pandas.
    with pytest.raises(ValueError, match=r"labels must be .*, got (object|nan in row 399)"):
        ldl.ece(probs=frame, labels=missing)


def test_a_result_has_figures_is_compared_and_saved(tmp_path):
    result = ldl.measure(logits=LOGITS, labels=LABELS, val=(LOGITS, LABELS), name="mine")
    own = -np.log(PROBS[np.arange(N), LABELS])
    assert result.raw["nll"].value == pytest.approx(own.mean(), rel=1e-6)
    assert result.raw["ece"].interval[0] <= result.raw["ece"].value <= result.raw["ece"].interval[1]
    assert result.raw["ece"].floor > 0
    assert result.scaled["accuracy"].value == result.raw["accuracy"].value
    assert "mine: 400 examples, 6 classes" in repr(result)
    assert "<table>" in result._repr_html_()
    assert result.save(tmp_path / "out") == tmp_path / "out" / "report.html"
    (suite,) = json.loads((tmp_path / "out" / "evaluation.json").read_text())["suites"]
    assert suite["raw"]["figures"]["nll"]["value"] == result.raw["nll"].value
    assert "answers" not in suite
    sharper = ldl.measure(probs=softmax(3 * LOGITS), labels=LABELS)
    found = ldl.difference(sharper, result)["nll"]
    other = -np.log(softmax(3 * LOGITS)[np.arange(N), LABELS])
    assert found.value == pytest.approx((other - own).mean(), rel=1e-5)
    assert found.interval[0] < found.value < found.interval[1]
    again = type(result).from_json(json.loads(json.dumps(result.to_json())))
    with pytest.raises(ValueError, match="mine was read from a file, which holds no single exampl"):
        ldl.difference(sharper, again)
    with pytest.raises(ValueError, match="state must be one of raw of predictions, got 'scaled'"):
        ldl.difference(sharper, result, state="scaled")


def test_votes_and_other_examples_are_measured():
    votes = DRAW.integers(0, 9, (N, K)) + np.eye(K, dtype=int)[LABELS]
    result = ldl.measure(probs=PROBS, labels=LABELS, human=votes, ood=PROBS[:50])
    table = votes / votes.sum(1, keepdims=True)
    expected = -(table * np.log(PROBS)).sum(1).mean()
    assert result.raw["table_cross_entropy"].value == pytest.approx(expected, rel=1e-5)
    assert any(name.startswith("ood") for name in result.raw.figures)


def test_a_calibrator_is_fitted_applied_and_kept(tmp_path):
    calibrator = ldl.calibrate.fit("temperature", logits=3 * LOGITS, labels=LABELS)
    temperature = calibrator.params["temperature"]
    np.testing.assert_allclose(calibrator(LOGITS), softmax(LOGITS / temperature), rtol=1e-6)
    np.testing.assert_allclose(calibrator(probs=PROBS), calibrator(np.log(PROBS)), rtol=1e-6)
    path = calibrator.save(tmp_path / "c.json")
    np.testing.assert_array_equal(ldl.calibrate.load(path)(LOGITS), calibrator(LOGITS))
    vector = ldl.calibrate.fit("vector", logits=LOGITS, labels=LABELS, ridge=1.0)
    assert vector.options["ridge"] == 1.0
    with pytest.raises(ValueError, match=r"calibrator must be one of .*; got 'platt'"):
        ldl.calibrate.fit("platt", logits=LOGITS, labels=LABELS)
    with pytest.raises(ValueError, match=r"options of the calibrator vector .* got rigde"):
        ldl.calibrate.fit("vector", logits=LOGITS, labels=LABELS, rigde=1.0)


def test_a_reliability_diagram_is_a_figure_or_drawn_into_axes():
    figure = ldl.reliability_diagram(probs=PROBS, labels=LABELS, title="mine")
    assert figure._repr_png_()[:4] == b"\x89PNG"
    axes = figure.axes[0]
    assert ldl.reliability_diagram(logits=LOGITS, labels=LABELS, ax=axes) is axes


GOOD = {"logits": LOGITS, "labels": LABELS}
CONFUSED = {  # what is passed instead -> the sentence
    "neither": ({"logits": None}, "pass either logits= or probs=, got neither"),
    "both": ({"probs": PROBS}, "pass either logits= or probs=, got both"),
    "probabilities as logits": ({"logits": PROBS}, "logits look like probabilities.* as probs"),
    "percent as logits": ({"logits": 100 * PROBS}, "logits look like percentages.*logits / 100"),
    "logits as probs": (
        {"logits": None, "probs": LOGITS},
        "probs must be between 0 and 1, got -.*",
    ),
    "no sum": (
        {"logits": None, "probs": PROBS * 0.9},
        "probs must sum to 1 in each row, got 0.9 in row",
    ),
    "transposed": ({"logits": LOGITS.T}, r"400\], got|one class number for each of 6 rows.*"),
    "one-hot": ({"labels": np.eye(K)[LABELS]}, r"look one-hot, pass labels.argmax\(1\)"),
    "a column": ({"labels": LABELS[:, None]}, r"pass labels\[:, 0\]"),
    "from one": (
        {"labels": np.r_[LABELS[:-2] + 1, 1, K]},
        "must be from 0 to 5, got 1 to 6: they count from 1",
    ),
    "beyond": ({"labels": LABELS * 3}, "whole numbers from 0 to 5 for 6 classes, got"),
    "negative": ({"labels": LABELS - 1}, "got -1 in row"),
    "halves": ({"labels": LABELS + 0.5}, "whole numbers"),
    "nan label": ({"labels": np.where(LABELS == 2, np.nan, LABELS)}, "whole numbers.* got nan"),
    "text": ({"labels": LABELS.astype(str)}, "labels must be an array of numbers, got str"),
    "short": ({"labels": LABELS[:-1]}, "one class number for each of 400 rows"),
    "nan": ({"logits": np.where(LOGITS > 4, np.nan, LOGITS)}, "logits must be finite, got nan"),
    "integers": ({"logits": LOGITS.astype(int)}, "must be floating-point numbers, got int64"),
    "one row": ({"logits": LOGITS[0], "labels": LABELS[:1]}, r"must have shape \[N, K\]"),
    "ragged": ({"logits": [[1.0], [2.0, 3.0]]}, "must be an array of numbers"),
}


@pytest.mark.parametrize("case", CONFUSED)
def test_what_is_confused_is_told_in_one_sentence(case):
    changes, sentence = CONFUSED[case]
    with pytest.raises(ValueError, match=sentence) as raised:
        ldl.ece(**(GOOD | changes))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: p.round(2), "rounded to 2 decimals"),
        (lambda p: p.round(3), "rounded to 3 decimals"),
        (lambda p: p.astype(np.float16), "rounded to float16"),
        (lambda p: np.asarray(jnp.asarray(p, jnp.bfloat16), np.float32), "rounded to bfloat16"),
        (lambda p: p.round(4), "rounded to 4 decimals"),
        (lambda p: 100 * p, "percentages"),
        (lambda p: (100 * p).round(1), "percentages rounded to 1 decimal"),
        (lambda p: (100 * p).round(), "percentages rounded to 0 decimals"),
        (lambda p: (100 * p).round(2), "percentages"),
    ],
)
def test_rounded_probabilities_and_percentages_are_normalised_with_a_note(make, reason, tmp_path):
    wide = softmax(DRAW.standard_normal((300, 100)))
    labels = DRAW.integers(0, 100, 300)
    given = make(wide)
    exact = given.astype(np.float64) / given.astype(np.float64).sum(1, keepdims=True)
    result = ldl.measure(probs=given, labels=labels)
    assert result.raw["ece"].value == pytest.approx(numpy_ece(exact, labels), abs=1e-6)
    assert (reason in result.understood) or abs(given.sum(1) - 1).max() < 1e-3
    # The same rule holds for files.
    np.savez(tmp_path / "p.npz", probs=given, labels=labels)
    read = predictions.read(tmp_path / "p.npz")
    assert read.kind == "probabilities"
    (chunk, _), *_ = predictions.chunks(read)
    np.testing.assert_allclose(chunk.sum(1), 1, atol=1e-3)


def test_one_rule_says_how_rows_are_distributions():
    third = np.full((4, 3), 1 / 3)
    assert distributions.rows(lambda: [third]) == (1.0, "")
    assert distributions.rows(lambda: [third, third.round(3)]) == (1.0, "")
    assert distributions.rows(lambda: [third.round(2)]) == (1.0, "rounded to 2 decimals")
    assert distributions.rows(lambda: [100 * third]).reason == "percentages, since rows sum to 100"
    # 0.97 is off by more than three numbers rounded to two decimals explain.
    assert distributions.rows(lambda: [third.round(2) - 0.01 * np.eye(4, 3)]) is None
    assert distributions.rows(lambda: [0.9 * third]) is None
    assert distributions.rows(lambda: [third - np.eye(4, 3)]) is None
    sums = distributions.sums([third, 2 * third])
    assert (sums.row, sums.total) == (4, pytest.approx(2))


def test_a_row_that_is_off_by_what_is_allowed_is_taken_whatever_its_last_bit():
    first = DRAW.random(2000) * 0.9
    for rest in (0.999, 1.001):
        rows = np.stack([first, rest - first], 1).astype(np.float32)
        arrays.checked_probs(rows)


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "sample_id", "id", "example", None])
def test_a_column_of_row_numbers_in_a_csv_is_no_class(tmp_path, name):
    """As pandas writes its index; without a header, and by any name, if it counts the rows."""
    header = "" if name is None else ",".join([name, *"abcdef", "label"]) + "\n"
    rows = [
        ",".join([str(row), *(f"{p:.9f}" for p in PROBS[row]), str(LABELS[row])])
        for row in range(N)
    ]
    (tmp_path / "p.csv").write_text(header + "\n".join(rows))
    read = predictions.read(tmp_path / "p.csv")
    assert (read.values.shape, read.kind) == ((N, K), "probabilities")
    np.testing.assert_array_equal(read.label, LABELS)
    np.testing.assert_allclose(read.values, PROBS, atol=1e-6)


def test_ids_that_are_text_are_no_class(tmp_path):
    rows = [f"img_{row}," + ",".join(f"{p:.9f}" for p in PROBS[row]) for row in range(N)]
    (tmp_path / "p.csv").write_text("image_id,a,b,c,d,e,f\n" + "\n".join(rows))
    np.save(tmp_path / "p_labels.npy", LABELS)
    assert predictions.read(tmp_path / "p.csv").classes == tuple("abcdef")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A run of a few steps on the digits, loaded."""
    from ldl_jax import config
    from ldl_jax.training.loop import train

    c = config.default()
    c.model.name, c.data.holdout, c.data.batch_size = "tests.tiny", 100, 96
    c.train.max_steps, c.eval.report = 3, False
    folder = tmp_path_factory.mktemp("run")
    train(c, folder)
    return ldl.load(folder)


def test_a_model_predicts_images_as_its_function_does(model):
    images = DRAW.integers(0, 256, (5, 8, 8, 1)).astype(np.uint8)
    apply, variables = model
    expected = np.asarray(apply(variables, images).logits)
    np.testing.assert_allclose(model.logits(images), expected, rtol=1e-6)
    np.testing.assert_allclose(model.logits(images / 255), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.logits(images[0]), expected[0], rtol=1e-5, atol=1e-6)
    raw = model.predict_proba(images, calibrated=False)
    np.testing.assert_allclose(raw, softmax(expected), rtol=1e-5)
    temperature = model.calibrator.params["temperature"]
    np.testing.assert_allclose(
        model.predict_proba(images), softmax(expected / temperature), rtol=1e-5
    )
    # Larger images are resized: of a uniform one nothing changes.
    grey = np.full((1, 8, 8, 1), 77, np.uint8)
    np.testing.assert_allclose(
        model.logits(np.full((20, 30, 1), 77, np.uint8)), model.logits(grey)[0], rtol=1e-5
    )
    assert "10 classes, images 8x8x1, safe_temperature fitted" in repr(model)


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (np.zeros((4, 1, 8, 8), np.uint8), "look channels-first, pass images.transpose"),
        (np.zeros((4, 8, 8, 3), np.uint8), r"must have 1 channels last, got \[4, 8, 8, 3\]"),
        (np.full((4, 8, 8, 1), 200.0), r"must be in \[0, 1\], got 200 to 200; pass them as uint8"),
        (np.full((4, 8, 8, 1), np.nan), r"must be in \[0, 1\], got nan"),
        (np.zeros((4, 8, 8, 1), np.int64), r"must be uint8 or float in \[0, 1\], got int64"),
        (np.zeros((8, 8), np.uint8), r"images must have shape \[B, H, W, 1\] or \[H, W, 1\]"),
    ],
)
def test_images_of_another_kind_are_refused(model, images, sentence):
    with pytest.raises(ValueError, match=sentence):
        model.logits(images)


def test_a_class_whose_name_could_be_a_column_s_stays_a_class(tmp_path):
    """Leaving one out would move the labels of all after it."""
    names = ["key", "row", "garden path", "sample", "first name", "plain"]
    rows = [",".join([*(f"{p:.9f}" for p in PROBS[n]), str(LABELS[n])]) for n in range(N)]
    (tmp_path / "p.csv").write_text(",".join([*names, "label"]) + "\n" + "\n".join(rows))
    assert predictions.read(tmp_path / "p.csv").classes == tuple(names)
