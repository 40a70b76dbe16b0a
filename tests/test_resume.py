"""A run that is killed at any moment and started again is bitwise the run that was not."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from ldl_jax import workdir as run
from ldl_jax.checkpoint.checksums import Checksums
from ldl_jax.workdir import finished

ROOT = Path(__file__).parent.parent
COMMAND = [
    sys.executable, "-m", "ldl_jax.main", "--config=configs/digits_online.py", "--config.model.name=tests.tiny",
    "--config.eval.report=false",
    "--config.data.holdout=100", "--config.data.batch_size=128", "--config.train.save_every_epochs=0.3",
    "--config.train.epochs=10.0", "--config.train.eval_every_epochs=2.0", "--config.train.log_every_steps=7",
    "--config.optimizer.ema=0.9",
]  # fmt: skip
TOTAL = 100  # steps


@pytest.fixture(scope="module")
def environment():
    """One device; flags and compiled programs are those of all tests."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("count=8", "count=1"),
    }


def start(workdir, environment):
    with open(f"{workdir}.log", "a") as log_file:
        return subprocess.Popen(
            [*COMMAND, f"--workdir={workdir}"],
            cwd=ROOT,
            env=environment,
            stdout=log_file,
            stderr=log_file,
        )


def last_step(workdir):
    path = workdir / run.METRICS
    return max((row["step"] for row in run.read_log(path)), default=0) if path.exists() else 0


def wait_for(process, condition, seconds=240):
    """Until the condition holds or the process ends."""
    limit = time.monotonic() + seconds
    while process.poll() is None and not condition():
        assert time.monotonic() < limit
        time.sleep(0.002)


@pytest.fixture(scope="module")
def calm(tmp_path_factory, environment):
    workdir = tmp_path_factory.mktemp("runs") / "calm"
    assert start(workdir, environment).wait(240) == 0
    assert last_step(workdir) == TOTAL
    return workdir


def everything(workdir):
    """All numbers of a run by name, the whole state of its last checkpoint included."""
    found = {}
    for path in ("model.npz", "best.npz", "predictions/test.npz", "predictions/holdout.npz"):
        with np.load(workdir / path, allow_pickle=False) as file:
            found |= {f"{path}:{name}": file[name] for name in file.files}
    assert Checksums(workdir / "checkpoints").fault(TOTAL) is None
    state = ocp.StandardCheckpointer().restore(
        (workdir / "checkpoints" / str(TOTAL) / "state").absolute()
    )
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        found[jax.tree_util.keystr(path)] = np.asarray(leaf)
    assert any("rows" in name for name in found)
    assert any("opt_state" in name for name in found)
    return found


def check_equal(workdir, calm):
    assert (workdir / run.METRICS).read_text() == (calm / run.METRICS).read_text()
    here, there = everything(workdir), everything(calm)
    assert here.keys() == there.keys()
    for name in there:
        np.testing.assert_array_equal(here[name], there[name], err_msg=name)


def assert_survives_kills(workdir, calm, environment, kills, seed):
    """Kill at random steps, rising; every second time as soon as the files of a save begin to
    appear.
    """
    draw, killed = random.Random(seed), 0
    checkpoints = workdir / "checkpoints"
    while killed < kills:
        process = start(workdir, environment)
        # a random step of each part, so that all kills find their place
        part = (TOTAL - TOTAL // 8) / kills
        goal = max(last_step(workdir), int(part * (killed + draw.random())))
        wait_for(process, lambda goal=goal: last_step(workdir) > goal)
        if killed % 2:
            wait_for(process, lambda: any(checkpoints.glob("*tmp*")))
        time.sleep(draw.random() * 0.02)
        assert process.poll() is None, "the run ended before it was killed"
        process.kill()
        assert process.wait() == -signal.SIGKILL
        killed += 1
        if last_step(workdir) >= TOTAL - TOTAL // 8 - 20:
            break
    assert killed
    assert start(workdir, environment).wait(240) == 0
    check_equal(workdir, calm)
    return killed


@pytest.mark.slow
def test_killed_once(calm, tmp_path, environment):
    assert_survives_kills(tmp_path / "killed", calm, environment, kills=1, seed=0)


@pytest.mark.nightly
def test_an_evaluation_killed_while_it_writes_leaves_whole_results_or_none(
    calm, tmp_path, environment
):
    """Killed as soon as new results appear, or a moment later."""
    workdir = shutil.copytree(calm, tmp_path / "evaluated")
    command = [sys.executable, "-m", "ldl_jax.main", f"--workdir={workdir}", "--mode=eval"]
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    old = [workdir / name for name in (run.WEIGHTS, run.SUMMARY, "predictions/test.npz")]
    for pause in (0, 0.002, 0.05, 0.2):
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        wait_for(process, lambda: any(workdir.glob(f"{finished.STAGING}*")))
        time.sleep(pause)
        process.kill()
        process.wait()
        if finished.is_finished(workdir):
            assert finished.is_measured(workdir)
            assert all(path.read_bytes() == before[path] for path in old)
        else:
            assert "--mode=eval" in finished.fault(workdir)
    assert subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0
    assert finished.is_finished(workdir)
    assert not list(workdir.glob(f"{finished.STAGING}*"))
    check_equal(workdir, calm)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_killed_twenty_times(calm, tmp_path, environment):
    done, part = 0, 0
    while done < 20:
        done += assert_survives_kills(
            tmp_path / f"killed{part}", calm, environment, 20 - done, seed=part
        )
        part += 1


@pytest.mark.nightly
def test_terminated_it_saves_and_leaves_with_status_0(calm, tmp_path, environment):
    workdir = tmp_path / "terminated"
    process = start(workdir, environment)
    wait_for(process, lambda: last_step(workdir) > 30)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    stopped = Path(f"{workdir}.log").read_text()
    assert "terminated: saved at step" in stopped
    step = int(stopped.split("terminated: saved at step")[1].split(";")[0])
    assert (workdir / "checkpoints" / f"{step}.sha256").exists()
    assert not (workdir / "summary.json").exists()
    assert start(workdir, environment).wait(240) == 0
    assert f"resuming at step {step}" in Path(f"{workdir}.log").read_text()
    check_equal(workdir, calm)
