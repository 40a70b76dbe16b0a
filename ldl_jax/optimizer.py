"""The optimizer: learning-rate schedules and the optax chain."""

from collections import Counter
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax


def make_schedule(
    learning_rate: float,
    *,
    schedule: str,
    boundaries: tuple[float, ...],
    factor: float,
    warmup_epochs: float,
    updates_per_epoch: float,
    total_updates: int,
) -> Callable:
    """The learning rate as a function of the number of updates, f32[].

    'piecewise' multiplies it by `factor` at each of `boundaries` (epochs); 'cosine' decays it to 0
    over the whole run; 'constant' keeps it. A linear warm-up multiplies it by (u + 1) / W at update
    u of the first W. Raises ValueError for any other schedule.
    """
    if schedule not in ("piecewise", "cosine", "constant"):
        raise ValueError(
            f"optimizer.schedule must be one of 'piecewise', 'cosine', 'constant'; got {schedule!r}"
        )
    if schedule == "cosine":
        base = optax.cosine_decay_schedule(learning_rate, total_updates)
    elif schedule == "piecewise":
        # In short runs two boundaries may fall on one update. One that is never reached must still
        # fit into the device's int32.
        edges = Counter(min(round(epoch * updates_per_epoch), 2**31 - 1) for epoch in boundaries)
        factors = {update: factor**repeats for update, repeats in edges.items()}
        base = optax.piecewise_constant_schedule(learning_rate, factors)
    else:
        base = optax.constant_schedule(learning_rate)
    warmup = warmup_epochs * updates_per_epoch

    def rate(count):
        # As a float, because the quotient of an int32 would be float32 even in a float64 step.
        count = jnp.asarray(count, float)
        return base(count) * (jnp.minimum((count + 1) / warmup, 1) if warmup > 0 else 1)

    return rate


def never_lowered(
    schedule: str, boundaries: tuple[float, ...], factor: float, epochs: float
) -> str:
    """A warning if a 'piecewise' schedule never lowers the rate in a run of `epochs`; '' otherwise."""
    if schedule != "piecewise":
        return ""
    advice = "set config.optimizer.boundaries, or config.optimizer.schedule='cosine' or 'constant'"
    if factor >= 1:
        reason = f"config.optimizer.factor is {factor:g}"
    elif not boundaries:
        reason = "config.optimizer.boundaries is empty"
    elif min(boundaries) >= epochs:
        reason = f"config.optimizer.boundaries {boundaries} are not reached in {epochs:g} epochs"
    else:
        return ""
    return f"the learning rate is never lowered, because {reason}; {advice}"


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
    if decay not in ("all", "kernels"):
        raise ValueError(f"optimizer.decay must be 'all' or 'kernels', got {decay!r}")
    if accumulate < 1:
        raise ValueError(f"optimizer.accumulate must be at least 1, got {accumulate}")
    if weight_decay < 0:
        raise ValueError(f"optimizer.weight_decay must be at least 0, got {weight_decay}")
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
    return _accumulated(optimizer, accumulate)


def _accumulated(optimizer, accumulate):
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


def updated(opt_state, accumulate: int):
    """Whether the last call of the optimizer changed the parameters, bool[]."""
    return jnp.asarray(True) if accumulate == 1 else opt_state.mini_step == 0


def count(opt_state):
    """Number of updates so far, i32[], the argument of the schedule."""
    return optax.tree.get(opt_state, "count")
