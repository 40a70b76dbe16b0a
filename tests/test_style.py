"""The house rules, read off the source: who may import whom, and how things are written."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "ldl_jax").rglob("*.py"))
CONFIGS = sorted((ROOT / "configs").rglob("*.py"))
PLUG_FOLDERS = ("labels", "losses", "auxiliary", "models", "data", "metrics", "calibrate", "scores")
SMALL_FOLDERS = ("labels", "losses", "auxiliary")  # a method is a file of at most 60 lines
FACTORY_FOLDERS = (*SMALL_FOLDERS, "models", "calibrate")  # whose files make something by options
OWNERS = {  # third-party package -> the only places that may import it
    "tensorflow": ("stream/",), "tensorflow_datasets": ("stream/",), "orbax": ("checkpoint.py",),
    "matplotlib": ("report/",), "tensorboardX": ("report/log.py",), "tqdm": None, "torch": ("bench/torch_",),
}  # fmt: skip


def name(path):
    return str(path.relative_to(ROOT / "ldl_jax")) if path.is_relative_to(ROOT / "ldl_jax") else path.name


def tree(path):
    return ast.parse(path.read_text())


def imports(path):
    """Dotted names of all that a file imports, anywhere in it."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def functions(path):
    return [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_imports_the_settings_alone(path):
    assert all(module.startswith("ldl_jax.config.") for module in imports(path)), imports(path)


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name in PLUG_FOLDERS], ids=name)
def test_a_plug_imports_its_base_and_no_sibling(path):
    folder = path.parent.name
    siblings = {f"ldl_jax.{folder}.{other.stem}" for other in path.parent.glob("*.py")} - {f"ldl_jax.{folder}.base"}
    for module in imports(path):
        assert not any(module == s or module.startswith(s + ".") for s in siblings), (name(path), module)
        assert not re.match(r"ldl_jax\.(train|main|run|build|steps|checkpoint|finish|measure|report)", module), module


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_library_enters_through_its_own_rooms(path):
    for module in imports(path):
        allowed = OWNERS.get(module.split(".")[0])
        assert allowed is None or name(path).startswith(allowed), (name(path), module)
    if name(path) != "mesh.py":
        assert not re.search(r"\bprocess_(index|count)\b", path.read_text()), name(path)


def test_lower_rooms_do_not_import_higher_ones():
    rank = {
        "main": 4,
        "bench": 4,
        "convert": 4,
        "evaluate": 4,
        "compare": 4,
        "predict": 4,
        "train": 3,
        "finish": 2,
        "suite": 2,
        "measure": 2,
        "plan": 2,
        "programs": 2,
        "study": 4,
        "feed": 2,
        "build": 1,
    }
    for path in FILES:
        for module in imports(path):
            if module.startswith("ldl_jax."):
                other = rank.get(module.split(".")[1], 0)
                own = rank.get(name(path).split("/")[0].removesuffix(".py"), 0)
                assert other <= own or name(path) == "__init__.py", (name(path), module)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_and_functions_are_short(path):
    most = 60 if path.parent.name in SMALL_FOLDERS and path.stem != "base" else 300
    assert len(path.read_text().splitlines()) <= most
    for node in functions(path):
        assert node.end_lineno - node.lineno < 60, f"{name(path)}: {node.name}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_public_names_have_a_docstring(path):
    module = tree(path)
    assert path.name == "__init__.py" or ast.get_docstring(module)
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert (ast.get_docstring(node) or "").count(".") >= 1, f"{name(path)}: {node.name}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_key_comes_first_and_is_called_key(path):
    for node in functions(path):
        arguments = [arg.arg for arg in node.args.args if arg.arg not in ("self", "recipe")]  # bound, not drawn from
        assert not {"rng", "rngs", "prng"} & {*arguments, *(arg.arg for arg in node.args.kwonlyargs)}, node.name
        keys = [place for place, arg in enumerate(arguments) if arg in ("key", "keys")]
        hands_it_on = node.name == "device_data"  # draws nothing itself
        assert not keys or keys[0] == 0 or hands_it_on, f"{name(path)}: {node.name}{arguments}"


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name in FACTORY_FOLDERS], ids=name)
def test_options_of_a_factory_are_keyword_only_and_explained(path):
    if path.stem in ("base", "spec", "__init__"):
        return
    (made,) = [node for node in tree(path).body if isinstance(node, ast.FunctionDef) and node.name == "make"]
    assert len(made.args.args) <= 1
    lines = path.read_text().splitlines()
    for option in made.args.kwonlyargs:
        assert "  # " in lines[option.lineno - 1], f"{name(path)}: {option.arg} has no comment with its meaning"


@pytest.mark.parametrize("path", FILES + CONFIGS, ids=name)
def test_nothing_is_left_open(path):
    assert not re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", path.read_text())


def test_importing_the_package_loads_nothing_heavy():
    heavy = ("jax", "tensorflow", "matplotlib", "orbax", "sklearn", "ml_collections")
    code = f"import sys, ldl_jax; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "[]"


def test_the_plugs_load_neither_the_loop_nor_its_libraries():
    """What users of the pieces import: labels, losses, metrics, mixing, augmentation, the step."""
    heavy = ("tensorflow", "matplotlib", "orbax", "sklearn", "tensorboardX")
    code = (
        "import sys; from ldl_jax.augment import base; from ldl_jax.mixing import cutmix; "
        "from ldl_jax.labels import online; from ldl_jax.training import steps; "
        f"from ldl_jax.metrics import calibration; print([m for m in {heavy} if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "[]"
