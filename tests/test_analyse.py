"""Analyses of networks: their values against float64 numpy, what runs record for them, the page."""

import json
import re
import shutil
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from ldl_jax import config, mesh, workdir
from ldl_jax.analyse import __main__ as command
from ldl_jax.analyse import agreement, epochs, memory, mixing, networks, penultimate, sections
from ldl_jax.evaluation import confidence
from ldl_jax.report import analysis_plots, html
from ldl_jax.training import loop, recording
from ldl_jax.training.remeasure import measure_again

DRAW = np.random.default_rng(0)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def overconfident(n=400, classes=4, factor=3.0):
    """Logits whose best temperature is near `factor`, and labels drawn from them before that."""
    z = 1.5 * DRAW.normal(size=(n, classes))
    label = np.array([DRAW.choice(classes, p=row) for row in softmax(z)])
    return factor * z, label


def test_the_parts_of_the_nll_are_those_of_a_search_by_scipy():
    z, label = overconfident()

    def nll(temperature):
        return -np.log(softmax(z / temperature)[np.arange(len(z)), label]).mean()

    best = optimize.minimize_scalar(
        nll, bounds=(0.5, 20), method="bounded", options={"xatol": 1e-9}
    )
    parts = confidence.parts(z, label)
    assert parts["best_temperature"] == pytest.approx(best.x, rel=1e-5)
    assert parts["nll_refinement"] == pytest.approx(best.fun, rel=1e-9)
    assert parts["nll_calibration"] == pytest.approx(nll(1) - best.fun, rel=1e-7)
    # A network that is divided by its temperature keeps the first part and loses the second.
    scaled = confidence.parts(z / best.x, label)
    assert scaled["nll_refinement"] == pytest.approx(best.fun, rel=1e-9)
    assert 0 <= scaled["nll_calibration"] < 1e-9


def test_without_errors_all_of_the_nll_is_calibration():
    label = DRAW.integers(0, 3, 50)
    parts = confidence.parts(np.eye(3)[label], label)
    assert parts["nll_refinement"] == pytest.approx(0, abs=1e-9)
    assert parts["nll_calibration"] == pytest.approx(np.log(np.e + 2) - 1)
    assert np.isnan(parts["best_temperature"])


def test_the_confidence_of_right_and_of_wrong_predictions():
    z, label = overconfident()
    p = softmax(z)
    right = p.argmax(1) == label
    found = confidence.right_and_wrong(z, label)
    assert found["confidence_right"] == pytest.approx(p.max(1)[right].mean(), rel=1e-12)
    assert found["confidence_wrong"] == pytest.approx(p.max(1)[~right].mean(), rel=1e-12)
    assert np.isnan(confidence.right_and_wrong(np.eye(3), np.arange(3))["confidence_wrong"])


def test_temperatures_by_class_are_those_of_their_examples():
    z, label = overconfident(classes=3)
    z = np.concatenate([z, np.full((400, 1), -50.0)], axis=1)
    found = confidence.by_class(z, label)
    for k in range(3):
        own = label == k
        assert found[k] == confidence.parts(z[own], label[own])["best_temperature"]
    assert np.isnan(found[3])


ROWS = np.array([[0.5, 0.3, 0.0], [0, 0, 0], [0.1, 0.2, 0.1], [0, 1, 0], [0, 0, 1]])


def test_rows_of_a_memory_are_divided_by_their_sums_and_unwritten_ones_left_out():
    rows = memory.distributions(ROWS.astype(np.float16))
    assert np.isnan(rows[1]).all()
    np.testing.assert_allclose(rows[2], [0.25, 0.5, 0.25], atol=1e-3)
    rows = memory.distributions(ROWS)
    expected = -(0.625 * np.log(0.625) + 0.375 * np.log(0.375))
    np.testing.assert_allclose(memory.entropy(rows)[[0, 3]], [expected, 0], atol=1e-12)
    matrix = memory.class_matrix(rows, np.array([0, 0, 0, 1, 1]), 3)
    np.testing.assert_allclose(matrix[0], [(0.625 + 0.25) / 2, (0.375 + 0.5) / 2, 0.125])
    np.testing.assert_allclose(matrix[1], [0, 0.5, 0.5])
    assert np.isnan(matrix[2]).all()


def test_agreement_of_rows_with_labels_and_votes():
    rows = memory.distributions(ROWS)
    found = memory.agreement(rows, np.array([0, 0, 0, 1, 1]))
    assert found["top"] == pytest.approx(2 / 4)
    assert found["probability"] == pytest.approx((0.625 + 0.25 + 1 + 0) / 4)
    assert np.isnan(memory.agreement(rows[1:2], np.array([0]))["top"])
    votes = np.array([[0.5, 0.5, 0], [1, 0, 0], [0.2, 0.6, 0.2], [0, 0.8, 0.2], [0, 0, 1]])
    found = memory.agreement_with_votes(rows, votes)
    kl, own, theirs = [], [], []
    for row, vote in zip(rows[[0, 2, 3, 4]], votes[[0, 2, 3, 4]], strict=True):
        q = np.maximum(row, 1e-7)
        kl.append(sum(v * np.log(v / p) for v, p in zip(vote, q, strict=True) if v))
        own.append(-sum(p * np.log(p) for p in row if p))
        theirs.append(-sum(v * np.log(v) for v in vote if v))
    assert found["kl"] == pytest.approx(np.mean(kl))
    assert found["top"] == 1
    assert found["entropies"] == pytest.approx(np.corrcoef(own, theirs)[0, 1])


def test_a_row_moves_by_the_total_variation_distance():
    np.testing.assert_allclose(
        memory.moved([[1, 0, 0], [0.5, 0.5, 0]], [[0, 0, 1], [0.25, 0.5, 0.25]]), [1, 0.25]
    )


def test_the_path_of_a_row_is_the_sum_of_its_moves():
    nothing = [np.nan, np.nan]
    states = [[[1, 0], nothing], [[0, 1], [0.5, 0.5]], [[1, 0], [0.25, 0.75]]]
    np.testing.assert_allclose(memory.path(states), [2, 0.25])
    np.testing.assert_allclose(memory.path(states[:1]), [0, 0])


def test_a_point_on_the_plane_of_three_classes_is_the_nearest_one():
    weights = DRAW.normal(size=(6, 4))
    x = DRAW.normal(size=(20, 6))
    three = (2, 0, 3)
    points, corners = penultimate.plane(x, weights, three)
    own = weights.T[list(three)]
    edges = np.stack([own[1] - own[0], own[2] - own[0]], axis=1)
    for row, point in zip(x, points, strict=True):
        nearest = own[0] + edges @ np.linalg.lstsq(edges, row - own[0], rcond=None)[0]
        np.testing.assert_allclose(
            np.linalg.norm(nearest - own, axis=1), np.linalg.norm(point - corners, axis=1)
        )
    np.testing.assert_allclose(corners[0], 0)
    assert corners[1, 0] > 0
    assert corners[1, 1] == pytest.approx(0, abs=1e-12)
    assert corners[2, 1] > 0


def test_a_plane_needs_three_classes():
    with pytest.raises(ValueError, match="three different"):
        penultimate.plane(np.zeros((1, 4)), np.eye(4), (0, 1, 1))
    line = np.stack([np.zeros(4), np.ones(4), 2 * np.ones(4)], axis=1)
    with pytest.raises(ValueError, match="line"):
        penultimate.plane(np.zeros((1, 4)), line, (0, 1, 2))
    with pytest.raises(ValueError, match="at least three"):
        penultimate.confused(np.eye(2), np.arange(2))


def test_the_classes_of_the_plane_are_those_confused_most():
    p = np.eye(5)
    p[1, 3], p[1, 1] = 0.4, 0.6
    p[3, 4], p[3, 3] = 0.2, 0.8
    p[0, 2], p[0, 0] = 0.3, 0.7
    assert penultimate.confused(p, np.arange(5)) == (1, 3, 4)


def test_the_measures_of_collapse_are_those_of_loops():
    K, D = 4, 7
    label = np.concatenate([np.full(n, k) for k, n in enumerate((5, 9, 12, 6))])
    means = DRAW.normal(size=(K, D))
    x = means[label] + 0.3 * DRAW.normal(size=(len(label), D))
    W, b = DRAW.normal(size=(D, K)), DRAW.normal(size=K)
    found = penultimate.collapse(x, label, W, b)
    m = np.array(
        [np.mean([h for h, y in zip(x, label, strict=True) if y == k], 0) for k in range(K)]
    )
    centred = m - m.mean(0)
    within, between = np.zeros((D, D)), np.zeros((D, D))
    for k in range(K):
        own = x[label == k]
        within += sum(np.outer(h - m[k], h - m[k]) for h in own) / len(own) / K
        between += np.outer(centred[k], centred[k]) / K
    values, vectors = np.linalg.eigh(between)
    inverse = sum(
        np.outer(v, v) / e
        for e, v in zip(values, vectors.T, strict=True)
        if e > 1e-9 * values.max()
    )
    assert found["within"] == pytest.approx(np.trace(within))
    assert found["between"] == pytest.approx(np.trace(between))
    assert found["variability"] == pytest.approx(np.trace(within @ inverse) / K)
    for name, v in (("means", centred), ("weights", W.T)):
        lengths = [np.sqrt(row @ row) for row in v]
        assert found[f"norms_of_{name}"] == pytest.approx(np.std(lengths) / np.mean(lengths))
        angles = [
            abs(v[i] @ v[j] / lengths[i] / lengths[j] + 1 / (K - 1))
            for i in range(K) for j in range(K) if i != j
        ]  # fmt: skip
        assert found[f"angles_of_{name}"] == pytest.approx(np.mean(angles))
    gap = W.T / np.sqrt((W**2).sum()) - centred / np.sqrt((centred**2).sum())
    assert found["duality"] == pytest.approx((gap**2).sum())
    wrong = [np.argmin(((m - h) ** 2).sum(1)) != np.argmax(h @ W + b) for h in x]
    assert found["nearest_centre"] == pytest.approx(np.mean(wrong))
    others = penultimate.collapse(x, label, W, b, means=m[::-1])
    wrong = [np.argmin(((m[::-1] - h) ** 2).sum(1)) != np.argmax(h @ W + b) for h in x]
    assert others["nearest_centre"] == pytest.approx(np.mean(wrong))


def test_a_collapsed_network_measures_0():
    K = 4
    simplex = np.sqrt(K / (K - 1)) * (np.eye(K) - 1 / K)
    label = np.repeat(np.arange(K), 3)
    offset = DRAW.normal(size=K)
    found = penultimate.collapse(2 * simplex[label] + offset, label, simplex, -simplex @ offset)
    del found["between"]
    for name, value in found.items():
        assert value == pytest.approx(0, abs=1e-12), name
    with pytest.raises(ValueError, match="class 3 has none"):
        penultimate.collapse(simplex[:3], label[:3] * 0 + np.arange(3), simplex, offset)


def test_agreement_of_predictions():
    one, other = DRAW.normal(size=(2, 50, 5))
    p, q = softmax(one), softmax(other)
    found = agreement.predictions(one, other)
    assert found["same"] == np.mean(p.argmax(1) == q.argmax(1))
    assert found["kl"] == pytest.approx((p * np.log(p / q)).sum(1).mean())
    assert found["kl_back"] == pytest.approx((q * np.log(q / p)).sum(1).mean())


def test_cka_is_the_formula_of_features_and_invariant():
    x, y = DRAW.normal(size=(30, 2, 4)), DRAW.normal(size=(30, 5))
    flat = x.reshape(30, 8)
    a, b = flat - flat.mean(0), y - y.mean(0)
    frobenius = np.linalg.norm
    expected = frobenius(b.T @ a) ** 2 / (frobenius(a.T @ a) * frobenius(b.T @ b))
    found = agreement.cka(agreement.gram(x), agreement.gram(y))
    assert found == pytest.approx(expected, rel=1e-10)
    turned = 3 * flat @ np.linalg.qr(DRAW.normal(size=(8, 8)))[0] + 1
    assert agreement.cka(agreement.gram(x), agreement.gram(turned)) == pytest.approx(1)
    assert np.isnan(agreement.cka(agreement.gram(x), agreement.gram(np.ones((30, 2)))))


def test_images_are_mixed_by_their_shares():
    one, other = DRAW.random((2, 3, 4, 10, 1))
    np.testing.assert_allclose(mixing.blended(one, other, 0.3), 0.3 * one + 0.7 * other)
    mixed = mixing.cut(one, other, 0.3)
    np.testing.assert_array_equal(mixed[:, :, :3], one[:, :, :3])
    np.testing.assert_array_equal(mixed[:, :, 3:], other[:, :, 3:])
    label = DRAW.integers(0, 3, 60)
    first, second = mixing.pairs(label, 20, 1)
    assert len(first) == len(second) == 20
    assert (label[first] != label[second]).all()


def test_predictions_along_a_mix():
    z = DRAW.normal(size=(4, 6, 3))
    label, other = DRAW.integers(0, 3, (2, 6))
    p = softmax(z)
    found = mixing.along(z, label, other)
    for s in range(4):
        assert found["confidence"][s] == pytest.approx(np.mean([row.max() for row in p[s]]))
        assert found["first"][s] == pytest.approx(np.mean([p[s, i, label[i]] for i in range(6)]))
        assert found["second"][s] == pytest.approx(np.mean([p[s, i, other[i]] for i in range(6)]))
        neither = [p[s, i].argmax() not in (label[i], other[i]) for i in range(6)]
        assert found["miss"][s] == np.mean(neither)
        assert found["entropy"][s] == pytest.approx(-(p[s] * np.log(p[s])).sum(1).mean())


def test_a_curve_leaves_out_what_was_not_recorded_or_not_finite():
    rows = [
        {"epoch": 0.5, "train/loss": 1.0}, {"epoch": 1.0, "test/nll": 2.0, "train/nll": float("nan")},
        {"epoch": 2.0, "test/nll": 1.0},
    ]  # fmt: skip
    found = epochs.curves(rows, "nll")
    assert list(found) == ["test"]
    np.testing.assert_array_equal(found["test"], [[1, 2], [2, 1]])


def test_the_recorded_images_are_the_same_for_all_and_nested():
    train = np.arange(10, 400, 3)
    few, many = recording.chosen(train, 20), recording.chosen(train, 50)
    assert len(few) == 20
    assert set(few) < set(many) < set(train)
    np.testing.assert_array_equal(few, np.sort(few))
    np.testing.assert_array_equal(recording.chosen(train, 10**6), train)


def test_the_distributions_of_a_state_are_found_and_nothing_else():
    rows, table = jnp.zeros((3072, 5)), jnp.zeros((5, 5))
    online = {"rows": rows}
    classwise = {"table": table, "sums": table, "count": table[0], "epoch": jnp.zeros(())}
    assert list(recording.memories(online, 5)) == ["rows"]
    assert list(recording.memories(classwise, 5)) == ["table"]
    assert list(recording.memories(((), online, classwise), 5)) == ["1/rows", "2/table"]
    assert not recording.memories(online, 6)
    assert not recording.memories((), 5)


def fake(train, count, labels):
    """What `save_memory` uses of an experiment."""
    return SimpleNamespace(
        config=SimpleNamespace(eval=SimpleNamespace(memory_examples=count)),
        spec={"num_classes": 4},
        train=train,
        mesh=mesh.make_mesh(),
        dataset=SimpleNamespace(train=SimpleNamespace(labels=labels)),
        recipe=SimpleNamespace(build=SimpleNamespace(steps_per_epoch=10)),
    )


def test_rows_are_saved_and_read_again(tmp_path):
    train, labels = np.arange(5, 300, 2), DRAW.integers(0, 4, 400)
    rows = DRAW.random((3072, 4)).astype(np.float32)
    rows[: train[3] + 1] = 0
    for step in (100, 20):
        state = SimpleNamespace(labels={"rows": jnp.asarray(rows)})
        recording.save_memory(fake(train, 30, labels), tmp_path, state, step)
    recording.save_memory(fake(train, 0, labels), tmp_path, state, 300)
    recording.save_memory(fake(train, 30, labels), tmp_path, SimpleNamespace(labels=()), 300)
    assert {path.name for path in (tmp_path / "memory").iterdir()} == {"20.npz", "100.npz"}
    first, second = networks.snapshots(tmp_path)
    assert (first.epoch, second.epoch) == (2, 10)
    index = recording.chosen(train, 30)
    np.testing.assert_array_equal(first.index, index)
    written = index > train[3]
    assert np.isnan(first.rows["rows"][~written]).all()
    expected = rows[index][written].astype(np.float64)
    np.testing.assert_allclose(
        first.rows["rows"][written], expected / expected.sum(1, keepdims=True), atol=2e-3
    )
    with np.load(tmp_path / workdir.MEMORY / "20.npz") as file:
        np.testing.assert_array_equal(file["label"], labels[index])


def test_numbers_become_json():
    values = {
        "a": np.float32(0.5),
        1: [np.nan, 2],
        "b": np.array([[1.0, np.inf]]),
        "c": (None, "x"),
    }
    made = sections.plain(values)
    assert made == {"a": 0.5, "1": [None, 2], "b": [[1.0, None]], "c": [None, "x"]}
    json.dumps(made, allow_nan=False)


def test_a_picture_of_images_is_part_of_the_page():
    pictures = [DRAW.integers(0, 256, (8, 8, c), np.uint8) for c in (1, 3)]
    figure = analysis_plots.images(pictures, ["label 3\nlast: 3 0.9", "b"])
    drawn = html.plot("moved", figure, "images")
    assert len(re.findall(r'href="data:image/png;base64,', drawn)) == 2
    values = DRAW.dirichlet(np.ones(40), 40)
    for count in (5, 40):
        names = [f"class {k}" for k in range(count)]
        figure = analysis_plots.matrix(values[:count, :count], names, title="a", axis="mean")
        assert "data:image/png" in html.plot("matrix", figure, "matrix")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--examples=1"], "--examples must be at least 2, got 1"),
        (["--set", "data.root"], "--set must be FIELD=VALUE, got 'data.root'"),
        ([], "it has no model.npz"),
    ],
)
def test_what_cannot_be_analysed_is_said(tmp_path, capsys, words, sentence):
    assert command.main([str(tmp_path / "nothing"), *words]) == 2
    assert sentence in capsys.readouterr().err


def settings(**fields):
    c = config.default()
    c.model.name, c.labels.name = "tests.tiny", "online"
    c.data.batch_size, c.data.holdout, c.data.examples = 96, 100, 500
    c.optimizer.learning_rate, c.train.epochs, c.eval.report = 0.2, 3.0, False
    c.update_from_flattened_dict(fields)
    return c


@pytest.mark.slow
def test_recording_changes_nothing_and_the_command_draws_it(tmp_path, capsys):
    device = jax.devices()[:1]
    loop.train(settings(), tmp_path / "plain", devices=device)
    recorded = settings(**{"eval.train_examples": 120, "eval.memory_examples": 90})
    loop.train(recorded, tmp_path / "recorded", devices=device)
    # Bitwise the same run, with further entries in its log.
    with (
        np.load(tmp_path / "plain" / "model.npz") as one,
        np.load(tmp_path / "recorded" / "model.npz") as other,
    ):
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])
    plain = workdir.read_log(tmp_path / "plain" / "metrics.jsonl")
    rows = workdir.read_log(tmp_path / "recorded" / "metrics.jsonl")
    for one, other in zip(plain, rows, strict=True):
        assert one.items() <= other.items()
    last = rows[-1]
    assert last["test/nll_refinement"] + last["test/nll_calibration"] == pytest.approx(
        last["test/nll"], rel=1e-5
    )
    assert last["train/n"] == 120
    assert config.decisive(recorded) == config.decisive(settings())
    assert len(networks.snapshots(tmp_path / "recorded")) == 3
    # The last memory of a run that recorded none, from its checkpoint.
    measure_again(settings(**{"eval.memory_examples": 90}), tmp_path / "plain", device)
    (one,) = networks.snapshots(tmp_path / "plain")
    other = networks.snapshots(tmp_path / "recorded")[-1]
    chex.assert_trees_all_equal(one, other)
    shutil.rmtree(tmp_path / "plain" / workdir.MEMORY)
    capsys.readouterr()

    words = [str(tmp_path / name) for name in ("recorded", "plain")]
    assert command.main([*words, "--examples=150", "--pairs=20", f"--out={tmp_path}"]) == 0
    page = (tmp_path / "analysis.html").read_text()
    for heading in ("Label memory", "Penultimate layer", "Agreement between networks"):
        assert f"<h2>{heading}</h2>" in page
    assert "Rows that moved most, recorded" in page
    numbers = json.loads((tmp_path / "analysis.json").read_text())
    same = numbers["agreement"]["recorded and plain"]
    assert (same["same"], same["cka"][0]) == (1, pytest.approx(1))
    assert numbers["memory"]["recorded"]["rows"] == 90
    assert set(numbers["penultimate"]["collapse"]) == {"recorded", "plain"}
