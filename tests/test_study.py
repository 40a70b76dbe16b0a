"""Studies: what is planned, what is kept, what is refused, and what the answers say."""

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import browser
import frame
import jax
import numpy as np
import pytest
import shapes
from scipy import stats

from ldl_jax import config, files, signals, workdir
from ldl_jax.config.study import (
    Cell,
    Finding,
    Planned,
    Study,
    identity,
    load,
    needs,
    order,
    shared_teacher,
)
from ldl_jax.errors import Busy
from ldl_jax.report import study_plots
from ldl_jax.study import __main__ as command
from ldl_jax.study import cards, directory, hypotheses, page, plan, run, runner, tables, workers
from ldl_jax.study.progress import Progress
from ldl_jax.training import experiment, programs

CONFIGS = sorted((Path(__file__).parent.parent / "configs" / "studies").glob("*.py"))
LARGE = ("cifar100", "cifar10", "stl10")  # a hundred cells, forty, and large images
TINY = {
    "model.name": "tests.tiny", "data.examples": 96, "data.holdout": 32, "data.batch_size": 32, "train.epochs": 1.0,
    "train.log_every_steps": 1, "labels.name": "hard",
}  # fmt: skip

FILE = """
from ldl_jax.config import Cell, Finding, Study
TINY = {tiny}
def get_study():
    return Study(
        "Tiny <study>",
        (
            Cell("student", "base.py", {{**TINY, "labels.name": "teacher"}}, 2, ("teacher",)),
            Cell("teacher", "base.py", {{**TINY, "seed": 7}}, 1),
            Cell("plain", "base.py", TINY, 2, published={{"accuracy": 0.5}}),
        ),
        comparisons=(("student", "plain"),),
    )
"""


@pytest.fixture
def file(tmp_path):
    """A study's file beside a config, as in configs/studies."""
    (tmp_path / "studies").mkdir()
    digits = Path(__file__).parent.parent / "configs" / "digits_online.py"
    shutil.copy(digits, tmp_path / "base.py")
    path = tmp_path / "studies" / "tiny.py"
    path.write_text(FILE.format(tiny=TINY))
    return path


def write(file, text):
    head = "from ldl_jax.config import Cell, Finding, Study\ndef get_study():\n    return "
    file.write_text(head + text)
    return file


def planned(file, overrides=None):
    return plan.plan(load(file), file, overrides)


def test_boundaries_move_with_the_epochs_of_a_cell_or_of_a_flag(file):
    base = file.parent.parent / "base.py"
    piecewise = "    config.optimizer.schedule = 'piecewise'\n    config.optimizer.boundaries = (10.0, 15.0)\n"
    base.write_text(base.read_text().replace("    return config", f"{piecewise}    return config"))
    cells = (
        "Cell('a', 'base.py', {'train.epochs': 4.0}),"
        "Cell('b', 'base.py', {'train.epochs': 4.0, 'optimizer.boundaries': (1.0, 3.0)})"
    )
    write(file, f"Study('x', ({cells},))")

    def boundaries(overrides=None):
        made = {run.cell.name: run.config.optimizer.boundaries for run in planned(file, overrides)}
        return made["a"], made["b"]

    assert boundaries() == ((2.0, 3.0), (1.0, 3.0))
    assert boundaries({"train.epochs": "2.0"}) == ((1.0, 1.5), (0.5, 1.5))


def card(one, draw, shift=0.0, scaled=True):
    """A card of made-up predictions on 200 images, the ECE about `shift` above chance."""
    columns, facts = {}, {}
    for state in cards.STATES:
        confidence = draw.uniform(0.5, 1, 200)
        correct = draw.uniform(size=200) < confidence - shift
        own = {
            "confidence": confidence,
            "correct": correct,
            "nll": -np.log(confidence),
            "brier": confidence / 2,
        }
        columns[state] = own
        gap = float(confidence.mean() - correct.mean())
        figures = {"accuracy": float(correct.mean()), "nll": 1.0, "brier": 0.5, "ece": abs(gap)}
        facts[state] = {"figures": figures, "floor": 0.01, "reliability": {
            "count": [100, 100], "confidence": [60.0, 90.0], "correct": [50, 80]}}  # fmt: skip
    versions = {"devices": 1, "device": "cpu", "backend": "cpu", "python": "3", "cores": 2,
                "packages": dict.fromkeys(page.SHOWN, "1")}  # fmt: skip
    head = {
        "cell": one.cell.name, "place": one.place, "seed": 0, "identity": one.identity, "settings": one.settings,
        "seconds": 2.0, "images": 200, "temperature": 1.5, "at_bound": one.place == 1, "versions": versions,
        "epochs": {"epoch": [1.0, 2.0], "accuracy": [0.4, 0.5], "ece": [0.2, 0.1]},
    }  # fmt: skip
    if not scaled:
        columns.pop("scaled")
        facts["scaled"] = None
    return cards.Card({**head, **facts}, columns)


def test_teachers_come_first_and_seeds_count_from_the_config_s_own(file):
    found = planned(file)
    assert [one.name for one in found] == [
        "teacher/0",
        "student/0",
        "student/1",
        "plain/0",
        "plain/1",
    ]
    assert [one.config.seed for one in found] == [7, 0, 1, 0, 1]
    assert found[2].needs == (("teacher", 0),)  # one teacher for both seeds
    assert len({one.identity for one in found}) == 5


def test_a_student_is_another_one_where_its_teacher_is(file):
    before = {one.key: one.identity for one in planned(file)}
    file.write_text(file.read_text().replace('"seed": 7', '"seed": 8'))
    after = {one.key: one.identity for one in planned(file)}
    assert [key for key in before if before[key] != after[key]] == [
        ("teacher", 0),
        ("student", 0),
        ("student", 1),
    ]


def test_fields_for_all_cells_are_read_by_their_types(file):
    found = planned(
        file, {"data.root": "there", "optimizer.boundaries": "(1.0, 2.0)", "data.resident": "True"}
    )
    assert all(one.config.data.root == "there" for one in found)
    assert found[0].config.optimizer.boundaries == (1.0, 2.0)


KEPT = Path(__file__).parent.parent / "docs" / "results" / "cifar10_small" / "cards"
# fields of config.identity.ADDED -> a value that is not the default
ADDED = {
    "augment.names": ("mine.blur",),
    "data.holdout_share": 0.1,
    "data.table_pseudo_count": 1.0,
    "data.test_share": 0.3,
    "data.test_seed": 1,
    "data.imagefolder.exif": True,
    "eval.calibrator": "temperature",
    "labels.blend.starts": (0.0, 1.0),
    "labels.online.correct_only": True,
    "labels.online.start_epoch": 1.0,
    "labels.online.temperature": 2.0,
    "data.noise": 0.1,
    "data.noise_kind": "pair",
    "data.noise_seed": 1,
    "optimizer.body_factor": 0.1,
    "optimizer.name": "sign_sgd",
    "optimizer.cycle_epochs": 3.0,
    "optimizer.cycle_factor": 3.0,
    "optimizer.rise": 0.2,
    "optimizer.start_divisor": 7.0,
    "optimizer.end_divisor": 70.0,
    "train.freeze_epochs": 1.0,
}


@pytest.mark.slow
def test_cards_that_were_kept_are_those_of_today_s_plan():
    """Nobody's results are refused because the settings, or what counts of them, have grown since."""
    study_file = next(path for path in CONFIGS if path.stem == "cifar10_small")
    identities = {f"{one.cell.name}-{one.place}": one.identity for one in planned(study_file)}
    kept = {path.stem: json.loads(path.read_text())["identity"] for path in KEPT.glob("*.json")}
    assert len(kept) == 72
    assert kept == identities


@pytest.mark.parametrize("field", config.identity.ADDED)
def test_a_field_that_was_added_counts_only_where_it_differs_from_its_default(field):
    usual, other = config.default(), config.default()
    *blocks, name = field.split(".")
    # The options of a plug count only where it is used.
    if len(blocks) > 1:
        usual[blocks[0]].name = other[blocks[0]].name = blocks[1]
    block = other
    for block_name in blocks:
        block = block[block_name]
    block[name] = ADDED[field]

    settings = config.decisive(usual)
    assert field not in settings
    assert config.decisive(other) == {**settings, field: config.flatten(other)[field]}
    assert identity(config.decisive(other), []) != identity(settings, [])

    # A run whose config.json was written before the field was there is the same run at its default
    # alone.
    before = block_before = json.loads(config.to_json(usual))
    for block_name in blocks:
        block_before = block_before[block_name]
    del block_before[name]
    run_before = config.from_json(json.dumps(before))
    assert config.differences(run_before, usual) == {}
    # What is only read after training may change when a run is resumed.
    expected = [] if field in config.identity.AFTER_TRAINING else [field]
    assert list(config.differences(run_before, other)) == expected


# A study whose finding has a second pair.
PAIRS = (
    "Study('x', (Cell('few', 'base.py'), *(Cell(name, 'base.py', seeds=6) for name in 'abc'), "
    "Cell('folded', 'base.py', {{'data.folds': 5}}, 6), Cell('taught', 'base.py', {{}}, 6, ('few',))), "
    "(Finding('1', 'a', 'b', minus={}),))"
)
FAULTS = {  # a study's text -> what the sentence says
    "Study('x', (Cell('a', 'none.py'),))": "cell 'a': --config .*none.py does not exist",
    "Study('x', (Cell('a', 'base.py', {'data.nam': 1}),))": "cell 'a': config.data has no field 'nam'",
    "Study('x', (Cell('a', 'base.py', {'seed': 'x'}),))": "cell 'a': config.seed cannot be 'x'",
    "Study('x', (Cell('a', 'base.py', {'data.batch_size': 0}),))": "cell 'a': config.data.batch_size must be .*got 0",
    "Study('x', (Cell('a', 'base.py'), Cell('a', 'base.py')))": "two cells are named 'a'",
    "Study('x', (Cell('a b', 'base.py'),))": "a cell is named 'a b'",
    "Study('x', (Cell('a', 'base.py', seeds=0),))": "the seeds of cell 'a' must be .*got 0",
    "Study('x', (Cell('a', 'base.py', teachers=('b',)),))": "'a' has the teacher 'b', which is .*; cells are a",
    "Study('x', (Cell('a', 'base.py', teachers=('b',)), Cell('b', 'base.py', teachers=('a',))))":
        "in a circle: a -> b -> a",
    "Study('x', (Cell('a', 'base.py', teachers=('b',)), Cell('b', 'base.py', teachers=('b',))))":
        "in a circle: b -> b",
    "Study('x', (Cell('a', 'base.py', teachers=('b/5',)), Cell('b', 'base.py')))": "teacher 'b/5', .* b/0 to b/2",
    "Study('x', (Cell('a', 'base.py', seeds=6),), (Finding('1', 'a', 'c'),))": "finding '1' names 'c'",
    "Study('x', (Cell('a', 'base.py', seeds=5),), (Finding('1', 'a', 'a'),))": "needs at least 6 seeds of 'a' .*got 5",
    "Study('x', (Cell('a', 'base.py', seeds=6),), (Finding('1', 'a', 'a', 'acc'),))": "the metric .* got 'acc'",
    "Study('x', (Cell('a', 'base.py', seeds=6),), (Finding('1', 'a', 'a', direction='up'),))": "direction .*got 'up'",
    "Study('x', (Cell('a', 'base.py', seeds=6),), (Finding('1', 'a', 'a'),))": "compares 'a' with itself",
    "Study('x', (Cell('a', 'base.py', seeds=6),), (Finding('1', 'a', 'a', 'accuracy'),))": "must be 'higher', since",
    "Study('x', (Cell('a', 'base.py', {}, 6, ('b',)), Cell('b', 'base.py', {}, 6, ('c/0',)), Cell('c', 'base.py')), "
    "(Finding('1', 'a', 'b'),))": r"whose seeds share the teacher 'c/0'",
    PAIRS.format("('a',)"): "minus, of finding '1' must be a tuple of two cells, got .'a',.",
    PAIRS.format("'ab'"): "minus, of finding '1' must be a tuple of two cells, got 'ab'",
    PAIRS.format("('c', 'e')"): "finding '1' names 'e'",
    PAIRS.format("('c', 'c')"): "finding '1' compares 'c' with itself",
    PAIRS.format("('c', 'b')"): "must not both have 'b' in the same place",
    PAIRS.format("('c', 'few')"): "needs at least 6 seeds of 'few'",
    PAIRS.format("('c', 'taught')"): "rests on 'taught', whose seeds share the teacher 'few'",
    PAIRS.format("('c', 'folded')"): "'a' and 'folded' are compared, but their test images differ",
    "Study('x', (Cell('a', 'base.py'),), comparisons=(('a', 'd'),))": "a comparison names 'd'",
    "Study('x', (Cell('a', 'base.py')))": "the study's cells must be a tuple of Cell",
    "Study('x', (Cell('a', 'base.py'),), comparisons=('a', 'a'))": "comparisons must be a tuple of pairs",
    "Study('x', (Cell('a', 'base.py', {'teachers': ('runs/mine',)}),))": "cell 'a': config.teachers must not be set",
    "Study('x', (Cell('a', 'base.py', {}, 6, ('b',)), Cell('b', 'base.py')), (Finding('1', 'a', 'a'),))":
        r"rests on 'a', whose seeds share the teacher 'b'",
    "Study('x', (Cell('a', 'base.py'), Cell('b', 'base.py', {'data.folds': 5})), comparisons=(('a', 'b'),))":
        "'a' and 'b' are compared, but their test images differ",
    "Study('x', (Cell('a', 'base.py', {'data.folds': 5, 'data.fold': 1}, 3, ('b',)), Cell('b', 'base.py', "
    "{'data.folds': 5})))": "cell 'a' has the teacher 'b', which is trained on other folds",
    "7": "must return a Study, got int",
    "1 / 0": "is not a valid study: division by zero",
}  # fmt: skip


@pytest.mark.parametrize("text", FAULTS)
def test_a_study_that_does_not_fit_together_is_one_sentence(file, tmp_path, capsys, text):
    write(file, text)
    assert command.main([str(file), f"--workdir={tmp_path / 'w'}", "--collect"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert re.search(FAULTS[text], said), said
    assert not (tmp_path / "w").exists()


def test_a_card_comes_back_as_it_was_and_damage_is_named(file, tmp_path):
    one = planned(file)[0]
    made = card(one, np.random.default_rng(0))
    cards.write(tmp_path, one, made)
    found = cards.read(tmp_path, one)
    assert {**found.facts, "format": 0, "version": 0} == {**made.facts, "format": 0, "version": 0}
    np.testing.assert_array_equal(
        found.columns["scaled"]["correct"], made.columns["scaled"]["correct"]
    )
    assert cards.read(tmp_path / "none", one) is None
    facts, columns = cards.paths(tmp_path, one)
    columns.write_bytes(columns.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"npz cannot be read .*; remove"):
        cards.read(tmp_path, one)
    facts.write_text(facts.read_text()[:200])
    with pytest.raises(ValueError, match="not a complete result card; remove it"):
        cards.read(tmp_path, one)


def test_a_cell_whose_config_changed_is_refused_by_name(file, tmp_path):
    one = planned(file)[-1]
    cards.write(tmp_path, one, card(one, np.random.default_rng(0)))
    file.write_text(file.read_text().replace("'train.epochs': 1.0", "'train.epochs': 2.0"))
    with pytest.raises(
        ValueError,
        match=r"cell 'plain' was run with another config \(train.epochs was 1.0, is now 2.0\)",
    ):
        cards.read(tmp_path, planned(file)[-1])


def test_a_directory_of_another_study_or_of_other_files_is_refused(file, tmp_path, capsys):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "thesis.txt").write_text("mine")
    words = [str(file), f"--workdir={tmp_path / 'w'}"]
    assert command.main(words) == 2
    assert "contains other files but no study" in capsys.readouterr().err
    assert command.main([*words, "--collect"]) == 2
    assert "contains no study; run the command without --collect first" in capsys.readouterr().err
    (tmp_path / "w" / directory.MARK).write_text('{"study": "other", "findings": []}')
    assert command.main(words) == 2
    assert "holds the study 'other'" in capsys.readouterr().err
    (tmp_path / "w" / directory.MARK).write_text("{")
    assert command.main(words) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "w").iterdir()} == {"thesis.txt", directory.MARK}
    assert command.main([str(file), f"--workdir={tmp_path / 'w' / 'thesis.txt'}"]) == 2
    assert "--workdir must be a directory, but" in capsys.readouterr().err


def test_hypotheses_are_those_written_down_before_the_runs(file, tmp_path, capsys):
    text = "Study('x', (Cell('a', 'base.py', seeds=6), Cell('b', 'base.py', seeds=6)), (Finding('1', 'a', 'b'),))"
    words = [str(write(file, text)), f"--workdir={tmp_path / 'w'}"]
    mark = tmp_path / "w" / directory.MARK
    mark.parent.mkdir()
    mark.write_text('{"study": "tiny", "findings": [["1", "b", "a", "ece", "lower"]]}')
    assert command.main([*words, "--collect"]) == 0  # nothing was run yet
    assert json.loads(mark.read_text())["findings"] == [["1", "a", "b", "ece", "lower"]]
    (tmp_path / "w/cards").mkdir()
    (tmp_path / "w/cards/a-0.json").write_text("")
    for changed, now in (
        (text.replace("'a', 'b')", "'a', 'b', 'nll')"), "a has lower nll than b (6 and 6 seeds)"),
        (text.replace("Cell('a', 'base.py', seeds=6)", "Cell('a', 'base.py', seeds=9)"),
         "a has lower ece than b (9 and 6 seeds)"),
    ):  # fmt: skip
        write(file, changed)
        assert command.main(words) == 2
        said = capsys.readouterr().err
        assert f"they were a has lower ece than b (6 and 6 seeds), and are now {now}" in said


def test_groups_and_second_pairs_are_written_down_where_there_are_any(file, tmp_path, capsys):
    cells = "*(Cell(name, 'base.py', seeds=6) for name in 'abcd')"
    text = f"Study('x', ({cells},), (Finding('1', 'a', 'b', group='g', minus=('c', 'd')),))"
    words = [str(write(file, text)), f"--workdir={tmp_path / 'w'}"]
    directory.claim(tmp_path / "w", file, load(file), new=True)
    mark = json.loads((tmp_path / "w" / directory.MARK).read_text())
    assert mark["findings"] == [["1", "a", "b", "ece", "lower", "g", ["c", "d"]]]
    assert mark["seeds"] == dict.fromkeys("abcd", 6)
    (tmp_path / "w/cards").mkdir()
    (tmp_path / "w/cards/a-0.json").write_text("")
    directory.claim(tmp_path / "w", file, load(file), new=True)
    before = "a minus b has lower ece than c minus d (6, 6, 6 and 6 seeds, group g)"
    for changed, now in (
        (text.replace("'c', 'd'", "'d', 'c'"),
         "a minus b has lower ece than d minus c (6, 6, 6 and 6 seeds, group g)"),
        (text.replace("group='g', minus=('c', 'd')", ""), "a has lower ece than b (6 and 6 seeds)"),
    ):  # fmt: skip
        write(file, changed)
        assert command.main(words) == 2
        assert f"they were {before}, and are now {now}" in capsys.readouterr().err


def test_commands_are_printed_one_a_line_and_only_picks_with_teachers(file, capsys):
    assert (
        command.main(
            [str(file), "--print", "--only=student/1", "--workdir=w", "--set", "data.root=a b"]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition("--only=")[2] for line in lines] == [
        "teacher/0 --no-report",
        "student/1 --no-report",
    ]
    assert "--set 'data.root=a b'" in lines[0]
    assert command.main([str(file), "--print", "--only=tutor"]) == 2
    assert "got 'tutor'; its cells are teacher, student, plain" in capsys.readouterr().err
    assert command.main([str(file), "--set", "x"]) == 2
    assert command.main([str(file), "--jobs=0"]) == 2


def test_a_run_that_another_process_works_on_is_waited_for(file, tmp_path, monkeypatch, capsys):
    first, second = planned(file)[-2:]
    made = card(first, np.random.default_rng(0))

    def train(asked, folder, compiled, *, trust):
        if asked is first:
            cards.write(tmp_path / directory.CARDS, first, made)
            raise Busy
        cards.write(tmp_path / directory.CARDS, second, made)
        return made

    monkeypatch.setattr(run, "train", train)
    monkeypatch.setattr(workers, "POLL", 0.01)
    progress = Progress([first, second], {}, 1)
    here = workers.ThisProcess(tmp_path, progress.say)
    assert runner.execute([first, second], progress, 1, lambda slot, cell: here) == {}
    said = capsys.readouterr().err
    assert "plain/0: waiting for another process that works on it" in said
    assert "2/2 plain/1" in said


def test_a_run_that_another_process_ended_just_now_is_not_begun_anew(file, tmp_path, monkeypatch):
    planned_one = planned(file)[-1]
    made = card(planned_one, np.random.default_rng(0))
    held = workdir.locked

    @contextlib.contextmanager
    def late(folder):  # the other process ends between the look at the card and the lock
        cards.write(tmp_path / directory.CARDS, planned_one, made)
        with held(folder):
            yield

    monkeypatch.setattr(workdir, "locked", late)
    monkeypatch.setattr("ldl_jax.training.loop.train", None)
    assert run.train(planned_one, tmp_path, {}).facts["identity"] == planned_one.identity


def test_a_cell_says_if_its_seeds_had_other_numbers_of_threads():
    def made(*threads):
        return cards.Card({"versions": {"threads": list(threads)}}, {})

    old = cards.Card({"versions": {}}, {})
    assert cards.thread_note([made(2), made(2), old]) == ""
    assert cards.thread_note([made(2), made(1)]).startswith("its runs had 1 and 2 CPU threads")
    # one run that was resumed on another number
    assert cards.thread_note([made(2, 1), old]).startswith("its runs had 1 and 2 CPU threads")


def test_a_card_names_the_threads_of_all_starts(tmp_path):
    start = {name: name for name in ("python", "packages", "backend", "device", "devices", "cores")}
    starts = [start, {**start, "threads": 2}, {**start, "threads": None}, {**start, "threads": 1}]
    files.write_json(tmp_path / workdir.VERSIONS, {"starts": starts})
    assert cards._versions(tmp_path)["threads"] == [2, 1]


def test_a_student_is_finished_only_with_the_teachers_that_are_there(file, tmp_path):
    student = planned(file)[1]
    place, teacher = (directory.of_run(tmp_path, *key) for key in (student.key, student.needs[0]))
    for name in (workdir.SUMMARY, workdir.WEIGHTS, "predictions/test.npz"):
        files.write(place / name, "{}")
    files.write(place / workdir.NETWORK, "{}")
    files.write(place / workdir.CONFIG, config.to_json(student.config))
    files.write(teacher / workdir.WEIGHTS, "weights")
    digest = files.sha256(teacher / workdir.WEIGHTS)
    files.write_json(
        place / workdir.VERSIONS,
        {"starts": [{"inputs": {"teachers[0] = x": digest, "data.root = y": "z"}}]},
    )
    assert run._is_finished(student, tmp_path, place)
    files.write(teacher / workdir.WEIGHTS, "other weights")
    assert not run._is_finished(student, tmp_path, place)


def test_a_fine_tuned_run_is_finished_only_with_the_weights_it_started_from(file, tmp_path):
    tuned = planned(file, {"model.init_from": str(tmp_path / "source")})[0]
    assert tuned.settings["model.init_from"] == "source"
    place = directory.of_run(tmp_path, *tuned.key)
    for name in (workdir.SUMMARY, workdir.WEIGHTS, "predictions/test.npz"):
        files.write(place / name, "{}")
    files.write(place / workdir.NETWORK, "{}")
    files.write(place / workdir.CONFIG, config.to_json(tuned.config))
    files.write(tmp_path / "source" / workdir.WEIGHTS, "weights")
    digest = files.sha256(tmp_path / "source" / workdir.WEIGHTS)
    inputs = {"data.root = y": "z", "model.init_from = x": digest}
    files.write_json(place / workdir.VERSIONS, {"starts": [{"inputs": inputs}]})
    assert run._is_finished(tuned, tmp_path, place)
    files.write(tmp_path / "source" / workdir.WEIGHTS, "other weights")
    assert not run._is_finished(tuned, tmp_path, place)


@pytest.mark.parametrize(
    ("gpus", "jobs", "devices", "memory"),
    [
        (8, 3, ["0,1", "2,3", "4,5"], None),
        (2, 2, ["0", "1"], None),
        (3, 4, ["0", "1", "2", "0"], "0.400"),
        (1, 3, ["0", "0", "0"], "0.267"),
        (0, 2, [None, None], None),
    ],
)
def test_processes_side_by_side_share_out_the_gpus_or_the_memory_of_one(
    tmp_path, monkeypatch, gpus, jobs, devices, memory
):
    lines = "".join(f"echo 'GPU {n}: NVIDIA (UUID: GPU-{n})'\n" for n in range(gpus))
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{lines}")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv(workers.MEMORY, raising=False)
    made = [workers.environment(slot, jobs, workers.visible_gpus()) for slot in range(jobs)]
    assert [one.get("CUDA_VISIBLE_DEVICES") for one in made] == devices
    assert {one.get(workers.MEMORY) for one in made} == {memory}
    monkeypatch.setenv(workers.MEMORY, ".1")
    assert workers.environment(0, jobs, workers.visible_gpus())[workers.MEMORY] == ".1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-b, GPU-a")
    assert workers.visible_gpus() == ("GPU-b", "GPU-a")


def test_programs_are_shared_by_seeds_and_not_by_teachers_of_other_networks(file):
    one = planned(file)[-1].config
    one.model.name = "cifar_resnet"
    made, compiled = experiment.make_experiment(one, jax.devices()[:1]), {}
    first = programs.make_programs(made, compiled)
    one.seed = 5
    assert programs.make_programs(made, compiled).step is first.step
    for other in (
        made._replace(teacher_specs=({"model": {"depth": 14}},)), made._replace(recipe=made.recipe._replace(skip=True)),
    ):  # fmt: skip
        assert programs.make_programs(other, compiled).step is not first.step


def test_holm_is_the_textbook_s():
    assert hypotheses.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert hypotheses.holm([0.5, 0.9]) == [1.0, 1.0]
    assert hypotheses.holm([]) == []


def six(shift):
    """A study of three findings, its cards made so that 'bad' is worse than 'good' by `shift`."""
    row = [Cell(name, "x.py", seeds=6) for name in ("good", "bad", "same")]
    asked = Study("x", tuple(row), (
        Finding("1", "good", "bad"), Finding("2", "bad", "good"), Finding("3", "good", "same"),
    ), comparisons=(("good", "bad"),))  # fmt: skip
    draw, found = np.random.default_rng(3), {}
    for cell in row:
        for place in range(6):
            one = Planned(cell, place, None, (), "i", {})
            found.setdefault(cell.name, {})[place] = card(
                one, draw, shift if cell.name == "bad" else 0.0
            )
    return asked, found


def test_answers_are_the_paired_t_test_over_seeds_with_holm_s_correction():
    asked, found = six(0.2)
    made = hypotheses.answers(asked, found)
    assert [one["raw"]["verdict"] for one in made] == ["supported", "refuted", "undecided"]
    ece = {
        name: [found[name][k].facts["raw"]["figures"]["ece"] for k in range(6)] for name in found
    }
    apart = np.subtract(ece["good"], ece["bad"])
    p = [
        stats.ttest_rel(ece[a], ece[b]).pvalue
        for a, b in (("good", "bad"), ("bad", "good"), ("good", "same"))
    ]
    assert made[0]["raw"]["mean"] == pytest.approx(apart.mean())
    np.testing.assert_allclose(
        made[0]["raw"]["seeds"], stats.t.interval(0.95, 5, apart.mean(), stats.sem(apart))
    )
    assert [one["raw"]["p"] for one in made] == pytest.approx(p)
    assert [one["raw"]["holm"] for one in made[:2]] == pytest.approx(
        hypotheses.holm([*p[:2], 1])[:2]
    )  # floors are alike
    assert made[0]["raw"]["excess"]["mean"] == pytest.approx(apart.mean())
    low, high = made[0]["raw"]["images"]
    assert low < high < 0


def test_the_correction_is_over_the_findings_of_a_group():
    asked, found = six(0.2)
    whole = hypotheses.answers(asked, found)
    # Two findings of one group, and one that has no group and so is alone.
    names = ("g", "g", "")
    grouped = zip(asked.findings, names, strict=True)
    asked = asked._replace(findings=tuple(one._replace(group=name) for one, name in grouped))
    made = hypotheses.answers(asked, found)
    for state in cards.STATES:
        p = [max(one[state]["p"], one[state]["excess"]["p"]) for one in made]
        assert [one[state]["holm"] for one in made[:2]] == pytest.approx([min(1, 2 * p[0])] * 2)
        alone = made[2][state]
        assert alone["holm"] in (pytest.approx(p[2]), 1)  # 1: not of the sign of its excess
        assert whole[0][state]["holm"] == pytest.approx(3 * p[0])


def four(gain):
    """A study of one difference of differences; long training lowers the ECE of 'ours' by `gain`."""
    row = [Cell(name, "x.py", seeds=6) for name in ("ours_long", "ours", "hard_long", "hard")]
    asked = Study("x", tuple(row), (
        Finding("3", "ours_long", "ours", group="3 ECE", minus=("hard_long", "hard")),
        Finding("4", "ours_long", "ours", "nll", minus=("hard_long", "hard")),
    ))  # fmt: skip
    draw, found = np.random.default_rng(5), {}
    for cell in row:
        for place in range(6):
            one = Planned(cell, place, None, (), "i", {})
            shift = 0.25 - gain if cell.name == "ours_long" else 0.25
            made = card(one, draw, shift)
            found.setdefault(cell.name, {})[place] = made
            for state in cards.STATES:
                made.facts[state]["floor"] = draw.uniform(0.01, 0.02)
                own = made.columns[state]
                made.facts[state]["figures"]["nll"] = float(own["nll"].mean())
    return asked, found


def test_a_second_pair_is_a_difference_of_differences():
    asked, found = four(0.2)
    made = hypotheses.answers(asked, found)
    names = [cell.name for cell in asked.cells]

    def by_cell(state, get):
        return np.array([[get(found[name][k].facts[state]) for k in range(6)] for name in names])

    signs = np.array([1.0, -1.0, -1.0, 1.0])
    for state in cards.STATES:
        ece = by_cell(state, lambda fact: fact["figures"]["ece"])
        floor = by_cell(state, lambda fact: fact["floor"])
        apart, excess = signs @ ece, signs @ (ece - floor)
        own = made[0][state]
        assert (own["n"], own["of"], own["mean"]) == (6, 6, pytest.approx(apart.mean()))
        p = stats.ttest_1samp(apart, 0).pvalue
        excess_p = stats.ttest_1samp(excess, 0).pvalue
        assert own["p"] == pytest.approx(p)
        expected = stats.t.interval(0.95, 5, apart.mean(), stats.sem(apart))
        np.testing.assert_allclose(own["seeds"], expected)
        assert own["floors"] == pytest.approx(floor.mean(1))
        assert own["excess"]["mean"] == pytest.approx(excess.mean())
        assert own["excess"]["p"] == pytest.approx(excess_p)
        assert own["holm"] == pytest.approx(max(p, excess_p))
        assert own["verdict"] == "supported"
        # Over images, the interval of a mean is that of the normal distribution.
        columns = [[found[name][k].columns[state]["nll"] for k in range(6)] for name in names]
        per_image = np.tensordot(signs, np.mean(columns, axis=1), 1)
        half = 1.96 * per_image.std() / np.sqrt(len(per_image))
        low, high = made[1][state]["images"]
        np.testing.assert_allclose((low + high) / 2, per_image.mean(), atol=0.15 * half)
        np.testing.assert_allclose((high - low) / 2, half, rtol=0.15)

    # All four cells must have finished.
    del found["hard"][5]
    own = hypotheses.answers(asked, found)[0]["raw"]
    assert (own["n"], own["verdict"], own["holm"]) == (5, "undecided", 1)


def test_the_training_accuracy_is_that_of_the_last_evaluation(tmp_path):
    rows = (
        {"train/accuracy": 0.5},
        {"test/accuracy": 0.3, "train/accuracy": 0.9},
        {"train/loss": 1.0},
    )
    lines = [json.dumps({"step": step, "epoch": 1.0, **row}) for step, row in enumerate(rows)]
    (tmp_path / workdir.METRICS).write_text("\n".join(lines) + "\n")
    assert cards._train_accuracy(tmp_path) == 0.9
    (tmp_path / workdir.METRICS).write_text(lines[-1] + "\n")
    assert cards._train_accuracy(tmp_path) is None


def test_the_parts_of_the_nll_and_the_training_accuracy_are_shown():
    asked, found = six(0.2)
    nll = np.random.default_rng(7).uniform(1, 2, (2, 6))
    for place, one in found["good"].items():
        one.facts["raw"]["figures"]["nll"], one.facts["scaled"]["figures"]["nll"] = nll[:, place]
        one.facts["train_accuracy"] = 0.9 + place / 100
        one.facts["holdout_nll"] = 1.5 + place
    # Older cards have no training accuracy.
    found["bad"][0].facts["train_accuracy"] = 0.5
    results = {"cells": tables.rows(asked, found), "findings": [], "comparisons": []}
    good, bad, _ = results["cells"]
    apart = nll[0] - nll[1]
    assert good["parts"]["calibration"]["mean"] == pytest.approx(apart.mean())
    assert good["parts"]["calibration"]["std"] == pytest.approx(apart.std(ddof=1))
    assert good["parts"]["refinement"] == good["scaled"]["nll"]
    assert good["train"]["accuracy"]["mean"] == pytest.approx(0.925)
    assert bad["train"] is None
    shown = tables.cells(results)
    further = ["NLL calibration part", "training accuracy %", "holdout NLL (recalibrated)"]
    assert shown.head[-3:] == further
    assert shown.rows()[0][-3:] == [
        f"{apart.mean():.4f}\n± {apart.std(ddof=1):.4f}",
        "92.50\n± 1.87",
        "4.0000\n± 1.8708",
    ]
    assert shown.rows()[1][-1] == tables.MISSING
    rows = list(csv.DictReader(tables.numbers(results).splitlines()))
    told = {r["figure"]: r for r in rows if r["name"] == "good" and not r["state"]}
    figures = {"nll_refinement", "nll_calibration", "train_accuracy", "holdout_nll"}
    assert set(told) == figures
    assert float(told["nll_calibration"]["mean"]) == pytest.approx(apart.mean())
    # The last panel of the plot has a point at the refinement and a ring at the raw NLL.
    figure = study_plots.cells(results["cells"])
    points = {line.get_xdata()[0] for line in figure.axes[-1].lines if line.get_marker() == "o"}
    for mean in nll.mean(1):
        assert min(abs(point - mean) for point in points) < 1e-9
    # Without temperatures there is no such column and no such panel.
    for cell in found.values():
        for one in cell.values():
            one.facts["scaled"] = None
            one.facts.pop("train_accuracy", None)
            one.facts.pop("holdout_nll", None)
    rows = tables.rows(asked, found)
    assert tables.cells({"cells": rows}).head[-1] == "ECE %"
    assert len(study_plots.cells(rows).axes) == 2


def test_groups_and_second_pairs_are_shown():
    asked, found = four(0.2)
    results = {
        "cells": tables.rows(asked, found), "findings": hypotheses.answers(asked, found),
        "comparisons": [],
    }  # fmt: skip
    verdict, hypothesis = tables.answer(results["findings"][0], results)
    assert verdict == "Supported."
    claim = "3: ECE falls more (or rises less) from ours to ours_long than from hard to hard_long"
    assert hypothesis == f"{claim}."
    shown = tables.answers(results)
    assert [group.heading for group in shown.groups] == ["3 ECE", ""]
    assert "\n[3 ECE] " in tables.text(results)
    rows = list(csv.DictReader(tables.numbers(results).splitlines()))
    told = [(r["name"], r["than"], r["group"]) for r in rows if r["what"] == "finding"]
    pairs = ("ours_long minus ours", "hard_long minus hard")
    assert told == [(*pairs, "3 ECE")] * 2 + [(*pairs, None)] * 2
    figure = study_plots.answers(results["findings"])
    (label, *_) = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert label == "3: ours_long minus ours\nminus (hard_long minus hard)"
    del found["hard_long"]
    results |= {"cells": tables.rows(asked, found), "findings": hypotheses.answers(asked, found)}
    assert tables.answer(results["findings"][0], results)[0] == "Not run (hard_long)."


def test_nothing_is_decided_before_every_seed_and_finding_is_there():
    asked, found = six(0.2)
    whole = hypotheses.answers(asked, found)[0]["raw"]
    del found["bad"][5]
    made = hypotheses.answers(asked, found)
    assert (made[0]["raw"]["n"], made[0]["raw"]["of"]) == (5, 6)
    assert made[0]["raw"]["p"] < 0.05
    assert made[0]["raw"]["holm"] == 1
    found["same"].pop(5)
    found["bad"] = six(0.2)[1]["bad"]
    early = hypotheses.answers(asked, found)
    assert [one["raw"]["verdict"] for one in early] == ["supported", "refuted", "undecided"]
    # the third, not whole yet, counts as 1
    assert early[0]["raw"]["holm"] == pytest.approx(3 * early[0]["raw"]["p"])
    assert [one["raw"]["verdict"] for one in made] == ["undecided"] * 3
    asked, found = six(0.2)
    del found["same"]
    made = hypotheses.answers(asked, found)
    assert made[2]["raw"] is None
    # the third finding counts all the same
    assert made[0]["raw"]["holm"] == pytest.approx(3 * whole["p"])


def test_noise_floors_alone_decide_nothing():
    """Two calibrated networks, the second less sure: its ECE is the higher one with every seed, by
    chance alone.
    """
    asked, found = six(0.0)
    for name, ece in (("good", 0.010), ("bad", 0.020)):
        for place, one in found[name].items():
            for state in cards.STATES:
                one.facts[state]["figures"]["ece"] = ece + 0.001 * (place % 3) * (
                    1 + (name == "bad")
                )
                one.facts[state]["floor"] = ece + 0.001
    own = hypotheses.answers(asked, found)[0]["raw"]
    assert own["p"] < 0.001
    assert own["floors"] == pytest.approx([0.011, 0.021])
    assert own["excess"]["mean"] == pytest.approx(0.001 * (1 - 2))
    assert (own["verdict"], own["holm"] >= 0.05) == ("undecided", True)
    for one in found["bad"].values():
        one.facts["raw"]["floor"] = 0.011
    own = hypotheses.answers(asked, found)[0]["raw"]
    assert own["verdict"] == "supported"
    assert own["holm"] == pytest.approx(3 * max(own["p"], own["excess"]["p"]))


def test_equal_differences_are_judged_by_their_signs_and_shared_teachers_get_no_p():
    assert hypotheses._p(np.full(6, -0.01)) == pytest.approx(2 / 2**6)
    assert hypotheses._p(np.zeros(6)) == 1
    asked, found = six(0.2)
    assert hypotheses.explored(asked, found)[0]["raw"]["p"] is not None
    taught = asked.cells[0]._replace(teachers=("bad/0",))
    asked = asked._replace(cells=(taught, *asked.cells[1:]), findings=())
    assert shared_teacher("good", asked) == "bad/0"
    (own, *_) = hypotheses.explored(asked, found)
    assert own["raw"]["p"] is None
    assert own["raw"]["seeds"]


def test_what_is_not_there_is_undecided_and_one_seed_decides_nothing():
    asked, found = six(0.2)
    few = {"good": {0: found["good"][0]}, "bad": {0: found["bad"][0], 1: found["bad"][1]}}
    made = hypotheses.answers(asked, few)
    assert made[0]["raw"]["verdict"] == "undecided"
    assert (made[0]["raw"]["n"], made[0]["raw"]["seeds"]) == (1, None)
    assert made[2]["raw"] is None
    found["good"][0] = card(
        Planned(asked.cells[0], 0, None, (), "i", {}), np.random.default_rng(0), scaled=False
    )
    assert hypotheses.answers(asked, found)[0]["scaled"] is None


def test_an_answer_tells_what_is_not_run_from_what_is_undecided():
    asked, found = six(0.2)

    def told(cards):
        results = {
            "cells": tables.rows(asked, cards), "findings": hypotheses.answers(asked, cards),
            "comparisons": [],
        }  # fmt: skip
        rows = tables.answers(results).rows()
        said = [" ".join(tables.answer(finding, results)) for finding in results["findings"]]
        return said, [row[0].partition("\n")[0] for row in rows], tables.text(results)

    said, verdicts, text = told(found)
    assert said[0] == "Supported. 1: good has lower ECE than bad."
    assert said[1].startswith("Refuted. 2: bad has lower ECE than good")
    assert said[2] == "Undecided. 3: good has lower ECE than same."
    assert verdicts[::2] == ["supported", "refuted", "undecided"]
    assert text.startswith("\n".join(said) + "\n\n---")

    partly = {"good": found["good"], "bad": {place: found["bad"][place] for place in (0, 2)}}
    said, verdicts, text = told(partly)
    assert said[0] == "Not finished (bad: 2 of 6 seeds). 1: good has lower ECE than bad."
    assert said[2] == "Not run (same). 3: good has lower ECE than same."
    assert verdicts[0] == "not finished (bad: 2 of 6 seeds)"
    assert verdicts[4:] == ["not run (same)"] * 2
    assert "undecided" not in text
    # No seed that both have.
    apart = {"good": {0: found["good"][0]}, "bad": {1: found["bad"][1]}}
    assert told(apart)[0][0].startswith("Not finished (good: 1 of 6 seeds, bad: 1 of 6 seeds).")
    assert told({"same": found["same"]})[0][0].startswith("Not run (good and bad).")
    # Raw differences exist, recalibrated ones do not.
    without = card(
        Planned(asked.cells[0], 0, None, (), "i", {}), np.random.default_rng(0), scaled=False
    )
    said, verdicts, _ = told({**found, "good": {**found["good"], 0: without}})
    assert said[0].endswith("(recalibrated: no temperature).")
    assert verdicts[1] == "no temperature"


@pytest.mark.slow
def test_the_page_the_text_and_the_csv_say_the_same():
    asked, found = six(0.2)
    asked = asked._replace(
        title="<b>",
        cells=(asked.cells[0]._replace(published={"accuracy": 0.8123}), *asked.cells[1:]),
    )
    results = {
        "cells": tables.rows(asked, found), "findings": hypotheses.answers(asked, found),
        "comparisons": hypotheses.explored(asked, found),
    }  # fmt: skip
    whole, text = page.page(asked, results, found, "x.py"), tables.text(results)
    rows = list(csv.DictReader(tables.numbers(results).splitlines()))
    (row,) = [
        r
        for r in rows
        if (r["what"], r["name"], r["than"], r["state"]) == ("finding", "good", "bad", "raw")
    ]
    assert row["verdict"] == "supported"
    shown = f"{100 * float(row['mean']):+.2f}"
    for said in (whole, text):
        assert shown in said
        assert "supported" in said
        assert "81.23" in said
        assert "good: in 1 of 6 runs the fitted temperature hit a limit of the search" in said
    assert "<b>" not in whole
    assert whole.count("<svg") == 1 + 1 + 3 + 2  # answers, cells, a diagram for each, epochs


def test_runs_that_were_measured_only_at_their_end_have_no_curves():
    asked, found = six(0.2)
    assert "<h2>Training curves</h2>" in page._epochs(asked, found)
    for runs in found.values():
        for one in runs.values():
            one.facts["epochs"] = {"epoch": [2.0], "accuracy": [0.5], "ece": [0.1]}
    assert page._epochs(asked, found) == ""


@browser.needed
@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_page_looks_right_in_a_browser(tmp_path, width, dark):
    asked, found = six(0.2)
    results = {
        "cells": tables.rows(asked, found), "findings": hypotheses.answers(asked, found),
        "comparisons": hypotheses.explored(asked, found),
    }  # fmt: skip
    (tmp_path / "report.html").write_text(page.page(asked, results, found, "command"))
    browser.assert_looks_right(tmp_path, width=width, dark=dark, least=1500)


def by_size(quick=()):
    """The study files as parameters: large ones for the nightly run, others but the quick ones
    slow.
    """
    parameters = []
    for file in CONFIGS:
        marks = (
            pytest.mark.nightly
            if file.stem in LARGE
            else ()
            if file.stem in quick
            else pytest.mark.slow
        )
        parameters.append(pytest.param(file, id=file.stem, marks=marks))
    return parameters


@pytest.mark.parametrize("path", by_size(quick=("digits",)))
def test_every_cell_of_every_study_is_planned(path):
    made = planned(path)
    assert (
        len({one.key for one in made}) == len(made) == sum(cell.seeds for cell in load(path).cells)
    )


@pytest.mark.parametrize("path", by_size())
def test_every_cell_of_every_study_builds(path):
    """Label source, mixing, losses and network of each cell fit together; cells that differ in size
    alone are one.
    """
    size = (
        "seed",
        "train.epochs",
        "optimizer.boundaries",
        "model.cifar_resnet.depth",
        "model.resnet.depth",
    )
    apart = {str({**one.settings, **dict.fromkeys(size)}): one.config for one in planned(path)}
    assert apart
    for c in apart.values():
        shapes.built(c)


@pytest.mark.slow
def test_a_study_runs_goes_on_and_answers(file, tmp_path, capsys, monkeypatch):
    words = [str(file), f"--workdir={tmp_path / 'w'}"]
    assert command.main([*words, "--only=student/0"]) == 0
    said = capsys.readouterr()
    assert "2/2 student/0: accuracy" in said.err
    first = (tmp_path / "w/cards/teacher-0.json").read_text()
    assert command.main(words) == 0
    said = capsys.readouterr()
    assert "2 of 5 runs have already finished" in said.err
    assert "about 0:00:00 left" in said.err
    assert (tmp_path / "w/cards/teacher-0.json").read_text() == first
    results = json.loads((tmp_path / "w/results.json").read_text())
    assert [row["cell"] for row in results["cells"]] == ["student", "teacher", "plain"]
    assert results["comparisons"][0]["raw"]["n"] == 2
    assert "train_accuracy" not in json.loads((tmp_path / "w/cards/plain-1.json").read_text())
    log = tmp_path / "w/runs/plain-1" / workdir.METRICS
    log.write_text(log.read_text() + '{"step": 2, "epoch": 1.0, "train/accuracy": 0.75}\n')
    (tmp_path / "w/cards/plain-1.json").unlink()
    assert command.main(words) == 0
    card = json.loads((tmp_path / "w/cards/plain-1.json").read_text())
    assert card["train_accuracy"] == 0.75
    with np.load(tmp_path / "w/runs/plain-1/predictions/holdout.npz") as predicted:
        logits, label = predicted["logits"].astype(np.float64), predicted["label"]
    probs = frame.softmax(logits / card["temperature"])
    nll = -np.log(probs[np.arange(len(label)), label]).mean()
    assert card["holdout_nll"] == pytest.approx(nll, rel=1e-6)
    assert not (tmp_path / "w/runs/plain-0/checkpoints").exists()
    made = [
        json.loads(file.read_text())["tested_on"] for file in (tmp_path / "w/cards").glob("*.json")
    ]
    assert len(made) == 5
    assert re.fullmatch("[0-9a-f]{16}", made[0])
    assert set(made) == {made[0]}
    card = tmp_path / "w/cards/plain-0.json"
    before = card.read_text()
    card.unlink()
    # of a finished run, the card alone is made again
    monkeypatch.setattr("ldl_jax.training.loop.train", None)
    assert command.main(words) == 0
    assert card.read_text() == before
    card.unlink()
    # and where its predictions are gone, it is measured
    (tmp_path / "w/runs/plain-0/predictions/test.npz").unlink()
    assert command.main(words) == 0
    own, other = json.loads(card.read_text()), json.loads(before)
    assert {**own, "seconds": other["seconds"]} == other
    assert "Tiny &lt;study&gt;" in (tmp_path / "w/report.html").read_text()


def test_cells_that_were_measured_on_other_images_are_not_compared():
    asked, found = six(0.2)
    name = asked.findings[0].better
    found[name][2].facts["tested_on"] = "0123456789abcdef"
    assert hypotheses.answers(asked, found)  # the others' cards are of before this was kept
    found[asked.findings[0].than][2].facts["tested_on"] = "fedcba9876543210"
    with pytest.raises(
        ValueError, match=f"{name}/2 and .*/2 were measured on different test images"
    ):
        hypotheses.answers(asked, found)


class Told:
    """A progress that is not shown."""

    def __init__(self):
        self.lost, self.said, self.cards = set(), [], []

    def say(self, text):
        self.said.append(text)

    def finished(self, planned, card):
        self.cards.append(card)


def board(*cells_of, seeds=3):
    """A board of cells named by (name, teachers)."""
    made = Study(
        "x", tuple(Cell(name, "base.py", {}, seeds, teachers) for name, teachers in cells_of)
    )
    todo = [
        Planned(cell, place, None, needs(cell, place, made), "", {})
        for cell in order(made) for place in range(cell.seeds)
    ]  # fmt: skip
    return runner.Board(todo, Told(), threading.Event())


def test_the_time_left_is_the_most_similar_cell_s_for_as_many_images(file):
    write(
        file,
        """Study("x", (
        Cell("small", "base.py", {}, 2), Cell("large", "base.py", {"model.cifar_resnet.depth": 14}, 1),
        Cell("long", "base.py", {"train.epochs": 120.0}, 1),
        Cell("long_large", "base.py", {"model.cifar_resnet.depth": 14, "train.epochs": 120.0}, 1),
    ))""",
    )
    found = {one.name: one for one in planned(file)}
    epochs = found["small/0"].config.train.epochs
    progress = Progress(list(found.values()), {("small", 0): 10.0, ("large", 0): 30.0}, 1)
    assert progress.left() == pytest.approx(10.0 + (10.0 + 30.0) * 120 / epochs)
    progress.jobs = 2
    assert progress.left() == pytest.approx(5.0 + 20.0 * 120 / epochs)
    assert Progress(list(found.values()), {}, 1).left() == 0


def test_runs_are_handed_out_so_that_no_process_is_idle():
    """Slots take cells of their own while there are some and share them then; a student waits for
    its own teacher.
    """
    some = board(("taught", ("teacher",)), ("teacher", ()), ("plain", ()))
    teacher, plain, other = (some.take(slot) for slot in range(3))
    assert [one.key for one in (teacher, plain, other)] == [
        ("teacher", 0),
        ("plain", 0),
        ("teacher", 1),
    ]
    some.done(teacher)
    last = some.take(0)
    assert last.key == ("teacher", 2)  # it has compiled that cell
    assert some.take(1).key == ("plain", 1)
    some.done(other)
    assert [some.take(2).key for _ in range(3)] == [("taught", 0), ("taught", 1), ("plain", 2)]
    threading.Timer(0.2, some.done, [last]).start()  # what taught/2 waits for
    assert some.take(2).key == ("taught", 2)
    assert some.take(0) is None


def test_a_run_that_is_given_up_takes_those_it_teaches_with_it():
    some = board(("far", ("near",)), ("near", ("teacher",)), ("teacher", ()), seeds=2)
    lost = some.take(0)
    some.lost(lost, "no numbers")
    assert some.failed == {
        "teacher/0": "no numbers", "near/0": "its teacher teacher/0 failed", "far/0": "its teacher near/0 failed",
    }  # fmt: skip
    assert [some.take(0).key, some.progress.lost] == [
        ("teacher", 1),
        {("teacher", 0), ("near", 0), ("far", 0)},
    ]
    some.stopping.set()
    assert some.take(0) is None


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("while True: print('noise', flush=True); print('done', input(), flush=True)", (True, "")),
        ("while True: print('failed', input(), 'the disk is full', flush=True)", (False, "the disk is full")),
        ("input(); exit('killed')", (False, "its process ended with status 1 (killed)")),
        ("exit(3)", (False, "its process ended with status 3 (no error message)")),
    ],
    ids=["done", "failed", "dies", "dies at once"],
)  # fmt: skip
def test_what_a_process_answers(tmp_path, code, answer):
    process = workers.Process([sys.executable, "-c", code], dict(os.environ), tmp_path)
    plain = board(("plain", ())).take(0)
    assert process.ask(plain) == answer
    with pytest.raises(RuntimeError, match=re.escape(answer[1]) or "it wrote no result card"):
        process.run(plain)
    process.close()


def test_a_process_that_was_given_bad_input_is_not_tried_again(tmp_path):
    words = [
        sys.executable,
        "-c",
        "import sys; print('error: no such field', file=sys.stderr); sys.exit(2)",
    ]
    process = workers.Process(words, dict(os.environ), tmp_path)
    with pytest.raises(runner.Permanent, match=r"ended with status 2 \(error: no such field\)"):
        process.run(board(("plain", ())).take(0))
    process.close()


class Worker:
    """A worker whose runs fail as often as `faults` says: run -> exceptions that are left."""

    def __init__(self, faults, dead=False):
        self.faults, self.dead = faults, dead
        self.asked, self.closed, self.stopped = [], False, False

    def run(self, planned):
        self.asked.append(planned.name)
        left = self.faults.get(planned.name)
        if left:
            raise left.pop(0)
        return planned.name

    def ended(self):
        return self.dead

    def stop(self):
        self.stopped = True

    def close(self):
        self.closed = True


def executed(some, jobs=1, faults=None, dead=False):
    """(what failed, the workers that were started) of a board's runs."""
    started = []

    def start(slot, cell):
        started.append(Worker(faults or {}, dead))
        return started[-1]

    return runner.execute(some.waiting, some.progress, jobs, start), started


def test_a_run_that_fails_is_tried_again_by_a_new_worker():
    some = board(("plain", ()), seeds=2)
    failed, started = executed(some, faults={"plain/0": [OSError("the disk\nis full")]})
    assert failed == {}
    assert some.progress.said == ["plain/0 failed, trying again: the disk is full"]
    assert some.progress.cards == ["plain/0", "plain/1"]
    assert [worker.asked for worker in started] == [["plain/0"], ["plain/0", "plain/1"]]
    assert all(worker.closed for worker in started)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_fails_twice_is_given_up_and_the_others_go_on(jobs):
    some = board(("student", ("teacher",)), ("teacher", ()), ("plain", ()), seeds=1)
    failed, _ = executed(some, jobs, {"teacher/0": [OSError("x" * 400), OSError("y" * 400)]})
    assert failed == {"teacher/0": "y" * 400, "student/0": "its teacher teacher/0 failed"}
    assert some.progress.said == [
        f"teacher/0 failed, trying again: {'x' * 300}",
        f"teacher/0 failed, giving up: {'y' * 300}",
        "student/0 skipped: its teacher teacher/0 failed",
    ]
    assert some.progress.cards == ["plain/0"]
    assert some.progress.lost == {("teacher", 0), ("student", 0)}


def test_a_run_that_another_attempt_cannot_help_is_given_up_at_once():
    some = board(("plain", ()), seeds=1)
    failed, (worker,) = executed(some, faults={"plain/0": [runner.Permanent("no such field")]})
    assert failed == {"plain/0": "no such field"}
    assert some.progress.said == ["plain/0 failed, giving up: no such field"]
    assert worker.asked == ["plain/0"]


def test_a_worker_that_has_ended_is_replaced():
    some = board(("plain", ()))
    _, started = executed(some, dead=True)
    assert some.progress.cards == ["plain/0", "plain/1", "plain/2"]
    assert len(started) == 3


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_study_that_is_stopped_loses_nothing(jobs):
    some = board(("plain", ()), seeds=2)
    started = []

    class Terminated(Worker):
        def run(self, planned):
            os.kill(os.getpid(), signal.SIGTERM)
            until = time.monotonic() + 10
            while not self.stopped and time.monotonic() < until:
                time.sleep(0.01)
            raise OSError("its process ended with status 0")

    def start(slot, cell):
        started.append(Terminated({}))
        return started[-1]

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(signals.Interrupted, match="terminated"):
        runner.execute(some.waiting, some.progress, jobs, start)
    assert (some.progress.said, some.progress.lost) == ([], set())
    assert all(worker.stopped and worker.closed for worker in started)
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_breaks_a_slot_ends_the_study_and_stops_the_other_workers():
    some = board(("plain", ()), ("other", ()))
    waiting = threading.Event()

    class Waits(Worker):
        def run(self, planned):
            waiting.set()
            until = time.monotonic() + 10
            while not self.stopped and time.monotonic() < until:
                time.sleep(0.01)
            raise OSError("stopped")

    started = Waits({})

    def start(slot, cell):
        if cell == "plain":
            return started
        waiting.wait(10)
        raise OSError("no more processes")

    with pytest.raises(OSError, match="no more processes"):
        runner.execute(some.waiting, some.progress, 2, start)
    assert started.stopped
    assert started.closed


def test_a_process_answers_for_each_run_and_leaves_trying_again_to_who_asked(
    file, tmp_path, monkeypatch
):
    first, second = planned(file)[-2:]
    asked, answers = [], []

    def train(one, folder, compiled, *, trust):
        asked.append(one.name)
        if one is first:
            raise OSError("the disk\nis full")
        return card(one, np.random.default_rng(0))

    monkeypatch.setattr(run, "train", train)
    here = workers.ThisProcess(tmp_path, answers.append)
    workers.answer_requests([first, second], here, ["plain/0\n", "plain/1\n"], answers.append)
    assert answers == ["failed plain/0 the disk is full", "done plain/1"]
    assert asked == ["plain/0", "plain/1"]
    here.stop()
    with pytest.raises(runner.Stopped):
        workers.answer_requests([first, second], here, ["plain/0\n"], answers.append)


@pytest.mark.nightly
def test_runs_side_by_side_go_on_where_one_dies(file, tmp_path, capsys):
    """Two processes; the teacher's weights are no numbers after a step, and nothing else depends on
    it.
    """
    file.write_text(
        file.read_text().replace('"seed": 7', '"seed": 7, "optimizer.learning_rate": 1e30')
    )
    assert command.main([str(file), f"--workdir={tmp_path / 'w'}", "--jobs=2"]) == 1
    said = capsys.readouterr().err
    assert "teacher/0 failed, trying again: step 2: loss nan" in said
    assert "error: teacher/0 failed: step 2: loss nan" in said
    assert "error: student/1 failed: its teacher teacher/0 failed" in said
    assert {path.name for path in (tmp_path / "w/cards").iterdir()} == {
        f"plain-{place}.{ending}" for place in range(2) for ending in ("json", "npz")
    }
    assert json.loads((tmp_path / "w/results.json").read_text())["cells"][0]["n"] == 2


@pytest.mark.nightly
def test_a_study_that_is_terminated_keeps_what_is_done_and_goes_on(file, tmp_path):
    """SIGTERM to two cells side by side, each of which saves."""
    # what is saved is saved by the signal
    long = "'train.epochs': 4000.0, 'train.save_every_epochs': 0.0"
    file.write_text(file.read_text().replace("'train.epochs': 1.0", long))
    words = [
        sys.executable,
        "-m",
        "ldl_jax.study",
        str(file),
        f"--workdir={tmp_path / 'w'}",
        "--jobs=2",
    ]
    place = tmp_path / "w/runs"
    running = subprocess.Popen([*words, "--only=plain,teacher"], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 100
    while len(list(place.glob("*-0/metrics.jsonl"))) < 2 and time.monotonic() < until:
        time.sleep(0.2)
    time.sleep(2)
    running.terminate()
    said = running.communicate(timeout=60)[1]
    assert running.returncode == 0
    assert "terminated: run the same command again to continue" in said
    assert not (tmp_path / "w/cards").exists()
    assert len(list(place.glob("*-0/checkpoints/*.sha256"))) == 2
    assert "terminated: saved at step" in (tmp_path / "w/logs/plain-0.txt").read_text()
