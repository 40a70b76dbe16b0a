"""Tests of a study's findings: paired differences over seeds, intervals, p values and verdicts."""

from functools import cache

import numpy as np
from scipy import stats

from ldl_jax.config.study import METRICS, Finding, Study, shared_teacher
from ldl_jax.evaluation import bootstrap
from ldl_jax.report.result import STATES
from ldl_jax.study.cards import Card

LEVEL = 0.05  # significance level of all findings of one group and state together

SEED = 0  # random seed of the bootstrap over test images

Cards = dict[str, dict[int, Card]]  # cell -> index of the seed -> card
Pairs = tuple[tuple[str, str], ...]  # pairs of cells whose differences are added up


def answers(study: Study, cards: Cards) -> list[dict]:
    """The findings, each with its difference and verdict in the states 'raw' and 'scaled'.

    All values can be stored as JSON. A difference is `better` minus `than`, less the difference of the
    second pair if there is one, over the seeds that all these cells have finished; None if there are
    none, or a run has no temperature. Its keys:

    mean, std, n: over the seeds' differences; of: number of seeds planned.
    seeds: 95 % interval over seeds (Student's t); None for one seed.
    p: of the paired t test; None for one seed.
    images: 95 % interval over test images (paired bootstrap).
    floors: mean noise floors of the cells, in the order better, than, minus; for the ECE only,
    otherwise None.
    excess: mean, seeds and p of the difference after subtracting each run's noise floor; for the
    ECE only, otherwise None.
    holm: p with the correction of Holm (1979) over the findings of the same group. For the ECE the
    larger p of difference and excess is corrected, since less confident networks have higher noise
    floors and these alone must not decide; it is 1 if the two have opposite signs. It is also 1 if
    seeds are missing.
    verdict: 'supported' or 'refuted' at 5 % for all findings of the group together, otherwise
    'undecided'.
    """

    # Findings about several metrics of the same cells share one bootstrap.
    @cache
    def differences(pairs: Pairs, state: str) -> dict[str, dict] | None:
        return _differences(pairs, study, cards, state)

    answered = []
    for finding in study.findings:
        answer = finding._asdict()
        for state in STATES:
            by_metric = differences(_pairs(finding), state)
            answer[state] = by_metric and dict(by_metric[finding.metric])
        answered.append(answer)

    # Findings without a group form one.
    groups: dict[str, list[dict]] = {}
    for answer in answered:
        groups.setdefault(answer["group"], []).append(answer)
    for group in groups.values():
        for state in STATES:
            _decide(group, state)
    return answered


def _decide(group: list[dict], state: str) -> None:
    """Add the corrected p and the verdict to the answers of a group, in one state."""
    # Raw and recalibrated predictions are corrected separately, each over all findings of the
    # group. Those that cannot be decided yet count as well: otherwise a verdict could change when
    # their runs finish.
    corrected = holm([_decisive_p(answer[state]) for answer in group])
    for answer, p in zip(group, corrected, strict=True):
        if answer[state] is not None:
            answer[state]["holm"] = p
            answer[state]["verdict"] = _verdict(answer["direction"], answer[state])


def explored(study: Study, cards: Cards) -> list[dict]:
    """The study's other comparisons, in every metric and state, without a verdict.

    'p' is None if seeds share a teacher.
    """
    comparisons = []
    for better, than in study.comparisons:
        pairs = ((better, than),)
        by_state = {state: _differences(pairs, study, cards, state) for state in STATES}
        # Seeds of one teacher depend on each other, and a t test would take them as independent.
        independent = not (shared_teacher(better, study) or shared_teacher(than, study))
        for metric in METRICS:
            comparison = {"better": better, "than": than, "metric": metric}
            for state, differences in by_state.items():
                comparison[state] = None if differences is None else differences[metric]
                if differences is not None and not independent:
                    comparison[state]["p"] = None
            comparisons.append(comparison)
    return comparisons


def holm(p: list[float]) -> list[float]:
    """p values corrected for multiple tests by the step-down procedure of Holm (1979)."""
    corrected = [1.0] * len(p)
    largest = 0.0
    # The smallest p is multiplied by the number of tests, the next one by one less, and so on. The
    # corrected values must not decrease.
    for rank, index in enumerate(np.argsort(p, kind="stable")):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        corrected[index] = largest
    return corrected


def _pairs(finding: Finding) -> Pairs:
    """The pairs of cells whose differences a finding adds up."""
    pairs = ((finding.better, finding.than),)
    # Subtracting a difference is adding the opposite one.
    return (*pairs, finding.minus[::-1]) if finding.minus else pairs


def _differences(pairs: Pairs, study: Study, cards: Cards, state: str) -> dict[str, dict] | None:
    """The difference in each metric; None if no seed has all cells, or a run has no temperature."""
    cells = [cell for pair in pairs for cell in pair]
    # For each seed, the facts of the cells; and of all seeds, the pairs of columns with a value for
    # each image.
    facts = []
    answers_per_image = []
    for row in _rows(cells, cards):
        sides = [card.side(state) for card in row]
        if any(side is None for side in sides):
            return None
        answers_per_image += list(zip(sides[::2], sides[1::2], strict=True))
        facts.append([card.facts[state] for card in row])
    if not facts:
        return None
    planned = min(cell.seeds for cell in study.cells if cell.name in cells)
    over_images = bootstrap.paired(SEED, answers_per_image)

    differences = {}
    for metric in METRICS:
        values = []
        for row in facts:
            figures = [fact["figures"][metric] for fact in row]
            values.append(sum(figures[::2]) - sum(figures[1::2]))
        spread = bootstrap.over_seeds(values)
        # The bootstrap averages over all pairs, but the pairs of a seed are added up.
        low, high = over_images[metric].interval
        differences[metric] = {
            "mean": spread.mean,
            "std": spread.std,
            "n": spread.n,
            "of": planned,
            "seeds": spread.interval,
            "p": _p(np.array(values)),
            "images": (len(pairs) * low, len(pairs) * high),
            "floors": None,
            "excess": None,
        }
    # Networks that are compared may have different noise floors, so the ECE alone is not enough.
    floors = np.mean([[fact["floor"] for fact in row] for row in facts], axis=0).tolist()
    # The second pair is turned round.
    differences["ece"]["floors"] = floors[:2] + floors[:1:-1]
    differences["ece"]["excess"] = _excess(facts)
    return differences


def _rows(cells: list[str], cards: Cards) -> list[list[Card]]:
    """The cards of the cells for each seed that all have finished. Raises ValueError if their test
    images differ.
    """
    finished = [cards.get(cell, {}) for cell in cells]
    rows = []
    for index in sorted(set.intersection(*map(set, finished))):
        row = [of_cell[index] for of_cell in finished]
        for cell, card in zip(cells[1:], row[1:], strict=True):
            _check_images(f"{cells[0]}/{index}", row[0], f"{cell}/{index}", card)
        rows.append(row)
    return rows


def _excess(facts: list[list[dict]]) -> dict:
    """The difference in ECE after subtracting each run's own noise floor."""
    values = []
    for row in facts:
        value = 0.0
        for number, fact in enumerate(row):
            # Pairs follow one another, so every second cell is subtracted.
            sign = -1 if number % 2 else 1
            value += sign * fact["figures"]["ece"]
            value -= sign * fact["floor"]
        values.append(value)
    spread = bootstrap.over_seeds(values)
    return {"mean": spread.mean, "seeds": spread.interval, "p": _p(np.array(values))}


def _check_images(name: str, card: Card, other_name: str, other: Card) -> None:
    """Raise ValueError if two cards are of different test images."""
    digest = card.facts.get("tested_on")
    other_digest = other.facts.get("tested_on")
    count = card.facts["images"]
    other_count = other.facts["images"]
    # Older cards have no digest, so only the number of images can be compared.
    both_known = digest is not None and other_digest is not None
    if count != other_count or (both_known and digest != other_digest):
        raise ValueError(
            f"{name} and {other_name} were measured on different test images ({count} with digest "
            f"{digest}, {other_count} with digest {other_digest}); all runs of a study must use "
            "the same data set"
        )


def _p(differences: np.ndarray) -> float | None:
    """Two-sided p of the t test that the mean of the differences f[n] is 0; None for one seed."""
    if len(differences) < 2:
        return None
    # Equal differences have no variance for a t test; the sign test does without.
    if np.ptp(differences) == 0:
        return 1.0 if differences[0] == 0 else 2.0 ** (1 - len(differences))
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _decisive_p(difference: dict | None) -> float:
    """The p that decides a finding, before Holm's correction; 1 if it cannot be decided yet."""
    if difference is None or difference["p"] is None or difference["n"] < difference["of"]:
        return 1.0
    excess = difference["excess"]
    if excess is None:
        return difference["p"]
    # An ECE must differ both as measured and after subtracting the noise floors.
    same_sign = difference["mean"] * excess["mean"] > 0
    return max(difference["p"], excess["p"]) if same_sign else 1.0


def _verdict(direction: str, difference: dict) -> str:
    if difference["n"] < difference["of"] or difference["holm"] >= LEVEL:
        return "undecided"
    lower = difference["mean"] < 0
    return "supported" if lower == (direction == "lower") else "refuted"
