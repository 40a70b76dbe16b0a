"""What was measured of stored predictions: the one result that tables, plots, pages and files are
made from.
"""

from typing import NamedTuple

STATES = {"raw": "", "scaled": " at T"}  # the states of a network -> what a figure's title adds


class Figure(NamedTuple):
    """One number that was measured, a fraction, nat or plain number as `metrics.base.Shown` says."""

    value: float | None  # None: not finite, as where nothing can be measured
    interval: tuple[float, float] | None = None  # 95 %, over examples
    floor: float | None = None  # what a perfectly calibrated network would score; of the ECE alone
    group: str = "other"  # heading under which it is shown


class State(NamedTuple):
    """The figures of predictions as they are ('raw'), or after a temperature ('scaled')."""

    figures: dict[str, Figure]  # name -> figure, in the order in which they are shown
    curves: dict[
        str, dict[str, list[float]]
    ]  # 'reliability', 'classes', 'risk_coverage', and 'temperature' when scaled


class Evaluation(NamedTuple):
    """All that was measured of one network on one set of examples."""

    name: str
    examples: int  # N
    classes: int  # K
    class_names: tuple[str, ...] | None
    kind: str  # 'logits' or 'probabilities'
    understood: str  # how the predictions were read, in words
    seed: int  # of what was simulated and drawn
    notes: tuple[str, ...]  # what a reader has to know
    # the fit: name and number of the examples, temperature, low, high, at_bound
    temperature: dict | None
    raw: State
    scaled: State | None  # None where no calibrator was fitted
    # the fit of another one than a temperature: its name, options, examples, numbers
    calibrator: dict | None = None

    def states(self) -> dict[str, State]:
        """The states that there are, by their names."""
        return {name: state for name in STATES if (state := getattr(self, name)) is not None}

    def to_json(self) -> dict:
        """The same as JSON values: objects, lists, texts, numbers and None."""
        plain = self._asdict()
        if self.calibrator is None:
            del plain["calibrator"]
        plain["class_names"] = None if self.class_names is None else list(self.class_names)
        plain["notes"] = list(self.notes)
        for name in STATES:
            state = plain[name]
            plain[name] = (
                None
                if state is None
                else {"figures": _plain(state.figures), "curves": state.curves}
            )
        return plain

    @classmethod
    def from_json(cls, plain: dict) -> "Evaluation":
        """What `to_json` gave, such as one of the 'suites' of an evaluation.json."""
        names = plain["class_names"]
        states = {name: None if plain[name] is None else _state(plain[name]) for name in STATES}
        own = {
            "class_names": None if names is None else tuple(names),
            "notes": tuple(plain["notes"]),
        }
        return cls(**{**plain, **own, **states})


def _state(plain: dict) -> State:
    figures = {}
    for name, figure in plain["figures"].items():
        ends = figure["interval"]
        figures[name] = Figure(**{**figure, "interval": None if ends is None else tuple(ends)})
    return State(figures, plain["curves"])


def _plain(figures: dict[str, Figure]) -> dict[str, dict]:
    return {
        name: {
            **figure._asdict(),
            "interval": None if figure.interval is None else list(figure.interval),
        }
        for name, figure in figures.items()
    }
