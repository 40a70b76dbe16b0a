"""The sentence that says what an evaluation found, from its figures alone."""

import numpy as np
import pytest

from ldl_jax.report.conclusion import conclusion, conclusions
from ldl_jax.report.result import Evaluation, Figure, State

# Mean confidence minus accuracy and ECE: (value, interval); what is said of 360 images.
CASES = {
    "too low": (
        (-0.033, (-0.046, -0.021)),
        (0.0403, (0.0246, 0.0462)),
        "underconfident by 3.3 points, beyond chance (95 % interval 2.1 to 4.6 points)",
    ),
    "too high": (
        (0.1204, (0.1, 0.14)),
        (0.121, (0.1, 0.14)),
        "overconfident by 12.0 points, beyond chance (95 % interval 10.0 to 14.0 points)",
    ),
    # The mean gap is the sharper test where all confidences err in one direction.
    "too low, and an ECE within chance": (
        (-0.0447, (-0.0813, -0.0085)),
        (0.0668, (0.0, 0.078)),
        "underconfident by 4.5 points, beyond chance (95 % interval 0.9 to 8.1 points)",
    ),
    "very little": (
        (0.0004, (0.0001, 0.0007)),
        (0.0005, (0.0, 0.001)),
        "overconfident by less than 0.1 points, beyond chance (95 % interval 0.0 to 0.1 points)",
    ),
    "calibrated": (
        (0.008, (-0.004, 0.02)),
        (0.0122, (0.0, 0.0172)),
        "calibrated as far as 360 images can tell (mean confidence minus accuracy: 95 % interval "
        "-0.4 to +2.0 points)",
    ),
    "balanced errors": (
        (0.008, (-0.004, 0.02)),
        (0.08, (0.05, 0.1)),
        "over- and underconfident in places, beyond chance: ECE 8.00 %, noise floor 2.29 %",
    ),
    "no interval of the gap": (
        (-0.033, None),
        (0.0403, (0.02, 0.05)),
        "underconfident by 3.3 points on average, not tested against chance",
    ),
    "no intervals": (
        (0.033, None),
        (0.0403, None),
        "overconfident by 3.3 points on average, not tested against chance",
    ),
    "no value": ((None, None), (0.04, None), "calibration not measured"),
}


def state(gap, ece, floor=0.0229, classes=None, **others):
    figures = {"signed_ece": Figure(*gap), "ece": Figure(*ece, floor)}
    figures |= {name: Figure(*figure) for name, figure in others.items()}
    return State(figures, {} if classes is None else {"classes": classes})


@pytest.mark.parametrize(("gap", "ece", "sentence"), CASES.values(), ids=CASES)
def test_the_sentence_follows_from_the_gap_and_the_ece(gap, ece, sentence):
    assert conclusion(state(gap, ece), 360, "images") == sentence


def test_figures_may_be_missing():
    assert conclusion(State({}, {}), 10) == "calibration not measured"
    assert conclusion(state((0.1, None), (0.1, None)), 1).startswith("a single example cannot")
    places = conclusion(state((0, (-0.01, 0.01)), (0.08, (0.05, 0.1)), floor=None), 9)
    assert places.endswith("ECE 8.00 %")


@pytest.mark.parametrize(
    ("ece_low", "under_low", "places"), [(0.02, 0.01, True), (0.02, 0, False), (0, 0.01, False)]
)
def test_the_other_direction_is_told_where_it_is_beyond_chance_too(ece_low, under_low, places):
    made = state(
        (0.05, (0.03, 0.07)),
        (0.09, (ece_low, 0.1)),
        overconfidence=(0.07, (0.05, 0.09)),
        underconfidence=(0.02, (under_low, 0.03)),
    )
    assert conclusion(made, 1000).startswith("overconfident by 5.0 points, beyond chance")
    assert conclusion(made, 1000).endswith("; underconfident in places") == places


def test_no_errors_where_hardly_any_are_expected_are_no_underconfidence():
    """Resamples of correct answers are all correct, so that the interval excludes 0."""
    confidence = np.full(50, 0.995)
    gap = -0.005
    variance, third = (
        (confidence * (1 - confidence)).sum(),
        (confidence * (1 - confidence) * (1 - 2 * confidence)).sum(),
    )
    classes = {"count": [20, 30], "variance": [0.4 * variance, 0.6 * variance]}
    classes["third"] = [0.4 * third, 0.6 * third]
    given = (gap, (-0.0055, -0.0045)), (0.005, (0.0, 0.005))
    assert conclusion(state(*given), 50).startswith("underconfident")
    found = conclusion(state(*given, classes=classes), 50)
    assert found.startswith("calibrated as far as 50 ex")
    assert found.endswith("(calibrated models may differ by 0.5 points on so few)")
    # 50 times as many examples with the same gap are beyond chance: 12.5 errors were expected.
    many = {name: [50 * value for value in values] for name, values in classes.items()}
    assert conclusion(state(*given, classes=many), 2500).startswith("underconfident")


def test_each_state_has_a_sentence():
    raw, scaled = (state(*CASES[name][:2]) for name in ("too low", "calibrated"))
    one = Evaluation("x", 360, 10, None, "logits", "logits", 0, (), None, raw, scaled)
    found = conclusions(one, "images")
    assert list(found) == ["raw", "recalibrated"]
    assert found["raw"] == CASES["too low"][2]
    assert found["recalibrated"] == CASES["calibrated"][2]
    assert list(conclusions(one._replace(scaled=None))) == ["raw"]
