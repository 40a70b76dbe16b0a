"""AugMix: an image mixed with several chains of operations on it."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ldl_jax.augment import operations
from ldl_jax.contract import Array

NAMES = ("autocontrast", "equalize", "posterize", "rotate", "solarize")
NAMES += ("shear_x", "shear_y", "translate_x", "translate_y")
BLENDS = ("color", "contrast", "brightness", "sharpness")
MOST = 10  # chains, and operations in each
HIGHEST = 10.0  # strength


def magnitudes(level: Array, shape) -> dict[str, Array]:
    """The magnitude of each operation, f32[], at a strength of 0.1 to 10, as in AugMix's code.

    shape: of the image, [H, W, C]; translations reach a third of a side.
    """
    return {
        "autocontrast": jnp.zeros_like(level),
        "equalize": jnp.zeros_like(level),
        "posterize": 4 - jnp.trunc(0.4 * level),
        "rotate": jnp.trunc(3 * level),
        "solarize": 256 - jnp.trunc(25.6 * level),
        "shear_x": 0.03 * level,
        "shear_y": 0.03 * level,
        "translate_x": jnp.trunc(level * (shape[1] / 30)),
        "translate_y": jnp.trunc(level * (shape[0] / 30)),
        **{name: 0.18 * level - 0.9 for name in BLENDS},
    }


def make(
    field: str,
    *,
    severity: float,
    width: int,
    depth: int,
    alpha: float,
    all_operations: bool,
) -> Callable:
    """A function (key, image[H, W, C] of bytes or in [0, 1]) -> image; the options are those of `augmix`.

    field: of the config, that errors name. Raises ValueError if an option is out of range.
    """
    _check(field, severity, width, depth, alpha)
    names = NAMES + BLENDS if all_operations else NAMES
    # The factors of AugMix's blends are not signed.
    signed = [name in operations.SIGNED and name not in BLENDS for name in names]
    numbers = [operations.number(name) for name in names]

    def step(key, pixels):
        choice_key, level_key, sign_key = jax.random.split(key, 3)
        chosen = jax.random.randint(choice_key, (), 0, len(names))
        level = jax.random.uniform(level_key, (), jnp.float32, 0.1, severity)
        amounts = magnitudes(level, pixels.shape)
        amount = jnp.stack([amounts[name] for name in names])[chosen]
        amount *= operations.draw_signs(sign_key, jnp.asarray(signed)[chosen])
        return operations.apply(pixels, jnp.asarray(numbers)[chosen], amount, bilinear=True)

    def chain(key, pixels):
        """The levels after a random number of operations."""
        count = jax.random.randint(jax.random.fold_in(key, MOST), (), 1, 4) if depth == 0 else depth

        def changed(number, pixels):
            new = step(jax.random.fold_in(key, number), pixels)
            return jnp.where(number < count, new, pixels)

        # A loop, since many copies of an operation take long to compile.
        return jax.lax.fori_loop(0, depth or 3, changed, pixels)

    def mixed(key, image):
        weight_key, share_key, chain_key = jax.random.split(key, 3)
        weight = jax.random.dirichlet(weight_key, jnp.full(width, alpha), dtype=jnp.float32)
        share = jax.random.beta(share_key, alpha, alpha, dtype=jnp.float32)
        pixels = operations.to_levels(image)

        def added(number, total):
            return total + weight[number] * chain(jax.random.fold_in(chain_key, number), pixels)

        total = jax.lax.fori_loop(0, width, added, jnp.zeros(image.shape, jnp.float32))
        # A rounded sum of shares may end above 1.
        total = jnp.clip(total, 0, 255)
        if image.dtype == jnp.uint8:
            return jnp.round((1 - share) * pixels + share * total).astype(jnp.uint8)
        return ((1 - share) * image + share * total / 255).astype(image.dtype)

    return mixed


def _check(field: str, severity: float, width: int, depth: int, alpha: float) -> None:
    if not 0.1 < severity <= HIGHEST:
        raise ValueError(
            f"{field}.severity must be above 0.1 and at most {HIGHEST:g}, got {severity}"
        )
    if not 1 <= width <= MOST:
        raise ValueError(f"{field}.width must be between 1 and {MOST}, got {width}")
    if not 0 <= depth <= MOST:
        raise ValueError(f"{field}.depth must be between 0 and {MOST}, got {depth}")
    if not 0 < alpha < math.inf:
        raise ValueError(f"{field}.alpha must be above 0 and finite, got {alpha}")
