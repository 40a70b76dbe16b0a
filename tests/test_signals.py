"""Ctrl-C, SIGTERM and SIGHUP: what is running is saved, and every command ends with a sentence."""
# ruff: noqa: PT012 (a signal arrives within a block)

import errno
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import ldl_jax as ldl
from ldl_jax import cli, signals, workdir
from ldl_jax.signals import Interrupted
from ldl_jax.study import runner, workers
from ldl_jax.training import loop, results

ROOT = Path(__file__).parent.parent
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}
each_signal = pytest.mark.parametrize("number", STATUS, ids=lambda number: number.name)


@pytest.fixture(autouse=True)
def unchanged():
    """Handlers as they are, or would be in a process of its own; every test leaves them so."""
    before = {number: signal.getsignal(number) for number in STATUS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    expected = {number: signal.getsignal(number) for number in STATUS}
    yield
    assert {number: signal.getsignal(number) for number in STATUS} == expected
    for number, handler in before.items():
        signal.signal(number, handler)


@each_signal
def test_a_signal_raises_where_it_arrives(number):
    with pytest.raises(KeyboardInterrupt) as caught, signals.raised():
        signal.raise_signal(number)
        pytest.fail("the block went on")
    assert str(caught.value) == f"{WORDS[number]}: run the same command again"
    assert (caught.value.number, caught.value.status) == (number, STATUS[number])
    saved = Interrupted(number, saved=True)
    assert saved.status == (130 if number == signal.SIGINT else 0)


@each_signal
def test_a_signal_waits_for_the_end_of_the_block(number):
    seen = []
    with pytest.raises(Interrupted) as caught, signals.raised():
        with signals.deferred(seen.append) as held:
            assert held.number is None
            signal.raise_signal(number)
            seen.append(held.number)
        pytest.fail("the end did not raise")
    assert seen == [number, number]
    assert caught.value.number == number


def test_only_the_innermost_block_reacts_and_only_once():
    seen = []
    # Schedulers send SIGTERM several times, a closing terminal SIGHUP twice.
    with (
        pytest.raises(Interrupted, match="terminated"),
        signals.deferred(seen.append),
        signals.raised(),
        signals.deferred(),
    ):
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGHUP):
            signal.raise_signal(number)
    assert seen == []


def test_an_error_of_the_block_is_not_replaced():
    with pytest.raises(OSError, match="disk"), signals.deferred():
        signal.raise_signal(signal.SIGTERM)
        raise OSError(errno.ENOSPC, "disk")


def test_what_was_ignored_at_the_start_stays_ignored():
    for number in STATUS:
        before = signal.signal(number, signal.SIG_IGN)
        with signals.raised(), signals.deferred() as held:
            signal.raise_signal(number)
            assert signal.getsignal(number) is signal.SIG_IGN
        assert held.number is None
        assert signal.signal(number, before) is signal.SIG_IGN


def test_the_handler_of_the_caller_is_told_of_what_it_has_missed():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    with pytest.raises(Interrupted), signals.raised(), signals.deferred():
        signal.raise_signal(signal.SIGTERM)
        assert seen == []
    assert seen == [signal.SIGTERM]
    signal.signal(signal.SIGTERM, before)


def test_a_cleared_signal_does_not_end_the_block_and_the_next_one_does():
    with signals.raised():
        with signals.deferred() as held:
            signal.raise_signal(signal.SIGTERM)
            held.clear()
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGHUP)


def test_other_threads_leave_signals_to_the_caller():
    handlers = []

    def work():
        with signals.raised(), signals.deferred() as held:
            handlers.append(signal.getsignal(signal.SIGTERM))
            held.clear()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]


def test_a_forked_process_ends_as_if_there_were_no_handlers():
    # In a process without threads, which may be forked.
    code = """import os, signal, time
from ldl_jax import signals
with signals.deferred():
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, b"ready")
        time.sleep(60)
    os.read(reading, 5)
    os.kill(child, signal.SIGTERM)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


BUSY = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 1 << 28)"  # handlers wait for it
IDLE = "import time; [time.sleep(0.01) for _ in range(6000)]"


@pytest.mark.parametrize(("work", "status"), [(IDLE, -signal.SIGINT), (BUSY, 130)])
def test_a_second_ctrl_c_ends_at_once_whatever_the_process_does(work, status):
    code = f"from ldl_jax import signals\nwith signals.deferred():\n print(flush=True); {work}"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)  # saving has begun
    for _ in range(2):
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == status
    assert b"Traceback" not in said


def test_ctrl_c_during_the_imports_of_a_command_is_a_sentence():
    code = "import sys; sys.orig_argv = {}; import ldl_jax; raise KeyboardInterrupt"
    for words, end in (
        (["python", "-m", "ldl_jax.predict"], "again\n"),
        (["python"], "Interrupt\n"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code.format(words)],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == -signal.SIGINT
        assert done.stderr.endswith(end)
        assert ("Traceback" in done.stderr) == (words == ["python"])


@each_signal
def test_a_command_ends_with_a_sentence(number, capsys):
    assert cli.status(lambda: signal.raise_signal(number)) == STATUS[number]
    assert capsys.readouterr().err == f"{WORDS[number]}: run the same command again\n"

    def saved():
        raise Interrupted(number, saved=True, told=True)

    assert cli.status(saved) == (130 if number == signal.SIGINT else 0)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("module", "work", "argv"),
    [
        ("main", "_run", ["--config=digits_online"]),
        ("evaluate", "evaluate", ["a.npz"]),
        ("compare", "write", ["a"]),
        ("predict", "_run_command", ["a", "b.png"]),
        ("convert", "_run_command", ["export"]),
        ("bench.__main__", "_measured", ["step"]),
        ("study.__main__", "work", ["digits"]),
    ],
)
def test_every_command_does(module, work, argv, monkeypatch, capsys):
    command = importlib.import_module(f"ldl_jax.{module}")
    monkeypatch.setattr(command, work, lambda *_: signal.raise_signal(signal.SIGINT))
    assert command.main(argv) == 130
    said = capsys.readouterr().err
    assert said.startswith("interrupted: run the same command again")
    assert said.count("\n") == 1


class Messages(list):
    message = list.append


def saved_or(error=None):
    """Checkpoints of which each step is saved, or that of which `confirm` raises `error`."""

    def confirm(step):
        if error is not None:
            raise error

    return SimpleNamespace(confirm=confirm)


@pytest.mark.parametrize(
    ("step", "rest"), [(3, "to resume"), (10, "to measure and write the results")]
)
def test_the_loop_stops_after_a_step_and_says_how_to_go_on(step, rest):
    log = Messages()
    done = 0
    with pytest.raises(Interrupted) as caught:
        try:
            with loop._stopping(10) as stop_requested:
                for done in range(1, 11):
                    if done == step:
                        signal.raise_signal(signal.SIGTERM)
                    if stop_requested(range(done, done + 1)):
                        break
        except Interrupted as stop:
            raise loop._saved(stop, done, SimpleNamespace(total=10), saved_or(), log) from None
    assert log == [f"terminated: saved at step {step}; run the same command again {rest}"]
    assert (caught.value.saved, caught.value.told, caught.value.status) == (True, True, 0)


def test_what_is_not_saved_is_not_said_to_be():
    stop = Interrupted(signal.SIGINT)
    log = Messages()
    assert loop._saved(stop, 0, SimpleNamespace(total=10), saved_or(), log) is stop
    with pytest.raises(OSError, match="could not be written"):
        loop._saved(
            stop, 3, SimpleNamespace(total=10), saved_or(OSError("could not be written")), log
        )
    assert log == []


def test_several_processes_stop_at_the_step_they_agree_on(monkeypatch):
    """Ctrl-C and SIGHUP are handed to the handler of SIGTERM, which is JAX's."""
    handed_on = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: handed_on.append(number))
    monkeypatch.setattr(loop.mesh, "processes", lambda: 2)
    monkeypatch.setattr(loop.mesh, "agreed_to_stop", lambda steps: steps[-1] >= 5)
    with pytest.raises(Interrupted, match="terminated"), loop._stopping(10) as stop_requested:
        signal.raise_signal(signal.SIGHUP)
        assert not stop_requested(range(4, 5))
        assert stop_requested(range(5, 6))
    # After the last step there is nothing to stop.
    with loop._stopping(10) as stop_requested:
        signal.raise_signal(signal.SIGINT)
        assert not stop_requested(range(10, 11))
    assert handed_on == [signal.SIGTERM, signal.SIGTERM]
    signal.signal(signal.SIGTERM, before)


class Signalled:
    """A worker to whose only run a signal comes."""

    def __init__(self, number):
        self.number = number
        self.stopped = False

    def run(self, planned):
        signal.raise_signal(self.number)
        return planned.name

    def ended(self):
        return False

    def stop(self):
        self.stopped = True

    def close(self):
        pass


def execute(number, count):
    """(failed runs of a study of `count` runs whose first one gets a signal, runs with cards)."""
    runs = []
    for index in range(count):
        cell = SimpleNamespace(name="plain")
        planned = SimpleNamespace(key=("plain", index), name=f"plain/{index}", cell=cell, needs=())
        runs.append(planned)
    cards = []
    progress = SimpleNamespace(finished=lambda planned, card: cards.append(card), say=print)
    worker = Signalled(number)
    try:
        return runner.execute(runs, progress, 1, lambda slot, cell: worker), cards
    finally:
        assert worker.stopped
        assert cards == ["plain/0"]


def test_a_study_keeps_what_has_finished_and_reports_if_that_is_all():
    for number in (signal.SIGTERM, signal.SIGINT):
        with pytest.raises(Interrupted, match=WORDS[number]):
            execute(number, 2)
    assert execute(signal.SIGTERM, 1) == ({}, ["plain/0"])
    with pytest.raises(Interrupted, match="interrupted"):
        execute(signal.SIGINT, 1)


def test_a_worker_learns_that_its_parent_has_died():
    """The end of the pipe is the end of the requests, and during a run that of the parent."""
    for dies in (False, True):
        reading, writing = os.pipe()
        orphaned = threading.Event()
        answered = []
        with open(reading, "rb", buffering=0) as pipe:
            os.write(writing, b"plain/0\nplain/1\n")
            for line in workers.requests(pipe, orphaned.set):
                answered.append(line)
                if line == "plain/1\n" and dies:
                    os.close(writing)
                    assert orphaned.wait(10)
                elif line == "plain/1\n":
                    threading.Timer(0.2, os.close, [writing]).start()
        assert answered == ["plain/0\n", "plain/1\n"]
        assert orphaned.is_set() == dies


LABELS = np.arange(128) % 4
IMAGES = np.uint8(60 * LABELS[:, None, None, None] + np.arange(64).reshape(8, 8, 1))
FIELDS = {
    "model.name": "tests.tiny", "data.batch_size": 32, "data.holdout": 32, "train.epochs": 2, "eval.report": False,
}  # fmt: skip


def train(folder):
    data = (IMAGES, LABELS, IMAGES[:40], LABELS[:40])
    return ldl.train(
        "digits_online", workdir=folder, overrides=FIELDS, data=data, devices=jax.devices()[:1]
    )


@pytest.mark.nightly
def test_training_in_a_notebook_is_interrupted_in_the_loop_and_at_its_end(
    tmp_path, monkeypatch, capsys
):
    """Six steps; stopped after the third, then while the results are written, then never."""
    dispatched = loop.StepLog.dispatched

    def third(self, step, *rest):
        dispatched(self, step, *rest)
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(loop.StepLog, "dispatched", third)
        with pytest.raises(KeyboardInterrupt, match="interrupted: saved at step 3;"):
            train(tmp_path)
    assert not (tmp_path / workdir.WEIGHTS).exists()

    def drawn(*_):
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(results, "draw", drawn)
        run = train(tmp_path)
    assert not run.finished
    assert "train again to resume" in repr(run)
    assert not (tmp_path / workdir.SUMMARY).exists()
    said = capsys.readouterr().out
    assert "terminated: saved at step 6; run the same command again to measure" in said

    assert train(tmp_path).finished
    assert "resuming at step 6" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.tmp*"))


def wait_for(condition, seconds=120):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


def started(*words, **options):
    """A process of its own session, as in another terminal, where no signal is ignored."""
    space = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("count=8", "count=1"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=ROOT, env=space, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        **options,
    )  # fmt: skip


@pytest.mark.nightly
def test_a_run_is_saved_by_each_signal_and_goes_on(tmp_path):
    folder = tmp_path / "run"
    flags = [f"--config.{name}={value}" for name, value in FIELDS.items() if "epochs" not in name]
    words = ["ldl_jax.main", "--config=digits_online", f"--workdir={folder}", *flags]
    words += ["--config.train.epochs=4000.0", "--config.train.save_every_epochs=0.0"]
    words += ["--config.train.eval_every_epochs=0.0"]
    step = 0
    for number, status in ((signal.SIGINT, 130), (signal.SIGHUP, 0)):
        process = started(*words)
        log = folder / workdir.METRICS

        def lines(log=log):
            return log.read_text().count("\n") if log.exists() else 0

        before = lines()
        wait_for(lambda before=before: lines() > before)
        os.killpg(process.pid, number)
        said = process.communicate(timeout=60)[0]
        assert process.returncode == status, said
        assert "Traceback" not in said
        assert (f"resuming at step {step}" in said) == (step > 0)
        step = int(said.split(f"{WORDS[number]}: saved at step ")[1].split(";")[0])
        assert (folder / workdir.CHECKPOINTS / f"{step}.sha256").exists()


STUDY = """
from ldl_jax.config import Cell, Study
FIELDS = {fields}
def get_study():
    return Study("x", (Cell("a", "digits_online.py", FIELDS, 1), Cell("b", "digits_online.py", FIELDS, 1)))
"""


def children(parent):
    """The processes that a process has started, by /proc."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if int(text.rpartition(")")[2].split()[1]) == parent:
            found.append(int(status.parent.name))
    return found


def is_alive(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_a_study_takes_its_workers_along(tmp_path):
    """Ctrl-C saves both runs; when the parent is killed, its workers end within seconds."""
    long = {**FIELDS, "train.epochs": 4000.0, "train.save_every_epochs": 0.0}
    file = tmp_path / "study.py"
    file.write_text(STUDY.format(fields=long))
    folder = tmp_path / "w"
    words = ["ldl_jax.study", str(file), f"--workdir={folder}", "--jobs=2"]
    logs = [folder / "runs" / f"{cell}-0" / workdir.METRICS for cell in "ab"]

    process = started(*words)
    wait_for(lambda: all(log.exists() and log.stat().st_size for log in logs))
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    assert "interrupted: run the same command again to continue" in said
    assert "Traceback" not in said
    assert len(list(folder.glob("runs/*-0/checkpoints/*.sha256"))) == 2

    sizes = [log.stat().st_size for log in logs]
    process = started(*words)
    wait_for(lambda: all(log.stat().st_size > size for log, size in zip(logs, sizes, strict=True)))
    orphans = children(process.pid)
    assert len(orphans) == 2
    process.kill()
    process.communicate()
    # Within GRACE on a quiet machine; the rest is for a busy one.
    wait_for(lambda: not any(map(is_alive, orphans)), workers.GRACE + 60)
