"""Label distribution learning in JAX: image classifiers whose confidence can be trusted.

The public functions are loaded when they are first used, so that `import ldl_jax` costs nothing.
"""

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ldl_jax import calibrate, config
    from ldl_jax.evaluation.from_arrays import difference, ece, measure, reliability_diagram
    from ldl_jax.evaluation.load import load
    from ldl_jax.training.run import train

__all__ = [
    "calibrate",
    "config",
    "difference",
    "ece",
    "load",
    "measure",
    "reliability_diagram",
    "train",
]

_HOMES = {
    "difference": "ldl_jax.evaluation.from_arrays",
    "ece": "ldl_jax.evaluation.from_arrays",
    "load": "ldl_jax.evaluation.load",
    "measure": "ldl_jax.evaluation.from_arrays",
    "reliability_diagram": "ldl_jax.evaluation.from_arrays",
    "train": "ldl_jax.training.run",
}


if "-m" in sys.orig_argv and any(word.startswith("ldl_jax.") for word in sys.orig_argv):
    # A command: importing its modules takes seconds, in which nothing else handles Ctrl-C.
    importlib.import_module("ldl_jax.signals").end_quietly()


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"ldl_jax.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
