"""Answers to a study's questions: differences over seeds, with intervals, and what they decide."""

import numpy as np
from scipy import stats

from ldl_jax.config.study import METRICS, Finding, Study, shared_teacher
from ldl_jax.evaluation import bootstrap
from ldl_jax.report.result import STATES
from ldl_jax.study.cards import Card

LEVEL = 0.05  # of all findings together, in one state

SEED = 0  # of the bootstrap over test images

Cards = dict[str, dict[int, Card]]  # cell -> place -> card


def answers(study: Study, cards: Cards) -> list[dict]:
    """Each finding with, by state ('raw', 'scaled'), its difference and 'verdict'; JSON can hold
    it.

    A difference is of `better` less `than` on the seeds that both have: 'mean', 'std', 'n', 'of'
    (seeds planned), 'seeds' (95 %, Student's t over the seeds' differences), 'p' (paired t test;
    None for one seed), 'images' (95 %, paired bootstrap on the test images). Of an ECE also
    'floors' (the mean noise floors of both) and 'excess' (mean, seeds and p of the difference after
    each run's own floor was taken off). 'holm' is p by Holm 1979 over all findings; of an ECE it is
    that of the larger p, as it is and less floors, so that noise floors alone, which are higher for
    networks that are less sure, decide nothing; it is 1 where both differ in sign, and for findings
    whose seeds are not all there. 'supported' and 'refuted' are decided at 5 % for all findings
    together; all else is 'undecided'.
    """
    answered = []
    for finding in study.findings:
        by_state = {state: _difference(finding, study, cards, state) for state in STATES}
        answered.append({**finding._asdict(), **by_state})

    # Each state has a correction of its own, over all findings, also those that cannot be decided
    # yet.
    for state in STATES:
        corrected = holm([_decisive_p(answer[state]) for answer in answered])
        for answer, p in zip(answered, corrected, strict=True):
            if answer[state] is not None:
                answer[state]["holm"] = p
                answer[state]["verdict"] = _verdict(answer["direction"], answer[state])
    return answered


def explored(study: Study, cards: Cards) -> list[dict]:
    """The other comparisons, in every metric and state, without a verdict.

    'p' is None where seeds share a teacher, which makes them depend on each other.
    """
    comparisons = []
    for better, than in study.comparisons:
        by_state = {state: _differences(better, than, study, cards, state) for state in STATES}
        independent = not any(shared_teacher(cell, study) for cell in (better, than))
        for metric in METRICS:
            comparison = {"better": better, "than": than, "metric": metric}
            for state, differences in by_state.items():
                comparison[state] = None if differences is None else differences[metric]
                if differences is not None and not independent:
                    comparison[state]["p"] = None
            comparisons.append(comparison)
    return comparisons


def holm(p: list[float]) -> list[float]:
    """p values multiplied by how many are left, from the smallest on, and never falling: Holm 1979."""
    corrected = [1.0] * len(p)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p, kind="stable")):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        corrected[index] = largest
    return corrected


def _difference(finding: Finding, study: Study, cards: Cards, state: str) -> dict | None:
    """The difference in the finding's metric; None where there is none yet."""
    differences = _differences(finding.better, finding.than, study, cards, state)
    return None if differences is None else differences[finding.metric]


def _differences(
    better: str, than: str, study: Study, cards: Cards, state: str
) -> dict[str, dict] | None:
    """The difference in each metric; None where no seed has both, or a run has no temperature."""
    pairs = _pairs(better, than, cards)
    sides = [(ours.side(state), theirs.side(state)) for ours, theirs in pairs]
    if not sides or any(side is None for pair in sides for side in pair):
        return None
    planned = min(cell.seeds for cell in study.cells if cell.name in (better, than))
    over_images = bootstrap.paired(SEED, sides)
    facts = [(ours.facts[state], theirs.facts[state]) for ours, theirs in pairs]

    differences = {}
    for metric in METRICS:
        values = [ours["figures"][metric] - theirs["figures"][metric] for ours, theirs in facts]
        spread = bootstrap.over_seeds(values)
        differences[metric] = {
            "mean": spread.mean,
            "std": spread.std,
            "n": spread.n,
            "of": planned,
            "seeds": spread.interval,
            "p": _p(np.array(values)),
            "images": over_images[metric].interval,
            "floors": None,
            "excess": None,
        }
    differences["ece"]["floors"] = [
        float(np.mean([fact["floor"] for fact in side])) for side in zip(*facts, strict=True)
    ]
    differences["ece"]["excess"] = _excess(facts)
    return differences


def _pairs(better: str, than: str, cards: Cards) -> list[tuple[Card, Card]]:
    """The cards of the seeds that both cells have. Raises ValueError where their test images are
    not the same.
    """
    ours, theirs = cards.get(better, {}), cards.get(than, {})
    places = sorted(set(ours) & set(theirs))
    for place in places:
        _check_images(f"{better}/{place}", ours[place], f"{than}/{place}", theirs[place])
    return [(ours[place], theirs[place]) for place in places]


def _excess(facts: list[tuple[dict, dict]]) -> dict:
    """The difference in ECE after each run's own noise floor was taken off."""
    values = [
        ours["figures"]["ece"] - ours["floor"] - theirs["figures"]["ece"] + theirs["floor"]
        for ours, theirs in facts
    ]
    spread = bootstrap.over_seeds(values)
    return {"mean": spread.mean, "seeds": spread.interval, "p": _p(np.array(values))}


def _check_images(name: str, card: Card, other_name: str, other: Card) -> None:
    """Differences are of the same test images; cards of before this was kept say nothing."""
    digest, other_digest = card.facts.get("tested_on"), other.facts.get("tested_on")
    count, other_count = card.facts["images"], other.facts["images"]
    both_known = digest is not None and other_digest is not None
    if count != other_count or (both_known and digest != other_digest):
        raise ValueError(
            f"{name} and {other_name} were measured on different test images (digests {digest} of {count} and "
            f"{other_digest} of {other_count} images); allowed is one data set for all runs of a study"
        )


def _p(differences: np.ndarray) -> float | None:
    """Two-sided p of the t test that differences f[n] are 0 on average; None for one seed."""
    if len(differences) < 2:
        return None
    if np.ptp(differences) == 0:  # no spread to measure by: the sign test's
        return 1.0 if differences[0] == 0 else 2.0 ** (1 - len(differences))
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _decisive_p(difference: dict | None) -> float:
    """The p that a finding is decided by, before Holm's correction; 1 where it cannot be decided
    yet.
    """
    if difference is None or difference["p"] is None or difference["n"] < difference["of"]:
        return 1.0
    excess = difference["excess"]
    if excess is None:
        return difference["p"]
    same_sign = difference["mean"] * excess["mean"] > 0
    return max(difference["p"], excess["p"]) if same_sign else 1.0


def _verdict(direction: str, difference: dict) -> str:
    if difference["n"] < difference["of"] or difference["holm"] >= LEVEL:
        return "undecided"
    lower = difference["mean"] < 0
    return "supported" if lower == (direction == "lower") else "refuted"
