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

    name: str  # a file of ldl_jax/calibrate, or a module of the user's own (dotted)
    options: dict  # of its factory
    params: dict  # numbers and numpy arrays

    def __call__(self, logits: Any = None, *, probs: Any = None):
        """Recalibrated probabilities f64[N, K] of logits, or of probabilities, [N, K]."""
        import numpy as np

        return np.exp(self.log_probs(logits, probs=probs))

    def log_probs(self, logits: Any = None, *, probs: Any = None):
        """Recalibrated log-probabilities f64[N, K] of logits, or of probabilities, [N, K]."""
        from ldl_jax.calibrate.base import Calibrator
        from ldl_jax.config.options import make_plug

        values = _as_logits(logits, probs)
        method = make_plug("calibrate", self.name, Calibrator, **self.options)
        return method.apply(self.params, values)

    def __repr__(self) -> str:
        from ldl_jax.calibrate import describe

        shown = self.name
        if describe.is_temperature(self.name):
            shown += f": {describe.temperature(self.params)}"
        notes = describe.notes(self.name, self.params, "the examples that it was fitted on")
        return f"<{'; '.join([shown, *notes])}>"

    def save(self, path: str | Path) -> Path:
        """Write it as JSON, to the last bit; `load` reads it."""
        from ldl_jax import files
        from ldl_jax.calibrate import base

        return base.save(files.home(path), self.name, self.options, self.params)


def fit(
    name: str = "safe_temperature",
    *,
    labels: Any,
    logits: Any = None,
    probs: Any = None,
    **options: Any,
) -> FittedCalibrator:
    """Fit a calibrator on predictions that are not reported: scores [N, K], class numbers [N].

    name: of a file of ldl_jax/calibrate ('temperature' is plain maximum likelihood), or the dotted
    name of a module of your own; options: of its factory, its defaults unless given. Raises
    ValueError if there is no such calibrator or option, or if an array is not what it is passed as.
    """
    from ldl_jax import arrays, config
    from ldl_jax.calibrate.base import Calibrator, fitted_params
    from ldl_jax.config.options import make_plug
    from ldl_jax.config.own import default_options

    known = config.plugs("calibrate")
    if "." not in name and name not in known:
        raise ValueError(f"calibrator must be one of {', '.join(known)}; got {name!r}")
    defaults = default_options("calibrate", name)
    wrong = sorted(set(options) - set(defaults))
    if wrong:
        raise ValueError(
            f"options of the calibrator {name} must be among {', '.join(defaults) or 'none'}; got "
            f"{', '.join(wrong)}"
        )
    values = _as_logits(logits, probs)
    label = arrays.checked_labels(labels, *values.shape)
    options = defaults | options
    method = make_plug("calibrate", name, Calibrator, **options)
    return FittedCalibrator(name, options, fitted_params(name, method, values, label))


def load(path: str | Path, *, name: str = "") -> FittedCalibrator:
    """The calibrator that `FittedCalibrator.save` or a run wrote, such as RUN/calibration.json.

    name: the calibrator that it must be; needed for one of your own, because a file alone must not
    decide which code is imported. Raises ValueError if it is another one.
    """
    from ldl_jax import files
    from ldl_jax.calibrate import base

    fitted = FittedCalibrator(*base.load(files.home(path)))
    if fitted.name != name and (name or "." in fitted.name):
        raise ValueError(
            f"{path} is of the calibrator {fitted.name!r}; pass name={fitted.name!r} to load it"
        )
    return fitted


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
