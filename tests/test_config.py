"""Settings: written down once, in the factories, and every config of the folder builds."""

import importlib
import inspect
from pathlib import Path

import pytest
import shapes
from ml_collections import ConfigDict

from ldl_jax import config

CONFIGS = sorted(path for path in (Path(__file__).parent.parent / "configs").glob("*.py"))


def test_a_block_is_what_the_factory_says():
    c = config.default()
    assert c.labels.online.to_dict() == {
        "alpha": 0.8, "schedule": "linear", "momentum": 0.0, "write": "unmixed", "dtype": "logits",
    }  # fmt: skip
    assert c.mixing.cutmix.alpha == 1.0
    assert set(config.plugs("mixing")) == {"none", "mixup", "cutmix", "ricap"}


def test_every_factory_takes_every_option_of_its_block():
    for section, folder in config.SECTIONS.items():
        for name in config.plugs(folder):
            factory = importlib.import_module(f"ldl_jax.{folder}.{name}").make
            options = {
                n: p.default
                for n, p in inspect.signature(factory).parameters.items()
                if p.kind is p.KEYWORD_ONLY
            }
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


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
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
