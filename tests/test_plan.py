"""What is told before a run is paid for: bytes on devices that are not here, from data that are not
here.
"""

import re

import frame
import jax
import pytest

from ldl_jax import config, mesh, optimizer
from ldl_jax.data import imagefolder
from ldl_jax.data.base import Dataset, Split
from ldl_jax.main import main
from ldl_jax.training import dry_run, trial
from ldl_jax.training import experiment as build

CLASSES, IMAGES, SIDE, BATCH = 1000, 1_281_167, 64, 1024
ROWS = 1_284_096  # padded to a multiple of 3,072


def published(*, size, **options):
    """Sizes like ImageNet's, whatever else an image folder may be asked for."""
    del options
    train, test = (Split(count, ((size or SIDE), (size or SIDE), 3)) for count in (IMAGES, 50_000))
    return Dataset(train, test, tuple(map(str, range(CLASSES))), (0.5,) * 3, (0.25,) * 3)


@pytest.fixture
def absent(monkeypatch, tmp_path):
    """A config whose data are not on disk, but whose module knows how many there are."""
    monkeypatch.setattr(imagefolder, "published", published, raising=False)
    c = config.read("configs/tiny_imagenet_online.py")
    c.data.root, c.data.batch_size = str(tmp_path / "none"), BATCH
    c.model.resnet.depth, c.model.resnet.width, c.labels.online.dtype = 10, 8, "float16"
    return c


def number(said, name):
    """The first number of a row."""
    return int(re.search(rf"^{re.escape(name)} +([\d,]+)", said, re.MULTILINE)[1].replace(",", ""))


@pytest.mark.parametrize("count", frame.slow_but([8, 256], [1, 8, 32, 256]))
def test_devices_that_are_not_here_are_planned_for_without_data(absent, count):
    said = dry_run.sizes(absent, count)
    assert said.startswith(f"published sizes, no data found at '{absent.data.root}'")
    parameters = number(said, "parameters")
    assert number(said, "label memory, bytes per device") == ROWS * CLASSES * 2 // count
    # the momentum, and a count
    assert number(said, "optimizer, bytes per device") == 4 * parameters + 4
    assert (
        number(said, "streamed images per step, bytes per device")
        == BATCH // count * SIDE * SIDE * 3
    )
    assert number(said, "resident images, bytes per device") == 0
    assert number(said, "training examples") == IMAGES
    assert f"{IMAGES // BATCH * 100:,} = 100 epochs of {IMAGES // BATCH:,}" in said
    assert f"{BATCH:,} ({BATCH // count:,} per device)" in said
    state = ROWS * CLASSES * 2 + 8 * parameters
    # and running statistics
    assert state < number(said, "checkpoint, total bytes") < state + 20_000
    sent = number(said, "communication per step, bytes per device")
    at_least = (count - 1) / count * (2 * 4 * parameters + (2 * 2 + 1) * 2 * BATCH * CLASSES)
    # gradients, rows read and written, and what is small
    assert at_least <= sent <= 1.01 * at_least


@pytest.mark.slow
def test_the_table_has_the_numbers_of_devices_that_can_share_the_batch(absent):
    assert re.search(r"for N = +1 +8 +16 +32 +256$", dry_run.sizes(absent, 16), re.MULTILINE)
    absent.data.batch_size = 96
    assert re.search(r"for N = +1 +8 +32$", dry_run.sizes(absent, 8), re.MULTILINE)


def test_a_rate_that_is_never_lowered_is_warned_of_as_a_run_does(absent, capsys):
    absent.optimizer.schedule, absent.optimizer.boundaries = "piecewise", (200.0, 300.0)
    dry_run.sizes(absent, 1)
    said = capsys.readouterr().err
    reason = optimizer.never_lowered("piecewise", (200.0, 300.0), 0.1, 100.0)
    assert "config.optimizer.boundaries (200.0, 300.0) are not reached in 100 epochs" in reason
    assert said == f"warning: {reason}\n"
    absent.optimizer.boundaries = (50.0,)
    dry_run.sizes(absent, 1)
    assert capsys.readouterr().err == ""


def test_a_planned_mesh_places_shapes_as_devices_that_are_here_do():
    shape = jax.ShapeDtypeStruct((ROWS, 3), "float32")
    for there in (mesh.planned_mesh(8), mesh.make_mesh(jax.devices())):
        placed = mesh.state_shardings({"labels": {"rows": shape, "table": shape}}, there)
        assert placed["labels"]["rows"].shard_shape(shape.shape) == (ROWS // 8, 3)
        assert placed["labels"]["table"].shard_shape(shape.shape) == shape.shape
    for count in (0, 5, 7, 512 * 7):
        with pytest.raises(
            ValueError, match=f"^the number of devices must divide 3072 .*, got {count}$"
        ):
            mesh.planned_mesh(count)


def test_data_that_are_there_are_read(absent, tmp_path):
    (tmp_path / "there").mkdir()
    absent.data.root = str(tmp_path / "there")
    assert dry_run.data_set(absent.data)[1].startswith("published sizes")  # an empty folder
    (tmp_path / "there" / "file").write_text("")
    # a bucket is left to the data set's module
    for root in (absent.data.root, "gs://bucket/images"):
        absent.data.root = root
        with pytest.raises(ValueError, match=r"must (be a folder with|have at least two) <?class"):
            dry_run.sizes(absent)


def test_published_sizes_take_part_in_what_the_config_asks_of_the_data(absent):
    absent.data.train_split = "test"
    made = dry_run.data_set(absent.data)[0]
    assert (made.train.num_examples, made.test.num_examples) == (50_000, IMAGES)
    assert len(build.positions(absent.data, made)[0]) == 50_000


def test_the_flag(capsys):
    digits = "--config=configs/digits_online.py"
    assert main([digits, "--dry-run", "--devices=32"]) == 0
    assert number(capsys.readouterr().out, "label memory, bytes per device") == 3072 * 10 * 4 // 32
    for words, sentence in (
        (
            ["--devices=8"],
            "--devices=8 requires --dry-run; training uses all available devices",
        ),
        (
            ["--devices=256", "--dry-run"],
            "config.data.batch_size must be a multiple of the number of devices, 256; got 64",
        ),
        (["--timed-steps=3"], "--timed-steps=3 requires --dry-run"),
        (
            ["--timed-steps=3", "--devices=8", "--dry-run"],
            "leave out --devices=8, which plans for others",
        ),
        (["--timed-steps=-1", "--dry-run"], "flag --timed-steps=-1"),
        (["--devices=0", "--dry-run"], "the number of devices must divide 3072"),
        (["--devices=x", "--dry-run"], "flag --devices=x"),
    ):
        assert main([digits, *words]) == 2
        assert sentence in capsys.readouterr().err


def measured_rows(monkeypatch, outcome, **change):
    """The rows of the timed steps, where `trial.run` gives or raises `outcome`."""

    def run(experiment, steps):
        assert steps == 20
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(trial, "run", run)
    c = config.read("configs/digits_online.py")
    text = dry_run.sizes(c, timed_steps=20, **change)
    return re.findall(r"^((?:time|all|peak) .*?)  +(.*)$", text, re.MULTILINE)


@pytest.mark.slow
def test_timed_steps_tell_the_duration_and_the_peak_memory(monkeypatch):
    times = trial.Trial(steps=32, seconds=0.0123, compiling=8.06, peak=3 * 2**20)
    # 20 epochs of 20 steps, 0.0123 s each
    rows = dict(measured_rows(monkeypatch, times))
    assert rows == {
        "time per step, measured": "12.3 ms (mean of 32 steps, after 8.1 s of compilation)",
        "all steps, estimated": "0:00:05 (evaluations and checkpoints not included)",
        "peak memory, measured, bytes per device": "3,145,728 (3.0 MiB), with activations",
    }
    assert len(measured_rows(monkeypatch, times._replace(peak=None))) == 2
    assert measured_rows(monkeypatch, times, devices=8) == []  # which are not here
    full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
    ((_, said),) = measured_rows(monkeypatch, full)
    assert said == "not measured: a step does not fit in the memory of the devices"
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        measured_rows(monkeypatch, jax.errors.JaxRuntimeError("INTERNAL: broken"))
    ((_, said),) = measured_rows(monkeypatch, None)
    assert said.endswith("the run has too few steps")


def test_steps_are_not_timed_without_data_or_on_a_cpu_unless_asked(monkeypatch, absent):
    monkeypatch.setattr(trial, "run", lambda *_: pytest.fail("steps were run"))
    said = dry_run.sizes(absent, timed_steps=5)
    assert re.search("time per step, measured +not measured, because no data was found", said)
    assert re.search("activations, bytes per device +not included", said)
    assert "time per step" not in dry_run.sizes(config.read("configs/digits_online.py"))


@pytest.mark.slow
def test_a_few_steps_are_timed(monkeypatch):
    c = config.read("configs/digits_online.py")
    c.model.name, c.data.examples, c.data.holdout, c.data.batch_size = "tests.tiny", 96, 0, 32
    made = build.make_experiment(c, jax.devices()[:1])
    measured = trial.run(made, 5)
    assert measured.steps == 5
    assert 0 < measured.seconds < measured.compiling
    c.train.max_steps = 1
    assert trial.run(build.make_experiment(c, jax.devices()[:1]), 5) is None


def test_bytes_for_people():
    assert [dry_run.human(n) for n in (0, 1023, 1536, 5 * 2**20, 5_136_384_000)] == [
        "0 B", "1023 B", "1.5 KiB", "5.0 MiB", "4.8 GiB",
    ]  # fmt: skip
