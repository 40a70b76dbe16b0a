"""AutoAugment: one of 25 published pairs of operations."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ldl_jax.augment import operations
from ldl_jax.augment.base import Pixels
from ldl_jax.augment.operations import policies, spaces

BINS = 10  # strengths that the policies count in


def make(
    pixels: Pixels,
    *,
    policy: str = "cifar10",  # published policy: 'cifar10', 'imagenet' or 'svhn'
) -> Callable:
    """Pairs of operations with probabilities and strengths that were found for a data set (Cubuk et
    al. 2019, tables 7 to 9), with torchvision's ranges.

    Signed operations go either way. Raises ValueError if there is no such policy.
    """
    spaces.check("autoaugment", pixels.shape)
    if policy not in policies.POLICIES:
        raise ValueError(
            f"config.augment.autoaugment.policy must be one of {', '.join(policies.POLICIES)}; got "
            f"{policy!r}"
        )
    space = spaces.usual(pixels.shape, BINS)
    space["invert"] = np.zeros(BINS, np.float32)
    pairs = policies.POLICIES[policy]
    steps = [step for pair in pairs for step in pair]
    shape = (len(pairs), 2)
    numbers = np.reshape([operations.number(name) for name, _, _ in steps], shape)
    probability = np.float32(np.reshape([share for _, share, _ in steps], shape))
    magnitude = np.reshape([space[name][strength] for name, _, strength in steps], shape)
    signed = np.reshape([name in operations.SIGNED for name, _, _ in steps], shape)

    def member(key, image):
        pair_key, use_key, sign_key = jax.random.split(key, 3)
        pair = jax.random.randint(pair_key, (), 0, len(pairs))
        used = jax.random.uniform(use_key, (2,)) < jnp.asarray(probability)[pair]
        sign = operations.draw_signs(sign_key, jnp.asarray(signed)[pair])
        amount = sign * jnp.asarray(magnitude)[pair]
        chosen = jnp.where(used, jnp.asarray(numbers)[pair], operations.number("identity"))

        def step(number, levels):
            return operations.apply(levels, chosen[number], amount[number])

        # A loop, since two copies of an operation take longer to compile.
        levels = jax.lax.fori_loop(0, 2, step, operations.to_levels(image))
        return operations.to_image(levels, image.dtype)

    return member
