"""Answers to a study's questions: differences over seeds, with intervals, and what they decide."""

import numpy as np
from scipy import stats

from ldl_jax.config.study import METRICS, Finding, Study, shared_teacher
from ldl_jax.evaluation import bootstrap
from ldl_jax.report.result import STATES
from ldl_jax.study.cards import Card

LEVEL = 0.05  # of all findings together, in one state

Cards = dict[str, dict[int, Card]]  # cell -> place -> card


def answers(study: Study, cards: Cards, *, seed: int = 0) -> list[dict]:
    """Each finding with, by state ('raw', 'scaled'), its difference and 'verdict'; JSON can hold it.

    A difference is of `better` less `than` on the seeds that both have: 'mean', 'std', 'n', 'of' (seeds planned),
    'seeds' (95 %, Student's t over the seeds' differences), 'p' (paired t test; None for one seed), 'images' (95 %,
    paired bootstrap on the test images). Of an ECE also 'floors' (the mean noise floors of both) and 'excess' (mean,
    seeds and p of the difference after each run's own floor was taken off). 'holm' is p by Holm 1979 over all findings;
    of an ECE it is that of the larger p, as it is and less floors, so that noise floors alone, which are higher for
    networks that are less sure, decide nothing; it is 1 where both differ in sign, and for findings whose seeds are not
    all there. 'supported' and 'refuted' are decided at 5 % for all findings together; all else is 'undecided'.
    """
    made = [
        {**finding._asdict(), **{state: _of(finding, study, cards, state, seed) for state in STATES}}
        for finding in study.findings
    ]
    for state in STATES:
        adjusted = holm([_decisive(one[state]) for one in made])
        for one, p in zip(made, adjusted, strict=True):
            if one[state] is not None:
                one[state]["holm"] = p
                one[state]["verdict"] = _verdict(one["direction"], one[state])
    return made


def explored(study: Study, cards: Cards, *, seed: int = 0) -> list[dict]:
    """The other comparisons, in every metric and state, without a verdict.

    'p' is None where seeds share a teacher, which makes them depend on each other.
    """
    made = []
    for one, other in study.comparisons:
        found = {state: _differences(one, other, study, cards, state, seed) for state in STATES}
        if any(shared_teacher(name, study) for name in (one, other)):
            found = {state: own and {m: {**d, "p": None} for m, d in own.items()} for state, own in found.items()}
        made += [
            {"better": one, "than": other, "metric": metric,
             **{state: None if own is None else own[metric] for state, own in found.items()}}
            for metric in METRICS
        ]  # fmt: skip
    return made


def holm(p: list[float]) -> list[float]:
    """p values multiplied by how many are left, from the smallest on, and never falling: Holm 1979."""
    order, most, found = np.argsort(p, kind="stable"), 0.0, [1.0] * len(p)
    for rank, place in enumerate(order):
        most = max(most, min(1.0, (len(p) - rank) * p[place]))
        found[place] = most
    return found


def _of(finding: Finding, study: Study, cards: Cards, state: str, seed: int) -> dict | None:
    found = _differences(finding.better, finding.than, study, cards, state, seed)
    return None if found is None else found[finding.metric]


def _differences(better: str, than: str, study: Study, cards: Cards, state: str, seed: int) -> dict[str, dict] | None:
    """The difference in each metric; None where no seed has both, or a run has no temperature."""
    one, other = cards.get(better, {}), cards.get(than, {})
    both = sorted(set(one) & set(other))
    for place in both:
        _check_images(f"{better}/{place}", one[place], f"{than}/{place}", other[place])
    pairs = [(one[place].side(state), other[place].side(state)) for place in both]
    if not pairs or any(side is None for pair in pairs for side in pair):
        return None
    planned = min(cell.seeds for cell in study.cells if cell.name in (better, than))
    images = bootstrap.paired(seed, pairs)
    sides = [[side[place].facts[state] for place in both] for side in (one, other)]
    floors = [float(np.mean([fact["floor"] for fact in side])) for side in sides]
    found = {}
    for metric in METRICS:
        figure = [a["figures"][metric] - b["figures"][metric] for a, b in zip(*sides, strict=True)]
        spread = bootstrap.over_seeds(figure)
        found[metric] = {
            "mean": spread.mean, "std": spread.std, "n": spread.n, "of": planned, "seeds": spread.interval,
            "p": _p(np.array(figure)), "images": images[metric].interval, "floors": None, "excess": None,
        }  # fmt: skip
    less = [a["figures"]["ece"] - a["floor"] - b["figures"]["ece"] + b["floor"] for a, b in zip(*sides, strict=True)]
    spread = bootstrap.over_seeds(less)
    excess = {"mean": spread.mean, "seeds": spread.interval, "p": _p(np.array(less))}
    return {**found, "ece": {**found["ece"], "floors": floors, "excess": excess}}


def _check_images(name: str, one: Card, than: str, other: Card) -> None:
    """Differences are of the same test images; cards of before this was kept say nothing."""
    on, against = (card.facts.get("tested_on") for card in (one, other))
    count, than_count = (card.facts["images"] for card in (one, other))
    if count != than_count or (None not in (on, against) and on != against):
        raise ValueError(
            f"{name} and {than} were measured on different test images (digests {on} of {count} and {against} of "
            f"{than_count} images); allowed is one data set for all runs of a study"
        )


def _p(differences: np.ndarray) -> float | None:
    """Two-sided p of the t test that differences f[n] are 0 on average; None for one seed."""
    if len(differences) < 2:
        return None
    if np.ptp(differences) == 0:  # no spread to measure by: the sign test's
        return 1.0 if differences[0] == 0 else 2.0 ** (1 - len(differences))
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _decisive(own: dict | None) -> float:
    """The p that a finding is decided by, before Holm's correction; 1 where it cannot be decided yet."""
    if own is None or own["p"] is None or own["n"] < own["of"]:
        return 1.0
    if own["excess"] is None:
        return own["p"]
    return max(own["p"], own["excess"]["p"]) if own["mean"] * own["excess"]["mean"] > 0 else 1.0


def _verdict(direction: str, own: dict) -> str:
    if own["n"] < own["of"] or own["holm"] >= LEVEL:
        return "undecided"
    return "supported" if (own["mean"] < 0) == (direction == "lower") else "refuted"
