"""Results of an evaluation: the common input of tables, plots, pages and files."""

from typing import Any, NamedTuple

# Raw predictions, and predictions after a calibrator: state -> suffix of a figure's title.
STATES = {"raw": "", "scaled": " (recalibrated)"}
STATE_NAMES = {"raw": "raw", "scaled": "recalibrated"}  # state -> its name in tables and plots


class Figure(NamedTuple):
    """A measured number; `metrics.base.Shown` says whether it is a fraction, nat or a plain number."""

    value: float | None  # None: not finite, because it is undefined for these predictions
    interval: tuple[float, float] | None = None  # 95 %, over examples
    floor: float | None = None  # of the ECE only: that of a perfectly calibrated network
    group: str = "other"  # heading under which it is shown


class State(NamedTuple):
    """Figures and curves of raw predictions, or of the same predictions after a calibrator."""

    figures: dict[str, Figure]  # name -> figure, in the order in which they are shown
    # 'reliability', 'classes', 'risk_coverage', and 'temperature' after temperature scaling.
    curves: dict[str, dict[str, list[float]]]

    def __getitem__(self, key):
        """The figure of a name, as in `result.raw["ece"]`."""
        return self.figures[key] if isinstance(key, str) else tuple.__getitem__(self, key)


class Evaluation(NamedTuple):
    """Everything measured of one network on one set of examples."""

    name: str
    examples: int  # N
    classes: int  # K
    class_names: tuple[str, ...] | None
    kind: str  # 'logits' or 'probabilities'
    understood: str  # how the predictions were interpreted, in words
    seed: int  # random seed of the bootstrap, the simulations and the samples
    notes: tuple[str, ...]  # what a reader of the figures must know
    # Fitted temperature: name and number of the examples, temperature, low, high, at_bound.
    temperature: dict | None
    raw: State
    scaled: State | None  # recalibrated; None if no calibrator was fitted
    # Another fitted calibrator: its name, options, examples and numbers.
    calibrator: dict | None = None
    # State -> what each example was predicted as, in memory only: for paired comparisons.
    answers: dict[str, Any] | None = None

    def states(self) -> dict[str, State]:
        """The existing states by their keys, 'raw' and perhaps 'scaled'."""
        states = {"raw": self.raw}
        if self.scaled is not None:
            states["scaled"] = self.scaled
        return states

    def to_json(self) -> dict:
        """The evaluation as JSON values: objects, lists, texts, numbers and None."""
        plain = self._asdict()
        del plain["answers"]
        # Evaluations with a temperature stay as they were before there were other calibrators.
        if self.calibrator is None:
            del plain["calibrator"]
        plain["class_names"] = None if self.class_names is None else list(self.class_names)
        plain["notes"] = list(self.notes)
        plain |= dict.fromkeys(STATES)
        for name, state in self.states().items():
            plain[name] = {"figures": _figures_to_json(state.figures), "curves": state.curves}
        return plain

    @classmethod
    def from_json(cls, plain: dict) -> "Evaluation":
        """The evaluation that `to_json` wrote, such as one of the 'suites' of an evaluation.json."""
        fields = dict(plain)
        if plain["class_names"] is not None:
            fields["class_names"] = tuple(plain["class_names"])
        fields["notes"] = tuple(plain["notes"])
        for name in STATES:
            if plain[name] is not None:
                fields[name] = _state_from_json(plain[name])
        return cls(**fields)


def _state_from_json(plain: dict) -> State:
    figures = {}
    for name, figure in plain["figures"].items():
        ends = figure["interval"]
        figures[name] = Figure(**{**figure, "interval": None if ends is None else tuple(ends)})
    return State(figures, plain["curves"])


def _figures_to_json(figures: dict[str, Figure]) -> dict[str, dict]:
    plain = {}
    for name, figure in figures.items():
        ends = figure.interval
        plain[name] = {**figure._asdict(), "interval": None if ends is None else list(ends)}
    return plain
