"""Published figures of two networks beside ours: the tables of docs/results/published.md.

python docs/results/published.py [--human=cifar10h.npy]

Mukhoti et al. 2020 choose the temperature that gives the lowest ECE on their validation images
among 0.1, 0.2, ..., 10 (`temperature_scaling.py` of torrvision/focal_calibration); `by_grid` does
the same. Both of ours maximise the likelihood of these images, the default one with a prior.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

import ldl_jax as ldl
from ldl_jax.report.figure_tables import interval, number, title
from ldl_jax.report.result import Evaluation
from ldl_jax.report.tables import Table, as_markdown, simple

FOLDER = Path(__file__).parents[2] / "tests" / "vectors" / "published"
GRID = np.arange(1, 101) / 10


class Published(NamedTuple):
    """A network's figures in the paper; all but the temperature are fractions."""

    name: str
    error: float
    ece: float
    temperature: float
    ece_scaled: float


NETWORKS = {
    "cross_entropy": Published("cross entropy", 0.0495, 0.0435, 2.5, 0.0135),
    "flsd53": Published("FLSD-53", 0.0498, 0.0155, 1.1, 0.0095),
}


def read(network: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits f32[N, 10] and labels i8[N] of a network's 'val' or 'test' images."""
    with np.load(FOLDER / f"{network}_{split}.npz") as arrays:
        return arrays["logits"], arrays["labels"]


def by_grid(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of GRID with the lowest ECE, in 15 bins."""
    errors = [ldl.ece(logits=logits / t, labels=labels) for t in GRID.astype(np.float32)]
    return float(GRID[int(np.argmin(errors))])


def measured(network: str, human: np.ndarray | None) -> Evaluation:
    """All our figures of a network; human: distributions of the test images, or None."""
    logits, labels = read(network, "test")
    return ldl.measure(
        logits=logits, labels=labels, val=read(network, "val"), human=human, name=network
    )


def at_temperature(network: str, temperature: float, digits: int) -> list[str]:
    """The cells of a temperature, and of the test images' ECE at it."""
    logits, labels = read(network, "test")
    scaled = ldl.ece(logits=logits / np.float32(temperature), labels=labels)
    return [f"{temperature:.{digits}f}", number("ece", scaled)]


def headline(results: dict[str, Evaluation]) -> Table:
    """The published figures, those at the temperature of a grid, and ours."""
    rows = []
    for network, paper in NETWORKS.items():
        result = results[network]
        raw = result.raw["ece"]
        scaled = result.scaled["ece"]
        ours = [f"{100 * (1 - result.raw['accuracy'].value):.2f}", number("ece", raw.value)]
        published = [f"{100 * paper.error:.2f}", number("ece", paper.ece)]
        published += [f"{paper.temperature:.1f}", number("ece", paper.ece_scaled)]
        logits, labels = read(network, "val")
        likelihood = ldl.calibrate.fit("temperature", logits=logits, labels=labels)
        plain = likelihood.params["temperature"]
        default = [f"{result.temperature['temperature']:.3f}", number("ece", scaled.value)]
        ends = [interval("ece", raw.interval), "", interval("ece", scaled.interval)]
        rows += [
            [paper.name, "published", *published],
            [
                "",
                "T by a grid, as in the paper",
                *ours,
                *at_temperature(network, by_grid(logits, labels), 1),
            ],
            ["", "T by the likelihood (temperature)", *ours, *at_temperature(network, plain, 3)],
            ["", "the default (safe_temperature)", *ours, *default],
            ["", "its 95 % interval", "", *ends],
            ["", "its noise floor", "", number("ece", raw.floor), "", number("ece", scaled.floor)],
        ]
    head = ["network", "figures", "error %", "ECE %", "T", "ECE at T %"]
    return simple(head, rows)


def everything(results: dict[str, Evaluation]) -> Table:
    """All our figures, raw and recalibrated, of both networks."""
    head = [""]
    for network in results:
        head += [f"{NETWORKS[network].name}, raw", "recalibrated"]
    rows = []
    for name in next(iter(results.values())).raw.figures:
        row = [title(name)]
        for result in results.values():
            row += [number(name, state.figures[name].value) for state in result.states().values()]
        rows.append(row)
    return simple(head, rows)


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    command = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    command.add_argument("--human", type=Path, help="votes or distributions of the test images")
    chosen = command.parse_args(argv)
    human = None if chosen.human is None else np.load(chosen.human, allow_pickle=False)
    results = {network: measured(network, human) for network in NETWORKS}
    print(as_markdown(headline(results), everything(results)), end="")


if __name__ == "__main__":
    main()
