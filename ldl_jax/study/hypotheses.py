"""Tests of a study's findings: paired differences over seeds, intervals, p values and verdicts."""

import numpy as np
from scipy import stats

from ldl_jax.config.study import METRICS, Finding, Study, shared_teacher
from ldl_jax.evaluation import bootstrap
from ldl_jax.report.result import STATES
from ldl_jax.study.cards import Card

LEVEL = 0.05  # significance level of all findings of one state together

SEED = 0  # random seed of the bootstrap over test images

Cards = dict[str, dict[int, Card]]  # cell -> index of the seed -> card


def answers(study: Study, cards: Cards) -> list[dict]:
    """The findings, each with its difference and verdict in the states 'raw' and 'scaled'.

    All values can be stored as JSON. A difference is `better` minus `than`, over the seeds that both cells
    have finished; None if there are none, or a run has no temperature. Its keys:

    mean, std, n: over the seeds' differences; of: number of seeds planned.
    seeds: 95 % interval over seeds (Student's t); None for one seed.
    p: of the paired t test; None for one seed.
    images: 95 % interval over test images (paired bootstrap).
    floors: mean noise floors of both cells; for the ECE only, otherwise None.
    excess: mean, seeds and p of the difference after subtracting each run's noise floor; for the
    ECE only, otherwise None.
    holm: p with the correction of Holm (1979) over all findings. For the ECE the larger p of
    difference and excess is corrected, since less confident networks have higher noise floors and
    these alone must not decide; it is 1 if the two have opposite signs. It is also 1 if seeds are
    missing.
    verdict: 'supported' or 'refuted' at 5 % for all findings together, otherwise 'undecided'.
    """
    answered = []
    for finding in study.findings:
        by_state = {state: _difference(finding, study, cards, state) for state in STATES}
        answered.append({**finding._asdict(), **by_state})

    # Raw and recalibrated predictions are corrected separately, each over all findings. Those that
    # cannot be decided yet count as well: otherwise a verdict could change when their runs finish.
    for state in STATES:
        corrected = holm([_decisive_p(answer[state]) for answer in answered])
        for answer, p in zip(answered, corrected, strict=True):
            if answer[state] is not None:
                answer[state]["holm"] = p
                answer[state]["verdict"] = _verdict(answer["direction"], answer[state])
    return answered


def explored(study: Study, cards: Cards) -> list[dict]:
    """The study's other comparisons, in every metric and state, without a verdict.

    'p' is None if seeds share a teacher.
    """
    comparisons = []
    for better, than in study.comparisons:
        by_state = {state: _differences(better, than, study, cards, state) for state in STATES}
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


def _difference(finding: Finding, study: Study, cards: Cards, state: str) -> dict | None:
    """The difference in the finding's metric; None if there is none yet."""
    differences = _differences(finding.better, finding.than, study, cards, state)
    return None if differences is None else differences[finding.metric]


def _differences(
    better: str, than: str, study: Study, cards: Cards, state: str
) -> dict[str, dict] | None:
    """The difference in each metric; None if no seed has both cells, or a run has no temperature."""
    # One pair for each seed: the facts, and the columns with a value for each image.
    facts = []
    answers_per_image = []
    for card, baseline in _pairs(better, than, cards):
        pair = (card.side(state), baseline.side(state))
        if pair[0] is None or pair[1] is None:
            return None
        answers_per_image.append(pair)
        facts.append((card.facts[state], baseline.facts[state]))
    if not facts:
        return None
    planned = min(cell.seeds for cell in study.cells if cell.name in (better, than))
    over_images = bootstrap.paired(SEED, answers_per_image)

    differences = {}
    for metric in METRICS:
        values = []
        for fact, baseline in facts:
            values.append(fact["figures"][metric] - baseline["figures"][metric])
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
    # Networks that are compared may have different noise floors, so the ECE alone is not enough.
    floors = [fact["floor"] for fact, _ in facts]
    baseline_floors = [baseline["floor"] for _, baseline in facts]
    differences["ece"]["floors"] = [float(np.mean(floors)), float(np.mean(baseline_floors))]
    differences["ece"]["excess"] = _excess(facts)
    return differences


def _pairs(better: str, than: str, cards: Cards) -> list[tuple[Card, Card]]:
    """The cards of both cells for each seed that both have finished. Raises ValueError if their
    test images differ.
    """
    better_cards = cards.get(better, {})
    than_cards = cards.get(than, {})
    pairs = []
    for index in sorted(set(better_cards) & set(than_cards)):
        card = better_cards[index]
        baseline = than_cards[index]
        _check_images(f"{better}/{index}", card, f"{than}/{index}", baseline)
        pairs.append((card, baseline))
    return pairs


def _excess(facts: list[tuple[dict, dict]]) -> dict:
    """The difference in ECE after subtracting each run's own noise floor."""
    values = []
    for fact, baseline in facts:
        ece = fact["figures"]["ece"]
        baseline_ece = baseline["figures"]["ece"]
        values.append(ece - fact["floor"] - baseline_ece + baseline["floor"])
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
