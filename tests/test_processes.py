"""Two real processes: they train as one does, stop together, and none waits forever for one that is
gone.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from frame import slow_but

from ldl_jax import workdir as run

ROOT = Path(__file__).parent.parent
COMMAND = [
    sys.executable, "-m", "ldl_jax.main", "--config=configs/digits_online.py", "--config.model.name=tests.tiny",
    "--config.eval.report=false",
    "--config.data.holdout=100", "--config.optimizer.schedule=constant", "--config.optimizer.learning_rate=0.02",
    "--config.mixing.name=cutmix", "--config.labels.online.write=clean", "--config.train.log_every_steps=1",
]  # fmt: skip
LONG = [
    "--config.train.max_steps=3000",
    "--config.train.save_every_epochs=1.0",
    "--config.train.eval_every_epochs=0.0",
]
# seconds within which a process leaves when another one is gone: mesh.HEARTBEAT_SECONDS and some
GIVES_UP = 100


class Job:
    """A command as some processes, each with its log."""

    def __init__(self, folder, *arguments, count=2, devices=4, only=None, extra=()):
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{one.getsockname()[1]}"
        flags = os.environ["XLA_FLAGS"].replace("count=8", f"count={devices}")
        common = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}
        self.folder, self.logs, self.processes = folder, [], []
        for number in range(count) if only is None else only:
            here = {
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": str(count),
                "JAX_PROCESS_ID": str(number),
            }
            self.logs.append(Path(f"{folder}.{number}.{time.monotonic_ns()}.log"))
            words = [*COMMAND, *arguments, f"--workdir={folder}", *(extra if number else ())]
            with open(self.logs[-1], "w") as out:
                environment = {**common, **(here if count > 1 else {})}
                self.processes.append(
                    subprocess.Popen(words, cwd=ROOT, env=environment, stdout=out, stderr=out)
                )

    def wait(self, seconds=180):
        """The exit statuses."""
        limit = time.monotonic() + seconds
        try:
            return [process.wait(max(1, limit - time.monotonic())) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()

    def said(self, number=0):
        return self.logs[number].read_text()

    def until(self, condition):
        """Wait for a condition while all processes run."""
        limit = time.monotonic() + 120
        while not condition():
            assert all(process.poll() is None for process in self.processes), self.said()
            assert time.monotonic() < limit
            time.sleep(0.05)

    def reach(self, step):
        """Wait until the run, begun or gone on with, has logged this step."""
        self.until(lambda: " steps, " in self.said() and last_step(self.folder) >= step)


def rows(folder):
    return run.read_log(folder / run.METRICS)


def last_step(folder):
    return (
        max((row["step"] for row in rows(folder)), default=0)
        if (folder / run.METRICS).exists()
        else 0
    )


def losses(folder):
    return {row["step"]: row["train/loss"] for row in rows(folder) if "train/loss" in row}


def saved(folder):
    return sorted(int(path.stem) for path in (folder / "checkpoints").glob("*.sha256"))


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Twenty steps on one device."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    assert Job(folder, "--config.train.max_steps=20", count=1, devices=1).wait() == [0]
    return folder


def check_alike(folder, one):
    """Float32: losses to 1e-5, logits to 1e-4, every example once and in order."""
    here, there = losses(folder), losses(one)
    assert list(here) == list(there) == list(range(1, 21))  # each step once: process 0 alone writes
    np.testing.assert_allclose(list(here.values()), list(there.values()), rtol=1e-5)
    for split in ("test", "holdout"):
        with (
            np.load(folder / f"predictions/{split}.npz") as a,
            np.load(one / f"predictions/{split}.npz") as b,
        ):
            np.testing.assert_array_equal(a["index"], b["index"])
            np.testing.assert_array_equal(a["label"], b["label"])
            np.testing.assert_allclose(a["logits"], b["logits"], atol=1e-4)


@pytest.mark.parametrize(("count", "devices"), slow_but([], [(2, 4), (1, 8)], [(2, 4)]))
def test_the_same_run_however_many_devices_and_processes(one, count, devices, tmp_path):
    job = Job(tmp_path / "run", "--config.train.max_steps=20", count=count, devices=devices)
    assert set(job.wait()) == {0}
    check_alike(tmp_path / "run", one)
    start = json.loads((tmp_path / "run" / "versions.json").read_text())["starts"][0]
    assert (start["devices"], start["processes"]) == (8, count)
    assert "8 x cpu" in job.said()
    assert all("step" not in job.said(number) for number in range(1, count))


@pytest.mark.parametrize(
    ("before", "after"), slow_but([], [((2, 4), (1, 1)), ((1, 1), (2, 2))], [])
)
def test_a_checkpoint_moves_to_other_devices_and_processes(one, before, after, tmp_path):
    """Ten steps here, ten there: the curve of twenty in one place, the memory's part in it
    included.
    """
    for steps, (count, devices), more in ((10, before, ()), (20, after, ("--extend",))):
        job = Job(
            tmp_path / "run",
            f"--config.train.max_steps={steps}",
            *more,
            count=count,
            devices=devices,
        )
        assert set(job.wait()) == {0}, job.said()
    assert "resuming at step 10" in job.said()
    check_alike(tmp_path / "run", one)


@pytest.mark.nightly
def test_sigterm_to_one_of_two_both_save_the_same_step_and_leave_with_status_0(tmp_path):
    folder = tmp_path / "run"
    job = Job(folder, *LONG, devices=1)
    job.reach(30)
    job.processes[1].send_signal(signal.SIGTERM)
    assert job.wait(60) == [0, 0], job.said() + job.said(1)
    step = int(job.said().split("terminated: saved at step ")[1].split(";")[0])
    assert 30 <= step < 3000
    assert step == saved(folder)[-1] == last_step(folder)
    assert "terminated" not in job.said(1)
    again = Job(folder, *LONG, devices=1)
    again.until(lambda: f"resuming at step {step}" in again.said())
    again.reach(step + 30)
    for process in again.processes:  # as Slurm and Kubernetes do: all of them at once
        process.send_signal(signal.SIGTERM)
    assert again.wait(60) == [0, 0]
    assert list(losses(folder)) == list(range(1, last_step(folder) + 1))


@pytest.mark.parametrize("victim", slow_but([], [0, 1], []))
def test_sigkill_of_one_of_two_the_other_gives_up_and_a_restart_goes_on(victim, tmp_path):
    folder = tmp_path / "run"
    job = Job(folder, *LONG, devices=1)
    job.reach(45)  # two epochs
    job.processes[victim].kill()
    statuses = job.wait(GIVES_UP)
    assert statuses[victim] == -signal.SIGKILL
    assert statuses[1 - victim] not in (0, -signal.SIGKILL)
    assert "another process of this job does not respond" in job.said(
        1 - victim
    ) or "JAX distributed service" in job.said(1 - victim)
    latest = max(
        int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit()
    )
    again = Job(folder, *LONG, devices=1)
    again.until(lambda: f"resuming at step {latest}" in again.said())
    again.reach(latest + 5)
    again.processes[0].send_signal(signal.SIGTERM)
    assert again.wait(60) == [0, 0]


@pytest.mark.parametrize("present", slow_but([], [0, 1], []))
def test_a_process_that_never_joins_is_not_waited_for_forever(present, tmp_path):
    job = Job(tmp_path / "run", *LONG, "--join-seconds=4", only=[present])
    began = time.monotonic()
    assert job.wait(60) == [3]
    assert time.monotonic() - began < 55
    (sentence,) = [line for line in job.said().splitlines() if line.startswith("error: ")]
    assert f"process {present} of 2 waited 4 s, but not all processes joined" in sentence
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_processes_with_different_settings_do_not_begin(tmp_path):
    job = Job(tmp_path / "run", *LONG, devices=1, extra=["--config.seed=1"])
    assert 0 not in job.wait(60)
    assert "process 1 has data and settings with the SHA-256" in job.said()
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow
def test_what_one_process_cannot_read_is_told_by_all(tmp_path):
    job = Job(tmp_path / "run", *LONG, devices=1, extra=["--config.data.labels_file=missing.npy"])
    assert 0 not in job.wait(60)
    assert "process 1: " in job.said()
    assert "missing.npy" in job.said()
