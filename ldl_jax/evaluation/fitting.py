"""Fitting a calibrator on validation predictions, and applying it to other predictions."""

from typing import NamedTuple

import numpy as np

from ldl_jax import config
from ldl_jax.calibrate import describe
from ldl_jax.calibrate.base import Calibrator, fitted_params
from ldl_jax.config.options import make_plug
from ldl_jax.config.own import default_options
from ldl_jax.evaluation.passes import Transform
from ldl_jax.evaluation.predictions import Logits, Predictions

DEFAULT = "safe_temperature"


class Fit(NamedTuple):
    """A fitted calibrator."""

    calibrator: str  # name of the calibrator: a file of ldl_jax/calibrate
    options: dict  # options of its factory when it was fitted
    params: dict  # fitted parameters: numbers and numpy arrays
    name: str  # name of the predictions that it was fitted on
    examples: int  # number of examples that it was fitted on

    @property
    def temperature(self) -> float | None:
        """The fitted temperature; None if the calibrator is not temperature scaling."""
        if describe.is_temperature(self.calibrator):
            return self.params["temperature"]
        return None

    @property
    def transform(self) -> Transform:
        """The map from logits f[B, K] to log-probabilities, up to a constant for each row."""
        if self.temperature is not None:
            return divided(self.temperature)
        calibrator = make_plug("calibrate", self.calibrator, Calibrator, **self.options)
        return lambda logits: calibrator.apply(self.params, np.asarray(logits))

    def facts(self) -> dict:
        """The fit as JSON values: what it was fitted on, and its numbers, without arrays."""
        fitted_on = {"name": self.name, "examples": self.examples}
        numbers = {}
        for name, value in self.params.items():
            if not isinstance(value, np.ndarray):
                numbers[name] = value
        # Evaluations with this calibrator stay as they were before there were others.
        if self.calibrator == "temperature":
            return {**fitted_on, **numbers}
        return {"calibrator": self.calibrator, "options": self.options, **fitted_on, **numbers}

    def notes(self) -> list[str]:
        """What a reader of the recalibrated figures must know, a sentence each."""
        notes = []
        if self.temperature is None:
            fitted_on = f"fitted on {self.name} ({self.examples:,} examples)"
            notes.append(f"Recalibrated by the calibrator {self.calibrator}, {fitted_on}")
        return notes + describe.notes(self.calibrator, self.params, self.name)


def names() -> tuple[str, ...]:
    """The names of all calibrators, the default first."""
    return (DEFAULT, *(name for name in config.plugs("calibrate") if name != DEFAULT))


def fit(predictions: Predictions, calibrator: str = DEFAULT, options: dict | None = None) -> Fit:
    """Fit a calibrator, a file of ldl_jax/calibrate or a dotted name.

    predictions: must not be those whose figures are reported. options: those that differ from the
    defaults. Raises ValueError if no calibrator has that name.
    """
    if "." not in calibrator and calibrator not in names():
        raise ValueError(f"calibrator must be one of {', '.join(names())}, got {calibrator!r}")
    options = default_options("calibrate", calibrator) | (options or {})
    method = make_plug("calibrate", calibrator, Calibrator, **options)
    params = fitted_params(calibrator, method, Logits(predictions), predictions.label)
    return Fit(calibrator, options, params, predictions.name, len(predictions.values))


def divided(temperature: float) -> Transform:
    """The map that divides logits by a temperature."""
    return lambda logits: logits / np.asarray(temperature, logits.dtype)
