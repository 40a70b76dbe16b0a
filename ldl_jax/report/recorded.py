"""Recorded figures of other runs, which a run shows beside its own at its end."""

import math
from pathlib import Path
from typing import NamedTuple

from ldl_jax.config import recipes
from ldl_jax.files.reading import read_json
from ldl_jax.metrics.base import shown
from ldl_jax.report.result import STATES


class Recorded(NamedTuple):
    """Figures of a group of runs over its seeds."""

    name: str
    runs: int
    # {state: {figure: (mean, standard deviation or None)}}, with the states of STATES
    figures: dict[str, dict[str, tuple[float, float | None]]]


def read(name: str) -> Recorded | None:
    """The baseline of a file that `python -m ldl_jax.compare` wrote as comparison.json.

    name: a path, or a file in the folder of the configs that come with the package; '' for none.
    Raises ValueError if there is no such file, or if it is another.
    """
    if not name:
        return None
    path = Path(name).expanduser()
    if not path.is_file():
        path = recipes.folder() / name
    if not path.is_file():
        raise ValueError(
            f"config.eval.baseline must be a comparison.json that python -m ldl_jax.compare wrote; "
            f"{name} does not exist"
        )
    content = read_json(path, "a comparison of runs")
    try:
        (group,) = [row for row in content["groups"] if row["name"] == content["baseline"]]
        figures = {state: _figures(group[state]) for state in STATES if group[state]}
        if not (isinstance(group["name"], str) and group["runs"] and "raw" in figures):
            raise TypeError
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"config.eval.baseline: {path} is not a comparison.json that python -m ldl_jax.compare "
            "wrote"
        ) from None
    return Recorded(group["name"], len(group["runs"]), figures)


def _figures(spreads: dict) -> dict[str, tuple[float, float | None]]:
    """The figures of a group in a state. Raises KeyError, TypeError or ValueError if there are none."""
    figures = {}
    for name in shown():
        if name not in spreads:
            continue
        spread = spreads[name]
        mean = float(spread["mean"])
        std = None if spread["std"] is None else float(spread["std"])
        if not math.isfinite(mean) or not (std is None or math.isfinite(std)):
            raise ValueError(name)
        figures[name] = (mean, std)
    if not figures:
        raise ValueError("no figures")
    return figures
