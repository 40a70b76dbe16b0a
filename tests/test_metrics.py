"""Metrics against numpy in float64, on random and on adverse predictions; sums that add up."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frame import plug, softmax

from ldl_jax import config
from ldl_jax.metrics import calibration
from ldl_jax.metrics.base import GROUPS, Seen, Stored, bin_number, count, masked_sum, shown

NAMES = config.plugs("metrics")
OF_STORED = config.plugs("metrics", "of")
SIMULATED = {"ece_floor"}  # shown where the ECE is, and measured by simulation


def random_case(classes, size=300, scale=2.0, seed=0):
    """Logits f32[N, K] and labels i32[N] that agree more often than by chance."""
    draw = np.random.default_rng(seed)
    label = draw.integers(0, classes, size)
    logits = scale * draw.standard_normal((size, classes))
    logits[np.arange(size), label] += 1.5
    return logits.astype(np.float32), label.astype(np.int32)


def adverse_cases():
    label, eye = np.arange(300, dtype=np.int32) % 6, np.eye(6, dtype=np.float32)
    mild, wrong = 2 * eye[label], (label + 1) % 6
    return {
        "two classes": random_case(2),
        "six classes": random_case(6),
        "many classes": random_case(100, scale=0.5),
        "all correct": (mild, label),
        "all wrong": (mild, wrong),
        "certain and correct": (1000 * eye[label], label),
        "certain and wrong": (1000 * eye[label], wrong),
        "all alike": (np.zeros((300, 6), np.float32), label),
        "ties with the first": (np.tile([3, 3, 1, 1, 1, 0], (300, 1)).astype(np.float32), label),
        # 1/3 is an edge: 5/15
        "a third": (np.zeros((9, 3), np.float32), np.arange(9, dtype=np.int32) % 3),
        "a fifth": (np.zeros((9, 5), np.float32), np.arange(9, dtype=np.int32) % 5),
        "a fifteenth": (np.zeros((9, 15), np.float32), np.arange(9, dtype=np.int32)),
        "one example": random_case(7, size=1),
        "shifted far": (random_case(6)[0] + np.float32(1000), random_case(6)[1]),
    }


CASES = adverse_cases()


def binned(confidence, correct, bins=15):
    """(count, confidence, correct) of each bin (lo, hi] of equal width, one example after the
    other.
    """
    table = np.zeros((3, bins))
    for c, right in zip(confidence, correct, strict=True):
        number = next(i for i in range(bins) if c <= (i + 1) / bins + 1e-12 or i == bins - 1)
        table[:, number] += 1, c, right
    return table


def of_classes(probs, label):
    """Class-wise ECE and the parts of the Brier score, class by class and bin by bin."""
    n, classes = probs.shape
    names = (
        "classwise_ece",
        "brier_reliability",
        "brier_resolution",
        "brier_uncertainty",
        "brier_within",
    )
    found = dict.fromkeys(names, 0.0)
    for number in range(classes):
        column, hit = probs[:, number], label == number
        place = np.clip(np.ceil(column * 15 - 1e-9).astype(int) - 1, 0, 14)
        found["brier_uncertainty"] += hit.mean() * (1 - hit.mean())
        for part in (place == b for b in set(place)):
            p, h = column[part].mean(), hit[part].mean()
            found["classwise_ece"] += part.sum() / n * abs(p - h) / classes
            found["brier_reliability"] += part.sum() / n * (p - h) ** 2
            found["brier_resolution"] += part.sum() / n * (h - hit.mean()) ** 2
            off = column[part] - p
            found["brier_within"] += (off**2).sum() / n - 2 * (off * (hit[part] - h)).sum() / n
    return found


def expected_scores(logits, label):
    """Every metric by its definition, in float64."""
    probs, n = softmax(logits), len(label)
    own = probs[np.arange(n), label]
    # among equals the lower class first
    ranking = np.argsort(-logits.astype(np.float64), axis=1, kind="stable")
    table = binned(probs.max(1), ranking[:, 0] == label)
    used = table[:, table[0] > 0]
    gap = abs(used[2] - used[1]) / used[0]
    scores = {
        "n": n,
        "accuracy": np.mean(ranking[:, 0] == label),
        "nll": np.mean(np.log(np.exp(logits - logits.max(1, keepdims=True, initial=-1e9)).sum(1))
                       + (logits.max(1) - logits[np.arange(n), label]).astype(np.float64)),
        "brier": np.mean((probs**2).sum(1) - 2 * own + 1),
        "ece": (used[0] / n * gap).sum(),
        "mce": gap.max(),
        "rmsce": np.sqrt((used[0] / n * gap**2).sum()),
        "overconfidence": np.maximum(used[1] - used[2], 0).sum() / n,
        "underconfidence": np.maximum(used[2] - used[1], 0).sum() / n,
        "signed_ece": probs.max(1).mean() - np.mean(ranking[:, 0] == label),
        "confidence": probs.max(1).mean(),
        "entropy": -(probs * np.log(np.where(probs > 0, probs, 1))).sum(1).mean(),
        **of_classes(probs, label),
    }  # fmt: skip
    if logits.shape[1] > 5:
        scores["top5"] = np.mean((ranking[:, :5] == label[:, None]).any(1))
    return scores


# compiling is most of the time here
@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def jitted_sums(logits, seen):
    return {name: plug("metrics", name).make(logits.shape[1]).sums(logits, seen) for name in NAMES}


def sums(logits, label, mask=None):
    """The sums of every metric, by name."""
    mask = np.ones(len(label)) if mask is None else mask
    return jax.device_get(
        jitted_sums(logits, Seen(np.asarray(label, np.int32), np.asarray(mask, np.float32)))
    )


def values(made, classes):
    return {
        k: float(v)
        for name in NAMES
        for k, v in plug("metrics", name).make(classes).value(made[name]).items()
    }


def scores(logits, label, mask=None):
    return values(sums(logits, label, mask), logits.shape[1])


def assert_scores(found, expected, rtol=2e-6, atol=1e-6):
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=rtol, atol=atol, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_scores_are_their_definitions(case):
    logits, label = CASES[case]
    assert_scores(scores(logits, label), expected_scores(logits, label))


@pytest.mark.parametrize(
    "case", ["six classes", "shifted far", "a third", "a fifth", "a fifteenth"]
)
def test_scores_of_float64_are_float64(case):
    logits, label = CASES[case][0].astype(np.float64), CASES[case][1]
    found, expected = scores(logits, label), expected_scores(logits, label)
    assert_scores(found, expected)
    for name in ("nll", "brier"):
        assert abs(found[name] - expected[name]) < 1e-12


def test_scores_known_by_hand():
    logits = np.log(np.array([[0.7, 0.3], [0.7, 0.3], [0.1, 0.9], [0.5, 0.5]]))
    expected = {  # the confidence 0.9 lies in the 14th bin, both 0.7 in the 11th
        "n": 4, "accuracy": 0.75, "confidence": 0.7, "mce": 0.5, "ece": (0.4 + 0.1 + 0.5) / 4,
        "nll": -np.log(0.7 * 0.3 * 0.9 * 0.5) / 4, "brier": (0.18 + 0.98 + 0.02 + 0.5) / 4,
    }  # fmt: skip
    found = scores(logits, np.array([0, 1, 1, 0]))
    assert_scores({name: found[name] for name in expected}, expected, atol=1e-12)


@pytest.mark.parametrize("case", ["six classes", "a fifth"])
def test_the_parts_of_the_brier_score_add_up_to_it_and_those_of_the_ece_too(case):
    found = scores(CASES[case][0].astype(np.float64), CASES[case][1])
    parts = (
        found["brier_reliability"]
        - found["brier_resolution"]
        + found["brier_uncertainty"]
        + found["brier_within"]
    )
    assert parts == pytest.approx(found["brier"], abs=1e-12)
    assert found["overconfidence"] + found["underconfidence"] == pytest.approx(
        found["ece"], abs=1e-12
    )
    assert found["overconfidence"] - found["underconfidence"] == pytest.approx(
        found["signed_ece"], abs=1e-12
    )
    assert found["signed_ece"] == pytest.approx(found["confidence"] - found["accuracy"], abs=1e-7)
    assert found["ece"] <= found["rmsce"] + 1e-12 <= found["mce"] + 2e-12


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_number_of_a_bin_is_that_of_comparing_with_every_edge(dtype):
    edges = np.linspace(0, 1, 16).astype(dtype)
    near = np.concatenate([edges, np.nextafter(edges, dtype(0)), np.nextafter(edges, dtype(1))])
    probs = jnp.asarray(
        np.concatenate([near, np.random.default_rng(0).uniform(size=400).astype(dtype)])
    )
    np.testing.assert_array_equal(bin_number(probs), calibration.bin_of(probs).argmax(1))


def test_finer_bins_within_the_old_ones_never_lower_the_ece():
    """Nested bins: the triangle inequality, on predictions near calibration, where it is not an
    equality.
    """
    probs = softmax(random_case(6, scale=1.0)[0])
    correct = np.random.default_rng(0).uniform(size=300) < probs.max(1)
    found = []
    for bins in (5, 15, 45):
        member = np.asarray(calibration.bin_of(jnp.asarray(probs.max(1)), bins))
        found.append(np.abs(((probs.max(1) - correct)[:, None] * member).sum(0)).sum() / 300)
    assert found[0] <= found[1] + 1e-12 <= found[2] + 2e-12
    assert found[0] < found[2]


def test_the_sums_of_a_thousand_classes_stay_under_a_megabyte():
    shapes = jax.eval_shape(
        jitted_sums,
        jax.ShapeDtypeStruct((8, 1000), jnp.float32),
        Seen(jnp.zeros(8, int), jnp.ones(8)),
    )
    assert sum(leaf.size * 4 for leaf in jax.tree.leaves(shapes)) < 2**20


def test_certainty_counts_in_the_last_bin():
    found = scores(*CASES["certain and wrong"])
    assert (found["accuracy"], found["ece"], found["mce"], found["brier"], found["nll"]) == (
        0,
        1,
        1,
        2,
        1000,
    )
    table = sums(*CASES["certain and correct"])["calibration"]
    np.testing.assert_array_equal(table["count"], 300 * np.eye(15)[14])
    assert scores(*CASES["certain and correct"])["ece"] == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_edge_belongs_to_the_bin_below_it(dtype):
    edges = np.linspace(0, 1, 16).astype(dtype)
    above = np.nextafter(edges[:-1], dtype(2))
    np.testing.assert_array_equal(calibration.bin_of(jnp.asarray(edges)).argmax(1), [0, *range(15)])
    np.testing.assert_array_equal(calibration.bin_of(jnp.asarray(above)).argmax(1), range(15))
    assert (calibration.bin_of(jnp.asarray(edges)).sum(1) == 1).all()


def test_ties_rank_by_the_class_number():
    logits = np.zeros((8, 8), np.float32)
    found = sums(logits, np.arange(8))["accuracy"]
    assert (found["top1"], found["top5"]) == (1, 5)


def test_top_five_says_nothing_of_five_classes():
    assert "top5" not in scores(*CASES["a fifth"])
    assert "top5" in scores(*CASES["six classes"])


def test_a_network_that_says_nan_hits_nothing():
    logits = np.full((300, 6), np.nan, np.float32)
    found = scores(logits, np.arange(300) % 6)
    assert (found["accuracy"], found["top5"]) == (0, 0)
    assert np.isnan([found["nll"], found["brier"], found["ece"], found["confidence"]]).all()


@pytest.mark.parametrize("case", ["two classes", "many classes", "ties with the first"])
def test_sums_over_batches_are_the_sums_of_the_whole(case):
    logits, label = CASES[case]
    parts = [sums(logits[i : i + 60], label[i : i + 60]) for i in range(0, 300, 60)]
    added = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6),
        added,
        sums(logits, label),
    )
    assert_scores(values(added, logits.shape[1]), expected_scores(logits, label))


@pytest.mark.parametrize("filler", [0.0, 50.0, np.inf, np.nan])
def test_padding_changes_nothing(filler):
    logits, label = random_case(6, 280)
    padded, mask = np.full((300, 6), filler, np.float32), np.ones(300)
    mask[np.random.default_rng(1).permutation(300)[:20]] = 0
    padded[mask > 0] = logits
    for said in (0, 5):
        labels = np.full(300, said)
        labels[mask > 0] = label
        assert_scores(values(sums(padded, labels, mask), 6), expected_scores(logits, label))


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_examples_and_bounds_between_scores(seed):
    logits, label = random_case(6, scale=1.0 + seed, seed=seed)
    found, order = scores(logits, label), np.random.default_rng(9).permutation(300)
    assert_scores(scores(logits[order], label[order]), found)
    assert (
        abs(found["accuracy"] - found["confidence"]) - 1e-6
        <= found["ece"]
        <= found["mce"] + 1e-6
        <= 1 + 2e-6
    )
    assert 1 / 6 <= found["confidence"] <= 1
    assert found["accuracy"] <= found["top5"] <= 1
    assert 0 <= found["brier"] <= 2


def test_classes_may_be_renamed():
    logits, label = random_case(6)
    order = np.random.default_rng(2).permutation(6)
    assert_scores(scores(logits[:, order], np.argsort(order)[label]), scores(logits, label))


def test_half_precision_is_summed_in_float32():
    seen = Seen(jnp.zeros(5000, jnp.int32), jnp.ones(5000))
    assert float(masked_sum(jnp.ones(5000, jnp.bfloat16), seen)) == 5000
    assert float(count(seen)) == 5000
    made = jax.eval_shape(jitted_sums, jax.ShapeDtypeStruct((5000, 6), jnp.bfloat16), seen)
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype(jnp.float32)}


def test_a_masked_sum_keeps_further_axes():
    rows, mask = np.arange(12.0).reshape(4, 3), np.array([1.0, 0, 1, 0])
    np.testing.assert_array_equal(
        masked_sum(jnp.asarray(rows), Seen(None, jnp.asarray(mask))), rows[0] + rows[2]
    )


def given_figures(name):
    """The names of all figures that a metric gives, when everything that it may need is there."""
    module = plug("metrics", name)
    logits, label = random_case(7, size=40)
    table, probs = softmax(logits), softmax(logits).astype(np.float32)
    figures = set()
    if name in NAMES:
        metric, seen = module.make(7), Seen(label, np.ones(40, np.float32), {"table": table})
        figures |= set(metric.value(metric.sums(jnp.asarray(logits), seen)))
    if name in OF_STORED:
        correct = probs.argmax(1) == label
        figures |= set(
            module.of(Stored(probs.max(1), correct, 7, probs, label, table, probs.max(1) / 2))
        )
    return figures - {"n"}


@pytest.mark.parametrize("name", sorted({*NAMES, *OF_STORED}))
def test_a_metric_says_how_each_of_its_figures_is_shown(name):
    module = plug("metrics", name)
    assert given_figures(name) == set(module.SHOWN) - SIMULATED
    for figure, how in module.SHOWN.items():
        assert how.group in GROUPS, figure
        assert how.better in ("lower", "higher", ""), figure
        assert how.unit in ("%", "nat", ""), figure
        assert shown()[figure] == how, figure  # no other file says it again


def test_every_file_of_metrics_is_one():
    folder = Path(calibration.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "base"}
    assert files == {*NAMES, *OF_STORED}
    assert len({(how.group, how.position) for how in shown().values()}) == len(shown())


@pytest.mark.parametrize("name", OF_STORED)
def test_a_metric_of_stored_predictions_says_nothing_of_what_is_not_given(name):
    draw = np.random.default_rng(0)
    confidence = draw.uniform(0.2, 1, 30)
    figures = plug("metrics", name).of(Stored(confidence, draw.uniform(size=30) < confidence, 3))
    assert set(figures) <= set(plug("metrics", name).SHOWN)
    assert all(np.isfinite(value) for value in figures.values())
    assert not {figure for figure in figures if figure.startswith(("ood", "table"))}
