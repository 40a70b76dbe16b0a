"""Comparison of groups of runs: figures over seeds, and differences to a baseline."""

import itertools

import jax
import numpy as np

from ldl_jax.evaluation import bootstrap, runs, simulation
from ldl_jax.evaluation.bootstrap import Answers
from ldl_jax.evaluation.runs import Group
from ldl_jax.metrics.base import shown
from ldl_jax.report.result import STATES

# Dividing the logits by a temperature does not change the accuracy.
FIGURES = {"raw": ("accuracy", "nll", "brier", "ece"), "scaled": ("nll", "brier", "ece")}


def compare(groups: list[Group], baseline: int = 0, *, seed: int = 0) -> dict:
    """Figures of groups over seeds, and their differences to the group at `baseline`, as JSON values.

    'groups' has an entry for each group: name, runs, 'at_bound' (the number of runs whose fitted
    temperature hit a limit), and by state ('raw'; 'scaled', which is None unless every run has a
    temperature) and figure 'mean', 'std' (n - 1; None for one seed) and 'n'; of the ECE also
    'floor', its noise floor (mean over the runs). 'differences' has an entry for each group but the
    baseline: the same of the group minus the baseline, with 95 % intervals 'seeds' (Student's t of
    the differences if both have the same seeds, else Welch's; None for one seed) and 'images'
    (paired bootstrap of the same difference, with every run measured on the same resamples), the
    bootstrap's 'p', and 'verdict': 'better' or 'worse' than the baseline if its intervals exclude
    0, else None.
    """
    # Read each run's predictions once for each state: they may be large.
    answers = []
    for group in groups:
        answers.append({state: _answers(group, state) for state in STATES})

    base = groups[baseline]
    differences = []
    for number, group in enumerate(groups):
        if number == baseline:
            continue
        same_seeds = _seeds(group) == _seeds(base)
        entry = {"name": group.name}
        for state in STATES:
            own = answers[number][state]
            of_base = answers[baseline][state]
            entry[state] = _differences(state, seed, own, of_base, same_seeds)
        differences.append(entry)

    rows = [_row(group, own, seed) for group, own in zip(groups, answers, strict=True)]
    return {"baseline": base.name, "seed": seed, "groups": rows, "differences": differences}


def _answers(group: Group, state: str) -> list[Answers] | None:
    """Each run's predictions of the test images; None if the state needs a temperature a run lacks."""
    scaled = state == "scaled"
    if scaled and any(run.temperature is None for run in group.runs):
        return None
    return [runs.answers(runs.reduced(run, scaled=scaled)) for run in group.runs]


def _row(group: Group, answers: dict[str, list[Answers] | None], seed: int) -> dict:
    """A group's figures over its seeds."""
    row = {
        "name": group.name,
        "runs": [str(run.path) for run in group.runs],
        "at_bound": sum(run.at_bound for run in group.runs),
    }
    for state in STATES:
        row[state] = _spreads(state, answers[state], seed)
    return row


def _values(answers: list[Answers]) -> dict[str, list[float]]:
    """Values of each figure, one for each run."""
    values: dict[str, list[float]] = {}
    for run in answers:
        for name, value in bootstrap.figures(*run).items():
            values.setdefault(name, []).append(value)
    return values


def _spreads(state: str, answers: list[Answers] | None, seed: int) -> dict | None:
    if answers is None:
        return None
    values = _values(answers)
    spreads = {}
    for name in FIGURES[state]:
        spread = bootstrap.over_seeds(values[name])
        spreads[name] = {"mean": spread.mean, "std": spread.std, "n": spread.n}
    spreads["ece"]["floor"] = _floor(answers, seed)
    return spreads


def _floor(answers: list[Answers], seed: int) -> float:
    """The mean over runs of the noise floors of their ECEs."""
    key = jax.random.key(seed)
    return float(np.mean([simulation.noise_floor(key, run.confidence)[0] for run in answers]))


def _differences(
    state: str,
    seed: int,
    answers: list[Answers] | None,
    of_base: list[Answers] | None,
    same_seeds: bool,
) -> dict | None:
    """Differences to the baseline by figure; None if either group lacks the state."""
    if answers is None or of_base is None:
        return None
    # Runs of the same seed are paired. Otherwise every run is paired with every run of the
    # baseline, since the mean over all those pairs is the difference of the means.
    by_seed = zip(answers, of_base, strict=same_seeds)
    pairs = list(by_seed if same_seeds else itertools.product(answers, of_base))
    over_images = bootstrap.paired(seed, pairs)
    values = _values(answers)
    base_values = _values(of_base)
    differences = {}
    for name in FIGURES[state]:
        mean, std, interval = _over_seeds(values[name], base_values[name], same_seeds)
        differences[name] = {
            "mean": mean,
            "std": std,
            "n": min(len(answers), len(of_base)),
            "seeds": interval,
            "images": over_images[name].interval,
            "p": over_images[name].p,
            "verdict": _verdict(name, interval, over_images[name].interval),
        }
    return differences


def _verdict(name: str, *intervals: tuple[float, float] | None) -> str | None:
    """'better' or 'worse' if all intervals of a difference lie on that side of 0, else None."""
    known = [interval for interval in intervals if interval is not None]
    sign = -1 if shown()[name].better == "lower" else 1
    for word, side in (("better", sign), ("worse", -sign)):
        if all(min(side * low, side * high) > 0 for low, high in known):
            return word
    return None


def _over_seeds(values: list[float], base: list[float], same_seeds: bool) -> tuple:
    """(mean, std, interval) of the difference between two groups.

    Of the differences by seed if both groups have the same seeds, else of two independent samples.
    """
    if same_seeds:
        by_seed = [value - other for value, other in zip(values, base, strict=True)]
        spread = bootstrap.over_seeds(by_seed)
        return spread.mean, spread.std, spread.interval
    mean = bootstrap.over_seeds(values).mean - bootstrap.over_seeds(base).mean
    return mean, None, bootstrap.unpaired(values, base)


def _seeds(group: Group) -> list[int | None]:
    """The seeds of a group's runs; a file has none."""
    return [None if run.config is None else run.config.seed for run in group.runs]
