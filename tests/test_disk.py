"""A disk that is full, or may not be written: the run says so, goes on, and saves again when it
can.
"""

import errno
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from ldl_jax import files
from ldl_jax import workdir as run
from ldl_jax.checkpoint import Checkpoints, disk_fault
from ldl_jax.main import main
from ldl_jax.training import log

ROOT = Path(__file__).parent.parent
TOTAL = 300  # steps
COMMAND = [
    sys.executable, "-m", "ldl_jax.main", "--config=configs/digits_online.py", "--config.model.name=tests.tiny",
    "--config.eval.report=false",
    "--config.data.holdout=100", "--config.data.batch_size=128", "--config.train.save_every_epochs=2.0",
    f"--config.train.max_steps={TOTAL}", "--config.train.eval_every_epochs=10.0", "--config.train.log_every_steps=1",
]  # fmt: skip


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a file")


def test_lines_wait_for_the_disk_and_keep_their_order(tmp_path, monkeypatch, capsys):
    writer = log.Log(tmp_path, total_steps=10)
    writer.scalars(1, {"loss": 1.0})
    with monkeypatch.context() as patch:
        patch.setattr(log, "open", full, raising=False)
        for step in (2, 3):
            writer.scalars(step, {"loss": float(step)})
    assert [row["step"] for row in run.read_log(tmp_path / run.METRICS)] == [1]
    writer.scalars(4, {"loss": 4.0})
    assert [row["step"] for row in run.read_log(tmp_path / run.METRICS)] == [1, 2, 3, 4]
    monkeypatch.setattr(log, "open", full, raising=False)
    writer.timing(5, {"seconds": 1.0})
    writer.close()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3  # once for each outage, and once for what is lost
    assert (
        "metrics.jsonl cannot be written (No space left on device); its lines are kept in memory until it can"
        in said[0]
    )
    assert "timing.jsonl: the last lines (1) could not be written and are lost" in said[2]


def test_a_save_that_fails_is_told_and_the_next_one_is_tried(tmp_path, monkeypatch, capsys):
    checkpoints = Checkpoints(tmp_path, every_steps=1, keep=1)
    state = {"w": jnp.arange(8.0)}
    checkpoints.save(1, state, {})
    checkpoints.confirm(1)
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_json", full)
        checkpoints.save(2, state, {})
        checkpoints.confirm(2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", full)
        checkpoints.save(3, state, {})
        with pytest.raises(OSError, match="the checkpoint of step 3 could not be written"):
            checkpoints.confirm(3)
    # the last good one, without checksums
    assert {path.name for path in tmp_path.iterdir()} == {"2", "1.sha256"}
    checkpoints.save(4, state, {})
    checkpoints.confirm(4)
    checkpoints.close()
    assert {path.name for path in tmp_path.iterdir()} == {"4", "4.sha256"}
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert (
        "2.sha256 cannot be written (No space left on device); the next save tries again" in said[0]
    )
    assert (
        "checkpoint 3 cannot be written (No space left on device); training continues, and"
        in said[1]
    )


def test_a_fault_that_is_not_the_disks_is_not_taken_for_one(tmp_path):
    assert (
        disk_fault(ValueError("RESOURCE_EXHAUSTED: no [os_error_code='28']"))
        == "No space left on device"
    )
    assert disk_fault(TypeError("no")) is None
    checkpoints = Checkpoints(tmp_path, every_steps=1, keep=1)
    checkpoints.save(1, {"w": jnp.arange(8.0)}, {"no JSON": object()})
    with pytest.raises(TypeError):
        checkpoints.confirm(1)


@pytest.mark.slow
def test_what_keeps_tracebacks_out_is_installed_once_and_not_by_an_import(tmp_path):
    code = "import sys; before = sys.unraisablehook; import ldl_jax.checkpoint; assert sys.unraisablehook is before"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    Checkpoints(tmp_path, every_steps=1, keep=1)
    before = (
        sys.unraisablehook,
        list(logging.getLogger("absl").filters),
        list(logging.getLogger("asyncio").filters),
    )
    Checkpoints(tmp_path, every_steps=1, keep=1)
    after = (
        sys.unraisablehook,
        logging.getLogger("absl").filters,
        logging.getLogger("asyncio").filters,
    )
    assert after == before


@pytest.mark.slow
def test_results_that_cannot_be_written_end_the_command_in_one_sentence(
    tmp_path, monkeypatch, capsys
):
    command = [
        *COMMAND[3:8],
        "--config.train.max_steps=2",
        "--config.data.batch_size=80",
        f"--workdir={tmp_path}",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        assert main(command) == 1
    said = capsys.readouterr().err
    assert f"warning: {tmp_path / 'best.npz'} cannot be written (No space left on device)" in said
    assert (
        f"error: {tmp_path / 'model.npz'}: No space left on device; run the same command again"
        in said
    )
    assert "Traceback" not in said, said
    assert not list(tmp_path.rglob("*.tmp*"))
    assert main(command) == 0
    assert (tmp_path / "summary.json").exists()


def started(workdir, out, *before):
    one_device = os.environ["XLA_FLAGS"].replace("count=8", "count=1")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": one_device}
    with open(out, "w") as file:
        command = [*before, *COMMAND, f"--workdir={workdir}"]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)


def wait_for(process, condition, seconds=50):
    limit = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended"
        assert time.monotonic() < limit
        time.sleep(0.005)


def saved(workdir):
    return sorted(int(path.stem) for path in (workdir / "checkpoints").glob("*.sha256"))


def outage(out):
    """Whether a save has failed and the log's lines wait."""
    said = out.read_text()
    return "training continues" in said and "its lines are kept" in said


def check(process, workdir, out, reason):
    """The run ended well, told each outage in warnings, and nothing that it had to record is
    missing.
    """
    assert process.wait(50) == 0
    said = out.read_text()
    assert (
        f"cannot be written ({reason}); training continues, and the next save tries again" in said
    )
    assert said.count("metrics.jsonl cannot be written") == 1
    assert "Traceback" not in said, said
    assert "never awaited" not in said
    steps = [row["step"] for row in run.read_log(workdir / run.METRICS) if "train/loss" in row]
    assert steps == list(range(1, TOTAL + 1))
    assert saved(workdir)[-1] == TOTAL
    assert not list(workdir.rglob("*tmp*"))
    assert (workdir / "summary.json").exists()


@pytest.mark.nightly
def test_a_disk_that_fills_up_and_is_cleared(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        workdir = disk / "run"
        process = started(workdir, tmp_path / "said")
        wait_for(process, lambda: len(saved(workdir)) > 1)
        with open(disk / "filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                before = saved(workdir)
        wait_for(process, lambda: outage(tmp_path / "said"))
        assert before[-1] in saved(workdir)
        (disk / "filler").unlink()
        check(process, workdir, tmp_path / "said", "No space left on device")
    finally:
        process.kill()
        process.wait()
        subprocess.run(["umount", disk], check=True)


# root gives up its right to write everywhere (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH) and runs a
# command
ORDINARY = (
    "import ctypes, os, sys; [ctypes.CDLL(None).prctl(24, right, 0, 0, 0) for right in (1, 2)]; "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


@pytest.mark.nightly
def test_a_folder_that_may_not_be_written_for_a_while(tmp_path):
    workdir = tmp_path / "run"
    process = started(workdir, tmp_path / "said", sys.executable, "-c", ORDINARY)
    try:
        wait_for(process, lambda: len(saved(workdir)) > 1)
        places = [workdir, workdir / "checkpoints", workdir / run.METRICS, workdir / run.TIMING]
        for path in places:
            path.chmod(path.stat().st_mode & ~0o222)
        before = saved(workdir)
        wait_for(process, lambda: outage(tmp_path / "said"))
        assert before[-1] in saved(workdir)
        for path in places:
            path.chmod(path.stat().st_mode | 0o200)
        check(process, workdir, tmp_path / "said", "Permission denied")
    finally:
        process.kill()
        process.wait()
