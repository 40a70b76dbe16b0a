"""A calibrator that was fitted on validation predictions, and what it makes of others."""

from typing import NamedTuple

import numpy as np

from ldl_jax import config
from ldl_jax.config.options import plug, read_options
from ldl_jax.evaluation.passes import Transform
from ldl_jax.evaluation.predictions import Logits, Predictions

DEFAULT = "temperature"


class Fit(NamedTuple):
    """A fitted calibrator."""

    calibrator: str  # its name, that of a file of ldl_jax/calibrate
    options: dict  # of its factory, as they were
    params: dict  # numbers and numpy arrays
    name: str  # of the predictions that it was fitted on
    examples: int  # their number

    @property
    def temperature(self) -> float | None:
        """The temperature, where it is one that was fitted."""
        return self.params["temperature"] if self.calibrator == DEFAULT else None

    @property
    def transform(self) -> Transform:
        """What it makes of logits f[B, K]: log-probabilities, up to a number for each row."""
        if self.temperature is not None:
            return divided(self.temperature)
        calibrator = plug("calibrate", self.calibrator).make(**self.options)
        return lambda logits: calibrator.apply(self.params, np.asarray(logits))

    def facts(self) -> dict:
        """What a file keeps of it: what it was fitted on, and its numbers, without arrays."""
        fitted_on = {"name": self.name, "examples": self.examples}
        numbers = {
            name: value for name, value in self.params.items() if not isinstance(value, np.ndarray)
        }
        if self.calibrator == DEFAULT:
            return {**fitted_on, **numbers}
        return {"calibrator": self.calibrator, "options": self.options, **fitted_on, **numbers}

    def notes(self) -> list[str]:
        """What a reader has to know of it."""
        notes = []
        if self.calibrator != DEFAULT:
            fitted_on = f"fitted on {self.name} ({self.examples:,} examples)"
            notes.append(
                f"'scaled' and 'at T' mean after the calibrator {self.calibrator}, {fitted_on}"
            )
        if self.params.get("at_bound"):
            notes.append(f"{self.name} has its best temperature at a bound of the search")
        if self.params.get("converged") is False:
            notes.append(
                f"the calibrator {self.calibrator} did not come to a minimum within its steps"
            )
        return notes


def names() -> tuple[str, ...]:
    """The calibrators that there are, the default first."""
    return (DEFAULT, *(name for name in config.plugs("calibrate") if name != DEFAULT))


def fit(predictions: Predictions, calibrator: str = DEFAULT) -> Fit:
    """Fit a calibrator, with its default options, on predictions that are not reported.

    Raises ValueError where there is no calibrator of that name.
    """
    if calibrator not in names():
        raise ValueError(f"calibrator is {calibrator!r}; allowed are {', '.join(names())}")
    _, options = read_options(f"calibrate/{calibrator}.py")
    options = {option.name: option.value for option in options}
    params = (
        plug("calibrate", calibrator).make(**options).fit(Logits(predictions), predictions.label)
    )
    return Fit(calibrator, options, params, predictions.name, len(predictions.values))


def divided(temperature: float) -> Transform:
    """Logits divided by a temperature."""
    return lambda logits: logits / np.asarray(temperature, logits.dtype)
