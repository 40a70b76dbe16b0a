"""Answers to a study's questions: differences over seeds, with intervals, and what they decide."""

import numpy as np
from scipy import stats

from ldl_jax.cards import STATES, Card
from ldl_jax.cells import Finding, Study
from ldl_jax.scores import uncertainty

LEVEL = 0.05  # of all findings together

Cards = dict[str, dict[int, Card]]  # cell -> place -> card


def answers(study: Study, cards: Cards, *, seed: int = 0) -> list[dict]:
    """Each finding with, by state ('raw', 'scaled'), its difference and 'verdict'; JSON can hold it.

    A difference is of `better` less `than` on the seeds that both have: 'mean', 'std', 'n', 'seeds' (95 %, Student's
    t over the seeds' differences), 'p' (paired t test), 'holm' (p by Holm 1979 over the findings), 'images' (95 %,
    paired bootstrap on the test images), 'floors' (of an ECE: the mean noise floors of both). 'supported' and
    'refuted' are decided at 5 % for all findings together; what is neither, or rests on fewer than two seeds, is
    'undecided'.
    """
    made = [
        {**finding._asdict(), **{state: _of(finding, cards, state, seed) for state in STATES}}
        for finding in study.findings
    ]
    for state in STATES:
        some = [answer[state] for answer in made if answer[state] is not None]
        for own, adjusted in zip(some, holm([own["p"] for own in some]), strict=True):
            own["holm"] = adjusted
        for answer in made:
            if answer[state] is not None:
                answer[state]["verdict"] = _verdict(answer["direction"], answer[state])
    return made


def explored(study: Study, cards: Cards, *, seed: int = 0) -> list[dict]:
    """The other comparisons, in every metric and state, without a verdict."""
    made = []
    for one, other in study.comparisons:
        for metric in ("accuracy", "ece", "nll", "brier"):
            asked = Finding(f"{one} less {other}", one, other, metric)
            made.append(
                {"better": one, "than": other, "metric": metric, **{s: _of(asked, cards, s, seed) for s in STATES}}
            )
    return made


def holm(p: list[float]) -> list[float]:
    """p values multiplied by how many are left, from the smallest on, and never falling: Holm 1979."""
    order, most, found = np.argsort(p, kind="stable"), 0.0, [1.0] * len(p)
    for rank, place in enumerate(order):
        most = max(most, min(1.0, (len(p) - rank) * p[place]))
        found[place] = most
    return found


def _of(finding: Finding, cards: Cards, state: str, seed: int) -> dict | None:
    """The difference in one metric; None where no seed has both, or a run has no temperature."""
    one, other = cards.get(finding.better, {}), cards.get(finding.than, {})
    both = sorted(set(one) & set(other))
    pairs = [(one[place].side(state), other[place].side(state)) for place in both]
    if not pairs or any(side is None for pair in pairs for side in pair):
        return None
    figure = [
        one[place].facts[state]["figures"][finding.metric] - other[place].facts[state]["figures"][finding.metric]
        for place in both
    ]
    spread = uncertainty.over_seeds(figure)
    images = uncertainty.paired(seed, pairs)[finding.metric]
    floors = [float(np.mean([side[place].facts[state]["floor"] for place in both])) for side in (one, other)]
    return {
        "mean": spread.mean, "std": spread.std, "n": spread.n, "seeds": spread.interval, "p": _p(np.array(figure)),
        "images": images.interval, "floors": floors if finding.metric == "ece" else None,
    }  # fmt: skip


def _p(differences: np.ndarray) -> float:
    """Two-sided p of the t test that differences f[n] are 0 on average; 1 for one seed."""
    if len(differences) < 2:
        return 1.0
    if np.ptp(differences) == 0:
        return float(differences[0] == 0)
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _verdict(direction: str, own: dict) -> str:
    if own["n"] < 2 or own["holm"] >= LEVEL:
        return "undecided"
    return "supported" if (own["mean"] < 0) == (direction == "lower") else "refuted"
