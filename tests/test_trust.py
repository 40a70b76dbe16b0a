"""Runs that name modules of others: nothing of them is imported without the user's consent."""

import json
import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from own_modules import forget

import ldl_jax
from ldl_jax import calibrate, config, convert, files, predict
from ldl_jax import workdir as run
from ldl_jax.analyse import __main__ as analyse
from ldl_jax.calibrate import base as calibrators
from ldl_jax.config import trust
from ldl_jax.config.own import Own
from ldl_jax.config.study import load as load_study
from ldl_jax.evaluation import load as loading
from ldl_jax.evaluation import runs
from ldl_jax.main import main, parse
from ldl_jax.models.spec import make_network
from ldl_jax.study import __main__ as study
from ldl_jax.study import plan
from ldl_jax.study.run import train as train_cell
from ldl_jax.training import loop, remeasure

MARK = "it ran"
EVIL = f"open({MARK!r}, 'w').close()\nfrom tests.tiny import make\n"
SPEC = {
    "num_classes": 10,
    "classes": [str(digit) for digit in range(10)],
    "shape": [8, 8, 1],
    "num_examples": 5,
    "mean": [0.5],
    "std": [0.25],
    "model": {"name": "mine.evil", "dtype": "float32", "norm_group": 0, "options": {"channels": 4}},
}
NETWORK = Own("model.name", "models", "mine.evil")
DIGITS = "--config=digits_online"


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """The store of a user who has trained nothing yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home" / "state"))
    trust._warn.cache_clear()
    return tmp_path / "home" / "state" / "ldl_jax" / "trusted"


@pytest.fixture(scope="module")
def variables():
    spec = {**SPEC, "model": {**SPEC["model"], "name": "tests.tiny"}}
    return jax.tree.map(np.asarray, make_network(spec)[0](jax.random.key(0)))


@pytest.fixture
def sent(save, variables, tmp_path):
    """A finished run that somebody sent: its network and its config name a module that is here."""
    save(evil=EVIL)
    path = tmp_path / "sent"
    files.write_json(path / run.NETWORK, SPEC)
    run.save_weights(path / run.WEIGHTS, variables, step=1)
    files.write_json(path / run.SUMMARY, {})
    c = config.read("digits_online")
    c.model.name = "mine.evil"
    c.model.options = {"channels": 4}
    files.write(path / run.CONFIG, config.to_json(c))
    np.savez(tmp_path / "images.npz", images=np.zeros((2, 8, 8, 1), np.uint8))
    return path


def ran(tmp_path):
    return (tmp_path / MARK).exists()


# ---- refused


def command(entry, *argv):
    """A function (run directory, flags) that raises ValueError if a command says status 2."""

    def call(path, consent, capsys):
        words = [word.format(run=path, at=path.parent) for word in argv]
        capsys.readouterr()
        if entry([*words, *consent]) == 2:
            raise ValueError(capsys.readouterr().err)

    return call


def function(call):
    return lambda path, consent, capsys: call(path, bool(consent))


TEACHER = ["--config.labels.name=teacher", "--config.teachers=('{run}',)"]
ENTRIES = {
    "load": function(lambda path, trust: ldl_jax.load(path, trust=trust)),
    "train": function(
        lambda path, trust: ldl_jax.train(path / run.CONFIG, workdir=path, trust=trust)
    ),
    "a teacher of train": function(
        lambda path, trust: ldl_jax.train(
            "digits_online",
            workdir=path.parent / "student",
            overrides={"labels.name": "teacher", "teachers": (str(path),)},
            trust=trust,
        )
    ),
    "predict": command(predict.main, "{run}", "{at}/images.npz", "--out={at}/out"),
    "export": command(convert.main, "export", "{run}", "{at}/out.safetensors"),
    "analyse": command(analyse.main, "{run}", "--out={at}/out"),
    "eval": command(main, "--workdir={run}", "--mode=eval"),
    "resume": command(main, "--workdir={run}"),
    "config.json": command(main, "--config={run}/config.json", "--workdir={at}/new"),
    "dry run": command(main, "--workdir={run}", "--dry-run"),
    "teacher": command(main, DIGITS, *TEACHER, "--workdir={at}/new"),
    "teacher of a dry run": command(main, DIGITS, *TEACHER, "--dry-run"),
    "hints": command(
        main, DIGITS, "--config.auxiliary.names=hint", TEACHER[1], "--workdir={at}/new"
    ),
    "init_from": command(main, DIGITS, "--config.model.init_from={run}", "--workdir={at}/new"),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_run_that_somebody_sent_runs_nothing(sent, tmp_path, store, capsys, entry):
    with pytest.raises(ValueError, match=r"mine\.evil") as caught:
        ENTRIES[entry](sent, [], capsys)
    said = str(caught.value).strip()
    assert f"{sent}/" in said
    assert "model.name is 'mine.evil', a module that is not part of ldl_jax" in said
    assert "pass --trust (in Python, trust=True) if you trust this code" in said
    assert "\n" not in said
    assert not ran(tmp_path)
    assert not store.exists()


@pytest.mark.parametrize("field", config.NAMES)
def test_every_field_of_a_config_needs_consent(save, tmp_path, capsys, field):
    save(evil=EVIL)
    c = config.default()
    value = ("mine.evil",) if isinstance(config.flatten(c)[field], list) else "mine.evil"
    if "blend" in field:
        c.labels.name = "blend"
    c.update_from_flattened_dict({field: value})
    config.add_options(c)
    files.write(tmp_path / "run" / run.CONFIG, config.to_json(c))
    assert main(["--mode=eval", f"--workdir={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert f"config.json: {field}" in said
    assert "is 'mine.evil', a module that is not part of ldl_jax" in said
    assert not ran(tmp_path)
    # Another plug in the user's own flags takes its place.
    words = [f"--config.{field}=()" if said.count("[0]") else f"--config.{field}=mine.evil"]
    assert parse(["--mode=eval", f"--workdir={tmp_path / 'run'}", *words])
    assert not ran(tmp_path)


def test_studies_ask_too(sent, save, tmp_path, capsys):
    file = tmp_path / "studies" / "one.py"
    head = "from ldl_jax.config import Cell, Study\ndef get_study():\n    return Study('x', ({},))"
    files.write(file, head.format("Cell('a', 'sent/config.json', {}, 1)"))
    with pytest.raises(ValueError, match=r"cell 'a': .*config.json: model.name is 'mine.evil'"):
        plan.plan(load_study(file), file)
    assert plan.plan(load_study(file), file, trust=True)

    # A teacher that was planted in the directory of the study.
    cells = (
        "Cell('t', 'digits_online', {}, 1), "
        "Cell('s', 'digits_online', {'labels.name': 'teacher'}, 1, ('t',))"
    )
    files.write(file, head.format(cells))
    shutil.copytree(sent, tmp_path / "study" / "runs" / "t-0")
    _, student = plan.plan(load_study(file), file)
    with pytest.raises(ValueError, match=r"t-0/network.json: model.name is 'mine.evil'"):
        train_cell(student, tmp_path / "study", {})
    assert not ran(tmp_path)

    # Teachers whose own cells name the module are the user's own, whatever the store says.
    files.write(file, head.format(cells.replace("{}", "{'model.name': 'mine.evil'}", 1)))
    teacher, student = plan.plan(load_study(file), file)
    assert (teacher.names, student.names) == (frozenset(), {"mine.evil"})
    spec = loading.load_weights(sent, consent=trust.Consent(names=student.names))[0]
    assert spec["model"]["name"] == "mine.evil"

    arguments = study.parser().parse_args([str(file), "--trust"])
    assert "--trust" in study._command(arguments, [student])


def test_a_calibrator_needs_consent(save, sent, tmp_path, capsys):
    (sent / run.CONFIG).unlink()
    spec = {**SPEC, "model": {**SPEC["model"], "name": "cifar_resnet", "options": {"depth": 8}}}
    files.write_json(sent / run.NETWORK, spec)
    save(evil=f"open({MARK!r}, 'w').close()\nfrom ldl_jax.calibrate.temperature import make\n")
    calibrators.save(sent / run.CALIBRATION, "mine.evil", {}, {"temperature": 2.0})
    for reader in (ldl_jax.load, lambda path: predict.calibrated(path, np.eye(3))):
        with pytest.raises(ValueError, match=r"calibration.json: name is 'mine.evil', a module"):
            reader(sent)
    assert not ran(tmp_path)
    shown = predict.calibrated(sent, np.eye(3), trust.Consent(True))
    np.testing.assert_allclose(np.exp(shown).sum(1), 1)
    assert ran(tmp_path)
    assert loading.load_calibrator(sent).name == "mine.evil"


def test_what_only_compares_runs_reads_them_as_data(sent, tmp_path, store):
    files.write_json(sent / run.SUMMARY, {})
    logits = np.eye(10, dtype=np.float32)
    arrays = {"logits": logits, "label": np.arange(10, dtype=np.int32), "index": np.arange(10)}
    files.write_npz(run.predictions_file(sent), **arrays)
    assert runs.read(sent).config.model.name == "mine.evil"
    assert not ran(tmp_path)
    assert not store.exists()


@pytest.mark.parametrize("name", ["base", "spec", "os", "", 3, None, ["mine.evil"], "../evil"])
def test_an_undotted_name_is_that_of_a_plug(sent, name):
    files.write_json(sent / run.NETWORK, {**SPEC, "model": {**SPEC["model"], "name": name}})
    with pytest.raises(ValueError, match=r"network\.json: model\.name"):
        ldl_jax.load(sent)
    files.write_json(sent / run.NETWORK, [])
    with pytest.raises(ValueError, match=r"network\.json: its content must be a block of fields"):
        ldl_jax.load(sent)


# ---- consent


def test_consent_is_remembered_for_this_very_run(sent, save, tmp_path):
    model = ldl_jax.load(sent, trust=True)
    assert model.logits(np.zeros((1, 8, 8, 1), np.uint8)).shape == (1, 10)
    assert ran(tmp_path)
    ldl_jax.load(sent)
    ldl_jax.load(shutil.copytree(sent, tmp_path / "moved"))
    # Another network of the same name, or the same with other options, is not this run.
    other = {**SPEC, "model": {**SPEC["model"], "options": {"channels": 5}}}
    files.write_json(tmp_path / "moved" / run.NETWORK, other)
    with pytest.raises(ValueError, match="you have not trained or trusted this run before"):
        ldl_jax.load(tmp_path / "moved")
    save(evil=EVIL + "# changed\n")
    with pytest.raises(
        ValueError, match="and its source has changed since you trained or trusted this run"
    ):
        ldl_jax.load(sent)
    ldl_jax.load(sent, trust=True)
    ldl_jax.load(sent)


def test_the_packages_of_a_module_count(sent, tmp_path):
    ldl_jax.load(sent, trust=True)
    (tmp_path / "mine" / "__init__.py").write_text("")
    forget()
    with pytest.raises(ValueError, match="its source has changed"):
        ldl_jax.load(sent)
    shutil.rmtree(tmp_path / "mine")
    forget()
    with pytest.raises(ValueError, match="cannot be imported here, because it is not found"):
        ldl_jax.load(sent)


def test_flags_and_config_files_consent_by_name(sent, tmp_path, monkeypatch):
    words = [f"--config={sent / run.CONFIG}"]
    assert parse([*words, "--config.model.name=mine.evil"])[1].config.model.name == "mine.evil"
    # The name is gone, so there is nothing to ask.
    assert parse([*words, "--config.model.name=resnet"])[1].config.model.name == "resnet"
    line = parse([*words, "--trust"])[1]
    assert line.trust
    assert parse(words)[1].config.model.name == "mine.evil"

    c = config.read("digits_online")
    c.model.name = "mine.evil"
    consent = trust.ASK.to(c)
    assert consent == trust.Consent(False, frozenset({"mine.evil"}))
    assert loading.load_weights(sent, consent=consent)
    assert not ran(tmp_path)
    seen = {}
    monkeypatch.setattr(loop, "train", lambda c, path, **options: seen.update(options))
    made = ldl_jax.train(
        sent / run.CONFIG, workdir=tmp_path / "new", overrides={"model.name": "mine.evil"}
    )
    assert seen["consent"] == consent
    shutil.copytree(sent, made.workdir)
    assert made.model.classes == tuple(SPEC["classes"])


def test_the_commands_pass_it_on(sent, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(loop, "train", lambda *given, consent, **options: seen.append(consent))
    monkeypatch.setattr(remeasure, "measure_again", lambda *given, consent: seen.append(consent))
    for words in ([], ["--mode=eval"]):
        assert main([f"--workdir={sent}", "--trust", *words]) == 0
        assert main([f"--workdir={sent}", *words]) == 0
    assert [consent.everything for consent in seen] == [True, False, True, False]
    assert convert.main(["export", str(sent), str(tmp_path / "a.safetensors"), "--trust"]) == 0
    assert convert.main(["export", str(sent), str(tmp_path / "a.safetensors")]) == 0
    assert predict.main([str(sent), str(tmp_path / "images.npz")]) == 0


# ---- the store


def test_the_store_is_the_user_s_alone(sent, store):
    trust.remember(sent / run.NETWORK, SPEC, ["mine.evil"])
    (entry,) = store.iterdir()
    assert stat.S_IMODE(entry.stat().st_mode) == 0o600
    for folder in (store, store.parent, store.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert json.loads(entry.read_text())["file"] == str(sent / run.NETWORK)
    trust.confirm("x", SPEC, [NETWORK], trust.ASK)
    # What somebody else could have written, or cannot be read, counts for nothing.
    for damage in (lambda: entry.chmod(0o620), lambda: entry.write_text("[]")):
        damage()
        with pytest.raises(ValueError, match="not trained or trusted"):
            trust.confirm("x", SPEC, [NETWORK], trust.ASK)
        entry.chmod(0o600)


def test_a_relative_path_is_no_store(sent, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path / "other"))
    for value in ("state", ""):
        monkeypatch.setenv("XDG_STATE_HOME", value)
        path = trust._entry(SPEC)
        assert path.is_relative_to(tmp_path / "other" / ".local" / "state" / "ldl_jax" / "trusted")
    monkeypatch.setenv("HOME", "nowhere")
    trust.remember(sent / run.NETWORK, SPEC, ["mine.evil"])
    assert "cannot be written (there is no home directory)" in capsys.readouterr().err
    with pytest.raises(ValueError, match="not trained or trusted"):
        ldl_jax.load(sent)


def test_many_processes_write_one_entry(sent, store):
    with ThreadPoolExecutor(8) as pool:
        args = [(sent / run.NETWORK, SPEC, ["mine.evil"])] * 40
        list(pool.map(lambda given: trust.remember(*given), args))
    (entry,) = store.iterdir()
    assert set(json.loads(entry.read_text())["modules"]) == {"mine.evil"}


def test_a_store_that_cannot_be_written_is_one_warning(sent, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    c = config.default()
    c.model.name = "mine.evil"
    trust.remember_run(c, [sent / run.CONFIG, sent / run.NETWORK])
    said = capsys.readouterr().err
    assert said.startswith("warning: ")
    assert said.count("\n") == 1
    assert f"{tmp_path}/file/ldl_jax cannot be written (Not a directory)" in said
    assert "--trust" in said
    with pytest.raises(ValueError, match="not trained or trusted"):
        ldl_jax.load(sent)


def test_a_run_of_the_package_s_own_plugs_leaves_no_trace(sent, store):
    trust.remember_run(config.default(), [sent / run.CONFIG, sent / run.NETWORK])
    assert not store.exists()


# ---- ~ at the beginning of paths


def test_paths_from_python_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    seen = []
    monkeypatch.setattr(loop, "train", lambda c, path, **options: seen.append((c, path)))
    fields = {"data.root": "~/images", "teachers": ("~/a", "/b"), "labels.name": "teacher"}
    ldl_jax.train("digits_online", workdir="~/run", overrides=fields)
    ((c, path),) = seen
    assert path == tmp_path / "run"
    assert (c.data.root, c.teachers) == (f"{tmp_path}/images", (f"{tmp_path}/a", "/b"))
    assert os.listdir(tmp_path) == []

    logits = np.random.default_rng(0).normal(size=(30, 3))
    fitted = calibrate.fit("temperature", logits=logits, labels=np.arange(30) % 3)
    assert fitted.save("~/fitted.json") == tmp_path / "fitted.json"
    assert calibrate.load("~/fitted.json").params == fitted.params
