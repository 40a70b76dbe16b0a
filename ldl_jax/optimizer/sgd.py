"""SGD as in PyTorch, and the accumulation of gradients."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax


def kernels_only(params):
    """A mask of the parameters with at least two axes: convolutions and linear layers, not biases
    or BatchNorm.
    """
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def make(
    schedule: Callable,
    *,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    decay: str,
    clip_norm: float,
    accumulate: int,
) -> optax.GradientTransformation:
    """SGD as in PyTorch: L2 decay, of 'all' parameters or of 'kernels', is added to the gradient
    before the momentum.

    The global norm of the gradient is clipped first if clip_norm > 0; the gradients of `accumulate`
    steps are averaged into one update. Raises ValueError if an option is out of range.
    """
    check(decay, accumulate, weight_decay)
    if not 0 <= momentum < 1:
        raise ValueError(f"optimizer.momentum must be in [0, 1), got {momentum}")
    chain = []
    # Clipped before the decay, so that only the gradient of the loss is limited.
    if clip_norm > 0:
        chain.append(optax.clip_by_global_norm(clip_norm))
    # Coupled to the gradient, as in PyTorch: before the momentum, not after it.
    if weight_decay:
        mask = kernels_only if decay == "kernels" else None
        chain.append(optax.add_decayed_weights(weight_decay, mask=mask))
    chain.append(optax.sgd(schedule, momentum=momentum or None, nesterov=nesterov))
    optimizer = optax.chain(*chain)
    if accumulate == 1:
        return optimizer
    return accumulated(optimizer, accumulate)


def check(decay: str, accumulate: int, weight_decay: float) -> None:
    """Raise ValueError if an option that all optimizers have is out of range."""
    if decay not in ("all", "kernels"):
        raise ValueError(f"optimizer.decay must be 'all' or 'kernels', got {decay!r}")
    if accumulate < 1:
        raise ValueError(f"optimizer.accumulate must be at least 1, got {accumulate}")
    if weight_decay < 0:
        raise ValueError(f"optimizer.weight_decay must be at least 0, got {weight_decay}")


def accumulated(optimizer, accumulate: int) -> optax.GradientTransformation:
    """`optax.MultiSteps` that averages in the type of the parameters instead of float32."""

    # The type is known only from the arrays, so the wrapper is made at each call.
    def multi_steps(tree):
        kind = jnp.result_type(*jax.tree.leaves(tree))
        return optax.MultiSteps(optimizer, accumulate, accumulator_dtype=kind)

    def init(params):
        return multi_steps(params).init(params)

    def update(grads, state, params=None):
        return multi_steps(grads).update(grads, state, params)

    return optax.GradientTransformation(init, update)
