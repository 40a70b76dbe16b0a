"""Results replace earlier ones as a whole, and a run is finished only with files that belong
together.
"""

import contextlib
import json
import os
import shutil

import numpy as np
import pytest

from ldl_jax import config, files
from ldl_jax import workdir as run
from ldl_jax.errors import Busy
from ldl_jax.evaluation import runs
from ldl_jax.evaluation.load import load_weights
from ldl_jax.training import start
from ldl_jax.workdir import finished

SPEC = {
    "num_classes": 3,
    "classes": ["a", "b", "c"],
    "shape": [4, 4, 1],
    "num_examples": 9,
    "mean": [0.5],
    "std": [0.2],
    "model": {"name": "cifar_resnet", "options": {"depth": 8}, "dtype": "float32"},
}
STARTS = {"starts": [{"inputs": {}, "threads": 2}]}
CHANGES = ("replace", "unlink", "mkdir", "rmdir")  # of os: every change but the contents of files


class Killed(BaseException):
    """What a killed process would not see."""


def variables(value):
    kernel = np.full((40, 3), value, np.float32)
    return {"params": {"fc": {"kernel": kernel}}, "batch_stats": {}}


def write(folder, value, calibrated=True):
    """The results of an evaluation whose every number is `value`."""
    with finished.replacing(folder, optional=finished.OPTIONAL) as new:
        run.save_weights(new / run.WEIGHTS, variables(value), step=7)
        arrays = {"logits": np.full((9, 3), value, np.float32), "label": np.arange(9) % 3}
        files.write_npz(new / "predictions/test.npz", **arrays, index=np.arange(9))
        if calibrated:
            files.write_json(new / run.CALIBRATION, {"value": value})
        names = [run.WEIGHTS, "predictions/test.npz"]
        digests = finished.digests(folder, [run.NETWORK]) | finished.digests(new, names)
        summary = {"value": value, "weights": "raw", finished.DIGESTS: digests}
        files.write_json(new / run.SUMMARY, summary)


def value_of(folder):
    """The number that all results have; fails if they are of several evaluations."""
    weights = run.read_weights(folder / run.WEIGHTS)[0]["params"]["fc"]["kernel"]
    values = {*weights.ravel().tolist(), run.read_json(folder / run.SUMMARY)["value"]}
    with np.load(folder / "predictions/test.npz") as predictions:
        values |= set(predictions["logits"].ravel().tolist())
    if (folder / run.CALIBRATION).exists():
        values.add(run.read_json(folder / run.CALIBRATION)["value"])
    (value,) = values
    return value


@pytest.fixture
def folder(tmp_path):
    """A finished run as far as it is looked at here."""
    place = tmp_path / "run"
    files.write(place / run.CONFIG, config.to_json(config.default()))
    files.write_json(place / run.NETWORK, SPEC)
    files.write_json(place / run.VERSIONS, STARTS)
    write(place, 1.0)
    return place


def killed_at(number, work):
    """Whether `work` made that many changes of the file system, after which none came through."""
    count = 0

    def counted(original):
        def change(*words, **options):
            nonlocal count
            count += 1
            if count >= number:
                raise Killed
            return original(*words, **options)

        return change

    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGES:
            patch.setattr(os, name, counted(getattr(os, name)))
        try:
            work()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("calibrated", [True, False])
def test_killed_at_any_step_the_results_are_the_old_ones_or_the_run_is_not_finished(
    folder, tmp_path, calibrated
):
    states = []
    number = 1
    while True:
        place = shutil.copytree(folder, tmp_path / f"killed-{number}")
        if not killed_at(number, lambda place=place: write(place, 2.0, calibrated)):
            break
        is_new = (place / finished.STAGING / run.SUMMARY).exists() or "incomplete" in states
        if finished.is_finished(place):
            states.append("whole")
            assert finished.is_measured(place)
            # the last steps delete the empty folder of new results, which are in place by then
            assert value_of(place) == (2.0 if "incomplete" in states else 1.0)
        else:
            states.append("incomplete")
            for use in (load_weights, runs.read):
                with pytest.raises(ValueError, match=r"is not finished: .* --mode=eval$") as error:
                    use(place)
                assert str(error.value).startswith(str(place))
        finished.complete(place)
        assert finished.is_finished(place)
        assert value_of(place) == (2.0 if is_new else 1.0)
        assert (place / run.CALIBRATION).exists() == (calibrated or not is_new)
        assert not list(place.glob(".*"))
        number += 1
    assert value_of(place) == 2.0
    assert (place / run.CALIBRATION).exists() == calibrated
    assert not list(place.rglob(".*"))
    # every file is written and renamed once in the folder of new results, then put in place
    assert states.count("incomplete") >= 4
    assert states.count("whole") >= 5


def test_an_evaluation_that_fails_leaves_the_earlier_results(folder):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def fail():
        with finished.replacing(folder) as new:
            files.write(new / run.REPORT, "half")
            raise OSError(28, "No space left on device", str(new / "predictions" / "test.npz"))

    with pytest.raises(OSError, match="No space left") as error:
        fail()
    assert error.value.filename == str(folder / "predictions" / "test.npz")
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_results_do_not_make_a_deleted_directory_again(folder):
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError), finished.replacing(folder):
        pass
    assert not folder.exists()


def test_a_planted_link_takes_no_results_elsewhere(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.rmtree(folder / "predictions")
    for name in ("predictions", finished.STAGING):
        (folder / name).symlink_to(elsewhere)
    write(folder, 2.0)
    assert value_of(folder) == 2.0
    assert not any(elsewhere.iterdir())


@pytest.mark.parametrize("name", [run.WEIGHTS, run.NETWORK, "predictions/test.npz"])
def test_files_of_other_evaluations_are_noticed(folder, name):
    """Of the same shapes, and so of the same size."""
    size = (folder / name).stat().st_size
    if name == run.WEIGHTS:
        run.save_weights(folder / name, variables(3.0), step=7)
    elif name == run.NETWORK:
        files.write_json(folder / name, {**SPEC, "num_examples": 8})
    else:
        with np.load(folder / name) as stored:
            files.write_npz(folder / name, **{**stored, "logits": stored["logits"] + 1})
    assert (folder / name).stat().st_size == size
    assert not finished.is_finished(folder)
    assert not finished.is_measured(folder)
    with pytest.raises(ValueError, match=f"its {name} is not the one that summary.json was made"):
        load_weights(folder)


def test_a_flipped_bit_in_the_weights_is_found_when_they_are_read(folder):
    content = bytearray((folder / run.WEIGHTS).read_bytes())
    content[content.index(np.full(4, 1.0, np.float32).tobytes()) + 2] ^= 1
    (folder / run.WEIGHTS).write_bytes(content)
    with pytest.raises(ValueError, match="Bad CRC-32"):
        load_weights(folder)


def test_what_makes_a_run_finished(folder, tmp_path):
    summary = run.read_json(folder / run.SUMMARY)
    # the predictions may go: the network remains
    shutil.rmtree(folder / "predictions")
    assert finished.is_finished(folder)
    assert not finished.is_measured(folder)
    # measured before the last step, beside weights of an earlier end
    del summary[finished.DIGESTS][run.WEIGHTS]
    files.write_json(folder / run.SUMMARY, summary)
    assert "was made before its last step" in finished.fault(folder)
    # a version without digests
    del summary[finished.DIGESTS]
    files.write_json(folder / run.SUMMARY, summary)
    assert finished.is_finished(folder)
    for damaged in ("{", "[]", '{"digests": 3}'):
        files.write(folder / run.SUMMARY, damaged)
        assert "its summary.json is damaged" in finished.fault(folder)
    # digests of files elsewhere are nothing to it
    own = finished.digests(folder, [run.WEIGHTS])
    files.write_json(folder / run.SUMMARY, {finished.DIGESTS: {**own, "../other.npz": "0"}})
    files.write(tmp_path / "other.npz", "")
    assert finished.is_finished(folder)
    (folder / run.SUMMARY).unlink()
    assert "it has weights but no summary.json" in finished.fault(folder)
    c = config.default()
    c.data.name = "in_memory"
    files.write(folder / run.CONFIG, config.to_json(c))
    assert finished.fault(folder).endswith("call ldl_jax.train again with the same arrays")
    # the weights and the network alone, copied to another machine for their students
    (folder / run.CONFIG).unlink()
    assert finished.fault(folder) is None
    assert not finished.is_finished(folder)
    assert "is not a run directory: it has no model.npz" in finished.fault(tmp_path / "none")


def test_an_import_is_whole_or_done_again(tmp_path):
    number = 1
    completed = 0
    while True:
        place = tmp_path / f"{number}"
        place.mkdir()

        def work(place=place):
            origin = {"file": "w.npz", "sha256": "0"}
            start.write_imported(place, config.default(), SPEC, variables(1.0), origin)

        if not killed_at(number, work):
            break
        was_free = not (place / run.CONFIG).exists()
        with contextlib.suppress(ValueError):  # it holds a run by now
            start.check_free(place)
        if (place / run.CONFIG).exists():
            completed += was_free
            assert finished.fault(place) is None
        else:
            assert not (place / run.WEIGHTS).exists()
            work()
        number += 1
    assert completed >= 2
    recorded = run.read_json(place / run.NETWORK)["imported"]
    assert recorded["digests"] == finished.digests(place, [run.WEIGHTS])
    run.save_weights(place / run.WEIGHTS, variables(2.0), step=0)
    with pytest.raises(ValueError, match=r"its model.npz is not the one"):
        load_weights(place)


def check(folder, *, saved):
    starting = folder, config.default(), SPEC, {}
    start.check(*starting, extend=False, saved=saved)


def test_weights_are_not_overwritten_and_strange_checkpoints_not_resumed(folder):
    with pytest.raises(ValueError, match=r"finished at step 7 and has no checkpoints left; eval"):
        check(folder, saved=False)
    (folder / run.SUMMARY).unlink()
    with pytest.raises(
        ValueError, match=r"reached step 7, but whose results are incomplete; .*eval"
    ):
        check(folder, saved=False)
    check(folder, saved=True)
    (folder / run.CONFIG).unlink()
    check(folder, saved=False)
    with pytest.raises(ValueError, match=r"has checkpoints but no config.json"):
        check(folder, saved=True)


def test_a_directory_that_was_deleted_moved_or_replaced_is_noticed(folder, tmp_path):
    with run.locked(folder) as lock:
        start.check_present(folder, lock)
        start.check_present(folder, None)  # a process that writes nothing
        folder.rename(tmp_path / "moved")
        with pytest.raises(start.Deleted, match=r"run was deleted or moved .*\.lock is missing"):
            start.check_present(folder, lock)
        # another run of the same name
        shutil.copytree(tmp_path / "moved", folder)
        with run.locked(folder), pytest.raises(start.Deleted):
            start.check_present(folder, lock)
        shutil.rmtree(folder)
        (tmp_path / "moved").rename(folder)
        start.check_present(folder, lock)
        with pytest.raises(Busy), run.locked(folder):
            pass
        (folder / run.NETWORK).unlink()
        with pytest.raises(start.Deleted, match=r"\(network.json is missing\)") as error:
            start.check_present(folder, lock)
    assert error.value.status == 1


def test_the_threads_of_xla_are_the_cores_that_a_process_may_use(monkeypatch):
    monkeypatch.setattr("jax.local_device_count", lambda: 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 7}, raising=False)
    monkeypatch.delenv("NPROC", raising=False)
    assert run.cpu_threads() == 3
    monkeypatch.setenv("NPROC", "2")
    assert run.cpu_threads() == 2
    assert run.versions()["threads"] == 2
    monkeypatch.setattr("jax.local_device_count", lambda: 8)
    assert run.cpu_threads() == 8
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert run.cpu_threads() is None


@pytest.mark.parametrize(
    ("threads", "step", "expected"),
    [
        ([2, 1], 5, "resuming with 1 CPU threads after 2: "),
        ([1, 2, 2], 5, ""),
        ([2, 1], 0, ""),
        ([2], 5, ""),
        ([None, 2], 5, ""),
    ],
)
def test_another_number_of_threads_is_told_once(threads, step, expected):
    starts = [{"threads": count} for count in threads]
    note = start.thread_note(starts, step)
    assert note.startswith(expected)
    assert bool(note) == bool(expected)
    assert start.thread_note([{}, {"threads": 2}], step) == ""


def test_a_digest_reads_the_end_of_an_npz_only(tmp_path, monkeypatch):
    path = files.write_npz(tmp_path / "large.npz", a=np.zeros(2_000_000), b=np.arange(3))
    read = []
    original = open

    def counted(*words, **options):
        file = original(*words, **options)
        before = file.read

        def reading(*sizes):
            data = before(*sizes)
            read.append(len(data))
            return data

        if words[0] == str(path):
            file = CountedFile(file, reading)
        return file

    class CountedFile:
        def __init__(self, file, reading):
            self.file = file
            self.read = reading

        def __getattr__(self, name):
            return getattr(self.file, name)

    monkeypatch.setattr("zipfile.io.open", counted)
    one = finished.digest(path)
    assert read
    assert sum(read) < 100_000
    files.write_npz(path, a=np.zeros(2_000_000), b=np.array([0, 1, 3]))
    assert finished.digest(path) != one
    files.write(path, json.dumps({}))
    assert finished.digest(path) == ""
