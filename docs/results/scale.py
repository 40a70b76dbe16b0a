"""Measure checkpoints of large label memories and long logs: the figures of scale.md.

PYTHONPATH=. python docs/results/scale.py save FOLDER [--rows=128000]
PYTHONPATH=. python docs/results/scale.py restore FOLDER [--rows=128000]
PYTHONPATH=. python docs/results/scale.py log FOLDER [--lines=500000]
"""

import argparse
import hashlib
import json
import re
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ldl_jax import mesh, workdir
from ldl_jax.checkpoint import Checkpoints
from ldl_jax.report import page, run_plots

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


def log(folder: Path, lines: int) -> None:
    """Write a log, and read, cut and draw it as a run does at its end."""
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
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
    used = Meter()
    workdir.cut_log_back(folder, lines)
    used("cut back")
    rows = workdir.read_log(folder / workdir.METRICS)
    used("read")
    run_plots.curves(folder / workdir.CURVES, rows, title="a long run")
    used("curves.png")
    page._curves(rows)
    used("curves of the page")


def main() -> None:
    """Run the measurement that the command line names."""
    command = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    command.add_argument("what", choices=("save", "restore", "log"))
    command.add_argument("folder", type=Path)
    command.add_argument("--rows", type=int, default=128_000)
    command.add_argument("--lines", type=int, default=500_000)
    chosen = command.parse_args()
    if chosen.what == "log":
        log(chosen.folder, chosen.lines)
    else:
        {"save": save, "restore": restore}[chosen.what](chosen.folder, chosen.rows)


if __name__ == "__main__":
    main()
