"""The command line: every wrong input is answered by one sentence and a status that is not 0."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ldl_jax import cli, config
from ldl_jax.errors import Failed, Usage
from ldl_jax.main import _scale_boundaries, main, parse, settings

DIGITS = "--config=configs/digits_online.py"


def refused(capsys, *argv):
    """The sentence of a command that is refused."""
    assert main(list(argv)) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1, said.err
    assert "Traceback" not in said.err
    return said.err


WRONG = {
    "labels.nam=hard": r"config.labels has no field 'nam'; its fields are blend, .*did you mean config.labels.name\?",
    "labels.online.alpah=1": "config.labels.online has no field 'alpah'; its fields are alpha, correct_only, dtype, ",
    "labels.name=onlin": "config.labels.name must be one of blend, classwise, dps, hard, .*got 'onlin'",
    "losses.name=mse": "config.losses.name must be one of bootstrap, .*focal, .*kl, .*; got 'mse'",
    "model.name=resnext": "config.model.name must be one of .*got 'resnext'",
    "mixing.name=puzzle": "config.mixing.name must be one of cutmix, mixup, none, .*; got 'puzzle'",
    "data.name=mnist": "config.data.name must be one of .*digits.*got 'mnist'",
    "auxiliary.names=('jsdd',)": r"config.auxiliary.names\[0\] must be one of .*hint, joint, jsd.*; got 'jsdd'",
    "model.name=no.such.module": "config.model.name is 'no.such.module', which cannot be imported",
    "seed=abc": "config.seed=abc",
    "seed=-1": "config.seed must be between 0 and 4294967295, got -1",
    "seed=4294967296": "config.seed must be between 0 and 4294967295, got 4294967296",
    "seed=9223372036854775808": "config.seed must be between 0 and 4294967295, got 9223372036854775808",
    "optimizer.accumulate=0": "config.optimizer.accumulate must be at least 1, got 0",
    "optimizer.boundaries=('a',)": r"config.optimizer.boundaries\[0\] must be a number, got 'a'",
    "labels.blend.weights=(0.5,True)": r"config.labels.blend.weights\[1\] must be a number, got True",
    "labels.blend.parts=('hard',3)": r"config.labels.blend.parts\[1\] must be a string, got 3",
    "model.mean=('x',)": r"config.model.mean\[0\] must be a number, got 'x'",
    "model.std=(None,)": r"config.model.std\[0\] must be a number, got None",
    "auxiliary.names=('augmix','jsd')": "names must have no second loss .* 'augmix', .* 'jsd'",
    "auxiliary.names=(1,)": r"config.auxiliary.names\[0\] must be a string, got 1",
    "teachers=(1.5,)": r"config.teachers\[0\] must be a string, got 1.5",
    "model.options.foo=3": "config.model.options has no field 'foo'; options of your own module",
    "train.epochs=nan": "config.train.epochs must be finite, got nan",
    "optimizer.schedule=step": "optimizer.schedule must be one of 'piecewise', .*, 'onecycle'; got 'step'",
    "optimizer.name=adamm": "config.optimizer.name must be one of acprop, .*adamw, .*sgd, .*; got 'adamm'",
    "optimizer.name=lbfgs": "config.optimizer.name must not be 'lbfgs': its line search needs",
    "optimizer.adamw.beta1=0.8": "config.optimizer.adamw has no field 'beta1'; its fields are b1, b2, eps, ",
    "optimizer.momentum=1.5": r"optimizer.momentum must be in \[0, 1\), got 1.5",
    "labels.online.alpha=1.5": r"labels.online.alpha must be in \[0, 1\], got 1.5",
    "labels.online.dtype=int8": "labels.online.dtype must be one of 'logits', 'float16'; got 'int8'",
    "labels.name=teacher": "needs teachers, but config.teachers is empty",
    "teachers=('runs/none',)": "runs/none is not a run directory: it has no model.npz; train it with python -m",
    "mixing.name=cutmix": "labels.online.write is 'unmixed', but every example is mixed",
    "data.batch_size=1440": "config.data.batch_size must be at most 1280, .*; got 1440",
    "data.holdout=1437": "config.data.holdout must be less than 1437, .*, got 1437",
    "data.examples=1438": "config.data.examples must be at most 1437, got 1438",
    "optimizer.accumulate=100": "config.optimizer.accumulate must be at most 20, .*; got 100",
    "eval.weights=ema": "config.eval.weights is 'ema', but config.optimizer.ema is 0",
    "model.mean=(0.5,0.5)": r"config.model.mean and .* one number per channel \(1\).*; got \(0.5, 0.5\)",
    "model.cifar_resnet.depth=9": "model.cifar_resnet.depth must be 6n .*got 9",
    "augment.pad=-1": "augment.pad must be at least 0 pixels, got -1",
}


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_field_is_named_with_what_is_allowed(capsys, tmp_path, override):
    batch = [] if "batch_size" in override else ["--config.data.batch_size=64"]
    sentence = refused(
        capsys, DIGITS, *batch, f"--workdir={tmp_path / 'run'}", f"--config.{override}"
    )
    assert re.search(WRONG[override], sentence), sentence
    assert not (tmp_path / "run").exists()


def test_a_batch_that_the_devices_cannot_share(capsys):
    assert (
        "config.data.batch_size must be a multiple of the number of devices, 8; got 100"
        in refused(capsys, DIGITS, "--config.data.batch_size=100")
    )


def test_what_is_no_config(capsys, tmp_path):
    assert "--config nope.py does not exist" in refused(capsys, "--config=nope.py")
    for words in (
        ["--config", "configs/nope.py"],
        ["-config", "configs/nope.py"],
        ["-config=configs/nope.py"],
    ):
        assert "--config configs/nope.py does not exist" in refused(capsys, *words)
    (tmp_path / "flags").write_text("--config=configs/nope.py\n")
    assert "configs/nope.py" in refused(capsys, f"--flagfile={tmp_path / 'flags'}")
    assert "--config is missing" in refused(capsys)
    assert "Missing value for flag --config" in refused(capsys, "--config")
    assert "'config.foo'" in refused(capsys, "--config.foo")
    for flag in ("--config.foo", "-config.foo=1"):
        assert "config has no field 'foo'" in refused(
            capsys, "--config", "configs/digits_online.py", flag
        )
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config(:\n")
    assert f"--config {broken} is not a valid config: invalid syntax" in refused(
        capsys, f"--config={broken}"
    )
    broken.write_text(
        "from ldl_jax.config import default\ndef get_config():\n  c = default()\n  c.data.nam = 'x'\n  return c\n"
    )
    assert f"--config {broken} is not a valid config" in refused(capsys, f"--config={broken}")
    broken.write_text("def get_config():\n  return {}\n")
    assert "get_config() must return a ConfigDict, got dict" in refused(
        capsys, f"--config={broken}"
    )
    broken.write_text(
        "from ml_collections import ConfigDict\ndef get_config():\n  return ConfigDict({'a': 1})\n"
    )
    said = refused(capsys, f"--config={broken}")
    assert (
        "must start from ldl_jax.config.default(); it lacks augment.augmix.all_operations and "
        in said
    )


def test_what_is_no_option(capsys):
    assert "unexpected argument 'train'" in refused(capsys, DIGITS, "train")
    assert "Unknown command line flag 'nope'" in refused(capsys, DIGITS, "--nope=1")
    assert "--profile must be FIRST:LAST" in refused(capsys, DIGITS, "--profile=15:10")
    assert "train|eval" in refused(capsys, DIGITS, "--mode=test")


def test_what_is_no_workdir(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(capsys, DIGITS, f"--workdir={tmp_path / 'file' / 'run'}")
    assert "holds no run" in refused(
        capsys, DIGITS, f"--workdir={tmp_path / 'none'}", "--mode=eval"
    )
    assert "holds no run" in refused(capsys, f"--workdir={tmp_path / 'none'}", "--mode=eval")
    (tmp_path / "config.json").write_text("{")
    assert "config.json cannot be read as a config" in refused(
        capsys, DIGITS, f"--workdir={tmp_path}"
    )


@pytest.fixture
def stored(tmp_path):
    """The directory of a run that was started and has no checkpoint yet."""
    c = config.read("digits_online")
    c.seed = 5
    for name in ("config.json", "network.json"):
        (tmp_path / name).write_text(config.to_json(c))
    return tmp_path


def test_a_run_s_directory_or_its_config_is_all_that_a_command_needs(stored):
    file = f"--config={stored / 'config.json'}"
    for argv in (
        [f"--workdir={stored}"],
        ["--workdir", str(stored), "--config.data.root=elsewhere"],
        [f"--workdir={stored}", "--mode=eval"],
        [file],
        [file, "--mode=eval"],
    ):
        c, workdir = settings(*parse(argv))
        assert (c.seed, c.labels.name, workdir) == (5, "online", stored)
    # With other settings it is another run.
    c, workdir = settings(*parse([file, "--config.seed=6"]))
    assert (c.seed, workdir) == (6, Path(f"runs/{stored.name}-seed6"))
    # A config that is named goes before the stored one.
    assert settings(*parse([DIGITS, f"--workdir={stored}"]))[0].seed == 0


def test_another_method_in_the_same_directory_is_told_the_flag(capsys, stored):
    said = refused(capsys, f"--workdir={stored}", "--config.labels.name=smooth")
    assert said == (
        f"error: --workdir {stored} already holds a run with a different config: labels.name was "
        f"'online', is now 'smooth'; pass --workdir={stored}-smooth to start a new run\n"
    )


def test_a_directory_without_a_run_says_so(capsys, tmp_path):
    said = refused(capsys, f"--workdir={tmp_path}")
    assert "holds no run to resume; pass --config to start one there" in said
    assert "or the --workdir of a run to resume it" in refused(capsys)


@pytest.fixture
def counted(tmp_path):
    """(file, how often it was executed): a config that writes a line each time, and takes an
    argument.
    """
    log = tmp_path / "log"
    (tmp_path / "own.py").write_text(
        f"open({str(log)!r}, 'a').write('x\\n')\nfrom ldl_jax.config import default\n"
        "def get_config(schedule='one'):\n  c = default()\n  c.data.root = schedule\n  return c\n"
    )
    return tmp_path / "own.py", lambda: len(log.read_text().splitlines())


@pytest.mark.parametrize(
    "form", ["--config={}", "-config={}", "--config {}", "-config {}", "--flagfile={}"]
)
@pytest.mark.parametrize("argument", ["", ":two"])
def test_a_config_file_is_executed_once_however_it_is_named(counted, tmp_path, form, argument):
    file, executions = counted
    named = f"{file}{argument}"
    if form.startswith("--flagfile"):
        (tmp_path / "flags").write_text(f"--config={named}\n--config.seed=3\n")
        named = tmp_path / "flags"
    c, workdir = settings(
        *parse([*form.format(named).split(), "--config.seed=3", "--config.data.batch_size", "64"])
    )
    assert executions() == 1
    assert (c.seed, c.data.batch_size, c.data.root) == (3, 64, argument[1:] or "one")
    assert workdir == Path(f"runs/own{argument.replace(':', '-')}-seed3")
    assert settings(*parse([f"--config={file}", f"--workdir={tmp_path}"]))[1] == tmp_path


def raising(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (Usage("no"), 2, "error: no\n"),
        (ValueError("no"), 2, "error: no\n"),
        (Failed("no"), 1, "error: no\n"),
        (Failed("no", 3), 3, "error: no\n"),
        (
            OSError(28, "No space left on device", "a.npz"),
            1,
            "error: a.npz: No space left on device\n",
        ),
        (OSError("no"), 1, "error: no\n"),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
        (
            MemoryError(),
            1,
            "error: out of memory on this machine (MemoryError); free memory, or use less data\n",
        ),
    ],
)
def test_each_fault_has_its_exit_status(capsys, error, status, sentence):
    assert cli.status(raising(error)) == status
    assert capsys.readouterr().err == sentence


def test_seconds_are_shown_as_a_clock_shows_them():
    assert [cli.clock(seconds) for seconds in (0, 59.6, 3725, 360000)] == [
        "0:00:00",
        "0:01:00",
        "1:02:05",
        "100:00:00",
    ]


def test_a_closed_pipe_ends_a_command_without_a_word():
    command = [sys.executable, "-m", "ldl_jax.main", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def arrays(path, **changes):
    draw = np.random.default_rng(0)
    made = {
        "train_images": draw.integers(0, 256, (64, 8, 8, 3), np.uint8), "train_labels": np.arange(64) % 4,
        "test_images": draw.integers(0, 256, (16, 8, 8, 3), np.uint8), "test_labels": np.arange(16) % 4,
    } | changes  # fmt: skip
    np.savez(path, **{name: value for name, value in made.items() if value is not None})
    return [
        DIGITS,
        "--config.data.name=arrays",
        f"--config.data.root={path}",
        "--config.data.batch_size=64",
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train_labels": np.arange(64) % 5, "classes": np.arange(4)}, "labels must be between 0 and 3, got 0 to 4"),
        ({"test_labels": np.arange(16) - 1}, "got -1 to 14"),
        ({"test_images": np.zeros((16, 9, 8, 3), np.uint8)}, "(8, 8, 3), got (9, 8, 3)"),
        ({"train_images": np.zeros((64, 8, 8, 3), np.float32)}, "uint8[N, H, W, C], got float32[64, 8, 8, 3]"),
        ({"train_images": np.zeros((63, 8, 8, 3), np.uint8)}, "labels must be integers [63]"),
        ({"test_images": None}, "has no test_images"),
        ({"train_images": np.array([{}], dtype=object)}, "cannot be read"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit(capsys, tmp_path, changes, sentence):
    assert sentence in refused(capsys, *arrays(tmp_path / "own.npz", **changes))


def test_arrays_that_are_no_file(capsys, tmp_path):
    path = tmp_path / "own.npz"
    path.write_bytes(b"PK no archive")
    said = refused(capsys, DIGITS, "--config.data.name=arrays", f"--config.data.root={path}")
    assert f"{path}: cannot be read as an .npz file" in said


@pytest.mark.slow
def test_own_arrays_train(capsys, tmp_path):
    argv = [
        *arrays(tmp_path / "own.npz"),
        "--config.model.name=tests.tiny",
        "--config.train.epochs=2.0",
    ]
    assert main([*argv, "--config.data.holdout=0", f"--workdir={tmp_path / 'run'}"]) == 0
    assert "accuracy %" in capsys.readouterr().out


def test_a_dry_run_tells_sizes_and_writes_nothing(capsys, tmp_path):
    assert (
        main([DIGITS, "--config.data.batch_size=64", f"--workdir={tmp_path / 'run'}", "--dry-run"])
        == 0
    )
    said = capsys.readouterr().out
    for name in (
        "parameters",
        "label memory, bytes per device",
        "checkpoint, total bytes",
        "optimizer, bytes per device",
    ):
        assert name in said
    assert not (tmp_path / "run").exists()


def test_help_lists_every_field_with_its_meaning_and_every_plug(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for field in config.flatten(config.default()):
        assert any(line.strip().startswith(f"{field} = ") for line in said.splitlines()), field
    for section, folder in config.SECTIONS.items():
        for name in config.plugs(folder):
            assert any(
                line.startswith(f"{section} {name}: ") and len(line) > 20
                for line in said.splitlines()
            ), name


def test_the_shell_sees_the_status():
    done = subprocess.run(
        [sys.executable, "-m", "ldl_jax.main", DIGITS, "--config.seed=x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


def test_a_flag_for_the_epochs_alone_moves_the_boundaries(tmp_path):
    def boundaries(*flags, extend=False):
        values, line = parse(["--config=configs/cifar100_hard.py", *flags])
        c, _ = settings(values, line)
        _scale_boundaries(c, line, tmp_path, extend=extend)
        return c

    short = boundaries("--config.train.epochs=24.0")
    assert short.optimizer.boundaries == (15.0, 18.0, 21.0)
    (tmp_path / "config.json").write_text(config.to_json(short))
    assert not config.differences(short, boundaries("--config.train.epochs", "24.0"))
    longer = boundaries("--config.train.epochs=30.0", extend=True)
    assert set(config.differences(short, longer)) == {"train.epochs"}
    by_hand = boundaries("--config.train.epochs=24.0", "--config.optimizer.boundaries=(8.0, 9.0)")
    assert by_hand.optimizer.boundaries == (8.0, 9.0)
