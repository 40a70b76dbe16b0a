"""The update of a label memory of ImageNet's size, compared with that of a small one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ldl_jax.bench import base
from ldl_jax.labels.base import read_rows, write_rows

SIZES = ((50_000, 1000), (1_281_167, 1000))
BATCH = 256


def update_program(rows: int, classes: int, dtype) -> tuple[Callable, int]:
    """Read, average and write BATCH rows of a donated table: (program, bytes of temporaries)."""

    def update(table, index, new):
        target = read_rows(table, index, new)
        return write_rows(table, index, new), target.sum()

    index = jnp.asarray(np.random.default_rng(0).choice(rows, BATCH, replace=False), jnp.int32)
    new = jax.nn.softmax(jax.random.normal(jax.random.key(0), (BATCH, classes)))
    table = jnp.zeros((rows, classes), dtype)
    # Donated, as in training: without it, every update would copy the whole table.
    compiled = jax.jit(update, donate_argnums=0).lower(table, index, new).compile()

    def call():
        nonlocal table
        table, total = compiled(table, index, new)
        return total

    return call, compiled.memory_analysis().temp_size_in_bytes


def measure(*, rounds: int, seconds: float, sizes=SIZES) -> str:
    """Goal: the large update takes at most 10 times as long as the small one, with temporaries of
    at most 16 MiB.
    """
    sections = [f"memory update, batch {BATCH}: {base.machine(rounds)}\n"]
    for dtype in (jnp.float32, jnp.float16):
        programs = {}
        temporaries = []
        for rows, classes in sizes:
            name = f"{rows:,} x {classes:,} {jnp.dtype(dtype).name}"
            programs[name], size = update_program(rows, classes, dtype)
            temporaries.append(f"{size / 2**20:.2f} MiB")
        times = base.alternate(programs, rounds=rounds, seconds=seconds)
        table = base.summary(times, next(iter(programs)), "rows/s", BATCH)
        sections.append(f"{table}\ntemporaries: {', '.join(temporaries)}\n")
    return "\n".join(sections).removesuffix("\n")
