"""What an evaluation found about calibration, in one sentence for each state."""

from ldl_jax.report.bands import gap_band
from ldl_jax.report.result import STATE_NAMES, Evaluation, Figure, State

# How a model errs -> the figure that measures it.
FIGURES = {"overconfident": "overconfidence", "underconfident": "underconfidence"}


def conclusions(evaluation: Evaluation, noun: str = "examples") -> dict[str, str]:
    """The sentence of each state by its name for readers; noun: what the examples are."""
    sentences = {}
    for name, state in evaluation.states().items():
        sentences[STATE_NAMES[name]] = conclusion(state, evaluation.examples, noun)
    return sentences


def conclusion(state: State, examples: int, noun: str = "examples") -> str:
    """Whether the confidences of N examples are too high, too low or calibrated, and by how much.

    The model is over- or underconfident if the 95 % interval of mean confidence minus accuracy
    excludes 0 and, where the variance is known, fewer than 5 % of calibrated models with these
    confidences have such a gap. Otherwise it errs in both directions if the interval of its ECE
    excludes 0, which needs an ECE above that of 95 % of calibrated models. The sentence has no
    capital and no full stop.
    """
    gap = state.figures.get("signed_ece")
    ece = state.figures.get("ece")
    if gap is None or gap.value is None or ece is None or ece.value is None:
        return "calibration not measured"
    if examples < 2:
        return "a single example cannot show whether the model is calibrated"
    over, under = FIGURES
    direction, opposite = (over, under) if gap.value > 0 else (under, over)
    if gap.interval is None or ece.interval is None:
        return f"{direction} by {_points(gap.value)} on average, not tested against chance"
    if _beyond_chance(gap, state.curves.get("classes")):
        ends = sorted(abs(end) for end in gap.interval)
        found = f"{direction} by {_points(gap.value)}, beyond chance ({_interval(*ends)})"
        if ece.interval[0] > 0 and _above_zero(state.figures.get(FIGURES[opposite])):
            found += f"; {opposite} in places"
        return found
    if ece.interval[0] > 0:
        found = f"over- and underconfident in places, beyond chance: ECE {_percent(ece.value)}"
        return found if ece.floor is None else f"{found}, noise floor {_percent(ece.floor)}"
    reason = f"mean confidence minus accuracy: {_interval(*gap.interval, sign='+')}"
    # An interval without 0 would contradict the conclusion.
    if not _has_zero(gap):
        reason = f"calibrated models may differ by {_points(gap.value)} on so few"
    return f"calibrated as far as {examples:,} {noun} can tell ({reason})"


def _beyond_chance(gap: Figure, classes: dict | None) -> bool:
    """Whether calibrated models hardly ever have this gap."""
    if _has_zero(gap):
        return False
    if not classes or "variance" not in classes:
        return True
    # Resamples of examples without errors have none either, so the interval alone would call a
    # model underconfident that makes no error where half an error is expected.
    count = sum(classes["count"])
    low, high = gap_band([sum(classes["variance"])], [sum(classes["third"])])
    return not low[0] <= gap.value * count <= high[0]


def _has_zero(figure: Figure) -> bool:
    low, high = figure.interval
    return low <= 0 <= high


def _above_zero(figure: Figure | None) -> bool:
    return figure is not None and figure.interval is not None and figure.interval[0] > 0


def _points(value: float) -> str:
    """The size of a difference of fractions, in percentage points."""
    size = 100 * abs(value)
    return f"{size:.1f} points" if size >= 0.05 else "less than 0.1 points"


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _interval(low: float, high: float, sign: str = "") -> str:
    return f"95 % interval {100 * low:{sign}.1f} to {100 * high:{sign}.1f} points"
