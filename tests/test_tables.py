"""Labels of the user's own beside the published ones, tables of distributions, and
cross-validation.
"""

import json
import os
from functools import partial
from pathlib import Path

import frame
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldl_jax import config
from ldl_jax.data import noise, order, own_labels
from ldl_jax.data.loading import make_dataset
from ldl_jax.evaluation import human
from ldl_jax.evaluation.predictions import Predictions
from ldl_jax.labels import table as table_source
from ldl_jax.metrics import table as table_metric
from ldl_jax.metrics.base import Seen
from ldl_jax.training import experiment as build
from ldl_jax.training import loop as train
from ldl_jax.training import results, steps
from ldl_jax.training import schedule as plan
from ldl_jax.training.batches import Feed
from ldl_jax.training.programs import device_data, make_programs

DATA = Path(os.environ.get("LDL_DATA_DIR", "/nowhere"))
N, T, K = 60, 24, 4  # images to train on, to test on, classes


@pytest.fixture
def own(tmp_path):
    """A config of random images in an .npz, and a function that writes arrays beside it."""
    random = np.random.default_rng(0)
    np.savez(
        tmp_path / "own.npz",
        train_images=random.integers(0, 256, (N, 8, 8, 3)).astype(np.uint8), train_labels=np.arange(N) % K,
        test_images=random.integers(0, 256, (T, 8, 8, 3)).astype(np.uint8), test_labels=np.arange(T) % K,
    )  # fmt: skip
    c = config.default()
    c.data.name, c.data.root, c.data.batch_size, c.data.eval_batch_size = (
        "arrays",
        str(tmp_path / "own.npz"),
        8,
        16,
    )
    c.model.name, c.optimizer.learning_rate, c.train.max_steps = "tests.tiny", 0.01, 3

    def write(name, array):
        np.save(tmp_path / name, array)
        return str(tmp_path / name)

    c.train.log_every_steps, c.eval.report = 1, False
    return c, write


def rows(count, seed=1):
    return np.random.default_rng(seed).dirichlet(np.ones(K), count)


def prepared(made, index):
    """The batch that the step works on."""
    data = {
        "images": made.dataset.train.images,
        "labels": made.dataset.train.labels,
        "given": made.dataset.train.given,
    }
    data |= {"key": jax.random.key(0)}
    return steps.prepare(
        made.recipe, (), data, {"index": np.asarray(index, np.int32)}, jnp.zeros((), jnp.int32)
    )


@pytest.mark.slow
def test_noisy_labels_are_trained_on_and_the_published_ones_are_measured(own, tmp_path, capsys):
    c, write = own
    votes = rows(T)
    c.data.test_table = write("votes.npy", votes)
    noisy = np.arange(N) % K
    noisy[:15] = (noisy[:15] + 1) % K
    c.data.labels_file, c.data.holdout = write("noisy.npy", noisy), 20
    made = build.make_experiment(c, jax.devices()[:1])
    index = np.arange(8) * 3
    np.testing.assert_array_equal(prepared(made, index).label, noisy[index])
    np.testing.assert_array_equal(made.dataset.train.labels, np.arange(N) % K)
    assert made.recipe.build.tables == ("label",)
    summary = train.train(c, tmp_path / "run", devices=jax.devices()[:1])
    for split in ("test", "holdout"):
        with np.load(tmp_path / f"run/predictions/{split}.npz") as said:
            np.testing.assert_array_equal(said["label"], said["index"] % K)
    share = (noisy != np.arange(N) % K)[made.train].mean()
    assert (
        summary["labels_changed"]
        == json.loads((tmp_path / "run/summary.json").read_text())["labels_changed"]
        == share
    )


@pytest.mark.parametrize("resident", [True, False])
def test_tables_reach_the_step_whether_images_are_resident_or_fed(own, resident):
    c, write = own
    noisy, table = np.random.default_rng(5).integers(0, K, N), rows(N)
    c.data.labels_file, c.data.train_table, c.data.resident = (
        write("l.npy", noisy),
        write("t.npy", table),
        resident,
    )
    made = build.make_experiment(c, jax.devices()[:1])
    data = device_data(made.dataset.train, jax.random.key(0), made.mesh)
    assert ("images" in data) is resident
    for _, batch in Feed(made, plan.make_plan(made), 0):
        seen = steps.prepare(made.recipe, (), data, batch, jnp.zeros((), jnp.int32))
        index = np.asarray(seen.index)
        np.testing.assert_array_equal(seen.label, noisy[index])
        np.testing.assert_allclose(seen.given["table"], table[index], atol=1e-7)


@pytest.mark.parametrize("kind", ["symmetric", "pair"])
def test_noise_changes_its_share_of_the_labels_whatever_the_seed_of_the_run(kind):
    labels = np.arange(20_000) % 5
    made = noise.noisy(labels, 5, share=0.3, kind=kind, seed=0)
    shift = (made - labels) % 5
    counts = np.bincount(shift, minlength=5)
    assert counts[0] == 14_000
    expected = [1500] * 4 if kind == "symmetric" else [6000, 0, 0, 0]
    # 4 standard deviations of a binomial count
    assert np.abs(counts[1:] - expected).max() <= (
        4 * np.sqrt(1500 * 0.75) if kind == "symmetric" else 0
    )
    # The same share of every class, up to chance.
    by_class = np.bincount(labels[shift > 0], minlength=5)
    assert np.abs(by_class - 1200).max() < 4 * np.sqrt(4000 * 0.3 * 0.7)
    np.testing.assert_array_equal(made, noise.noisy(labels, 5, share=0.3, kind=kind, seed=0))
    assert (made != noise.noisy(labels, 5, share=0.3, kind=kind, seed=1)).any()
    np.testing.assert_array_equal(labels, np.arange(20_000) % 5)


@pytest.mark.parametrize("resident", [True, False])
def test_noise_is_trained_on_and_not_measured(own, resident):
    c, _ = own
    c.data.noise, c.data.noise_kind, c.data.resident, c.data.holdout = 0.25, "pair", resident, 20
    made = build.make_experiment(c, jax.devices()[:1])
    published = np.arange(N) % K
    given = made.dataset.train.given["label"]
    assert (given != published).sum() == round(0.25 * N)
    assert made.recipe.build.tables == ("label",)
    assert "25.00% of the labels to train on are wrong (pair noise)" in " ".join(made.dataset.notes)
    share = results.changed_labels(made)
    if resident:
        index = np.arange(8) * 3
        np.testing.assert_array_equal(prepared(made, index).label, given[index])
        np.testing.assert_array_equal(made.dataset.train.labels, published)
        assert share == {"labels_changed": (given != published)[made.train].mean()}
    assert config.decisive(c)["data.noise"] == 0.25
    assert "data.noise" not in config.decisive(config.default())


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"data.noise": 1.0}, r"config.data.noise must be in \[0, 1\), got 1.0"),
        ({"data.noise": -0.1}, r"config.data.noise must be in \[0, 1\), got -0.1"),
        (
            {"data.noise": 0.1, "data.noise_kind": "both"},
            "noise_kind must be one of symmetric, pair",
        ),
        ({"data.noise": 0.1, "data.labels_file": "l.npy"}, "only one of config.data.noise and"),
        ({"data.noise_seed": -1}, "config.data.noise_seed must be"),
    ],
)
def test_noise_that_cannot_be_is_refused(own, fields, sentence):
    c, _ = own
    c.update_from_flattened_dict(fields)
    with pytest.raises(ValueError, match=sentence):
        config.check(c)


def test_labels_that_are_not_known_cannot_be_changed(own):
    c, _ = own
    c.data.noise = 0.5
    made = make_dataset(c.data)
    unknown = made._replace(train=made.train._replace(labels=None, given=()))
    with pytest.raises(ValueError, match="needs labels that are known before the images are read"):
        own_labels.trained_on(unknown, c.data)
    # Sizes alone have no labels to change.
    sizes = own_labels.trained_on(unknown, c.data, compare=False)
    assert sizes.train.given["label"].shape == (N,)


def test_a_table_is_the_target_and_follows_its_split(own):
    c, write = own
    train_rows, test_rows = rows(N), rows(T, 2)
    c.data.train_table, c.data.test_table = (
        write("train.npy", train_rows),
        write("test.npy", test_rows),
    )
    c.labels.name = "table"
    for name, expected, other in (
        ("train", train_rows, test_rows),
        ("test", test_rows, train_rows),
    ):
        c.data.train_split = name
        made = build.make_experiment(c, jax.devices()[:1])
        index = np.arange(8) * 2
        batch = prepared(made, index)
        (target,) = made.recipe.source.targets((), batch, frame.says(jnp.zeros((8, K))))
        np.testing.assert_allclose(target.probs, expected[index], atol=1e-7)
        np.testing.assert_allclose(made.dataset.test.given["table"], other, atol=1e-7)
        assert made.recipe.build.num_examples == len(expected)
        assert len(made.train) == len(expected)
        np.testing.assert_array_equal(made.test, np.arange(len(other)))


def test_the_source_needs_a_table_on_the_split_that_is_trained_on(own):
    c, write = own
    c.labels.name, c.data.test_table = "table", write("test.npy", rows(T))
    with pytest.raises(
        ValueError,
        match=r"labels 'table' needs a distribution for each training example; name a",
    ):
        build.make_experiment(c, jax.devices()[:1])
    c.data.train_split = "test"
    build.make_experiment(c, jax.devices()[:1])
    c.labels.name, c.labels.blend.parts = "blend", ("hard", "table")
    build.make_experiment(c, jax.devices()[:1])
    with pytest.raises(ValueError, match=r"name a file in config.data.train_table"):
        table_source.make(frame.plain_build(tables=("label",)))


def test_the_target_of_a_mixed_image_mixes_the_rows():
    given = rows(4).astype(np.float32)
    batch = frame.plain_batch([0, 1, 2, 3], share=np.tile([0.7, 0.3], (4, 1)))._replace(
        given={"table": given}
    )
    source = table_source.make(frame.plain_build(num_classes=K, tables=("table",)))
    (target,) = source.targets((), batch, frame.says(jnp.zeros((4, K))))
    assert target.probs.dtype == jnp.float64  # the step's type, not the file's
    mixed = steps.mix_target(target, batch.partner, batch.share)
    partner = np.asarray(batch.partner)[:, 1]
    np.testing.assert_allclose(mixed.probs, 0.7 * given + 0.3 * given[partner], atol=1e-7)


def test_cross_entropy_and_kl_are_those_of_numpy():
    random = np.random.default_rng(5)
    logits, given = 3 * random.normal(size=(7, K)), rows(7)
    given[0], given[1] = [1, 0, 0, 0], [0, 0.5, 0.5, 0]
    mask = np.array([1, 1, 0, 1, 1, 0, 1])
    metric = table_metric.make(K)
    seen = Seen(
        jnp.zeros(7, jnp.int32), jnp.asarray(mask, jnp.float32), {"table": jnp.asarray(given)}
    )
    found = metric.value(metric.sums(jnp.asarray(logits), seen))
    log = np.log(frame.softmax(logits))
    cross = -(given * log).sum(1)
    entropy = np.array([-sum(p * np.log(p) for p in row if p > 0) for row in given])
    assert float(found["table_cross_entropy"]) == pytest.approx(cross[mask > 0].mean(), abs=1e-12)
    assert float(found["table_kl"]) == pytest.approx((cross - entropy)[mask > 0].mean(), abs=1e-12)
    own = Seen(seen.label, seen.mask, {"table": jnp.asarray(frame.softmax(logits))})
    assert float(metric.value(metric.sums(jnp.asarray(logits), own))["table_kl"]) == pytest.approx(
        0, abs=1e-12
    )


def test_a_class_ruled_out_by_network_and_table_alike_counts_for_nothing():
    metric, given = table_metric.make(3), jnp.asarray([[0.25, 0.75, 0.0]])
    seen = Seen(jnp.zeros(1, jnp.int32), jnp.ones(1), {"table": given})
    found = metric.value(metric.sums(jnp.asarray([[0.0, 0.0, -jnp.inf]]), seen))
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert float(found["table_cross_entropy"]) == pytest.approx(np.log(2))
    assert float(found["table_kl"]) == pytest.approx(np.log(2) - entropy)


@pytest.mark.parametrize("given", [(), {}, {"label": jnp.zeros(3, jnp.int32)}])
def test_without_a_table_the_metric_says_nothing(given):
    metric = table_metric.make(K)
    sums = metric.sums(jnp.zeros((3, K)), Seen(jnp.zeros(3, jnp.int32), jnp.ones(3), given))
    assert sums == {}
    assert metric.value(sums) == {}


def test_folds_are_a_partition_and_the_same_for_every_run():
    parts = [order.fold(103, 4, number) for number in range(4)]
    assert sorted(np.concatenate([inside for _, inside in parts])) == list(range(103))
    assert sorted(len(inside) for _, inside in parts) == [25, 26, 26, 26]
    for outside, inside in parts:
        assert sorted([*outside, *inside]) == list(range(103))
        assert list(inside) == sorted(inside)
    assert any(np.diff(parts[0][1]) != 1)  # drawn, not cut in a row
    np.testing.assert_array_equal(order.fold(103, 4, 2)[1], parts[2][1])


@pytest.mark.slow
def test_a_fold_is_evaluated_and_the_others_are_trained_on(own, tmp_path):
    c, write = own
    c.data.train_split, c.data.folds, c.data.batch_size = "test", 3, 4
    c.data.test_table, c.labels.name = write("test.npy", rows(T)), "table"
    seen = []
    for number in range(3):
        c.data.fold = number
        made = build.make_experiment(c, jax.devices()[:1])
        assert not set(made.train) & set(made.test)
        assert made.dataset.test is made.dataset.train
        assert made.recipe.build.num_examples == T
        seen += list(made.test)
    assert sorted(seen) == list(range(T))
    programs = make_programs(made)
    assert programs.test is programs.train  # one copy of the images on the device
    summary = train.train(c, tmp_path / "run", devices=jax.devices()[:1])
    assert summary["splits"]["test"]["n"] == 8
    assert "table_kl" in summary["splits"]["test"]
    with np.load(tmp_path / "run/predictions/test.npz") as said:
        np.testing.assert_array_equal(said["index"], made.test)
        np.testing.assert_array_equal(said["label"], made.test % K)


def test_folds_leave_examples_and_holdout_their_meaning(own):
    c, _ = own
    c.data.folds, c.data.fold, c.data.holdout, c.data.examples = 3, 1, 10, 30
    dataset = build.make_dataset(c.data)
    train_on, holdout, test = build.positions(c.data, dataset)
    outside, inside = order.fold(N, 3, 1)
    np.testing.assert_array_equal(test, inside)
    np.testing.assert_array_equal(np.sort([*train_on, *holdout]), outside[:30])
    assert len(holdout) == 10
    chosen = dataset._replace(subset=np.arange(0, N, 2))
    c.data.examples, c.data.holdout = None, 0
    train_on, _, test = build.positions(c.data, chosen)
    np.testing.assert_array_equal(train_on, [i for i in outside if i % 2 == 0])
    np.testing.assert_array_equal(test, inside)


def test_a_subset_of_everything_changes_nothing(own):
    c, _ = own
    c.data.holdout = 13
    dataset = build.make_dataset(c.data)
    whole = build.positions(c.data, dataset)
    same = build.positions(c.data, dataset._replace(subset=np.arange(N)))
    jax.tree.map(np.testing.assert_array_equal, whole, same)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train_split": "val"}, r"config.data.train_split must be one of train, test; got 'val'"),
        ({"folds": 1}, r"config.data.folds must be 0 \(no cross-validation\) or at least 2, got 1"),
        ({"folds": -2}, r"config.data.folds must be 0 .*got -2"),
        ({"folds": 5, "fold": 5}, r"config.data.fold must be between 0 and 4 .*got 5"),
        ({"fold": 1}, r"config.data.fold must be 0 if config.data.folds is 0, got 1"),
        ({"folds": 61}, r"config.data.folds must be at most 60, .*, got 61"),
    ],
)
def test_folds_and_splits_that_are_not_there(own, changes, sentence):
    c, _ = own
    c.data.update(changes)
    with pytest.raises(ValueError, match=sentence):
        build.make_experiment(c, jax.devices()[:1])


def broken(value, row=5, column=1):
    table = rows(N)
    table[row, column] = value
    return table


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            rows(N + 1),
            r"must hold numbers \[60, 4\], one row per image .*, got float64\[61, 4\]",
        ),
        (np.full((N, K + 1), 0.2), r"must hold numbers \[60, 4\], .*, got float64\[60, 5\]"),
        (np.arange(N) % K, r"must hold .*, got int64\[60\]"),
        (np.full((N, K), "x"), r"must hold .*, got <U1\[60, 4\]"),
        (broken(np.nan), r"row 5 has a negative or NaN entry"),
        (broken(-0.1), r"row 5 has a negative or NaN entry"),
        (broken(np.inf), r"row 5 does not sum to 1 within 0.001 \(its sum is inf\)"),
        (rows(N) * 50, r"row 0 does not sum to 1 within 0.001 \(its sum is 50\)"),
        (
            rows(N) * np.where(np.arange(N) == 7, 1.002, 1)[:, None],
            r"row 7 does not sum to 1 within 0.001",
        ),
        (np.zeros((N, K)), r"row 0 has no entry above 0"),
    ],
)
def test_a_table_that_does_not_fit_is_named(own, table, sentence):
    c, write = own
    c.data.train_table = write("mine.npy", table)
    with pytest.raises(
        ValueError, match=rf"config.data.train_table: .*mine.npy.*{sentence}"
    ) as told:
        build.make_dataset(c.data)
    assert "\n" not in str(told.value)


def test_votes_are_smoothed_by_a_pseudo_count(own):
    c, write = own
    votes = np.random.default_rng(0).integers(0, 4, (N, K))
    votes[3] = 0
    c.data.train_table, c.data.table_pseudo_count = write("votes.npy", votes), 0.5
    found = build.make_dataset(c.data).train.given["table"]
    expected = (votes + 0.5) / (votes.sum(1) + K / 2)[:, None]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(found[3], 1 / K)
    c.data.train_table = write("shares.npy", rows(N))
    with pytest.raises(
        ValueError, match=r"train_table: .*shares.npy: row 0 must have whole-number"
    ):
        build.make_dataset(c.data)
    c.data.table_pseudo_count = -1.0
    with pytest.raises(ValueError, match=r"data\.table_pseudo_count must be finite and at least 0"):
        config.check(c)


def test_a_table_of_half_precision_is_made_to_sum_to_one(own):
    c, write = own
    whole = np.random.default_rng(0).dirichlet(np.ones(K), N)
    half = whole.astype(np.float16)
    assert np.abs(half.astype(np.float64).sum(1) - 1).max() > 1e-5
    c.data.train_table = write("half.npy", half)
    found = build.make_dataset(c.data).train.given["table"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.astype(np.float64).sum(1), 1, atol=1e-7)
    np.testing.assert_allclose(
        found, half.astype(np.float64) / half.astype(np.float64).sum(1)[:, None], atol=1e-7
    )


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (
            np.arange(N - 1) % K,
            r"must hold integers \[60\], one per image of the split .*, got int64\[59\]",
        ),
        (np.arange(N).astype(float) % K, r"must hold .*, got float64\[60\]"),
        (np.arange(N) % (K + 1), r"must be between 0 and 3, got 0 to 4"),
        (np.arange(N) % K - 1, r"must be between 0 and 3, got -1 to 2"),
        (np.array([{}] * N), r"cannot be read as an .npy or .npz file of numbers"),
    ],
)
def test_labels_that_do_not_fit_are_named(own, labels, sentence):
    c, write = own
    c.data.labels_file = write("mine.npy", labels)
    with pytest.raises(ValueError, match=rf"config.data.labels_file: .*mine.npy.*{sentence}"):
        build.make_dataset(c.data)


def test_labels_that_count_from_one_are_told(own):
    c, write = own
    c.data.labels_file = write("mine.npy", np.arange(N) % K + 1)
    with pytest.raises(ValueError, match=r"between 0 and 3, got 1 to 4; they count from 1"):
        build.make_dataset(c.data)


def test_the_share_of_other_labels_is_told(own):
    c, write = own
    noisy = np.arange(N) % K
    noisy[:15] = (noisy[:15] + 1) % K
    c.data.labels_file = write("noisy.npy", noisy)
    (note,) = build.make_dataset(c.data).notes
    assert f"25.00% of the labels of {c.data.labels_file} differ from the published ones" in note
    assert "random order" not in note
    c.data.labels_file = write("random.npy", np.random.default_rng(0).permutation(noisy))
    assert "as many as in a random order" in build.make_dataset(c.data).notes[0]


@pytest.mark.parametrize(
    ("numbers", "renamed"),
    [([1, 2, 3, 0], 4), ([2, 0, 3, 1], 4), ([0, 0, 1, 1], 3)],
    ids=["shifted", "permuted", "coarse"],
)
def test_labels_that_number_the_classes_otherwise_are_refused(own, numbers, renamed):
    c, write = own
    noisy = np.array(numbers)[np.arange(N) % K]
    noisy[::7] = 0
    c.data.labels_file = write("other.npy", noisy)
    with pytest.raises(
        ValueError, match=rf"must number the classes .* consistently so in {renamed} of 4 classes"
    ):
        build.make_dataset(c.data)


def test_strong_noise_is_no_other_numbering():
    random = np.random.default_rng(0)
    published = np.repeat(np.arange(10), 200)
    symmetric = np.where(random.random(2000) < 0.8, random.integers(0, 10, 2000), published)
    pairs = np.where(random.random(2000) < 0.45, (published + 1) % 10, published)
    classes = tuple("abcdefghij")
    for labels in (symmetric, pairs):
        share = (labels != published).mean()
        note = own_labels.disagreement("x.npy", labels, published, classes)
        assert f"{share:.2%}" in note
    # Too few images of a class to tell noise from another numbering.
    assert own_labels.disagreement("x.npy", np.array([1, 0]), np.array([0, 1]), ("a", "b"))


TABLE = np.random.default_rng(3).dirichlet(np.ones(K), N)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (np.round(TABLE, 2), "rounded to 2 decimals"),
        ((TABLE.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32), "bfloat16"),
        (TABLE * 100, "percentages"),
        (np.random.default_rng(4).multinomial(50, TABLE), "whole-number votes"),
    ],
    ids=["2 decimals", "bfloat16", "percent", "votes"],
)
def test_rounded_tables_percentages_and_votes_are_divided_by_their_sums(own, table, reason):
    c, write = own
    c.data.train_table = write("mine.npy", table)
    made = build.make_dataset(c.data)
    (note,) = made.notes
    assert "config.data.train_table: " in note
    assert reason in note
    wide = table.astype(np.float64)
    np.testing.assert_allclose(made.train.given["table"], wide / wide.sum(1)[:, None], atol=1e-7)


def test_a_table_that_sums_to_one_needs_no_note(own):
    c, write = own
    c.data.train_table = write("mine.npy", TABLE.astype(np.float32))
    c.data.test_table = write("test.npy", np.eye(K, dtype=int)[np.arange(T) % K])
    assert build.make_dataset(c.data).notes == ()


def test_human_distributions_follow_the_same_rule(tmp_path, capsys):
    predictions = Predictions("own", np.zeros((N, K), np.float32), None, "logits")
    votes = np.random.default_rng(4).multinomial(50, TABLE)

    def read(table):
        np.save(tmp_path / "human.npy", table)
        return human.read(tmp_path / "human.npy", predictions)

    np.testing.assert_allclose(read(votes), votes / 50)
    np.testing.assert_allclose(read(TABLE), TABLE)
    assert capsys.readouterr().err == ""
    rounded = np.round(TABLE, 2)
    np.testing.assert_allclose(read(rounded), rounded / rounded.sum(1)[:, None])
    assert "rows were divided by their sums (rounded to 2 decimals)" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"row 0 does not sum to 1 .* 3.*whole-number votes"):
        read(TABLE * 3)
    with pytest.raises(ValueError, match=r"row 4 does not sum to 100 within 0.1 \(its sum is 105"):
        read(TABLE * np.where(np.arange(N) == 4, 105.0, 100.0)[:, None])


def test_an_entry_of_an_npz_is_found_by_name_or_as_the_only_one(tmp_path):
    labels = np.arange(6) % K
    np.savez(tmp_path / "one.npz", worst=labels)
    np.savez(tmp_path / "two.npz", worst=labels, best=labels[::-1])
    np.save(tmp_path / "plain.npy", labels)
    read = partial(own_labels.read_labels, num_examples=6, num_classes=K)
    for file, name in (
        ("one.npz", ""),
        ("one.npz", "worst"),
        ("two.npz", "worst"),
        ("plain.npy", ""),
    ):
        np.testing.assert_array_equal(read(str(tmp_path / file), name), labels)
    np.testing.assert_array_equal(read(str(tmp_path / "two.npz"), "best"), labels[::-1])
    for name in ("", "mean"):
        with pytest.raises(
            ValueError,
            match=rf"config.data.labels_name must be .*two.npz \(worst, best\), got '{name}'",
        ):
            read(str(tmp_path / "two.npz"), name)
    with pytest.raises(
        ValueError, match=r"config.data.labels_file must .*none.npy', which does not exist"
    ):
        read(str(tmp_path / "none.npy"), "")
    for content in (
        b"",
        b"text",
        (tmp_path / "one.npz").read_bytes()[:-40],
        (tmp_path / "plain.npy").read_bytes()[:-9],
    ):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(
            ValueError, match=r"config.data.labels_file: .*bad.npz cannot be read as"
        ) as told:
            read(str(tmp_path / "bad.npz"), "")
        assert "\n" not in str(told.value)


def real(**fields):
    if not (DATA / "cifar10n.npz").exists():
        pytest.skip("needs the CIFAR tables below LDL_DATA_DIR")
    c = config.default()
    c.data.update({"root": str(DATA), "verify": False} | fields)
    return build.make_dataset(c.data)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "noisy", "entry", "wrong"),
    [
        ("cifar10", "cifar10n.npz", "aggre_label", 9.01), ("cifar10", "cifar10n.npz", "worse_label", 40.21),
        ("cifar10", "cifar10n.npz", "random_label1", 17.23), ("cifar10", "cifar10n.npz", "random_label2", 18.12),
        ("cifar10", "cifar10n.npz", "random_label3", 17.64), ("cifar100", "cifar100n.npz", "noisy_label", 40.20),
    ],
)  # fmt: skip
def test_human_labels_are_wrong_as_often_as_published(name, noisy, entry, wrong):
    split = real(name=name, labels_file=str(DATA / noisy), labels_name=entry).train
    assert 100 * (split.given["label"] != split.labels).mean() == pytest.approx(wrong, abs=0.005)


@pytest.mark.data
def test_the_votes_of_cifar10h_have_the_label_on_top():
    made = real(name="cifar10", test_table=str(DATA / "cifar10h.npy"), train_split="test")
    table, labels = made.train.given["table"], made.train.labels
    assert made.train.num_examples == 10000
    assert 100 * (table.argmax(1) == labels).mean() == pytest.approx(99.21, abs=0.005)
    assert table.max(1).mean() == pytest.approx(0.9544, abs=1e-4)
