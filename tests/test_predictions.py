"""Predictions of any framework: the formats agree, chunks change nothing, and bad files are refused
in one sentence.
"""

import io
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from frame import softmax

from ldl_jax import files
from ldl_jax.evaluation import passes, predictions
from ldl_jax.metrics import accuracy, base, brier, calibration, classwise, nll
from ldl_jax.metrics import table as table_metric

N, K = 40, 5
DRAW = np.random.default_rng(0)
LOGITS = (2 * DRAW.standard_normal((N, K))).astype(np.float32)
LABEL = DRAW.integers(0, K, N).astype(np.int32)
PROBS = softmax(LOGITS).astype(np.float32)


def text(*columns, header=None):
    """A .csv of columns side by side, with digits that give float32 back."""
    table = np.column_stack([np.asarray(column, np.float64) for column in columns])
    lines = [",".join(f"{x:.9g}" for x in row) for row in table]
    return "\n".join(([header] if header else []) + lines) + "\n"


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(compressed=False, **arrays):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def pickled(**arrays):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=True)
    return file.getvalue()


@pytest.fixture
def place(tmp_path):
    def put(name, content):
        content = content.encode() if isinstance(content, str) else content
        return files.write(tmp_path / name, content)

    return put


NAMES = ",".join(f"class {i}" for i in range(K))
GOOD = {
    "run.npz": {"run.npz": npz(logits=LOGITS, label=LABEL, index=np.arange(N))},
    "small.npz": {"small.npz": npz(True, logits=LOGITS, targets=LABEL)},
    "plain.npy": {"plain.npy": npy(LOGITS), "plain_labels.npy": npy(LABEL.astype(np.int64))},
    "columns.npy": {
        "columns.npy": npy(np.asfortranarray(LOGITS)),
        "columns_labels.npy": npy(LABEL),
    },
    "swapped.npy": {
        "swapped.npy": npy(LOGITS.astype(">f4")),
        "swapped_labels.npy": npy(LABEL.astype(float)),
    },
    "header.csv": {"header.csv": text(LOGITS, LABEL, header=f"{NAMES},Label")},
    "first.csv": {"first.csv": text(LABEL, LOGITS)},
    "last.csv": {"last.csv": text(LOGITS, LABEL).replace("\n", "\r\n") + "\n"},
    "beside.csv": {"beside.csv": text(LOGITS), "beside_labels.npy": npy(LABEL)},
    "named.csv": {
        "named.csv": f"\ufefffile,target,{NAMES}\n"
        + "".join(
            f'"a, {i}.png",{line}\n' for i, line in enumerate(text(LABEL, LOGITS).splitlines())
        )
    },
}


@pytest.mark.parametrize("name", GOOD)
def test_every_format_gives_the_same(name, place):
    paths = {part: place(part, content) for part, content in GOOD[name].items()}
    found = predictions.read(paths[name])
    assert found.kind == "logits"
    np.testing.assert_array_equal(np.asarray(found.values, np.float32), LOGITS)
    np.testing.assert_array_equal(found.label, LABEL)
    assert found.label.dtype == np.int32
    assert isinstance(found.values, np.memmap) == (
        name in ("run.npz", "plain.npy", "columns.npy", "swapped.npy")
    )
    assert (found.index is not None) == (name == "run.npz")


@pytest.mark.parametrize(
    "content",
    [
        npy(LABEL),
        npz(labels=LABEL),
        text(LABEL),
        text(LABEL, header="label"),
        text(LOGITS, LABEL, header=f"{NAMES},label"),
    ],
    ids=["npy", "npz", "column", "header", "among others"],
)
def test_labels_may_be_named(content, place):
    ending = "npz" if content[:2] == b"PK" else "npy" if isinstance(content, bytes) else "csv"
    scores = place("scores.npz", npz(logits=LOGITS, label=(LABEL + 1) % K))
    found = predictions.read(scores, labels=place(f"truth.{ending}", content))
    np.testing.assert_array_equal(found.label, LABEL)


def test_the_kind_is_told_by_the_stated_rule(place):
    def kind(scores, forced=None, **named):
        found = predictions.read(place("x.npz", npz(label=LABEL, **named)), kind=forced) if named else predictions.read(
            place("x.npy", npy(scores)), labels=place("l.npy", npy(LABEL)), kind=forced
        )  # fmt: skip
        return found.kind, found.notes[0]

    assert kind(LOGITS)[0] == "logits"
    assert "not all are in [0, 1]" in kind(LOGITS)[1]
    assert kind(PROBS)[0] == "probabilities"
    assert kind(PROBS.astype(np.float16))[0] == "probabilities"
    assert kind(np.log(PROBS))[0] == "logits"
    assert kind(np.where(PROBS.max() == PROBS, PROBS + 2e-4, PROBS))[0] == "probabilities"
    assert kind(PROBS, "logits") == (
        "logits",
        "logits, given by --kind, although each row is a distribution",
    )
    assert kind(PROBS / 2, "logits")[0] == "logits"
    assert kind(None, logits=LOGITS, probs=PROBS)[0] == "logits"
    assert kind(None, "probabilities", logits=LOGITS, probs=PROBS)[0] == "probabilities"
    assert (
        kind(None, probabilities=PROBS)[1] == "probabilities, from the array name 'probabilities'"
    )


def with_nan(value):
    scores = LOGITS.copy()
    scores[7, 2] = value
    return scores


BAD = {  # name -> file, content, what the sentence says
    "no file": ("x.npz", None, "is not a file"),
    "ending": ("x.pt", b"PK", "must end in .npz, .npy, .csv"),
    "nothing": ("x.npz", b"", "is empty"),
    "no zip": ("x.npz", b"not a zip file", "cannot be read as .npz"),
    "truncated npz": ("x.npz", npz(logits=LOGITS, label=LABEL)[:-200], "cannot be read as .npz"),
    "truncated npy": ("x.npy", npy(LOGITS)[:-4], "truncated: float32[40, 5] needs 800 bytes, but only 796"),
    "no npy": ("x.npy", b"\x00" * 300, "cannot be read as .npy"),
    "pickled npy": ("x.npy", None, "refused"),
    "pickled npz": ("x.npz", pickled(logits=LOGITS.astype(object), label=LABEL), "refused"),
    "other names": ("x.npz", npz(scores=LOGITS, y=LABEL), "probs, probabilities, got scores, y"),
    "no labels": ("x.npz", npz(logits=LOGITS), "has no labels, and there is no x_labels.npy next to it"),
    "two labels": ("x.npz", npz(logits=LOGITS, label=LABEL, targets=LABEL), "must hold one array of labels"),
    "rank of labels": ("x.npz", npz(logits=LOGITS, label=np.eye(K)[LABEL]), "got float64[40, 5]"),
    "length": ("x.npz", npz(logits=LOGITS, label=LABEL[1:]), "39 labels for 40 rows"),
    "negative label": ("x.npz", npz(logits=LOGITS, label=LABEL - K), "between 0 and 4"),
    "high label": ("x.npz", npz(logits=LOGITS, label=np.where(np.arange(N) == 3, K, LABEL)), "got 5 in row 3"),
    "half label": ("x.npz", npz(logits=LOGITS, label=LABEL + 0.5), "between 0 and 4"),
    "nan label": ("x.npz", npz(logits=LOGITS, label=np.where(np.arange(N) == 3, np.nan, LABEL)), "got nan in row 3"),
    "one axis": ("x.npz", npz(logits=LOGITS[:, 0], label=LABEL), "got float32[40]"),
    "one class": ("x.npz", npz(logits=LOGITS[:, :1], label=0 * LABEL), "two classes"),
    "three axes": ("x.npz", npz(logits=LOGITS[None], label=LABEL), "got float32[1, 40, 5]"),
    "no examples": ("x.npz", npz(logits=LOGITS[:0], label=LABEL[:0]), "got float32[0, 5]"),
    "integers": ("x.npz", npz(logits=LABEL[:, None] + np.arange(K), label=LABEL), "floating-point"),
    "index": ("x.npz", npz(logits=LOGITS, label=LABEL, index=np.arange(N)[1:]), "got int64[39]"),
    "nan": ("x.npz", npz(logits=with_nan(np.nan), label=LABEL), "row 7 holds nan"),
    "inf": ("x.npz", npz(logits=with_nan(-np.inf), label=LABEL), "row 7 holds -inf"),
    "sum": ("x.npz", npz(probs=PROBS * np.where(np.arange(N) == 9, 0.9, 1)[:, None], label=LABEL), "row 9 sums to 0.9"),
    "sum, no name": ("x.csv", text(PROBS * 0.99, LABEL), "rows must sum to 1 within 0.001"),
    "range": ("x.npz", npz(probs=LOGITS, label=LABEL), "probabilities must be between 0 and 1"),
    "short row": ("x.csv", text(LOGITS, LABEL) + "1,2,3\n", "x.csv, line 41: expected 6 fields"),
    "long row": ("x.csv", "file," + NAMES + ",label\na" + ",1" * 7 + "\n", "x.csv, line 2: expected "),
    "word": ("x.csv", text(LOGITS, LABEL) + "\n1,2,oh,4,5,0\n", "line 42: column 3 must be a number, got 'oh'"),
    "header alone": ("x.csv", NAMES + ",label\n", "no rows"),
    "blank": ("x.csv", "\n\n", "no rows"),
    "no text": ("x.csv", b"\xff\xfe\x00", "cannot be read as .csv"),
    "no label column": ("x.csv", text(LOGITS), "neither its last nor its first column"),
    "two label columns": ("x.csv", text(LABEL, LOGITS, LABEL), "both its last and its first column"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_in_one_sentence(case, place, tmp_path):
    name, content, said = BAD[case]
    if case == "pickled npy":
        np.save(tmp_path / name, LOGITS.astype(object), allow_pickle=True)
    elif content is not None:
        place(name, content)
    with pytest.raises(ValueError, match=r".") as error:
        predictions.read(tmp_path / name)
    message = str(error.value)
    assert said in message
    assert name in message
    assert "\n" not in message


@pytest.mark.parametrize("dtype", ["bfloat16", np.float16, np.longdouble])
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_half_and_long_numbers_are_read(place, dtype, ending):
    """numpy stores bfloat16 as two bytes without a name."""
    narrow = jnp.asarray(LOGITS, jnp.bfloat16) if dtype == "bfloat16" else LOGITS.astype(dtype)
    values = np.asarray(narrow)
    content = npy(values) if ending == "npy" else npz(logits=values)
    found = predictions.read(place(f"x.{ending}", content), labels=place("l.npy", npy(LABEL)))
    (chunk, _), *_ = predictions.chunks(found)
    np.testing.assert_array_equal(chunk, values.astype(np.float32))
    assert found.kind == "logits"


def test_labels_are_not_read_where_none_are_asked_for(place):
    found = predictions.read(place("x.npz", npz(logits=LOGITS, label=LABEL + 900)), labelled=False)
    assert found.label is None


def expected(values):
    """The columns by their definitions, in float64."""
    probs = softmax(values)
    own = probs[np.arange(N), LABEL]
    return {
        "confidence": probs.max(1), "correct": probs.argmax(1) == LABEL, "predicted": probs.argmax(1), "label": LABEL,
        "nll": -np.log(own), "brier": (probs**2).sum(1) - 2 * own + 1, "entropy": -(probs * np.log(probs)).sum(1),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_columns_and_sums_are_those_of_the_definitions_in_chunks_of_any_size(kind):
    values = LOGITS if kind == "logits" else PROBS
    given = predictions.Predictions("x", values, LABEL, kind)
    metrics = {"nll": nll.make(K), "calibration": calibration.make(K)}
    for rows in (N, 16) if kind == "logits" else (16,):
        found = passes.reduce(given, rows=rows)
        for name, column in expected(LOGITS).items():
            np.testing.assert_allclose(
                getattr(found, name), column, rtol=2e-6, atol=1e-7, err_msg=name
            )
        assert found.nll.dtype == np.float64
        sums = passes.streamed(given, metrics, rows=rows)
        assert sums["nll"] == pytest.approx(found.nll.mean(), rel=1e-6)
        assert sums["confidence"] == pytest.approx(found.confidence.mean(), rel=1e-6)
    if kind == "probabilities":
        np.testing.assert_array_equal(found.confidence, PROBS.max(1))  # not one rounding away


def test_probabilities_on_the_edges_of_bins_stay_in_them_for_every_class():
    """Shares of 15 votes are the edges of 15 bins: k votes are in bin k, (lo, hi], and none in the
    first.
    """
    draw = np.random.default_rng(3)
    chances = draw.dirichlet(np.full(K, 0.7), 200)
    counts = draw.multinomial(15, chances)
    label = np.array([draw.choice(K, p=p) for p in chances], np.int32)
    given = predictions.Predictions("x", (counts / 15).astype(np.float32), label, "probabilities")
    metrics = {m.__name__: m.make(K) for m in (accuracy, brier, calibration, classwise)}
    found = passes.streamed(given, metrics, rows=64)  # the last chunk is padded
    hits, place = label[:, None] == np.arange(K), np.maximum(counts - 1, 0)
    gap = np.zeros((15, K))
    np.add.at(gap, (place, np.arange(K)), counts / 15 - hits)
    assert found["classwise_ece"] == pytest.approx(np.abs(gap).sum() / 200 / K, rel=1e-5)
    whole = (
        found["brier_reliability"]
        - found["brier_resolution"]
        + found["brier_uncertainty"]
        + found["brier_within"]
    )
    inside = sum(
        np.sum((counts[part, k] / 15 - (counts[part, k] / 15).mean()) * (counts[part, k] / 15 - 2 * hits[part, k]))
        for k in range(K) for part in (place[:, k] == number for number in range(15)) if part.any()
    )  # fmt: skip
    assert found["brier_within"] == pytest.approx(inside / 200, abs=1e-6)
    assert found["brier"] == pytest.approx(((counts / 15 - hits) ** 2).sum(1).mean(), rel=1e-6)
    assert whole == pytest.approx(found["brier"], abs=1e-6)
    top, right = counts.max(1), counts.argmax(1) == label
    gaps = np.bincount(top, top / 15 - right, 16)
    assert found["ece"] == pytest.approx(np.abs(gaps).sum() / 200, rel=1e-5)
    assert found["accuracy"] == pytest.approx(right.mean())


def test_near_probabilities_rank_as_they_are():
    """The last of six is above the others by a rounding, which their logarithms in float32 do not
    tell.
    """
    small = np.float32(0.01)
    near = np.array([small] * 5 + [np.nextafter(small, 1, dtype=np.float32)], np.float32)
    rows = np.float32([[*near, 1 - near.sum()]])
    assert np.log(rows[0, 0]) == np.log(rows[0, 5])
    for label, hit in ((5, 1), (2, 1), (3, 0)):
        given = predictions.Predictions("x", rows, np.int32([label]), "probabilities")
        assert passes.streamed(given, {"accuracy": accuracy.make(7)})["top5"] == hit


def test_all_probabilities_at_once(monkeypatch):
    for values, kind in ((LOGITS, "logits"), (PROBS, "probabilities")):
        given = predictions.Predictions("x", values, LABEL, kind)
        np.testing.assert_allclose(passes.one_pass(given, metrics={}).probs, PROBS, rtol=1e-6)
        monkeypatch.setattr(predictions, "ELEMENTS", 16 * K)  # the last chunk is padded
        np.testing.assert_allclose(passes.one_pass(given, metrics={}).probs, PROBS, rtol=1e-6)


def test_a_transform_comes_after_the_logits():
    halved = passes.reduce(
        predictions.Predictions("x", LOGITS, LABEL, "logits"), lambda x: x / 2, rows=N
    )
    np.testing.assert_allclose(halved.nll, expected(LOGITS / 2)["nll"], rtol=2e-6)
    of_probs = passes.reduce(
        predictions.Predictions("x", PROBS, LABEL, "probabilities"), lambda x: x / 2, rows=N
    )
    np.testing.assert_allclose(of_probs.nll, halved.nll, rtol=1e-5)


def test_a_probability_of_zero_counts_as_the_floor():
    values = np.tile(np.eye(K, dtype=np.float32)[0], (N, 1))
    found = passes.reduce(predictions.Predictions("x", values, LABEL, "probabilities"), rows=N)
    np.testing.assert_allclose(found.nll, np.where(LABEL == 0, 0, -np.log(base.FLOOR)), rtol=1e-6)
    np.testing.assert_array_equal(found.brier, np.where(LABEL == 0, 0, 2))
    np.testing.assert_array_equal(found.entropy, 0)


def test_some_examples_are_picked(monkeypatch):
    monkeypatch.setattr(predictions, "ELEMENTS", 16 * K)
    some = np.array([0, 3, 15, 16, 39])
    given = predictions.Predictions("x", LOGITS, LABEL, "logits")
    halved = [lambda logits: logits, lambda logits: logits / 2]
    found = passes.one_pass(
        given, lambda logits: logits / 2, metrics={}, index=some, swept=(some[1:], halved)
    )
    whole = [passes.reduce(given, transform) for transform in halved]
    for one, other in zip(found.swept, whole, strict=True):
        for column, every in zip(one, other, strict=True):
            np.testing.assert_array_equal(column, every[some[1:]])
    np.testing.assert_allclose(found.probs, softmax(LOGITS / 2)[some], rtol=1e-6)
    assert len(found.reduced.label) == N


def test_a_pass_reads_the_matrix_once_and_gives_what_single_passes_give(monkeypatch):
    given = predictions.Predictions("x", LOGITS, LABEL, "logits")
    metrics, table = {"nll": nll.make(K), "table": table_metric.make(K)}, {"table": PROBS}
    monkeypatch.setattr(predictions, "ELEMENTS", 16 * K)
    read = []
    original = predictions.chunks
    monkeypatch.setattr(passes, "chunks", lambda *arguments: read.append(1) or original(*arguments))
    found = passes.one_pass(given, metrics=metrics, given=table, index=np.arange(3))
    assert len(read) == 1
    for one, other in zip(found.reduced, passes.reduce(given), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.values == passes.streamed(given, metrics, given=table)
    assert found.values["table_kl"] == pytest.approx(0, abs=1e-6)


def test_chunks_are_of_one_size_and_padded(place):
    given = predictions.read(place("x.npz", npz(logits=LOGITS, label=LABEL)))
    parts = list(predictions.chunks(given, 16))
    assert [values.shape for values, _ in parts] == [(16, K)] * 3
    used = [seen.mask > 0 for _, seen in parts]
    assert [int(mask.sum()) for mask in used] == [16, 16, 8]
    np.testing.assert_array_equal(
        np.concatenate([v[m] for (v, _), m in zip(parts, used, strict=True)]), LOGITS
    )
    np.testing.assert_array_equal(
        np.concatenate([s.label[m] for (_, s), m in zip(parts, used, strict=True)]), LABEL
    )
