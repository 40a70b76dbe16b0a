"""Columns of a .csv: the right figures, or one sentence that names the column and the flag."""

import numpy as np
import pytest
from frame import softmax

from ldl_jax.cli import class_names
from ldl_jax.evaluation import predictions

DRAW = np.random.default_rng(0)
N, K = 60, 4
LABEL = DRAW.integers(0, K, N)
LOGITS = 2 * DRAW.standard_normal((N, K)) + 2 * np.eye(K)[LABEL]
PROBS = softmax(LOGITS)
CLASSES = ("ant", "bee", "cat", "dog")
NAMED = np.array(CLASSES)[LABEL]
LOSS = -np.log(PROBS[np.arange(N), LABEL])
SHUFFLED = DRAW.permutation(10 * N)[:N]
EXTRA = {
    "": np.arange(N), "Unnamed: 0": SHUFFLED, "index": SHUFFLED, "id": np.arange(1, N + 1), "Image ID": SHUFFLED,
    "sample_id": SHUFFLED, "serial": np.arange(1, N + 1), "fold": np.arange(N) % 5, "loss": LOSS,
    "epoch": np.full(N, 7), "split": np.zeros(N, int), "filename": np.array([f"a,{i}.png" for i in range(N)]),
    "path": SHUFFLED, "confidence": PROBS.max(1), "pred": PROBS.argmax(1), "Predicted Label": NAMED,
    "y_pred": PROBS.argmax(1), "correct": PROBS.argmax(1) == LABEL, "breed": np.array(["poodle"] * N), "step": LOSS,
}  # fmt: skip


def csv(columns, delimiter=",", decimal="."):
    """A file of named columns, in their order."""

    def field(value):
        if isinstance(value, str):
            return f'"{value}"' if delimiter in value else value
        text = str(value) if isinstance(value, np.bool_ | bool) else f"{value:.9g}"
        return text.replace(".", decimal)

    lines = [delimiter.join(columns)]
    for row in range(N):
        lines.append(delimiter.join(field(values[row]) for values in columns.values()))
    return "\n".join(lines) + "\n"


def table(scores=PROBS, label="label", labels=LABEL, names=CLASSES, **more):
    return dict(zip(names, scores.T, strict=True)) | {label: labels} | more


@pytest.fixture
def read(tmp_path):
    def read(content, name="p.csv", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return predictions.read(path, **options)

    return read


def assert_right(found, scores=PROBS, classes=CLASSES):
    assert found.classes == classes
    np.testing.assert_array_equal(found.label, LABEL)
    np.testing.assert_allclose(found.values, scores, rtol=1e-6)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", EXTRA)
def test_a_column_that_is_no_class_is_left_out(read, name, first):
    extra = {name: EXTRA[name]}
    columns = extra | table() if first else table() | extra
    assert_right(read(csv(columns)))


@pytest.mark.parametrize("name", EXTRA)
def test_of_logits_it_is_left_out_or_refused_with_its_name_and_the_flag(read, name):
    content = csv({name: EXTRA[name]} | table(LOGITS))
    if name in ("fold", "loss", "epoch", "split", "path", "step"):
        with pytest.raises(ValueError, match=f"column '{name}' is probably .* --classes=A,B,C"):
            read(content)
    else:
        assert_right(read(content), LOGITS)
    assert_right(read(content, classes=CLASSES), LOGITS)


@pytest.mark.parametrize(
    ("scores", "name", "values", "sentence"),
    [
        (PROBS, "zeta", 5 * LOSS, "'zeta', so that is probably no class; pass --classes"),
        (PROBS, "zeta", np.full(N, 0.5), "without 'zeta'"),
        (100 * PROBS, "zeta", LOSS, "without 'zeta'"),
        (LOGITS, "zeta", np.arange(N) % 7, "'zeta' holds whole numbers alone"),
        (LOGITS, "zeta", 900 + 1e3 * LOSS, "'zeta' is far out of the range"),
        (np.round(9 * LOGITS), "e", np.arange(N) % 7, "all scores are whole numbers"),
    ],
)
def test_an_unknown_column_of_numbers_is_never_a_class_unseen(read, scores, name, values, sentence):
    content = csv(table(scores, **{name: values}))
    with pytest.raises(ValueError, match=sentence) as error:
        read(content)
    assert "\n" not in str(error.value)
    assert_right(read(content, classes=CLASSES), scores)


def test_a_class_may_be_called_like_a_column_if_rows_only_sum_to_1_with_it(read):
    names = ("fold", "path", "loss", "dog")
    assert_right(read(csv(table(names=names))), classes=names)


def test_numbered_columns_show_which_others_are_no_classes(read):
    names = tuple(f"c{i}" for i in range(K))
    with pytest.raises(ValueError, match="column 'zeta' is probably no class"):
        read(csv(table(LOGITS, names=names, zeta=LOSS)))
    assert_right(read(csv(table(names=names, zeta=LOSS))), classes=names)


@pytest.mark.parametrize(
    "name",
    ["y_true", "Target", "labels", "gt", "ground truth", "class_id", "class", "y", "category"],
)
def test_labels_have_many_names(read, name):
    for labels in (LABEL, NAMED, np.array([f" {name.upper()}" for name in NAMED])):
        assert_right(read(csv(table(label=name, labels=labels))))


def test_a_class_called_like_labels_is_a_class_if_it_holds_fractions(read):
    names = ("true", "class", "cat", "y")
    assert_right(read(csv(table(names=names))), classes=names)


def test_labels_are_names_of_columns_in_any_of_their_forms(read, tmp_path):
    for form in ("p({})", "prob_{}", "logit: {}"):
        names = tuple(form.format(name) for name in CLASSES)
        assert_right(read(csv(table(names=names, labels=NAMED))), classes=names)
    with pytest.raises(
        ValueError, match=r"label 'eel' in row 3 must be one of the classes, ant, bee"
    ):
        read(csv(table(labels=np.where(np.arange(N) == 3, "eel", NAMED))))
    np.savez(tmp_path / "x.npz", probs=PROBS, label=NAMED, classes=np.array(CLASSES))
    assert_right(predictions.read(tmp_path / "x.npz"))


def test_label_column_names_the_labels(read, tmp_path):
    content = csv(table(label="mine") | {"label": np.zeros(N, int)})
    assert_right(read(content, label_column="mine", classes=CLASSES))
    with pytest.raises(
        ValueError, match=r"--label-column must be one of its columns, ant, .* got 'x'"
    ):
        read(content, label_column="x")
    np.savez(tmp_path / "x.npz", probs=PROBS, mine=LABEL)
    read_npz = predictions.read(tmp_path / "x.npz", label_column="mine")
    np.testing.assert_array_equal(read_npz.label, LABEL)
    with pytest.raises(
        ValueError, match="one column of labels, got label, y_true; pass --label-col"
    ):
        read(csv(table(y_true=LABEL)))
    plain = "\n".join(csv(table(PROBS)).splitlines()[1:])
    np.testing.assert_array_equal(read(plain, label_column="5").label, LABEL)


def test_classes_are_read_in_the_given_order(read):
    order = [2, 0, 3, 1]
    content = csv(table(labels=np.argsort(order)[LABEL], fold=np.arange(N)))
    found = read(content, classes=tuple(CLASSES[i] for i in order))
    np.testing.assert_allclose(found.values, PROBS[:, order], rtol=1e-6)
    with pytest.raises(
        ValueError, match="--classes must name columns of numbers, got 'eel'; its col"
    ):
        read(content, classes=("ant", "eel"))
    renamed = read(csv(table()), classes=("w", "x", "y", "z"))
    assert renamed.classes == ("w", "x", "y", "z")


def test_labels_that_are_numbers_of_classes_or_positions_are_told_apart(read):
    order = [1, 0, 3, 2]
    # As pandas and folders sort them: which class a label of 2 means, nobody can tell.
    columns = table(PROBS[:, order], names=tuple(f"c{i}" for i in order))
    with pytest.raises(ValueError, match="pass --classes=A,B,C with the classes in the order"):
        read(csv(columns))
    names = tuple(f"c{i}" for i in range(K))
    assert_right(read(csv(columns), classes=names), classes=names)
    names = tuple(str(10 * i) for i in range(1, K + 1))
    assert_right(read(csv(table(names=names, labels=10 * LABEL + 10))), classes=names)
    names = tuple(f"class {i}" for i in range(1, K + 1))
    assert_right(read(csv(table(names=names, labels=LABEL + 1))), classes=names)
    with pytest.raises(
        ValueError, match=r"got 4 in row .*; they seem to count from 1, so subtract 1"
    ):
        read(csv(table(labels=LABEL + 1)))


def binary(name="score", label=None, values=None):
    positive = PROBS[:, 3] if values is None else values
    labels = (LABEL == 3).astype(int) if label is None else label
    return csv({name: positive, "y_true": labels})


@pytest.mark.parametrize("name", ["score", "y_prob", "p", "dog"])
def test_one_column_of_probabilities_is_that_of_two_classes(read, name):
    found = read(binary(name))
    expected = np.stack([1 - PROBS[:, 3], PROBS[:, 3]], 1)
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    np.testing.assert_array_equal(found.label, LABEL == 3)
    assert "probability of class 1 of two" in " ".join(found.notes)


def test_names_of_two_classes_say_which_the_column_is(read):
    found = read(binary("dog", np.where(LABEL == 3, "dog", "other")))
    assert found.classes == ("other", "dog")
    np.testing.assert_array_equal(found.label, LABEL == 3)
    with pytest.raises(ValueError, match="must be one of the classes, score"):
        read(binary("score", np.where(LABEL == 3, "dog", "other")))
    with pytest.raises(ValueError, match=r"one column is only taken if it holds probabilities"):
        read(binary(values=LOGITS[:, 3]))
    with pytest.raises(
        ValueError, match="has no column of scores, got columns confidence, y_true; pass"
    ):
        read(binary("confidence"))
    found = read(binary("confidence"), classes=("confidence",))
    np.testing.assert_allclose(found.values[:, 1], PROBS[:, 3], rtol=1e-6)


@pytest.mark.parametrize(
    ("encode", "name"),
    [
        (lambda columns: csv(columns).encode("utf-8-sig"), "p.CSV"),
        (lambda columns: csv(columns).encode("utf-16"), "p.csv"),
        (lambda columns: csv(columns, ";", ",").encode("utf-8-sig"), "p.csv"),
        (lambda columns: csv(columns, ";").replace("\n", "\r\n").encode(), "p.csv"),
        (lambda columns: csv(columns, "\t", ",").encode(), "p.csv"),
    ],
)
def test_files_of_spreadsheets_are_read(read, encode, name):
    assert_right(read(encode(table(labels=NAMED, file=EXTRA["filename"])), name))
    found = read(encode(table()), name)
    assert_right(found)


def test_numbers_are_a_header_only_where_they_count_the_columns(read, tmp_path):
    np.save(tmp_path / "p_labels.npy", LABEL)
    content = csv(table()).splitlines()
    body = "\n".join(line.rpartition(",")[0] for line in content[1:])
    assert_right(read("0,1,2,3\n" + body), classes=("0", "1", "2", "3"))
    found = read(body)
    assert found.classes is None
    np.testing.assert_allclose(found.values, PROBS, rtol=1e-6)
    with pytest.raises(ValueError, match="has no header, since line 1 is a row like the others"):
        read("\n".join(csv(table(labels=NAMED)).splitlines()[1:]))


@pytest.mark.parametrize("ending", ["x.NPZ", "x.Npy"])
def test_endings_are_read_in_any_case(tmp_path, ending):
    with open(tmp_path / ending, "wb") as file:
        np.savez(file, probs=PROBS, label=LABEL) if "NPZ" in ending else np.save(file, PROBS)
    np.save(tmp_path / "x_labels.npy", LABEL)
    np.testing.assert_array_equal(predictions.read(tmp_path / ending).values, PROBS)


def test_class_names_are_a_list_or_the_lines_of_a_file(tmp_path):
    (tmp_path / "names.txt").write_text("ant, red\nbee\n")
    assert class_names(str(tmp_path / "names.txt")) == ("ant, red", "bee")
    assert class_names('"ant, red", bee') == ("ant, red", "bee")
    assert class_names("ant") == ("ant",)
    with pytest.raises(ValueError, match="--classes must be different names, got ant,ant"):
        class_names("ant,ant")
