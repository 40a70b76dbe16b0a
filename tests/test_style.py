"""The house rules, read off the source: who may import whom, and how things are written."""

import ast
import re
import subprocess
import sys
import tokenize
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "ldl_jax").rglob("*.py"))
CONFIGS = sorted((ROOT / "configs").rglob("*.py"))
PLUG_FOLDERS = (
    "labels",
    "losses",
    "auxiliary",
    "models",
    "data",
    "metrics",
    "calibrate",
    "mixing",
    "augment",
)
SMALL_FOLDERS = (
    "labels",
    "losses",
    "auxiliary",
    "mixing",
    "augment",
)  # a method is a file of at most 120 lines, 60 of them code
FACTORY_FOLDERS = (*SMALL_FOLDERS, "models", "calibrate")  # whose files make something by options
PARTS = ("spec", "describe", "likelihood", "missing")  # shared by members of a plug folder
ROOMS = ("readers", "operations")  # folders of shared parts within a plug folder
OWNERS = {  # third-party package -> the only places that may import it
    "tensorflow": ("data/readers/",), "tensorflow_datasets": ("data/readers/",), "orbax": ("checkpoint/",),
    "matplotlib": ("report/",), "tensorboardX": ("training/log.py",), "tqdm": None, "torch": ("bench/torch_",),
    "google_crc32c": ("data/readers/",),
}  # fmt: skip

RANKS = {  # entry of the package -> its height: imports go down
    **dict.fromkeys(
        ("study", "bench", "analyse", "main", "evaluate", "compare", "predict", "convert", "store"),
        7,
    ),
    "training": 6,
    "evaluation": 5,
    **dict.fromkeys(("workdir", "checkpoint"), 4),
    **dict.fromkeys(
        (
            "report",
            "calibrate",
            "data",
            "labels",
            "auxiliary",
            "mixing",
            "augment",
            "models",
            "optimizer",
            "mesh",
        ),
        3,
    ),
    **dict.fromkeys(("metrics", "losses", "arrays", "distributions"), 2),
    **dict.fromkeys(("config", "contract"), 1),
    **dict.fromkeys(("files", "errors", "signals", "cli", "escape"), 0),
}
MOST = {  # see test_the_style_figures_of_the_package
    "lines over 100 columns": 0.02,
    "code lines per comment": 12,  # 3.12 and later count lines of f-strings too
    "comprehensions per 1,000 statements": 30,
    "packed assignments per 1,000 statements": 2,
    "fmt: skip": 0,
}
APART = (7,)  # ranks whose entries do not import one another


def name(path):
    return (
        str(path.relative_to(ROOT / "ldl_jax"))
        if path.is_relative_to(ROOT / "ldl_jax")
        else path.name
    )


@lru_cache(None)
def tree(path):
    return ast.parse(path.read_text())


@lru_cache(None)
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


def test_a_config_imports_the_settings_alone():
    for path in CONFIGS:
        assert all(module.startswith("ldl_jax.config.") for module in imports(path)), (
            name(path),
            imports(path),
        )


def test_a_plug_imports_its_base_and_no_sibling():
    """What several members share is in `base` or in PARTS; parts of the folder that are no members
    may use each other.
    """
    for path in (p for p in FILES if p.parent.name in PLUG_FOLDERS):
        if not any(
            node.name in ("make", "of")
            for node in tree(path).body
            if isinstance(node, ast.FunctionDef)
        ):
            continue
        folder = f"ldl_jax.{path.parent.name}"
        for module in internal_imports(path):
            part = module.removeprefix(f"{folder}.")
            assert part in (module, "base", *PARTS) or part.split(".")[0] in ROOMS, (
                name(path),
                module,
            )


def test_a_library_enters_through_its_own_rooms():
    for path in FILES:
        for module in imports(path):
            allowed = OWNERS.get(module.split(".")[0])
            assert allowed is None or name(path).startswith(allowed), (name(path), module)
        if name(path) != "mesh.py":
            assert not re.search(r"\bprocess_(index|count)\b", path.read_text()), name(path)


def module_of(path):
    """The dotted name of a file of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def internal_imports(path):
    """Modules of the package that a file imports, anywhere in it."""
    known = {module_of(other) for other in FILES}
    for name_ in imports(path):
        while name_ not in known and "." in name_:
            name_ = name_.rpartition(".")[0]
        if name_ in known and name_ != "ldl_jax":
            yield name_


def wing(module):
    """The folder or file of the package that a module stands in."""
    return [*module.split("."), ""][1]


def test_no_import_climbs():
    """Whoever imports stands above, or beside it in a folder of its own rank; the ranks name every
    entry.
    """
    for path in (p for p in FILES if p != ROOT / "ldl_jax" / "__init__.py"):
        own = RANKS[wing(module_of(path))]
        for module in internal_imports(path):
            other = RANKS[wing(module)]
            assert other < own or wing(module) == wing(module_of(path)) or (other == own and own not in APART), (
                name(path), module)  # fmt: skip


def test_the_entries_of_the_package_are_few_and_all_ranked():
    entries = [
        p
        for p in (ROOT / "ldl_jax").iterdir()
        if p.name not in ("__pycache__", "__init__.py", "py.typed")
    ]
    assert {p.stem for p in entries} == set(RANKS)
    assert len(entries) <= 34


@pytest.mark.parametrize("of", [lambda module: module, wing], ids=["files", "folders"])
def test_no_circle_of_imports(of):
    graph = {}
    for path in FILES:
        module = module_of(path)
        others = {
            other for other in internal_imports(path) if not module.startswith(f"{other}.")
        }  # a folder's face
        graph.setdefault(of(module), set()).update(of(other) for other in others)
    graph.pop("", None)
    finished, above = set(), []

    def visit(module):
        assert module not in above, " -> ".join([*above[above.index(module) :], module])
        if module not in finished:
            above.append(module)
            for other in sorted(graph[module] - {module}):
                visit(other)
            finished.add(above.pop())

    for module in sorted(graph):
        visit(module)


def code_lines(path):
    """Lines of statements: no blank ones, no docstrings, no comments."""
    tree = ast.parse(path.read_text())
    lines = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if not is_text:
                # The body of a compound statement is counted by its own statements.
                end = node.body[0].lineno - 1 if hasattr(node, "body") else node.end_lineno
                lines.update(range(node.lineno, end + 1))
    blank = {n for n, line in enumerate(path.read_text().splitlines(), 1) if not line.strip()}
    text = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            text.update(range(node.lineno, node.end_lineno + 1))
    return len(lines - blank - text)


def test_files_and_functions_are_short():
    for path in FILES:
        is_method = path.parent.name in SMALL_FOLDERS and path.stem != "base"
        most = 120 if is_method else 350
        assert len(path.read_text().splitlines()) <= most, name(path)
        if is_method:
            assert code_lines(path) <= 60, name(path)
        for node in functions(path):
            assert node.end_lineno - node.lineno < 72, f"{name(path)}: {node.name}"


def test_public_names_have_a_docstring():
    for path in FILES:
        module = tree(path)
        assert path.name == "__init__.py" or ast.get_docstring(module), name(path)
        for node in module.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert (ast.get_docstring(node) or "").count(".") >= 1, f"{name(path)}: {node.name}"


def test_a_key_comes_first_and_is_called_key():
    for path in FILES:
        for node in functions(path):
            # self and recipe are bound, not drawn from
            arguments = [arg.arg for arg in node.args.args if arg.arg not in ("self", "recipe")]
            named = {*arguments, *(arg.arg for arg in node.args.kwonlyargs)}
            assert not {"rng", "rngs", "prng"} & named, f"{name(path)}: {node.name}"
            keys = [place for place, arg in enumerate(arguments) if arg in ("key", "keys")]
            hands_it_on = node.name == "device_data"  # draws nothing itself
            assert not keys or keys[0] == 0 or hands_it_on, f"{name(path)}: {node.name}{arguments}"


def test_options_of_a_factory_are_keyword_only_and_explained():
    for path in (p for p in FILES if p.parent.name in FACTORY_FOLDERS):
        if path.stem in ("__init__", "base", *PARTS):
            continue
        (made,) = [
            node
            for node in tree(path).body
            if isinstance(node, ast.FunctionDef) and node.name == "make"
        ]
        assert len(made.args.args) <= 1
        lines = path.read_text().splitlines()
        for option in made.args.kwonlyargs:
            assert "  # " in lines[option.lineno - 1], (
                f"{name(path)}: {option.arg} has no comment with its meaning"
            )


def test_nothing_is_left_open():
    for path in FILES + CONFIGS:
        assert not re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", path.read_text()), (
            path.name
        )


def test_text_is_read_and_written_in_a_stated_encoding():
    """The locale decides otherwise: what is written in one could not be read in another."""
    for path in FILES + CONFIGS:
        for node in (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            options = {keyword.arg: keyword.value for keyword in node.keywords}
            where = f"{name(path)}, line {node.lineno}: {called}"
            assert not {"text", "universal_newlines"} & set(options), where
            # `reading.read_text` is always UTF-8.
            is_method = (
                isinstance(node.func, ast.Attribute)
                and getattr(node.func.value, "id", "") != "reading"
            )
            if is_method and called in ("read_text", "write_text"):
                assert "encoding" in options, where
            # `open` of modules and archives has no text, `tempfile` and `open` have modes.
            is_open = isinstance(node.func, ast.Name) and called in ("open", "fdopen")
            if is_open or called in ("TemporaryFile", "NamedTemporaryFile", "TextIOWrapper"):
                first = 1 if is_open else 0
                mode = options.get("mode", (*node.args, None, None)[first])
                is_binary = isinstance(mode, ast.Constant) and "b" in str(mode.value)
                is_binary = is_binary or (mode is None and called.endswith("TemporaryFile"))
                # None stands for options in a dict, which a reader has to look at.
                assert is_binary or {"encoding", None} & set(options), where


def test_what_is_printed_is_escaped_first():
    """By `errors.say`; the processes of a study exchange names of runs by `print`."""
    allowed = ("errors.py", "study/workers.py", "study/__main__.py")
    for path in FILES:
        if name(path) not in allowed:
            words = {node.id for node in ast.walk(tree(path)) if isinstance(node, ast.Name)}
            assert "print" not in words, name(path)


def test_importing_the_package_loads_nothing_heavy():
    heavy = ("jax", "tensorflow", "matplotlib", "orbax", "sklearn", "ml_collections")
    code = f"import sys, ldl_jax; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "[]"
    )


def test_the_plugs_load_neither_the_loop_nor_its_libraries():
    """What users of the pieces import: labels, losses, metrics, mixing, augmentation, the step."""
    heavy = ("tensorflow", "matplotlib", "orbax", "sklearn", "tensorboardX")
    code = (
        "import sys; from ldl_jax.augment import base; from ldl_jax.mixing import cutmix; "
        "from ldl_jax.labels import online; from ldl_jax.training import steps; "
        f"from ldl_jax.metrics import calibration; print([m for m in {heavy} if m in sys.modules])"
    )
    assert (
        subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "[]"
    )


def comment_lines(path):
    """(lines that hold a comment, lines that hold code and no docstring) of a file."""
    with tokenize.open(path) as file:
        tokens = list(tokenize.generate_tokens(file.readline))
    comments = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    code = {token.start[0] for token in tokens if token.type in (tokenize.NAME, tokenize.OP)}
    return comments, code


def test_the_style_figures_of_the_package():
    """Measured over the package and held; today's figures are in docs/architecture.md."""
    lines = [line for path in FILES for line in path.read_text().splitlines() if line.strip()]
    nodes = [node for path in FILES for node in ast.walk(tree(path))]
    statements = sum(isinstance(node, ast.stmt) for node in nodes)
    comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    counts = [comment_lines(path) for path in FILES]
    figures = {
        "lines over 100 columns": sum(len(line) > 100 for line in lines) / len(lines),
        "code lines per comment": sum(len(code) for _, code in counts)
        / sum(len(comments) for comments, _ in counts),
        "comprehensions per 1,000 statements": 1000
        * sum(isinstance(node, comprehension) for node in nodes)
        / statements,
        "packed assignments per 1,000 statements": 1000 * sum(map(is_packed, nodes)) / statements,
        "fmt: skip": sum("# fmt: skip" in line for line in lines),
    }
    for name, most in MOST.items():
        assert figures[name] <= most, f"{name}: {figures[name]:.3g}, at most {most:g}"


def is_packed(node):
    """Several values assigned to several names in one statement, as in `a, b = 1, 2`."""
    tuples = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple)
    return tuples and isinstance(node.value, ast.Tuple)
