"""What a step is made of, and the state that it changes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import struct

from ldl_jax.contract import Array, Auxiliary, Build, LabelSource, PyTree
from ldl_jax.mixing.base import Mixer
from ldl_jax.training import updates

# Folded into the seed's key, one number for each use. Runs depend on them: never renumber.
INIT, LABELS, AUXILIARY, AUGMENT, STEP, MIX = range(6)


@struct.dataclass
class TrainState:
    """Everything that changes during training."""

    step: Array  # i32[]
    params: PyTree  # {'model': ..., 'auxiliary': {name: ...}}
    batch_stats: PyTree  # the model's
    opt_state: PyTree
    labels: PyTree  # the label source's state: memories and averages
    auxiliary: PyTree  # {name: state}
    ema: PyTree  # {'params', 'batch_stats'} averaged over updates, or {}


class Recipe(NamedTuple):
    """Everything that is static in a step."""

    build: Build
    source: LabelSource
    auxiliaries: dict[str, Auxiliary]
    # (variables, image[B, H, W, C]) -> Outputs without V, in eval mode
    teachers: tuple[Callable, ...]
    augment: Callable  # (keys[B], image[B, H, W, C]) -> image
    mixer: Mixer
    schedule: Callable  # (updates) -> learning rate
    accumulate: int = 1  # steps averaged into one update
    ema: float = 0.0  # decay of the averaged parameters; 0 = no average
    dtype: Any = jnp.float32  # of images and losses
    skip: bool = False  # True: a step that is not finite changes nothing but the step count
    body: updates.Body | None = None  # how the model without its head learns, if not like the rest
