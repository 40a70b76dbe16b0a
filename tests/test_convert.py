"""Weights from PyTorch and back: twins of every family predict and learn the same, and misfits are
told in a sentence.

The numbers are PyTorch's, written by tests/vectors/make_networks.py; nothing here but the last test
needs PyTorch.
"""

import json
from functools import lru_cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from frame import slow_but

import ldl_jax
from ldl_jax import config, convert, files
from ldl_jax import workdir as run
from ldl_jax.data.base import Dataset, check_split
from ldl_jax.evaluation.load import load_teacher, load_weights
from ldl_jax.main import main
from ldl_jax.models.spec import make_network
from ldl_jax.training import experiment as build
from ldl_jax.training import steps

BASIC, BOTTLENECK = {"depth": 10, "width": 4}, {"depth": 14, "width": 2}
TWINS = {  # name -> (model, its options, whose names)
    "cifar_resnet": ("cifar_resnet", {"depth": 8, "width": 4}, "torchvision"),
    "resnet_cifar": ("resnet", BASIC, "kuangliu"),
    "resnet_imagenet": (
        "resnet",
        BOTTLENECK | {"stem": "imagenet", "width_factor": 2},
        "torchvision",
    ),
    "preact_pskd": ("resnet", BASIC | {"preact": True}, "kuangliu"),
    "preact_bottleneck": (
        "resnet",
        BOTTLENECK | {"preact": True, "stem_norm": False, "final_norm": True},
        "kuangliu",
    ),
    "wide_resnet": ("wide_resnet", {"depth": 10, "widen": 1}, "torchvision"),
}


@lru_cache(None)
def vectors():
    """All that make_networks.py wrote, as a nested dictionary of float64 and integer arrays."""
    found = {}
    with np.load(Path(__file__).parent / "vectors" / "networks.npz", allow_pickle=False) as file:
        for name in file.files:
            place = found
            *folders, last = name.split("/", 2)
            for folder in folders:
                place = place.setdefault(folder, {})
            place[last] = file[name]
    return found


def state_of(name):
    """A twin's state_dict, in float64 but for the counts of batches."""
    weights = vectors()[name]["weights"]
    return {
        key: value.astype(np.int64 if "tracked" in key else np.float64)
        for key, value in weights.items()
    }


def images_of(name):
    side = 32 if name == "resnet_imagenet" else 16
    return vectors()["images"][:, :side, :side]


def config_of(name, dtype="float64"):
    """The config that a twin was trained by."""
    model, options, _ = TWINS[name]
    c = config.default()
    c.data.batch_size = 8
    c.model.name, c.model.dtype = model, dtype
    c.model.mean, c.model.std = tuple(vectors()["mean"].tolist()), tuple(vectors()["std"].tolist())
    c.model[model].update(options)
    c.optimizer.schedule, c.optimizer.learning_rate, c.optimizer.nesterov = "constant", 0.1, True
    return c


def imported(folder, name, dtype="float64", **changes):
    """The run directory of a twin."""
    path = files.write_npz(folder / f"{name}.npz", **(state_of(name) | changes))
    shape = images_of(name).shape[1:]
    return convert.import_run(
        path, config_of(name, dtype), folder / f"{name}-run", classes=5, shape=shape
    )


# Of these a step takes seconds to compile.
SLOW = ("resnet_imagenet", "wide_resnet")


@pytest.fixture(scope="module", params=slow_but(["resnet_imagenet", "cifar_resnet"], TWINS))
def twin(request, tmp_path_factory):
    """(name, run directory) of a twin after its import."""
    return request.param, imported(tmp_path_factory.mktemp("import"), request.param)


def test_an_imported_network_predicts_as_pytorch_does(twin):
    name, workdir = twin
    spec, variables, _ = load_weights(workdir)
    apply = make_network(spec)[1]

    @jax.jit
    def look(variables, image):
        evaluated, trained = (apply(variables, image, train=train)[0] for train in (False, True))
        return evaluated.logits, trained.logits, evaluated.stages

    found = look(variables, images_of(name) / 255)
    expected = vectors()[name]
    np.testing.assert_allclose(found[0], expected["eval_logits"], atol=1e-11)
    np.testing.assert_allclose(found[1], expected["train_logits"], atol=1e-11)
    assert len(found[2]) == len(expected["stages"])
    for number, stage in enumerate(found[2]):
        np.testing.assert_allclose(
            stage.mean((0, 1, 2)), expected["stages"][str(number)], atol=1e-11
        )


@pytest.mark.parametrize("name", slow_but([], TWINS, ("cifar_resnet", *SLOW)))
def test_five_steps_from_imported_weights_lose_what_pytorch_s_lose(name, tmp_path):
    spec, variables, _ = load_weights(imported(tmp_path, name))
    data = check_split("twin", images_of(name), vectors()["labels"], 5)
    dataset = Dataset(data, data, tuple("abcde"), spec["mean"], spec["std"])
    recipe = build.make_recipe(config_of(name), spec, [], dataset, data.num_examples)
    recipe = recipe._replace(
        build=recipe.build._replace(init=lambda key: jax.tree.map(jnp.asarray, variables))
    )
    state = steps.init_state(recipe, jax.random.key(0))
    resident = {"key": jax.random.key(0), "images": data.images, "labels": data.labels}
    step, losses = jax.jit(steps.make_train_step(recipe)), []
    for index in vectors()["order"]:
        state, scalars = step(state, (), resident, {"index": index})
        losses.append(float(scalars["loss"]))
    np.testing.assert_allclose(losses, vectors()[name]["losses"], rtol=1e-9)


def test_an_export_is_the_state_dict_that_was_imported(twin, tmp_path):
    name, workdir = twin
    path = convert.export_run(workdir, tmp_path / "back.safetensors", TWINS[name][2])
    found, expected = safetensors.numpy.load_file(path), state_of(name)
    assert set(found) == {key for key in expected if not key.endswith("num_batches_tracked")}
    for key, value in found.items():
        np.testing.assert_array_equal(value, expected[key], key, strict=True)


def test_an_export_has_one_set_of_names_or_the_other(twin, tmp_path):
    _, workdir = twin
    variables = load_weights(workdir)[1]
    ours, theirs = (
        convert.to_state_dict(variables, names) for names in ("torchvision", "kuangliu")
    )
    assert not {part for key in ours for part in key.split(".")} & {"shortcut", "linear"}
    assert not {part for key in theirs for part in key.split(".")} & {"downsample", "fc"}
    assert len(ours) == len(theirs)


def test_a_float32_run_keeps_float32_bits(tmp_path):
    state = {key: value.astype(np.float32) for key, value in state_of("cifar_resnet").items()}
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(state, path)
    workdir = convert.import_run(
        path, config_of("cifar_resnet", "float32"), tmp_path / "run", 5, (16, 16, 3)
    )
    found = safetensors.numpy.load_file(convert.export_run(workdir, tmp_path / "back.safetensors"))
    for key, value in found.items():
        np.testing.assert_array_equal(value, state[key], key, strict=True)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_halves_are_widened(dtype):
    state = {"fc.weight": np.ones((2, 3), dtype), "fc.bias": np.full(2, 0.5, dtype)}
    layer = {
        "kernel": jax.ShapeDtypeStruct((3, 2), np.float32),
        "bias": jax.ShapeDtypeStruct((2,), np.float32),
    }
    found = convert.from_state_dict(state, {"params": {"fc": layer}}, "weights")["params"]["fc"]
    np.testing.assert_array_equal(found["kernel"], np.ones((3, 2), np.float32), strict=True)
    np.testing.assert_array_equal(found["bias"], np.full(2, 0.5, np.float32), strict=True)


@pytest.mark.parametrize("prefix", ["module.", "state_dict/module.", "model.", "state_dict/"])
def test_a_wrapped_state_dict_is_unwrapped(prefix):
    state = state_of("resnet_cifar")
    wrapped = {prefix + key: value for key, value in state.items()} | (
        {"epoch": np.ones(())} if "/" in prefix else {}
    )
    assert convert.plain(wrapped).keys() == convert.plain(state).keys()
    assert "layer2.0.downsample.1.running_var" in convert.plain(wrapped)


def test_prefixes_are_removed_however_they_are_nested():
    state = state_of("resnet_cifar")
    plain = convert.plain(state)
    for prefix in ("_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.net.module."):
        wrapped = {prefix + key: value for key, value in state.items()}
        assert convert.plain(wrapped, plain).keys() == plain.keys()
        note = convert.unwrapped(wrapped, plain)[1]
        assert all(f"{part}." in note for part in prefix.split(".")[:-1])
    # parts that were compiled one by one
    wrapped = {key.replace("layer2.0.", "layer2.0._orig_mod."): x for key, x in state.items()}
    assert convert.plain(wrapped, plain).keys() == plain.keys()
    # an average of weights, and what a checkpoint has beside them
    wrapped = {f"module.{key}": value for key, value in state.items()}
    names, note = convert.unwrapped(wrapped | {"n_averaged": np.ones(())}, plain)
    assert set(names.values()) == set(plain)
    assert "beside them were n_averaged, which are left out" in note
    assert convert.unwrapped(state, plain)[1] == ""
    # a network of one's own whose names begin like that
    own = {"net.0.weight": 0, "fc.weight": 1}
    assert convert.plain(own, ("net.0.weight", "fc.weight")) == own


def test_names_that_only_the_file_has_are_shown_behind_those_that_are_missing(tmp_path):
    state = {f"encoder.{key}": value for key, value in state_of("cifar_resnet").items()}
    path = files.write_npz(tmp_path / "weights.npz", **state)
    with pytest.raises(
        ValueError, match=r"names that only the file has: encoder\.\S+, encoder\."
    ) as caught:
        convert.import_run(path, config_of("cifar_resnet"), tmp_path / "run", 5, (16, 16, 3))
    assert "is missing" in str(caught.value)


@pytest.mark.parametrize("kind", [np.longdouble, np.float16, jnp.bfloat16])
def test_an_npz_of_any_floating_type_is_read(tmp_path, kind):
    values = np.arange(6.0).reshape(2, 3)
    np.savez(tmp_path / "w.npz", **{"fc.weight": values.astype(kind)})
    leaf = jax.ShapeDtypeStruct((3, 2), np.float32)
    state = convert.read(tmp_path / "w.npz")
    found = convert.from_state_dict(state, {"params": {"fc": {"kernel": leaf}}}, "weights")
    np.testing.assert_array_equal(
        found["params"]["fc"]["kernel"], values.T.astype(np.float32), strict=True
    )


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    files.write_npz(tmp_path / "w.npz", **state_of("cifar_resnet"))
    c = config_of("cifar_resnet")
    assert convert.import_run("~/w.npz", c, "~/run", 5, (16, 16, 3)) == tmp_path / "run"
    assert convert.export_run("~/run", "~/back.safetensors") == tmp_path / "back.safetensors"


def without(state, *names):
    return {key: value for key, value in state.items() if key not in names}


MISFITS = {
    "another shape": (
        lambda s: s | {"fc.weight": s["fc.weight"][:4]},
        r"fc.weight must be \[5, 16\], got \[4, 16\]",
    ),
    "missing": (lambda s: without(s, "bn1.bias"), r"bn1.bias \[4\] is missing"),
    "unknown": (
        lambda s: s | {"layer1.0.conv3.weight": np.ones((1, 2))},
        r"the network has no layer1.0.conv3.weight \[1, 2\]",
    ),
    "whole numbers": (
        lambda s: s | {"fc.bias": np.arange(5)},
        "fc.bias must be floating-point numbers, got int64",
    ),
    "not finite": (
        lambda s: s | {"fc.bias": np.array([0, np.nan, 1, np.inf, 2])},
        "fc.bias must be finite, got NaN or infinity 2 times$",
    ),
    "nothing": (lambda s: {}, r"is missing; .* is missing; .* is missing; and \d+ more$"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_state_dict_that_does_not_fit_is_told_by_its_first_differences(tmp_path, case):
    change, sentence = MISFITS[case]
    path = files.write_npz(tmp_path / "weights.npz", **change(state_of("cifar_resnet")))
    with pytest.raises(
        ValueError, match=f"{path} does not fit the network of the config: .*{sentence}"
    ) as caught:
        convert.import_run(path, config_of("cifar_resnet"), tmp_path / "run", 5, (16, 16, 3))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def command(*argv):
    """The status of a command."""
    return convert.main([str(arg) for arg in argv])


@pytest.fixture
def own(tmp_path):
    """(arguments, folder): a config of a twin on an .npz of images, and the twin's weights, all as
    files.
    """
    images, labels = images_of("cifar_resnet"), vectors()["labels"]
    data = {
        "train_images": images,
        "train_labels": labels,
        "test_images": images,
        "test_labels": labels,
    }
    np.savez(tmp_path / "data.npz", **data, classes=np.array(list("abcde")))
    np.savez(tmp_path / "weights.npz", **state_of("cifar_resnet"))
    (tmp_path / "twin.py").write_text(
        "from ldl_jax.config import default\ndef get_config():\n  c = default()\n  c.data.name = 'arrays'\n"
        f"  c.data.root = {str(tmp_path / 'data.npz')!r}\n  c.data.batch_size = 8\n  c.data.eval_batch_size = 16\n"
        "  c.model.cifar_resnet.depth, c.model.cifar_resnet.width = 8, 4\n  return c\n"
    )
    mean, std = (tuple(vectors()[name].tolist()) for name in ("mean", "std"))
    argv = [
        f"--config={tmp_path / 'twin.py'}",
        f"--config.model.mean={mean}",
        f"--config.model.std={std}",
    ]
    return argv, tmp_path


def test_the_command_makes_a_run_that_loads_and_teaches(own, capsys):
    argv, folder = own
    assert command("import", folder / "weights.npz", *argv, f"--workdir={folder / 'run'}") == 0
    assert "wrote the run" in capsys.readouterr().out
    for name in ("config.json", "network.json", "versions.json", "model.npz"):
        assert (folder / "run" / name).is_file()
    spec = json.loads((folder / "run" / "network.json").read_text())
    assert spec["imported"]["sha256"] == files.sha256(folder / "weights.npz")
    assert spec["classes"] == list("abcde")
    apply, variables = ldl_jax.load(folder / "run")
    logits = jax.jit(apply)(variables, images_of("cifar_resnet")).logits
    np.testing.assert_allclose(logits, vectors()["cifar_resnet"]["eval_logits"], atol=1e-4)
    teacher = load_teacher(folder / "run", spec)
    assert teacher.digest == files.sha256(folder / "run" / "model.npz")
    assert command("export", folder / "run", folder / "back.safetensors", "--names=kuangliu") == 0
    assert "linear.weight" in safetensors.numpy.load_file(folder / "back.safetensors")


@pytest.mark.slow
def test_imported_weights_of_a_network_of_one_s_own_are_measured(own, capsys):
    argv, folder = own
    draw, there = np.random.default_rng(0), f"--workdir={folder / 'run'}"
    state = {"bn.weight": 8, "bn.bias": 8, "bn.running_mean": 8, "bn.running_var": 8, "fc.bias": 5}
    state = {name: draw.random(size) + 0.5 for name, size in state.items()}
    state |= {
        "conv.weight": draw.standard_normal((8, 3, 3, 3)),
        "fc.weight": draw.standard_normal((5, 8)),
    }
    np.savez(folder / "tiny.npz", **state)
    argv = [*argv, "--config.model.name=tests.tiny"]
    assert command("import", folder / "tiny.npz", *argv, there) == 0
    digest = load_weights(folder / "run")[2]
    assert main([*argv, there, "--mode=eval"]) == 0
    assert "accuracy %" in capsys.readouterr().out
    assert main([*argv, there]) == 2
    assert "holds imported weights; pass another --workdir to train" in capsys.readouterr().err
    apply, variables = ldl_jax.load(folder / "run")
    with np.load(folder / "run" / "predictions" / "test.npz") as file:
        images = images_of("cifar_resnet")[file["index"]]
        np.testing.assert_allclose(file["logits"], apply(variables, images).logits, atol=1e-4)
    # a student that was begun with this teacher goes on
    assert load_weights(folder / "run")[2] == digest


def test_imported_weights_are_compared_with_the_data_that_they_are_measured_on(own):
    argv, folder = own
    assert command("import", folder / "weights.npz", *argv, f"--workdir={folder / 'run'}") == 0
    words = [*argv, f"--workdir={folder / 'none'}", "--classes=5", "--shape=16,16,3"]
    # of a data set that is not on this disk
    assert command("import", folder / "weights.npz", *words) == 0
    spec = json.loads((folder / "run" / "network.json").read_text())
    del spec["imported"]
    # how many images there are to train on, and what was read, is nothing to them
    for name in ("run", "none"):
        run.check_data(folder / name, spec | {"num_examples": 7}, {"data.root = there": "0" * 64})
        for field, other in (
            ("mean", [0.5, 0.5, 0.5]),
            ("std", [1, 1, 1]),
            ("shape", [8, 8, 3]),
            ("num_classes", 6),
        ):
            with pytest.raises(
                ValueError, match=f"{name} was imported for other data: {field} was "
            ):
                run.check_data(folder / name, spec | {field: other}, {})
    run.check_data(folder / "none", spec | {"classes": list("edcba")}, {})
    with pytest.raises(ValueError, match="run was imported for other data: classes was "):
        run.check_data(folder / "run", spec | {"classes": list("edcba")}, {})


def refused(capsys, *argv):
    """The sentence of a command that is refused."""
    assert command(*argv) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1, said
    return said


def test_a_directory_that_holds_a_run_is_left_alone(own, capsys):
    argv, folder = own
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text("{}")
    said = refused(capsys, "import", folder / "weights.npz", *argv, f"--workdir={folder / 'run'}")
    assert "already holds a run (config.json)" in said
    assert [path.name for path in (folder / "run").iterdir()] == ["config.json"]


def test_files_that_are_no_state_dict(own, capsys):
    argv, folder = own
    argv = [*argv, f"--workdir={folder / 'run'}"]
    (folder / "broken.npz").write_bytes(b"PK no archive")
    (folder / "broken.safetensors").write_bytes(b"\x07" * 40)
    np.savez(folder / "objects.npz", fc=np.array([{}], dtype=object))
    for name in ("broken.npz", "broken.safetensors", "objects.npz", "none.npz", "none.safetensors"):
        assert f"{folder / name}: cannot be read as a state_dict" in refused(
            capsys, "import", folder / name, *argv
        )
    said = refused(capsys, "import", folder / "weights.pth", *argv)
    assert (
        "weights.pth must be a .safetensors or .npz file; in PyTorch, write one with safetensors.torch.save_file"
        in said
    )
    assert not (folder / "run").exists()


def test_command_lines_that_are_not_understood(own, capsys):
    argv, folder = own
    weights, there = folder / "weights.npz", f"--workdir={folder / 'run'}"
    assert "the command must be import FILE or export RUN FILE.safetensors, got ''" in refused(
        capsys, there
    )
    assert "got 'import'" in refused(capsys, "import")
    assert "got 'convert x'" in refused(capsys, "convert", "x")
    assert "--config is missing; import needs" in refused(capsys, "import", weights, there)
    assert "--workdir is missing; import needs" in refused(capsys, "import", weights, *argv)
    assert "config.model has no field 'nam'" in refused(
        capsys, "import", weights, *argv, "--config.model.nam=x"
    )
    for shape, sentence in (
        ("9", "got 5 and [9]"),
        ("a,b,c", "--shape must be three numbers H,W,C such as 32,32,3, got 'a,b,c'"),
        ("0,1,3", "got 5 and [0, 1, 3]"),
    ):
        said = refused(capsys, "import", weights, *argv, there, "--classes=5", f"--shape={shape}")
        assert sentence in said
    assert "--classes and --shape must be passed together" in refused(
        capsys, "import", weights, *argv, there, "--classes=5"
    )
    plain = [argv[0], there, "--classes=5", "--shape=16,16,3"]
    assert "config.model.mean and config.model.std are required" in refused(
        capsys, "import", weights, *plain
    )
    assert "is not a run directory" in refused(
        capsys, "export", folder / "none", folder / "x.safetensors"
    )
    assert "the exported file must end in .safetensors, got " in refused(
        capsys, "export", folder / "none", folder / "x.pth"
    )
    assert command("--help") == 0
    assert "--names=kuangliu" in capsys.readouterr().out


@pytest.mark.parametrize("name", TWINS)
def test_pytorch_loads_an_export_strictly_and_predicts_the_same(name, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file
    from vectors import make_networks

    path = convert.export_run(
        imported(tmp_path, name), tmp_path / "back.safetensors", TWINS[name][2]
    )
    side, make = make_networks.TWINS[name]
    module = make().double().eval()
    module.load_state_dict(load_file(path), strict=True)
    x = (
        (vectors()["images"][:, :side, :side] / 255 - make_networks.MEAN) / make_networks.STD
    ).transpose(0, 3, 1, 2)
    with torch.no_grad():
        logits = module(torch.from_numpy(x))[0].numpy()
    np.testing.assert_allclose(logits, vectors()[name]["eval_logits"], atol=1e-11)
