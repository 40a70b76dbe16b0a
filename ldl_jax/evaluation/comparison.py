"""Groups of runs side by side: their figures over seeds, and how they differ from a baseline."""

from ldl_jax.evaluation import bootstrap, runs
from ldl_jax.evaluation.bootstrap import Answers
from ldl_jax.evaluation.runs import Group
from ldl_jax.report.result import STATES

# T leaves accuracies alone
FIGURES = {"raw": ("accuracy", "nll", "brier", "ece"), "scaled": ("nll", "brier", "ece")}


def compare(groups: list[Group], baseline: int = 0, *, seed: int = 0) -> dict:
    """Figures of groups over seeds, and their differences to the group at `baseline`; JSON can hold
    it.

    'groups': name, runs, 'at_bound' (how many have no best temperature), and by state ('raw',
    'scaled', which is None unless every run has a temperature) and figure 'mean', 'std' (n - 1;
    None for one seed), 'n'. 'differences', one for each other group: the same of the group less the
    baseline, with 95 % intervals 'seeds' (Student's t of the differences where both have the same
    seeds, else Welch's; None for one seed) and 'images' (paired bootstrap of the same difference,
    with every run measured on the same resamples), and the bootstrap's 'p'.
    """
    # Each group's answers by state: the predictions of a run are read once a state.
    answers = [{state: _answers(group, state) for state in STATES} for group in groups]
    base, of_base = groups[baseline], answers[baseline]
    differences = []
    for number, (group, of_group) in enumerate(zip(groups, answers, strict=True)):
        if number != baseline:
            same_seeds = _seeds(group) == _seeds(base)
            by_state = {
                s: _differences(s, seed, of_group[s], of_base[s], same_seeds) for s in STATES
            }
            differences.append({"name": group.name, **by_state})
    rows = [_row(group, of_group) for group, of_group in zip(groups, answers, strict=True)]
    return {"baseline": base.name, "seed": seed, "groups": rows, "differences": differences}


def _answers(group: Group, state: str) -> list[Answers] | None:
    """What each run said of the test images; None where one has no temperature and the state needs
    it.
    """
    scaled = state == "scaled"
    if scaled and any(run.temperature is None for run in group.runs):
        return None
    return [runs.answers(runs.reduced(run, scaled=scaled)) for run in group.runs]


def _row(group: Group, answers: dict[str, list[Answers] | None]) -> dict:
    """A group's figures over its seeds."""
    return {
        "name": group.name,
        "runs": [str(run.path) for run in group.runs],
        "at_bound": sum(run.at_bound for run in group.runs),
        **{state: _spreads(state, answers[state]) for state in STATES},
    }


def _values(answers: list[Answers]) -> dict[str, list[float]]:
    """Each figure's values, one a run."""
    figures = [bootstrap.figures(*run) for run in answers]
    return {name: [run[name] for run in figures] for name in figures[0]}


def _spreads(state: str, answers: list[Answers] | None) -> dict | None:
    if answers is None:
        return None
    values = _values(answers)
    spreads = {name: bootstrap.over_seeds(values[name]) for name in FIGURES[state]}
    return {
        name: {"mean": spread.mean, "std": spread.std, "n": spread.n}
        for name, spread in spreads.items()
    }


def _differences(
    state: str,
    seed: int,
    answers: list[Answers] | None,
    of_base: list[Answers] | None,
    same_seeds: bool,
) -> dict | None:
    """By figure; None where a group has no such state."""
    if answers is None or of_base is None:
        return None
    # Runs of one seed are paired; otherwise every run with every other, whose mean is the
    # difference of the means.
    if same_seeds:
        pairs = list(zip(answers, of_base, strict=True))
    else:
        pairs = [(run, other) for run in answers for other in of_base]
    images = bootstrap.paired(seed, pairs)
    values, before = _values(answers), _values(of_base)
    differences = {}
    for name in FIGURES[state]:
        mean, std, interval = _over_seeds(values[name], before[name], same_seeds)
        differences[name] = {
            "mean": mean,
            "std": std,
            "n": min(len(answers), len(of_base)),
            "seeds": interval,
            "images": images[name].interval,
            "p": images[name].p,
        }
    return differences


def _over_seeds(values: list[float], before: list[float], same_seeds: bool) -> tuple:
    """(mean, std, interval) of the difference: of each seed's where both have the same, else of two
    samples.
    """
    if same_seeds:
        spread = bootstrap.over_seeds(
            [value - other for value, other in zip(values, before, strict=True)]
        )
        return spread.mean, spread.std, spread.interval
    one, other = bootstrap.over_seeds(values), bootstrap.over_seeds(before)
    return one.mean - other.mean, None, bootstrap.unpaired(values, before)


def _seeds(group: Group) -> list[int]:
    return [run.config.seed for run in group.runs]
