"""What a temperature fitted on few examples does: the tables of docs/calibration.md and of
docs/results/calibrators.md.

python docs/results/calibrators.py [RUN ...] [--real=FILE] [--splits=200]

Each set of logits is split at random, 200 times: n examples to fit on, others to measure on. Sets
are simulated (K = 2, 10, 100; calibrated, and with their logits multiplied), the holdout and test
predictions of runs, and the arrays NAME_{val,test}_{logits,labels} of a file. Of runs and files
there are three: as they are, calibrated (divided by the best temperature of all their examples),
and that times 2. Fits are the library's own.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ldl_jax.calibrate.likelihood import PRIOR_ABOVE, PRIOR_BELOW, Likelihood, safe, search
from ldl_jax.report.tables import as_markdown, simple
from ldl_jax.workdir import predictions_file

SIZES = (50, 157, 500, 1500, 5000)
TESTED = 3000  # maximal number of examples to measure on
POOL = 12_000  # examples of a simulated set
# Classes, standard deviation of the logits, factors of the logits.
SIMULATED = (
    (2, 3, (1, 1.5, 2)),
    (10, 3, (1, 2)),
    (100, 3, (1, 2)),
    (2, 8, (1, 2)),
    (10, 8, (1, 2)),
)
HEAD = (
    "logits",
    "n",
    "nothing",
    "temperature %",
    "mixed %",
    "prior %",
    "test %",
    "safe %",
    "safe 95 %",
    "T = 1 %",
    "safe − temperature %",
)


class Logits(NamedTuple):
    """A set to split: logits f32[N, K] and labels i[N]."""

    name: str
    logits: np.ndarray
    label: np.ndarray


def simulated() -> Iterator[Logits]:
    """Logits from a normal distribution, and labels drawn from their softmax."""
    for classes, scale, factors in SIMULATED:
        draw = np.random.default_rng(classes * 1000 + scale)
        logits = scale * draw.normal(size=(POOL, classes))
        label = np.argmax(logits + draw.gumbel(size=logits.shape), axis=1)
        for factor in factors:
            state = "calibrated" if factor == 1 else f"times {factor:g}"
            yield Logits(f"K = {classes}, sd {scale}, {state}", factor * logits, label)


def three(name: str, logits: np.ndarray, label: np.ndarray) -> Iterator[Logits]:
    """Logits as they are, calibrated and overconfident."""
    best = np.exp(sum(search(Likelihood(logits, label))) / 2)
    yield Logits(f"{name} (T = {best:.2f})", logits, label)
    yield Logits(f"{name}, calibrated", logits / best, label)
    yield Logits(f"{name}, times 2", 2 * logits / best, label)


def of_run(path: Path) -> Iterator[Logits]:
    """The holdout and test predictions of a run."""
    parts = [np.load(predictions_file(path, split)) for split in ("holdout", "test")]
    logits = np.concatenate([part["logits"] for part in parts])
    yield from three(path.name, logits, np.concatenate([part["label"] for part in parts]))


def of_file(path: Path) -> Iterator[Logits]:
    """The networks of a file of arrays."""
    arrays = np.load(path)
    for name in sorted({key.split("_")[0] for key in arrays.files}):
        logits = np.concatenate([arrays[f"{name}_{part}_logits"] for part in ("val", "test")])
        label = np.concatenate([arrays[f"{name}_{part}_labels"] for part in ("val", "test")])
        yield from three(name, logits, label.astype(np.int64))


def losses(pool: Logits, test: np.ndarray, position: float) -> np.ndarray:
    """The NLL f[m] of the examples at the positions test i[m], at log T = position."""
    values = (pool.logits[test] * np.exp(-position)).astype(np.float32)
    values -= values.max(axis=1, keepdims=True)
    own = values[np.arange(len(test)), pool.label[test]]
    return np.log(np.exp(values).sum(axis=1)) - own


def split(pool: Logits, n: int, draw: np.random.Generator) -> tuple[list[float], bool]:
    """Test NLL of doing nothing and of each method, after a fit on n examples; is T left at 1?"""
    order = draw.permutation(len(pool.label))
    fit, test = order[:n], order[n : n + TESTED]
    likelihood = Likelihood(pool.logits[fit], pool.label[fit])
    position, best, ratio, needed = safe(likelihood)
    passed = ratio > needed
    prior = PRIOR_ABOVE if best > 0 else PRIOR_BELOW
    with_prior = position if passed else sum(search(likelihood, prior)) / 2
    # The plain temperature, then the uniform distribution with weight 1 / (n + 1).
    plain = losses(pool, test, best)
    classes = pool.logits.shape[1]
    mixed = -np.log(n / (n + 1) * np.exp(-plain) + 1 / (n + 1) / classes)
    nothing = losses(pool, test, 0.0)
    shrunk = losses(pool, test, with_prior)
    tested = plain if passed else nothing
    measured = (nothing, plain, mixed, shrunk, tested, shrunk if passed else nothing)
    return [float(values.mean()) for values in measured], not passed


def row(pool: Logits, n: int, splits: int) -> list[str]:
    """The line of a set and a number of examples; per cent are relative to doing nothing."""
    draw = np.random.default_rng(n)
    done = [split(pool, n, draw) for _ in range(splits)]
    nll = np.array([values for values, _ in done])
    nothing, plain, *_, safely = nll.mean(axis=0)
    changes = [f"{100 * (mean / nothing - 1):+.2f}" for mean in nll.mean(axis=0)[1:]]
    worst = 100 * (np.quantile(nll[:, -1] / nll[:, 0], 0.95) - 1)
    left = 100 * np.mean([stays for _, stays in done])
    return [
        pool.name,
        f"{n:,}",
        f"{nothing:.4f}",
        *changes,
        f"{worst:+.2f}",
        f"{left:.0f}",
        f"{100 * (safely / plain - 1):+.2f}",
    ]


def overview(rows: list[list[str]]) -> str:
    """A line for each set: the change by `temperature`, then by `safe_temperature`, for each n."""
    by_set: dict[str, dict[str, str]] = {}
    for name, n, nothing, plain, _, _, _, safely, *_ in rows:
        by_set.setdefault(name, {"NLL": nothing})[n] = f"{plain} → {safely}"
    sizes = [f"{n:,}" for n in SIZES]
    lines = []
    for name, cells in by_set.items():
        lines.append([name, cells["NLL"], *(cells.get(n, "") for n in sizes)])
    return as_markdown(simple(["logits", "NLL", *(f"n = {n}" for n in sizes)], lines))


def main() -> None:
    """Print both tables; the lines of the first appear as they are computed."""
    command = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    command.add_argument("runs", nargs="*", type=Path, help="runs with a holdout")
    command.add_argument("--real", type=Path, help=".npz of logits and labels")
    command.add_argument("--splits", type=int, default=200)
    command.add_argument("--only", default="", help="part of the names of the sets to use")
    chosen = command.parse_args()

    def pools():
        yield from simulated()
        for path in chosen.runs:
            yield from of_run(path)
        if chosen.real:
            yield from of_file(chosen.real)

    lines = as_markdown(simple(HEAD, [])).splitlines()[:2]
    print("\n".join(lines), flush=True)
    rows = []
    for pool in pools():
        # As many examples must remain to measure on as to fit on, at least.
        for n in (n for n in SIZES if 2 * n <= len(pool.label) and chosen.only in pool.name):
            rows.append(row(pool, n, chosen.splits))
            line = as_markdown(simple(HEAD, rows[-1:]))
            print(line.splitlines()[2], flush=True)
    print(f"\n{overview(rows)}", end="")


if __name__ == "__main__":
    main()
