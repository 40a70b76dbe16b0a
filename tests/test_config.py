"""Settings: written down once, in the factories, and every config of the folder builds."""

import importlib
import inspect
from pathlib import Path

import frame
import pytest
import shapes
from ml_collections import ConfigDict

from ldl_jax import config
from ldl_jax.config import recipes
from ldl_jax.config.study import locate

CONFIGS = sorted(path for path in (Path(__file__).parent.parent / "configs").glob("*.py"))
# Tracing a step of ResNet-50 takes seconds, and its recipes differ by label source and schedule.
QUICK = [path for path in CONFIGS if path.stem == "imagenet_online" or "imagenet" not in path.stem]


def test_a_block_is_what_the_factory_says():
    c = config.default()
    assert c.labels.online.to_dict() == {
        "alpha": 0.8, "schedule": "linear", "momentum": 0.0, "write": "unmixed", "dtype": "logits",
        "temperature": 1.0, "correct_only": False, "start_epoch": 0.0,
    }  # fmt: skip
    assert c.mixing.cutmix.alpha == 1.0
    assert set(config.plugs("mixing")) == {"none", "mixup", "cutmix", "ricap", "switch"}


def test_every_factory_takes_every_option_of_its_block():
    for section, folder in config.SECTIONS.items():
        for name in config.plugs(folder):
            factory = importlib.import_module(f"ldl_jax.{folder}.{name}").make
            options = {
                n: p.default
                for n, p in inspect.signature(factory).parameters.items()
                if p.kind is p.KEYWORD_ONLY
            }
            if folder == "auxiliary":
                options = {"start_epoch": 0.0, "ramp_epochs": 0.0} | options
            assert config.default()[section].get(name, ConfigDict()).to_dict() == options, (
                folder,
                name,
            )


def test_help_explains_every_field():
    lines = config.describe().splitlines()
    for field in config.flatten(config.default()):
        (line,) = [line for line in lines if line.startswith(f"  {field} = ")]
        assert line.rpartition("  ")[2], field


def test_a_config_survives_its_json():
    c = config.default()
    c.labels.online.alpha, c.data.examples, c.teachers = 0.3, 100, ("a", "b")
    c.optimizer.boundaries = (1.0, 2.5)
    assert config.from_json(config.to_json(c)).to_dict() == c.to_dict()
    assert not config.differences(c, config.from_json(config.to_json(c)))


def test_only_the_fields_in_use_make_a_difference():
    one, other = config.default(), config.default()
    other.labels.online.alpha, other.mixing.cutmix.alpha, other.data.root = 0.1, 0.2, "elsewhere"
    assert not config.differences(one, other)
    one.labels.name = other.labels.name = "online"
    assert config.differences(one, other) == {"labels.online.alpha": (0.8, 0.1)}
    one.labels.name = other.labels.name = "blend"
    one.labels.blend.parts = other.labels.blend.parts = ("hard", "online")
    assert config.differences(one, other) == {"labels.online.alpha": (0.8, 0.1)}


def test_a_sibling_config_is_found_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "first.py").write_text(
        "from ldl_jax.config import default\ndef get_config():\n  c = default()\n  c.seed = 7\n  return c\n"
    )
    (tmp_path / "second.py").write_text(
        "from ldl_jax.config import start\n"
        "def get_config():\n  c = start('first.py')\n  c.train.epochs = 2.0\n  return c\n"
    )
    monkeypatch.chdir("/")
    c = config.read(tmp_path / "second.py")
    assert (c.seed, c.train.epochs) == (7, 2.0)


@pytest.mark.parametrize(
    "name", ["digits_online", "digits_online.py", "configs/digits_online.py", CONFIGS[-1].parent / "digits_online.py"]
)  # fmt: skip
def test_a_shipped_config_is_found_by_name_from_any_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert (
        config.read(name).to_dict() == config.read(CONFIGS[0].parent / "digits_online.py").to_dict()
    )
    assert config.read("cifar100_online:long").train.epochs == 350.0
    # A folder of that name is no config, and a path that exists wins.
    (tmp_path / "digits_online").mkdir()
    assert config.read("digits_online").data.name == "digits"
    text = "from ldl_jax.config import default\ndef get_config():\n  c = default()\n  c.seed = 7\n"
    (tmp_path / "digits_online.py").write_text(f"{text}  return c\n")
    assert config.read("digits_online.py").seed == 7
    assert config.read("digits_online").seed == 0


def test_an_unknown_name_lists_similar_ones_or_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=r"cifar100_onlin does not exist; similar configs .*: cifar100_online"
    ):
        config.read("cifar100_onlin")
    with pytest.raises(ValueError, match="similar configs that come with ldl_jax: digits_online"):
        config.read("mine/digits_onlin.py")
    with pytest.raises(
        ValueError, match=rf"{tmp_path} is a folder; pass {tmp_path}/config.json for"
    ):
        config.read(tmp_path)
    for name in ("zzz", "../configs/digits_online.py", "studies/digits", "configs"):
        with pytest.raises(ValueError, match=f"--config {name} does not exist; "):
            config.read(name)
    with pytest.raises(
        ValueError, match=r"zzz does not exist; configs .*: cifar100_classwise, .*digits_online"
    ):
        config.read("zzz")


def test_a_study_is_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "studies/digits", "configs/studies/digits.py"):
        assert locate(name) == recipes.shipped("studies")["digits"]
    with pytest.raises(ValueError, match=r"digit does not exist; similar studies .*: digits"):
        locate("digit")


def test_configs_inside_an_installed_package_come_before_a_folder_beside_it(tmp_path, monkeypatch):
    """In site-packages, a folder `configs` beside the package is somebody else's."""
    package = tmp_path / "ldl_jax"
    for folder in (package / "configs", tmp_path / "configs"):
        folder.mkdir(parents=True)
        (folder / f"{folder.parent.name}.py").write_text("")
    monkeypatch.setattr(recipes, "PACKAGE", package)
    assert recipes.shipped() == {"ldl_jax": package / "configs" / "ldl_jax.py"}


def test_a_config_elsewhere_starts_from_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    text = "from ldl_jax.config import start\ndef get_config():\n  c = start({!r})\n  c.seed = 5\n  return c\n"
    # A file of the same name starts from the shipped one, not from itself.
    for name in ("mine.py", "cifar100_hard.py"):
        (tmp_path / name).write_text(text.format("cifar100_hard.py"))
        c = config.read(tmp_path / name)
        assert (c.seed, c.data.name) == (5, "cifar100")
    (tmp_path / "other.py").write_text(text.format("cifar100_hart.py"))
    with pytest.raises(
        ValueError, match=r"that folder contains .*mine.py.*; similar configs .*cifar100_hard"
    ):
        config.read(tmp_path / "other.py")


def test_the_config_of_a_run_is_a_config_file(tmp_path):
    c = config.default()
    c.labels.online.alpha, c.teachers = 0.3, ("a",)
    path = tmp_path / "config.json"
    path.write_text(config.to_json(c))
    assert config.read(path).to_dict() == c.to_dict()
    with pytest.raises(ValueError, match=r"config.json takes no argument, got 'long'"):
        config.read(f"{path}:long")
    for text in ("{", "[1]", '{"seed": {}}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"config.json cannot be read as a config"):
            config.read(path)


def test_the_default_directory_is_named_by_the_config_or_is_the_run_s_own(tmp_path):
    c = config.read("digits_online")
    c.seed = 2
    assert config.run_directory("a/b/mine.py:long", c) == Path("runs/mine-long-seed2")
    run = tmp_path / "mine-seed2"
    run.mkdir()
    for name in ("config.json", "network.json"):
        (run / name).write_text(config.to_json(c))
    file = str(run / "config.json")
    c.data.root = "elsewhere"  # files may move
    assert config.run_directory(file, c) == run
    c.seed = 3
    assert config.run_directory(file, c) == Path("runs/mine-seed3")
    c.seed, c.train.epochs = 2, 100.0
    assert config.run_directory(file, c) == Path("runs/mine-seed2")
    assert config.run_directory(file, c, extend=True) == run
    (run / "network.json").unlink()  # a config alone is no run
    assert config.run_directory(file, c) == Path("runs/config-seed2")


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"labels.name": ("online", "smooth")}, "x-smooth-seed0"),
        ({"seed": (0, 3)}, "x-seed3"),
        ({"optimizer.learning_rate": (0.1, 0.2)}, "x-learning_rate0.2-seed0"),
        ({"augment.names": ([], ["random_erasing"])}, "x-names_random_erasing-seed0"),
        ({"model.name": ("resnet", "mine/../net")}, "x-mine_.._net-seed0"),
    ],
)
def test_a_directory_for_another_config_is_named_by_what_differs(changed, name):
    assert config.beside("runs/x-seed0", changed) == Path("runs") / name
    assert config.beside("/a/own", {"labels.name": ("online", "smooth")}) == Path("/a/own-smooth")


def test_options_of_a_plug_that_only_one_config_names_are_not_told():
    old, new = config.read("digits_online"), config.read("digits_online")
    new.labels.name, new.train.max_steps = "smooth", 5
    changed = config.differences(old, new)
    assert changed["labels.online.alpha"] == (0.8, None)
    assert config.telling(changed) == {
        "labels.name": ("online", "smooth"),
        "train.max_steps": (None, 5),
    }
    new.labels.name, new.labels.online.alpha = "online", 0.5
    assert config.telling(config.differences(old, new))["labels.online.alpha"] == (0.8, 0.5)


@pytest.mark.parametrize("path", frame.slow_but(QUICK, CONFIGS), ids=lambda path: path.stem)
def test_every_config_builds_and_its_step_has_shapes(path):
    shapes.check(config.read(path))
    assert path.read_text().startswith('"""')
    assert f"--config=configs/{path.name}" in path.read_text()
    # what was measured, or that nothing was
    assert "easured" in path.read_text() or "accuracy" in path.read_text()


def test_a_config_takes_the_schedules_it_lists_and_no_other():
    file = CONFIGS[0].parent / "cifar100_online.py"
    assert config.read(file).train.epochs == 240.0
    long = config.read(f"{file}:long")
    assert (long.train.epochs, tuple(long.optimizer.boundaries)) == (
        350.0,
        (150.0, 200.0, 250.0, 300.0),
    )
    with pytest.raises(
        ValueError,
        match=r"is not a valid config: its argument must be one of short, long, 300; got '100'$",
    ):
        config.read(f"{file}:100")
    with pytest.raises(ValueError, match=r"is not a valid config: .*takes 0 positional arguments"):
        config.read(f"{CONFIGS[0].parent / 'digits_online.py'}:long")


def scheduled(epochs, boundaries=(100.0, 150.0), schedule="piecewise"):
    c = config.default()
    c.train.epochs, c.optimizer.boundaries, c.optimizer.schedule = epochs, boundaries, schedule
    return c


def test_boundaries_move_with_epochs_that_were_overridden_alone():
    file, alone = scheduled(200.0), ("seed", "train.epochs")
    short = scheduled(20.0)
    note = config.scale_boundaries(short, file, alone)
    assert "(100.0, 150.0) scaled to (10.0, 15.0), since train.epochs is 20 instead of 200" in note
    assert short.optimizer.boundaries == (10.0, 15.0)
    for overridden in (
        ("seed",),
        (*alone, "optimizer.boundaries"),
        (*alone, "optimizer.boundaries[0]"),
    ):
        c = scheduled(20.0)
        assert config.scale_boundaries(c, file, overridden) == ""
        assert c.optimizer.boundaries == (100.0, 150.0)
    c = scheduled(20.0, schedule="cosine")
    assert config.scale_boundaries(c, scheduled(200.0, schedule="cosine"), alone) == ""
    # the same command on the same run, and on one that was begun before boundaries moved
    c = scheduled(20.0)
    config.scale_boundaries(c, file, alone, stored=short)
    assert not config.differences(short, c)
    c = scheduled(20.0)
    assert config.scale_boundaries(c, file, alone, stored=scheduled(20.0)) == ""
    assert not config.differences(scheduled(20.0), c)


def test_an_extended_run_keeps_the_boundaries_at_which_its_rate_fell():
    file, stored = scheduled(200.0), scheduled(20.0, (10.0, 15.0))
    for c, overridden in ((scheduled(40.0), ("train.epochs",)), (scheduled(200.0), ())):
        note = config.scale_boundaries(c, file, overridden, stored, extend=True)
        assert "(10.0, 15.0) are those of the run to extend" in note
        assert set(config.differences(stored, c)) == {"train.epochs"}
    # a run that is not there yet
    c = scheduled(40.0)
    config.scale_boundaries(c, file, ("train.epochs",), extend=True)
    assert c.optimizer.boundaries == (20.0, 30.0)
    # another schedule in the file is another run
    c = scheduled(300.0, (100.0, 120.0))
    config.scale_boundaries(c, c, (), stored, extend=True)
    assert c.optimizer.boundaries == (100.0, 120.0)
