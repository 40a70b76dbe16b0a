"""From JPEG files to the report: real images through the streaming path, on one process and two,
killed and resumed.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ldl_jax import main, workdir

pytestmark = pytest.mark.data

ROOT = Path(__file__).parent.parent
IMAGENET = [  # the config of ImageNet, made small; other tests train its network
    "--config=configs/imagenet_online.py", "--config.model.name=tests.tiny", "--config.model.dtype=float32",
    "--config.data.imagenet.size=32", "--config.data.imagenet.eval_resize=36", "--config.data.batch_size=24",
    "--config.data.eval_batch_size=50", "--config.train.max_steps=6", "--config.train.log_every_steps=1",
]  # fmt: skip
TINY = [
    "--config=configs/tiny_imagenet_online.py", "--config.data.resident=False", "--config.data.examples=1000",
    "--config.data.eval_batch_size=1000", "--config.model.name=tests.tiny", "--config.train.epochs=4.0",
    "--config.train.save_every_epochs=0.5", "--config.train.eval_every_epochs=2.0", "--config.train.log_every_steps=1",
    "--config.optimizer.learning_rate=0.01", "--config.data.batch_size=64",
]  # fmt: skip


@pytest.fixture(scope="module")
def data():
    found = os.environ.get("LDL_DATA_DIR")
    if not found:
        pytest.skip("LDL_DATA_DIR names no folder")
    return Path(found)


@pytest.fixture(scope="module")
def imagenet(data, tmp_path_factory):
    """All 125 images to train on, and the same to measure: the sample has one image a class."""
    root = tmp_path_factory.mktemp("imagenet")
    for split in ("train", "val"):
        for path in sorted((data / "imagenet").glob("*/*/*.JPEG")):
            place = root / split / path.parent.name
            place.mkdir(parents=True)
            (place / path.name).symlink_to(path)
    return root


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    quick = {
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("count=8", "count=1"),
        "XDG_CACHE_HOME": str(cache),
    }
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, **quick}


def run(words, environment, **more):
    done = subprocess.run(
        words, cwd=ROOT, env=environment | more, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def losses(folder):
    rows = workdir.read_log(folder / workdir.METRICS)
    return [row["train/loss"] for row in rows if "train/loss" in row]


def test_imagenet_from_files_to_the_report_on_one_process_and_on_two(
    imagenet, environment, tmp_path
):
    """Six steps, the last in a second epoch: losses alike to 1e-4 (float32), and every image
    predicted once.
    """
    words = [*IMAGENET, f"--config.data.root={imagenet}"]
    said = run(
        [sys.executable, "-m", "ldl_jax.main", *words, f"--workdir={tmp_path / 'one'}"], environment
    )
    assert "ECE noise floor" in said
    run(
        ["launch/local.sh", "2", *words, f"--workdir={tmp_path / 'two'}"],
        environment,
        LOCAL_DEVICES="1",
    )
    one, two = (losses(tmp_path / name) for name in ("one", "two"))
    assert len(one) == len(two) == 6
    np.testing.assert_allclose(one, two, rtol=1e-4)
    for name in ("one", "two"):
        with np.load(tmp_path / name / "predictions" / "test.npz") as file:
            assert file["index"].tolist() == list(range(125)) == file["label"].tolist()
            assert file["logits"].shape == (125, 125)
        assert (tmp_path / name / "reliability.png").stat().st_size > 10_000
        assert json.loads((tmp_path / name / "summary.json").read_text())["finished"]
    timing = workdir.read_log(tmp_path / "one" / workdir.TIMING)
    assert all(0 <= row["input_wait"] < 1 for row in timing)


@pytest.mark.nightly
def test_a_streamed_run_that_is_killed_goes_on_bitwise(data, environment, tmp_path):
    words = [
        sys.executable,
        "-m",
        "ldl_jax.main",
        *TINY,
        f"--config.data.root={data / 'tiny-imagenet'}",
    ]
    run([*words, f"--workdir={tmp_path / 'calm'}"], environment)
    folder = tmp_path / "killed"
    with open(tmp_path / "log", "w") as out:
        process = subprocess.Popen(
            [*words, f"--workdir={folder}"], cwd=ROOT, env=environment, stdout=out, stderr=out
        )
        limit = time.monotonic() + 300
        while not (folder / workdir.METRICS).exists() or len(losses(folder)) < 25:
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.02)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert "resuming at step" in run([*words, f"--workdir={folder}"], environment)
    assert (folder / workdir.METRICS).read_text() == (
        tmp_path / "calm" / workdir.METRICS
    ).read_text()
    for name in ("model.npz", "predictions/test.npz"):
        with np.load(folder / name) as here, np.load(tmp_path / "calm" / name) as there:
            for entry in there.files:
                np.testing.assert_array_equal(here[entry], there[entry], err_msg=f"{name}: {entry}")


def test_resident_and_streamed_tiny_imagenet_train_alike(data, tmp_path, monkeypatch, capsys):
    """The same examples under the same indices: pixels differ by rounding in decoding at most."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(ROOT)
    words = [*TINY, f"--config.data.root={data / 'tiny-imagenet'}", "--config.train.max_steps=5"]
    for resident in (True, False):
        folder = tmp_path / str(resident)
        assert main.main([*words, f"--config.data.resident={resident}", f"--workdir={folder}"]) == 0
    capsys.readouterr()
    np.testing.assert_allclose(losses(tmp_path / "True"), losses(tmp_path / "False"), rtol=1e-4)
