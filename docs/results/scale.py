"""Measure large label memories, logs, studies and image folders: the figures of scale.md.

PYTHONPATH=. python docs/results/scale.py save FOLDER [--rows=128000]
PYTHONPATH=. python docs/results/scale.py restore FOLDER [--rows=128000]
PYTHONPATH=. python docs/results/scale.py log FOLDER [--lines=500000] [--evaluations=500]
PYTHONPATH=. python docs/results/scale.py study FOLDER [--cells=500]
PYTHONPATH=. python docs/results/scale.py images FOLDER [--files=200000]
"""

import argparse
import contextlib
import hashlib
import io
import json
import re
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from ldl_jax import mesh, workdir
from ldl_jax.checkpoint import Checkpoints
from ldl_jax.config import study
from ldl_jax.config.study import Planned
from ldl_jax.data import imagefolder
from ldl_jax.data.base import Request
from ldl_jax.data.readers import splits
from ldl_jax.report import page, run_plots
from ldl_jax.study import __main__ as command
from ldl_jax.study import cards, directory, plan

CLASSES = 1000
BATCH = 256


class Meter:
    """CPU seconds and peak memory between its calls, of this process. Linux only."""

    def __init__(self):
        self._begin = time.process_time()

    def __call__(self, what: str) -> None:
        """Print what was used since the last call."""
        status = Path("/proc/self/status").read_text()
        now, peak = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("VmRSS", "VmHWM"))
        seconds = time.process_time() - self._begin
        print(f"{what:24} {seconds:6.1f} s  {now / 1e3:7,.0f} MB  peak {peak / 1e3:7,.0f} MB")
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        self._begin = time.process_time()


@partial(jax.jit, donate_argnums=0)
def update(state: dict, index: jax.Array, key: jax.Array) -> dict:
    """A state with other rows of its memory, written where the old ones are."""
    new = jax.nn.softmax(3 * jax.random.normal(key, (index.shape[0], CLASSES)))
    rows = state["labels"]["rows"]
    rows = rows.at[index].set(0.5 * rows[index] + 0.5 * new)
    return {"labels": {"rows": rows}, "params": state["params"] + 1}


def steps(state: dict, count: int) -> dict:
    """The state after some train steps."""
    draw = np.random.default_rng(0)
    for number in range(count):
        index = draw.integers(0, len(state["labels"]["rows"]), BATCH)
        state = update(state, index, jax.random.key(number))
    return jax.block_until_ready(state)


def save(folder: Path, rows: int) -> None:
    """Save a state twice, with train steps after each save."""
    used = Meter()
    memory = jnp.zeros((rows, CLASSES), jnp.float32)
    state = {"labels": {"rows": memory}, "params": jnp.zeros((1000, 100))}
    del memory
    for start in range(0, rows, 8192):
        index = np.arange(start, min(start + 8192, rows))
        state = update(state, index, jax.random.key(start))
    jax.block_until_ready(state)
    used("made")
    checkpoints = Checkpoints(folder, every_steps=1, keep=2)
    for step in (1, 2):
        checkpoints.save(step, state, {"step": step}, force=True)
        state = steps(state, 5)
        checkpoints.confirm(step)
        used(f"saved, and 5 steps ({step})")
    checkpoints.close()


def restore(folder: Path, rows: int) -> None:
    """Restore the state, and print a digest of it after train steps."""
    used = Meter()
    memory = jax.ShapeDtypeStruct((rows, CLASSES), jnp.float32)
    abstract = {
        "labels": {"rows": memory},
        "params": jax.ShapeDtypeStruct((1000, 100), jnp.float32),
    }
    shardings = mesh.state_shardings(abstract, mesh.make_mesh())
    abstract = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        abstract,
        shardings,
    )
    used("started")
    checkpoints = Checkpoints(folder, every_steps=1, keep=2)
    state, _ = checkpoints.restore(abstract, print)
    used("restored")
    state = steps(state, 5)
    used("5 steps")
    checkpoints.close()
    print(hashlib.sha256(np.asarray(state["labels"]["rows"])).hexdigest())


def log(folder: Path, lines: int, evaluations: int) -> None:
    """Write a log, and read, cut and draw it as a run does at its end."""
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    every = lines // evaluations
    with open(folder / workdir.METRICS, "w") as file:
        for step in range(1, lines + 1):
            done = step / lines
            row = {
                "step": step,
                "epoch": step / 390,
                "train/loss": 3 * np.exp(-4 * done) + 0.1 * draw.normal() ** 2,
                "train/grad_norm": draw.gamma(2),
                "train/learning_rate": 0.05 * (1 + np.cos(np.pi * done)),
            }
            file.write(json.dumps(row) + "\n")
            if step % every == 0:
                scores = {"test/nll": 2 - done, "test/accuracy": 0.7 * done, "test/ece": 0.1}
                file.write(json.dumps({"step": step, "epoch": step / 390, **scores}) + "\n")
    used = Meter()
    workdir.cut_log_back(folder, lines)
    used("cut back")
    rows = workdir.read_log(folder / workdir.METRICS)
    used("read")
    run_plots.curves(folder / workdir.CURVES, rows, title="a long run")
    used("curves.png")
    page._curves(rows)
    used("curves of the page")


STUDY = """
from ldl_jax.config.study import Cell, Study

def get_study():
    rates = [0.001 * (1 + number) for number in range({cells})]
    cells = [
        Cell(f"c{{number}}", "digits_online.py", {{"optimizer.learning_rate": rate}}, seeds=1)
        for number, rate in enumerate(rates)
    ]
    pairs = tuple((f"c{{number}}", "c0") for number in range(1, 20))
    return Study("many cells", cells=tuple(cells), comparisons=pairs)
"""


def synthetic_card(run: Planned, draw: np.random.Generator) -> cards.Card:
    """A card of a run on 1,000 images that never was."""
    confidence = draw.uniform(0.2, 1, 1000)
    correct = draw.uniform(size=1000) < confidence
    columns = {
        "confidence": confidence.astype(np.float16),
        "correct": correct,
        "nll": draw.exponential(size=1000).astype(np.float16),
        "brier": draw.uniform(size=1000).astype(np.float16),
    }
    bins = np.linspace(0, 1, 16)
    count = np.histogram(confidence, bins)[0]
    state = {
        "figures": {"accuracy": correct.mean(), "nll": 1.0, "brier": 0.5, "ece": 0.05},
        "floor": 0.02,
        "reliability": {
            "count": count.tolist(),
            "confidence": np.histogram(confidence, bins, weights=confidence)[0].tolist(),
            "correct": np.histogram(confidence, bins, weights=correct.astype(float))[0].tolist(),
        },
    }
    epochs = list(range(1, 13))
    facts = {
        "cell": run.cell.name,
        "place": run.place,
        "seed": run.config.seed,
        "identity": run.identity,
        "settings": run.settings,
        "seconds": 60.0,
        "images": 1000,
        "tested_on": "0" * 16,
        "temperature": 1.0,
        "at_bound": False,
        "raw": state,
        "scaled": state,
        "epochs": {"epoch": epochs, "accuracy": [0.5] * 12, "ece": [0.05] * 12},
        "versions": {**workdir.versions(), "threads": []},
    }
    return cards.Card(facts, {"raw": columns, "scaled": columns})


def many_cells(folder: Path, cells: int) -> None:
    """Plan a study, write a card for each run, and collect them."""
    path = folder / "configs" / "studies" / "many.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STUDY.format(cells=cells))
    used = Meter()
    found = study.load(path)
    planned = plan.plan(found, path)
    used("planned")
    where = folder / "study"
    directory.claim(where, path, found, new=True)
    draw = np.random.default_rng(0)
    for run in planned:
        cards.write(where / directory.CARDS, run, synthetic_card(run, draw))
    used("cards written")
    for words in (["--print"], ["--collect"]):
        with contextlib.redirect_stdout(io.StringIO()):
            command.main([str(path), f"--workdir={where}", *words])
        used(f"study {words[0]}")


def images(folder: Path, count: int) -> None:
    """List a folder of small images in 1,000 classes, split it, and read a batch."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (32, 32, 3), np.uint8)
    classes = 1000
    for number in range(count):
        path = folder / f"class{number % classes:04}" / f"{number:07}.jpg"
        if number < classes:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        elif not path.exists():
            # Links of one file, as many as ext4 allows.
            path.hardlink_to(folder / f"class{number % classes:04}" / f"{number % classes:07}.jpg")
    used = Meter()
    listed = splits.read(str(folder), "imagefolder")
    used("listed and split")
    assert len(listed.train.names) + len(listed.test.names) == count
    cache = folder.parent / f"{folder.name}-cache"
    for what in ("data set, index written", "data set, index read"):
        request = Request(str(folder), True, False, "raise", None, 0)
        data = imagefolder.make(request, size=32, cache=str(cache))
        used(what)
    next(data.train.stream([(0, np.arange(BATCH))], 0))
    used("first batch")


def main() -> None:
    """Run the measurement that the command line names."""
    line = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    line.add_argument("what", choices=("save", "restore", "log", "study", "images"))
    line.add_argument("folder", type=Path)
    line.add_argument("--rows", type=int, default=128_000)
    line.add_argument("--lines", type=int, default=500_000)
    line.add_argument("--evaluations", type=int, default=500)
    line.add_argument("--cells", type=int, default=500)
    line.add_argument("--files", type=int, default=200_000)
    chosen = line.parse_args()
    measures = {
        "save": lambda: save(chosen.folder, chosen.rows),
        "restore": lambda: restore(chosen.folder, chosen.rows),
        "log": lambda: log(chosen.folder, chosen.lines, chosen.evaluations),
        "study": lambda: many_cells(chosen.folder, chosen.cells),
        "images": lambda: images(chosen.folder, chosen.files),
    }
    measures[chosen.what]()


if __name__ == "__main__":
    main()
