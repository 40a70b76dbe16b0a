"""Calibrators: fit one on held-out predictions, apply it to others, keep it in a file.

>>> import numpy as np
>>> import ldl_jax as ldl
>>> logits, labels = 5 * np.random.default_rng(0).normal(size=(300, 3)), np.arange(300) % 3
>>> calibrator = ldl.calibrate.fit("temperature", logits=logits, labels=labels)
>>> calibrator(logits).shape
(300, 3)
"""

from pathlib import Path
from typing import Any, NamedTuple


class FittedCalibrator(NamedTuple):
    """A calibrator with its fitted parameters: call it with logits for probabilities."""

    name: str  # a file of ldl_jax/calibrate
    options: dict  # of its factory
    params: dict  # numbers and numpy arrays

    def __call__(self, logits: Any = None, *, probs: Any = None):
        """Recalibrated probabilities f64[N, K] of logits, or of probabilities, [N, K]."""
        import numpy as np

        return np.exp(self.log_probs(logits, probs=probs))

    def log_probs(self, logits: Any = None, *, probs: Any = None):
        """Recalibrated log-probabilities f64[N, K] of logits, or of probabilities, [N, K]."""
        from ldl_jax.config.options import plug

        values = _as_logits(logits, probs)
        return plug("calibrate", self.name).make(**self.options).apply(self.params, values)

    def __repr__(self) -> str:
        from ldl_jax.calibrate import describe

        shown = self.name
        if describe.is_temperature(self.name):
            shown += f": {describe.temperature(self.params)}"
        notes = describe.notes(self.name, self.params, "the examples that it was fitted on")
        return f"<{'; '.join([shown, *notes])}>"

    def save(self, path: str | Path) -> Path:
        """Write it as JSON, to the last bit; `load` reads it."""
        from ldl_jax.calibrate import base

        return base.save(path, self.name, self.options, self.params)


def fit(
    name: str = "safe_temperature",
    *,
    labels: Any,
    logits: Any = None,
    probs: Any = None,
    **options: Any,
) -> FittedCalibrator:
    """Fit a calibrator on predictions that are not reported: scores [N, K], class numbers [N].

    name: of a file of ldl_jax/calibrate: 'temperature' is plain maximum likelihood. options: of its
    factory, its defaults unless given. Raises
    ValueError if there is no such calibrator or option, or if an array is not what it is passed as.
    """
    from ldl_jax import arrays, config
    from ldl_jax.config.options import plug, read_options

    known = config.plugs("calibrate")
    if name not in known:
        raise ValueError(f"calibrator must be one of {', '.join(known)}; got {name!r}")
    defaults = {option.name: option.value for option in read_options(f"calibrate/{name}.py")[1]}
    wrong = sorted(set(options) - set(defaults))
    if wrong:
        raise ValueError(
            f"options of the calibrator {name} must be among {', '.join(defaults) or 'none'}; got "
            f"{', '.join(wrong)}"
        )
    values = _as_logits(logits, probs)
    label = arrays.checked_labels(labels, *values.shape)
    options = defaults | options
    return FittedCalibrator(
        name, options, plug("calibrate", name).make(**options).fit(values, label)
    )


def load(path: str | Path) -> FittedCalibrator:
    """The calibrator that `FittedCalibrator.save` or a run wrote, such as RUN/calibration.json."""
    from ldl_jax.calibrate import base

    return FittedCalibrator(*base.load(path))


def _as_logits(logits: Any, probs: Any):
    """Logits f[N, K] of one of the two."""
    import numpy as np

    from ldl_jax import arrays
    from ldl_jax.metrics.base import FLOOR

    if (logits is None) == (probs is None):
        raise ValueError(
            f"pass either logits= or probs=, got {'neither' if logits is None else 'both'}"
        )
    if probs is None:
        return arrays.checked_logits(logits)
    return np.log(np.maximum(arrays.checked_probs(probs)[0], FLOOR))
