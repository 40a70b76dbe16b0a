"""Plugs with dotted names: their options, their faults, and where a name is believed."""

import importlib
import re
import subprocess
import sys

import frame
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from own_modules import SOURCE

from ldl_jax import calibrate, config
from ldl_jax.config import checks, options, own
from ldl_jax.contract import Auxiliary, LabelSource, Target
from ldl_jax.errors import Usage
from ldl_jax.labels.base import one_hot
from ldl_jax.main import main, parse
from ldl_jax.metrics import base as metrics
from ldl_jax.mixing.base import Mixer, partners
from ldl_jax.study import plan
from ldl_jax.training import contracts

CONFIG = f"--config={frame.__file__.rpartition('/tests/')[0]}/configs/digits_online.py"
NAME = "--config.labels.name=mine.source"


def refused(capsys, *argv):
    assert main([CONFIG, *argv]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1, said
    assert "Traceback" not in said
    return said


# ---- options


def test_options_are_typed_flags_with_the_defaults_of_the_source(save, capsys):
    save(source=SOURCE)
    c = parse([CONFIG, NAME])[1].config
    assert c.labels.mine.source.to_dict() == {"beta": 0.95, "times": None}
    c = parse([CONFIG, NAME, "--config.labels.mine.source.beta=0.5"])[1].config
    assert c.labels.mine.source.beta == 0.5
    # in any order, and with the value as a word of its own
    words = ["--config.labels.mine.source.times=3", "--config.labels.name", "mine.source"]
    assert parse([CONFIG, *words])[1].config.labels.mine.source.times == 3
    c = parse([CONFIG, "--config.labels.name=mine.nope", NAME])[1].config
    assert c.labels.mine.source.beta == 0.95  # the last of two counts
    assert "mine.source" not in sys.modules  # read, not imported
    config.check(c)
    said = refused(capsys, NAME, "--config.labels.mine.source.bta=0.5")
    assert "config.labels.mine.source has no field 'bta'; its fields are beta, times" in said
    assert "could not convert" in refused(capsys, NAME, "--config.labels.mine.source.beta=much")
    assert "mine.source: make(): beta must be in [0, 1], got 2.0" in refused(
        capsys, NAME, "--config.labels.mine.source.beta=2"
    )


def test_help_shows_the_options_of_what_is_named(save, capsys):
    save(source=SOURCE)
    line = "  labels.mine.source.beta = 0.95  share of the label, [0, 1]"
    for words in ([NAME], [CONFIG, NAME]):
        assert main(["--help", *words]) == 0
        said = capsys.readouterr().out.splitlines()
        assert line in said
        assert "labels.name mine.source: A source of one's own." in said
    assert main(["--help", CONFIG, "--config.labels.name=mine.nope"]) == 0
    said = capsys.readouterr().out
    assert "train.epochs = " in said
    assert "not shown: config.labels.name is 'mine.nope', which cannot be imported" in said


@pytest.mark.parametrize(
    "words",
    [
        ["--config.auxiliary.names=('mine.source','jsd')"],
        ["--config.auxiliary.names=mine.source"],
        ["--config.auxiliary.names=jsd", "--config.auxiliary.names=mine.source"],
    ],
)
def test_lists_name_several(save, words):
    save(source=SOURCE)
    c = parse([CONFIG, *words, "--config.auxiliary.mine.source.beta=0.25"])[1].config
    assert "mine.source" in c.auxiliary.names
    assert c.auxiliary.mine.source.beta == 0.25
    config.check(c)


def test_a_blend_names_its_parts(save):
    save(source=SOURCE)
    words = ["--config.labels.name=blend", "--config.labels.blend.parts=('hard','mine.source')"]
    c = parse([CONFIG, *words, "--config.labels.mine.source.beta=0.25"])[1].config
    assert options.options_of(c.labels, "mine.source") == {"beta": 0.25, "times": None}
    config.check(c)
    assert config.in_use(c)["labels.mine.source.beta"] == 0.25


def test_a_config_file_sets_them(save, capsys):
    folder = save(source=SOURCE)
    file = folder / "own.py"
    body = (
        "from ldl_jax.config import add_options, default\n\n\ndef get_config():\n    c = default()\n"
        "    c.labels.name = 'mine.source'\n    {}\n    return c\n"
    )
    file.write_text(body.format("add_options(c).labels.mine.source.beta = 0.25"))
    assert parse([f"--config={file}"])[1].config.labels.mine.source.beta == 0.25
    file.write_text(body.format("add_options(c).labels.mine.source.bta = 0.25"))
    with pytest.raises(Usage, match=r"is not a valid config: .*bta"):
        parse([f"--config={file}"])


def test_they_are_stored_and_count(save):
    save(source=SOURCE)
    c = config.default()
    c.labels.name = "mine.source"
    config.add_options(c).labels.mine.source.beta = 0.25
    back = config.from_json(config.to_json(c))
    assert back.labels.mine.source.to_dict() == {"beta": 0.25, "times": None}
    assert not config.differences(back, c)
    other = config.from_json(config.to_json(c))
    other.labels.mine.source.beta = 0.5
    assert config.differences(c, other) == {"labels.mine.source.beta": (0.25, 0.5)}
    assert config.decisive(c)["labels.mine.source.beta"] == 0.25
    other.labels.name = "hard"  # what is not named does not count
    assert not [name for name in config.in_use(other) if "mine" in name]
    assert "mine.source" not in sys.modules


def test_options_of_a_network_are_model_options_and_old_runs_stay_what_they_are(save):
    save(net="def make(network, *, width: int = 16, norm='batch'):\n    return None\n")
    old = config.default()
    old.model.name = "mine.net"
    before = config.from_json(config.to_json(old))
    identity = config.decisive(old)
    new = config.add_options(old)
    assert new.model.options.to_dict() == {"width": 16, "norm": "batch"}
    assert not config.differences(before, new)
    assert config.decisive(new) == identity
    new.model.options.width = 32
    assert config.differences(before, new) == {"model.options.width": (16, 32)}
    assert config.decisive(new) == identity | {"model.options.width": 32}
    c = parse([CONFIG, "--config.model.name=mine.net", "--config.model.options.width=8"])[1].config
    assert c.model.options.width == 8


def test_a_network_whose_options_cannot_be_read_takes_any(save):
    save(net="WIDTH = 16\ndef make(network, width=WIDTH, **more):\n    return None\n")
    c = config.default()
    c.model.name = "mine.net"
    c.model.options = {"width": 32, "depth": 3}
    assert config.add_options(c).model.options.to_dict() == {"width": 32, "depth": 3}


def test_metrics_may_differ_between_starts_of_a_run(save):
    save(metric="def make(num_classes, *, bins: int = 3):\n    return None\n")
    c = config.default()
    before = config.from_json(config.to_json(c))
    c.eval.metrics = ("mine.metric",)
    assert config.add_options(c).eval.mine.metric.bins == 3
    config.check(c)
    assert not config.differences(before, c)
    assert config.decisive(c) == config.decisive(before)


def test_a_study_names_them_in_its_cells(save, tmp_path):
    save(source=SOURCE)
    folder = tmp_path / "configs"
    (folder / "studies").mkdir(parents=True)
    (folder / "first.py").write_text(
        "from ldl_jax.config import default\ndef get_config():\n    return default()\n"
    )
    fields = {"labels.mine.source.beta": 0.5, "labels.name": "mine.source"}
    study = config.Study("one", (config.Cell("a", "first.py", fields, seeds=1),))
    (planned,) = plan.plan(study, folder / "studies" / "one.py")
    assert planned.settings["labels.mine.source.beta"] == 0.5
    wrong = study._replace(cells=(study.cells[0]._replace(fields={**fields, "labels.mine.b": 1}),))
    with pytest.raises(ValueError, match=r"cell 'a': config.labels.mine has no field 'b'"):
        plan.plan(wrong, folder / "studies" / "one.py")


# ---- faults


FAULTS = {
    "def make(:": "mine.source', which cannot be imported .*invalid syntax",
    "import nothing_of_this_name\ndef make(build): pass": "No module named 'nothing_of_this_name'",
    "1 / 0\ndef make(build): pass": "ZeroDivisionError: division by zero",
    "import sys\nsys.exit(0)\ndef make(build): pass": "cannot be imported .SystemExit: 0",
    "def build(): pass": "must have a function make",
    "make = 3": r"must have a function make\(\)",
    "def make(): pass": r"mine.source: make\(\) failed .TypeError: make\(\) takes 0",
    "def make(build): pass": r"mine.source: make\(\) must return a LabelSource, got NoneType",
    "def make(build): return build.nope": r"make\(\) failed .AttributeError: .*nope",
    "def make(build, *, beta): pass": "mine.source: the option 'beta' .* must have a literal default",
    "B = 1\ndef make(build, *, beta=B): pass": "the option 'beta' .* must have a literal default",
    "def make(build, *, beta={}): pass": "the option 'beta' must have a number, a string",
    "def make(build, *, beta: list | None = None): pass": "its annotation must be one of int",
    "def make(build, *, keys=3): pass": "the option 'keys' must have another name",
}


@pytest.mark.parametrize("source", FAULTS)
def test_a_fault_is_one_sentence_that_names_the_module(save, capsys, tmp_path, source):
    save(source=source)
    words = [NAME, f"--workdir={tmp_path / 'run'}", "--config.data.batch_size=64"]
    sentence = refused(capsys, *words)
    assert re.search(FAULTS[source], sentence), sentence
    assert "mine.source" in sentence
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("mine.nope", "cannot be imported .No module named 'mine.nope'"),
        ("nope.source", "cannot be imported .No module named 'nope'"),
        ("..source", "a dotted name is PACKAGE.MODULE"),
        ("mine.", "a dotted name is PACKAGE.MODULE"),
        ("hard.source", "must not have the name of a field or plug-in of this section, 'hard'"),
        ("name.source", "must not have the name of a field or plug-in of this section, 'name'"),
    ],
)
def test_a_name_that_is_no_module(save, capsys, name, sentence):
    save(source=SOURCE)
    assert re.search(sentence, refused(capsys, f"--config.labels.name={name}"))


def test_every_other_field_says_it_too(save, capsys):
    save(broken="def make(:")
    for field in config.NAMES:
        words = [f"--config.{field}=('mine.broken',)" if field.endswith("s") else ""]
        if not words[0]:
            words = [f"--config.{field}=mine.broken"]
        if "blend" in field:
            words.append("--config.labels.name=blend")
        sentence = refused(capsys, *words)
        assert f"config.{field}" in sentence
        assert "'mine.broken', which cannot be imported (invalid syntax" in sentence


def test_a_broken_file_in_a_plug_folder_breaks_only_those_who_name_it(tmp_path, monkeypatch):
    folder = tmp_path / "labels"
    folder.mkdir()
    for name in config.plugs("labels"):
        (folder / f"{name}.py").write_text((options.ROOM / f"labels/{name}.py").read_text())
    known = config.plugs("labels")
    (folder / "broken.py").write_text("def make(:\n")
    (folder / "bytes.py").write_bytes(b"def make(build):\n    return '\xff'\n")
    (folder / "loose.py").write_text("B = 1\ndef make(build, *, b=B):\n    pass\n")
    monkeypatch.setattr(options, "ROOM", tmp_path)
    assert config.plugs("labels") == known
    monkeypatch.setattr("ldl_jax.config.checks.plugs", lambda folder: known)
    monkeypatch.setattr("ldl_jax.config.fields.plugs", lambda folder: ())
    for name, cause in (("broken", "invalid syntax"), ("bytes", "utf-8"), ("loose", "literal")):
        with pytest.raises(
            ValueError, match=rf"'{name}', whose file ldl_jax/labels/{name}.py .*{cause}"
        ):
            checks._check_plug("labels.name", name, "labels")


def test_a_metric_of_the_package_that_cannot_be_imported_is_left_out_with_a_warning(
    monkeypatch, capsys
):
    known = importlib.import_module

    def broken(name):
        if name == "ldl_jax.metrics.ks":
            raise NameError("nothing")
        return known(name)

    monkeypatch.setattr(metrics.importlib, "import_module", broken)
    found = metrics.modules.__wrapped__()
    assert "ks" not in found
    assert "accuracy" in found
    assert "ldl_jax/metrics/ks.py cannot be imported (nothing); left out" in capsys.readouterr().err


# ---- contracts by shapes


def source(**changes):
    base = {"targets": lambda state, batch, outputs: (Target(one_hot(batch, outputs.logits)),)}
    return LabelSource(**(base | changes))


SOURCES = {
    "tuple of Targets, got Target": source(targets=lambda s, b, o: Target(o.logits[0])),
    r"probs must have the shape \[16, 5\], got float64\[16\]": source(
        targets=lambda s, b, o: (Target(o.logits[0, :, 0]),)
    ),
    "failed .IndexError": source(targets=lambda s, b, o: (s[3],)),
    "state like the one of init": source(update=lambda s, b, f: {"rows": f.outputs.logits}),
    r"update\(\) failed .TypeError": source(update=lambda s, b: s),
    r"report\(\)\['a'\] must have the shape \[\]": source(report=lambda s: {"a": jnp.zeros(3)}),
    r"report\(\) must return": source(report=lambda s: 1.0),
}


def shapes():
    build = frame.plain_build()
    image = jax.ShapeDtypeStruct((1, frame.B, *frame.SHAPE), build.outputs.logits.dtype)
    mixer = Mixer(None, 0.0, 1)
    split = contracts.Split(frame.N, frame.SHAPE, given=frame.data()["given"])
    return build, contracts.abstract_batch(image, build, mixer, split)


@pytest.mark.parametrize("sentence", SOURCES)
def test_a_source_that_breaks_its_contract_is_named(sentence):
    build, batch = shapes()
    contracts.check_source("mine.good", source(), batch, build.outputs, build.init)
    with pytest.raises(ValueError, match=rf"^mine.bad: .*{sentence}"):
        contracts.check_source("mine.bad", SOURCES[sentence], batch, build.outputs, build.init)


@pytest.mark.parametrize("name", [name for name in config.plugs("labels") if name != "blend"])
def test_the_package_s_own_sources_keep_it(name):
    build, batch = shapes()
    made = frame.plug("labels", name).make(build)
    contracts.check_source(name, made, batch, build.outputs, build.init)


@pytest.mark.parametrize(
    ("auxiliary", "sentence"),
    [
        (Auxiliary(lambda p, s, b, o, t: o.logits.mean()), r"loss\(\) must return \(loss, state\)"),
        (Auxiliary(lambda p, s, b, o, t: (o.logits, s)), r"loss\(\) must have the shape \[\]"),
        (Auxiliary(lambda p, s, b, o, t: (o.logits.mean(), 1.0)), "state like the one of init"),
        (Auxiliary(lambda p, s, b, o, t: (t[0].nope, s)), "failed .AttributeError"),
        (Auxiliary(lambda p, s, b, o, t: (0.0, s), lambda key: {}), r"init\(\) must return"),
    ],
)
def test_an_auxiliary_that_breaks_its_contract_is_named(auxiliary, sentence):
    build, batch = shapes()
    with pytest.raises(ValueError, match=rf"^mine.bad: .*{sentence}"):
        contracts.check_auxiliary("mine.bad", auxiliary, batch, build.outputs)


def test_mixers_losses_operations_and_metrics_are_checked():
    image = jax.ShapeDtypeStruct((1, 4, 8, 8, 3), jnp.float32)
    logits = jax.ShapeDtypeStruct((4, 5), jnp.float32)

    def mix(key, image):
        return image, partners(4, 2), jnp.ones((4, 1))

    with pytest.raises(ValueError, match=r"^mine.bad: mix\(\): share must have the shape \[4, 2\]"):
        contracts.check_mixer("mine.bad", Mixer(mix, 1.0, 2), image)
    with pytest.raises(ValueError, match=r"^mine.bad: probability must be in \[0, 1\], got 2"):
        contracts.check_mixer("mine.bad", Mixer(mix, 2, 2), image)
    with pytest.raises(ValueError, match=r"mix\(\) must return \(image, partner, share\)"):
        contracts.check_mixer("mine.bad", Mixer(lambda key, image: image, 1.0, 2), image)
    with pytest.raises(ValueError, match=r"^mine.bad: the loss of each example .* \[4\]"):
        contracts.check_criterion("mine.bad", lambda logits, probs: logits.mean(), logits)
    with pytest.raises(ValueError, match=r"^mine.bad: the augmented image .* \[8, 8, 3\]"):
        contracts.check_operation("mine.bad", lambda key, image: image[:4], (8, 8, 3))
    with pytest.raises(ValueError, match=r"^mine.bad: sums\(\) failed .TypeError"):
        contracts.check_metric("mine.bad", metrics.Metric(lambda logits: 1, None), logits)


# ---- trust


def test_a_file_names_no_calibrator_of_one_s_own(save, tmp_path):
    save(
        same="from ldl_jax.calibrate.base import Calibrator, checked_rows, log_probs\n"
        "def make(*, times: int = 2):\n"
        "    return Calibrator(lambda logits, label: {'n': len(label)},\n"
        "                      lambda params, logits: log_probs(times * checked_rows(logits)))\n"
    )
    logits = np.random.default_rng(0).normal(size=(20, 3))
    fitted = calibrate.fit("mine.same", logits=logits, labels=np.arange(20) % 3, times=1)
    np.testing.assert_allclose(fitted(logits), frame.softmax(logits), rtol=1e-12)
    file = fitted.save(tmp_path / "c.json")
    with pytest.raises(ValueError, match=r"c.json is of the calibrator 'mine.same'; pass name="):
        calibrate.load(file)
    np.testing.assert_array_equal(calibrate.load(file, name="mine.same")(logits), fitted(logits))
    with pytest.raises(
        ValueError, match=r"options of the calibrator mine\.same must be among times"
    ):
        calibrate.fit("mine.same", logits=logits, labels=np.arange(20) % 3, time=1)


# ---- finding modules


def test_packages_are_found_and_not_imported(save, tmp_path):
    save()
    deep = tmp_path / "mine" / "deep"
    deep.mkdir(parents=True)
    (tmp_path / "mine" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (deep / "source.py").write_text(SOURCE)
    sys.path.append(str(tmp_path))
    assert own.source_file("mine.deep.source") == deep / "source.py"
    (deep / "__init__.py").write_text(SOURCE)
    assert own.source_file("mine.deep") == deep / "__init__.py"
    with pytest.raises(ImportError, match=r"No module named 'mine\.deep\.nope'"):
        own.source_file("mine.deep.nope")


def test_it_is_found_from_the_working_directory_by_the_command(save):
    save(source=SOURCE)
    words = [sys.executable, "-m", "ldl_jax.main", "--help", NAME]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "labels.mine.source.beta = 0.95" in said


# ---- ranges of the package's own options

RANGE = re.compile(r"([\[(])(-?[\d.]+), (-?[\d.]+)([\])])|(>=?) (-?[\d.]+)|(\d+) to (\d+)")


def documented():
    """(folder, name, option, values outside its documented range, values at its ends)."""
    for folder in ("labels", "losses", "auxiliary", "mixing", "augment"):
        for name in config.plugs(folder):
            for option in options.read_options(f"{folder}/{name}.py")[1]:
                found = RANGE.search(option.text)
                if found and not isinstance(option.value, str | tuple):
                    yield folder, name, option.name, *beyond(*found.groups())


def beyond(opens, low, high, closes, sign, bound, first, last):
    """Values outside a range, and those of its ends that belong to it."""
    if sign:
        bound = float(bound)
        return ([bound - 0.5] + [bound] * (sign == ">"), [bound] * (sign == ">="))
    if first:
        return [int(first) - 1, int(last) + 1], [int(first), int(last)]
    low, high = float(low), float(high)
    wrong = (
        [low - 0.5, high + 0.5, float("nan")] + [low] * (opens == "(") + [high] * (closes == ")")
    )
    return wrong, [low] * (opens == "[") + [high] * (closes == "]")


def made(folder, name, **chosen):
    arguments = {"labels": (frame.plain_build(),), "auxiliary": (frame.plain_build(),)}
    arguments["augment"] = (frame.augment.Pixels((8, 8, 3), (0.5,) * 3),)
    return frame.plug(folder, name).make(*arguments.get(folder, ()), **chosen)


@pytest.mark.parametrize(("folder", "name", "option", "wrong", "right"), list(documented()))
def test_documented_ranges_are_enforced(folder, name, option, wrong, right):
    for value in wrong:
        with pytest.raises(ValueError, match=rf"config\.{folder}\.{name}\.(\w+ and )?") as caught:
            made(folder, name, **{option: value})
        assert option in str(caught.value)
        assert "\n" not in str(caught.value)
    for value in right:
        made(folder, name, **{option: value})
