"""The README and the guides: their examples run, their links and commands exist."""

import importlib.util
import re
import shutil
import subprocess
import types
from functools import partial
from pathlib import Path

import frame
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from ldl_jax import config
from ldl_jax.config import options
from ldl_jax.models.spec import make_network

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "launch" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    text
    for page in PAGES
    for text in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
]
LONGEST_README = 150  # lines


def block(word):
    (found,) = [text for text in BLOCKS if word in text]
    return found


@pytest.fixture(scope="module")
def loop():
    """The names after the loop of the README has run on images that a linear network can learn."""
    draw, K, N, B = np.random.default_rng(0), 4, 96, 16
    labels = jnp.asarray(draw.integers(0, K, N))
    images = jnp.asarray(draw.normal(size=(N, 6)) + 2 * np.eye(K, 6)[labels], jnp.float32)
    space = {
        "images": images, "labels": labels, "K": K, "EPOCHS": 12, "network": lambda params, x: x @ params["w"],
        "params": {"w": jnp.zeros((6, K), jnp.float32)},
        "batches": lambda epoch: np.random.default_rng(epoch).permutation(N).reshape(-1, B),
    }  # fmt: skip
    exec(compile(block("opt_state"), "README.md", "exec"), space)
    exec(compile(block("ece.value"), "README.md", "exec"), space)
    return space


def test_the_loop_learns_and_its_memory_holds_predictions(loop):
    assert float(loop["value"]) < 0.8 * np.log(4)
    np.testing.assert_allclose(loop["rows"].sum(-1), 1, rtol=1e-5)
    logits = loop["network"](loop["params"], loop["images"])
    assert np.mean(np.argmax(logits, -1) == loop["labels"]) > 0.8
    assert np.abs(loop["rows"] - jax.nn.softmax(logits)).max() < 0.2


def test_the_loop_measures_its_calibration(loop):
    p = np.asarray(jax.nn.softmax(loop["network"](loop["params"], loop["images"])), np.float64)
    confidence, correct = p.max(1), p.argmax(1) == np.asarray(loop["labels"])
    bins = np.clip(np.ceil(confidence * 15) - 1, 0, 14)
    expected = sum(
        abs((confidence[bins == b] - correct[bins == b]).sum()) for b in range(15)
    ) / len(p)
    assert float(loop["scores"]["ece"]) == pytest.approx(expected, abs=1e-6)


def test_the_method_in_one_file_trains_and_is_the_formula(monkeypatch):
    module = types.ModuleType("bootstrap")
    exec(compile(block("bootstrapping"), "README.md", "exec"), module.__dict__)
    made = module.make(frame.plain_build(), beta=0.7)
    logits = np.random.default_rng(0).normal(size=(3, frame.K))
    terms = made.targets((), frame.plain_batch([0, 1, 4]), frame.says(logits))
    total = sum(np.asarray(term.probs) * term.weight for term in terms)
    np.testing.assert_allclose(
        total, 0.7 * np.eye(frame.K)[[0, 1, 4]] + 0.3 * frame.softmax(logits), rtol=1e-6
    )
    monkeypatch.setattr(
        frame,
        "plug",
        lambda folder, name, known=frame.plug: (
            module if name == "bootstrap" else known(folder, name)
        ),
    )
    monkeypatch.setattr(
        frame,
        "options_of",
        lambda file, known=frame.options_of: {} if "bootstrap" in file else known(file),
    )
    _, scalars = frame.train(frame.Case("bootstrap", "mixup", network="linear"), 2)
    assert all(np.isfinite(s["loss"]) for s in scalars)


def test_its_options_are_read_off_a_file_like_any_other(tmp_path, monkeypatch):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "bootstrap.py").write_text(block("bootstrapping"))
    monkeypatch.setattr(options, "ROOM", tmp_path)
    sentence, (option,) = options.read_options("labels/bootstrap.py")
    assert sentence.startswith("Soft bootstrapping")
    assert (option.name, option.value, option.text) == (
        "beta",
        0.95,
        "share of the given label, [0, 1]",
    )


def test_a_network_of_ones_own_is_found_takes_its_options_and_learns(save, monkeypatch):
    monkeypatch.syspath_prepend(save(small=block("class Small")))
    settings = {"name": "mine.small", "dtype": "float32", "options": {"width": 4}}
    spec = {"model": settings, "num_classes": 10, "shape": (8, 8, 1), "mean": (0.3,), "std": (0.4,)}
    init, apply = make_network(spec)
    variables = jax.jit(init)(jax.random.key(0))
    images = np.random.default_rng(0).random((6, 8, 8, 1), np.float32)
    outputs, moved = jax.jit(partial(apply, train=True))(variables, images)
    assert outputs.logits.shape == (6, 10)
    assert [m.shape for m in outputs.stages] == [(6, 4, 4, 4), (6, 2, 2, 8), (6, 1, 1, 16)]
    assert outputs.embedding.shape == (6, 16)
    spread = jax.jit(
        jax.grad(lambda p: apply({**variables, "params": p}, images, train=True)[0].logits.std())
    )
    grads = spread(variables["params"])
    assert all(
        np.abs(leaf).max() > 0
        for name, leaf in traverse_util.flatten_dict(grads).items()
        if "kernel" in name
    )
    assert any(
        np.any(a != b)
        for a, b in zip(*map(jax.tree.leaves, (moved, variables["batch_stats"])), strict=True)
    )


def test_a_config_of_ones_own_starts_from_one_beside_it(tmp_path, save):
    save(small=block("class Small"), memory=block("row_report"))
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "configs" / "mine.py").write_text(block("mine.small"))
    made = config.read(tmp_path / "configs" / "mine.py")
    config.check(made)
    assert (made.model.name, made.model.options.width, made.data.name) == (
        "mine.small",
        32,
        "cifar100",
    )
    assert made.labels.mine.memory.to_dict() == {"share": 0.3, "momentum": 0.9}


def test_the_loop_is_short():
    assert len([line for line in block("opt_state").splitlines() if line.strip()]) <= 28


def test_the_readme_is_short_and_names_every_label_source():
    assert len(TEXT.splitlines()) <= LONGEST_README
    for name in config.plugs("labels"):
        # Methods of a kind share a row.
        assert re.search(rf"^\| (`\w+`, )*`{name}`(, `\w+`)* \|", TEXT, re.MULTILINE), name


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_of_a_page_are_there(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name}: {target}"
        if file.suffix == ".png":
            assert file.read_bytes()[:4] == b"\x89PNG"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


def commands(page):
    """The commands of a page's shell blocks, a line each."""
    for text in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
        for line in text.replace("\\\n", " ").splitlines():
            yield re.sub(r"\s+#.*$", "", line)


def test_every_command_names_configs_fields_and_modules_that_exist():
    known = set(config.flatten(config.default()))
    for page in PAGES:
        for line in commands(page):
            for module in re.findall(r"python -m (ldl_jax[\w.]*)", line):
                assert importlib.util.find_spec(module), f"{page.name}: {line}"
            for path in re.findall(r"\b(configs/[\w/]+\.py|launch/[\w/]+\.\w+)", line):
                assert (ROOT / path).exists() or "LABELS" in path, f"{page.name}: {line}"
            for field in re.findall(r"--config\.([\w.]+)=", line):
                assert field in known | {"FIELD"}, f"{page.name}: {line}"


def test_the_readme_s_entries_are_those_of_the_repository():
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    (listing,) = re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)
    listed = {line.split()[0].rstrip("/") for line in listing.splitlines() if line.strip()}
    tracked = {
        path.split("/")[0]
        for path in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split()
    }
    assert listed == {
        name for name in tracked if (ROOT / name).is_dir() and not name.startswith(".")
    }


def test_the_two_commands_are_one_line_each():
    assert len(re.findall(r"^pip install .*ldl_jax\.main", TEXT, re.MULTILINE)) == 1
    assert len(re.findall(r"^pip install .*pytest", TEXT, re.MULTILINE)) == 1
