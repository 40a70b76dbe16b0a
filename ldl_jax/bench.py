"""Benchmarks: ratios of two programs that take turns in one process.

    python -m ldl_jax.bench step [--config=FILE] [--rounds=7] [--seconds=1]

The step: the whole train step of a config beside a hand-written JAX cross-entropy step of the same network and
batch. The memory: the update of a table of 1,281,167 x 1,000 rows beside that of 50,000 x 1,000.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ldl_jax import build, config, mesh, order, plan, steps, train
from ldl_jax.labels import base

CONFIG = Path(__file__).parent.parent / "configs" / "digits_online.py"
MEMORY = ((50_000, 1000), (1_281_167, 1000))
BATCH = 256  # of the memory's update


def alternate(programs: dict[str, Callable], *, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Seconds a call of each program, `rounds` times each, in turns of about `seconds`.

    A program is called without arguments, dispatches its work and returns what to wait for.
    """
    times, calls = {name: [] for name in programs}, {}
    for name, program in programs.items():
        jax.block_until_ready(program())
        begin = time.perf_counter()
        jax.block_until_ready(program())
        calls[name] = max(1, round(seconds / (time.perf_counter() - begin)))
    for number in range(rounds):
        names = list(programs) if number % 2 else list(programs)[::-1]
        for name in names:
            begin, before = time.perf_counter(), None
            for _ in range(calls[name]):
                out = programs[name]()
                jax.block_until_ready(before)
                before = out
            jax.block_until_ready(before)
            times[name].append((time.perf_counter() - begin) / calls[name])
    return times


def summary(times: dict[str, list[float]], reference: str, unit: str, per_call: float) -> str:
    """A table: median rate of each program, and the median, lowest and highest ratio of its time to the reference's."""
    width = max(map(len, times))
    lines = [f"{'':{width}}  {unit:>12}   time / {reference}: median (lowest - highest)"]
    for name, values in times.items():
        ratios = np.array(values) / np.array(times[reference])
        rate = per_call / np.median(values)
        spread = f"{np.median(ratios):.3f} ({ratios.min():.3f} - {ratios.max():.3f})"
        lines.append(f"{name:{width}}  {rate:12,.1f}   {spread}")
    return "\n".join(lines)


def toolkit_step(made: build.Experiment) -> Callable:
    """The run's own train step on its own data, one step a call."""
    device, shapes = train.make_programs(made), plan.abstract_state(made)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
    fresh = jax.jit(partial(steps.init_state, made.recipe), out_shardings=shardings)
    state, batches = fresh(jax.random.key(made.config.seed)), _batches(made)

    def call():
        nonlocal state
        state, scalars = device.step(state, device.frozen, device.train, next(batches))
        return scalars["loss"]

    return call


def plain_step(made: build.Experiment) -> Callable:
    """A hand-written cross-entropy step: fetch, network, gradient, optimizer; no plugs, no memory, no augmentation."""
    data, batches, apply = train.make_programs(made).train, _batches(made), made.recipe.build.apply
    optimizer = made.recipe.build.optimizer
    variables = jax.jit(made.recipe.build.init)(jax.random.key(made.config.seed))
    state = (variables["params"], variables["batch_stats"], optimizer.init(variables["params"]))

    @partial(jax.jit, donate_argnums=0)
    def step(state, data, batch):
        params, stats, opt_state = state
        image = data["images"][batch["index"]].astype(made.recipe.dtype) / 255
        label = data["labels"][batch["index"]]

        def loss(params):
            outputs, new = apply({"params": params, "batch_stats": stats}, image, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(outputs.logits, label).mean(), new

        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), stats, opt_state), value

    def call():
        nonlocal state
        state, value = step(state, data, next(batches))
        return value

    return call


def _batches(made):
    c = made.config
    sequence = order.batches(
        made.train, seed=c.seed, batch_size=c.data.batch_size, steps_per_epoch=made.recipe.build.steps_per_epoch,
        first_step=0,
    )  # fmt: skip
    return (mesh.to_global({"index": index}, made.mesh) for _, index in sequence)


def memory_update(rows: int, classes: int, dtype) -> tuple[Callable, int]:
    """Read, average and write BATCH rows of a donated table: (program, bytes of temporaries)."""

    def update(table, index, new):
        target = base.read_rows(table, index, new)
        write = jnp.ones(index.shape, bool)
        return base.write_rows(table, index, new, momentum=0.0, write=write), target.sum()

    index = jnp.asarray(np.random.default_rng(0).choice(rows, BATCH, replace=False), jnp.int32)
    new = jax.nn.softmax(jax.random.normal(jax.random.key(0), (BATCH, classes)))
    table = jnp.zeros((rows, classes), dtype)
    compiled = jax.jit(update, donate_argnums=0).lower(table, index, new).compile()

    def call():
        nonlocal table
        table, total = compiled(table, index, new)
        return total

    return call, compiled.memory_analysis().temp_size_in_bytes


def bench_step(path, *, rounds: int, seconds: float) -> str:
    """Goals 1 and 2: the toolkit's step beside a plain one, and a memory of ImageNet's size beside a small one."""
    made = build.experiment(config.read(path), jax.devices()[:1])
    device = jax.devices()[0].device_kind
    times = alternate(
        {"plain step": plain_step(made), "toolkit step": toolkit_step(made)}, rounds=rounds, seconds=seconds
    )
    lines = [f"{jax.default_backend()}, {device}, jax {jax.__version__}, {Path(path).name}, {rounds} alternations", ""]
    lines += [summary(times, "plain step", "images/s", made.config.data.batch_size), ""]
    for dtype in (jnp.float32, jnp.float16):
        programs, temporaries = {}, {}
        for rows, classes in MEMORY:
            name = f"{rows:,} x {classes:,} {jnp.dtype(dtype).name}"
            programs[name], temporaries[name] = memory_update(rows, classes, dtype)
        times = alternate(programs, rounds=rounds, seconds=seconds / 4)
        lines += [summary(times, next(iter(programs)), "rows/s", BATCH)]
        lines += [f"temporaries: {', '.join(f'{size / 2**20:.2f} MiB' for size in temporaries.values())}", ""]
    return "\n".join(lines[:-1])


def main(argv: list[str] | None = None) -> int:
    """Run a benchmark by name and print its table."""
    parser = argparse.ArgumentParser(prog="python -m ldl_jax.bench", description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("step",))
    parser.add_argument("--config", default=CONFIG, help="whose step is measured; digits_online unless given")
    parser.add_argument("--rounds", type=int, default=7, help="alternations")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds of a turn")
    chosen = parser.parse_args(argv)
    print(bench_step(chosen.config, rounds=chosen.rounds, seconds=chosen.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
