"""The learning-rate schedule and the optax chain."""

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
    """The learning rate as a function of the count of updates, f32[].

    'piecewise': times `factor` at each of `boundaries` (epochs); 'cosine': to 0 over the whole run;
    'constant'. A linear warm-up multiplies it: update u of the first W has (u + 1) / W. Raises
    ValueError for another name.
    """
    if schedule not in ("piecewise", "cosine", "constant"):
        raise ValueError(
            f"optimizer.schedule is {schedule!r}; allowed are 'piecewise', 'cosine', 'constant'"
        )
    if schedule == "cosine":
        base = optax.cosine_decay_schedule(learning_rate, total_updates)
    elif schedule == "piecewise":
        # In short runs two may meet; one that never comes is still a number that the device can
        # hold.
        edges = Counter(min(round(epoch * updates_per_epoch), 2**31 - 1) for epoch in boundaries)
        base = optax.piecewise_constant_schedule(
            learning_rate, {at: factor**n for at, n in edges.items()}
        )
    else:
        base = optax.constant_schedule(learning_rate)
    warmup = warmup_epochs * updates_per_epoch

    def rate(count):
        # A float: the quotient of an int32 would be float32, also where all else is float64.
        count = jnp.asarray(count, float)
        return base(count) * (jnp.minimum((count + 1) / warmup, 1) if warmup > 0 else 1)

    return rate


def kernels_only(params):
    """A mask of the parameters with two or more axes: convolutions and linear layers, no biases or
    BatchNorm.
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
    """SGD as PyTorch's: L2 decay coupled to the gradient before the momentum, on 'all' parameters
    or 'kernels'.

    The gradient's global norm is clipped first where clip_norm > 0; `accumulate` steps are averaged
    into one update. Raises ValueError for options out of range.
    """
    if decay not in ("all", "kernels"):
        raise ValueError(f"optimizer.decay is {decay!r}; allowed are 'all', 'kernels'")
    if accumulate < 1 or weight_decay < 0 or not 0 <= momentum < 1:
        raise ValueError(
            f"optimizer: accumulate {accumulate}, weight_decay {weight_decay}, momentum {momentum}; "
            "allowed are accumulate >= 1, weight_decay >= 0 and momentum in [0, 1)"
        )
    chain = []
    if clip_norm > 0:
        chain.append(optax.clip_by_global_norm(clip_norm))
    # Coupled to the gradient, as in PyTorch: before the momentum, not after it.
    if weight_decay:
        chain.append(
            optax.add_decayed_weights(
                weight_decay, mask=kernels_only if decay == "kernels" else None
            )
        )
    chain.append(optax.sgd(schedule, momentum=momentum or None, nesterov=nesterov))
    optimizer = optax.chain(*chain)
    if accumulate == 1:
        return optimizer
    return _accumulated(optimizer, accumulate)


def _accumulated(optimizer, accumulate):
    """`optax.MultiSteps` whose mean has the type of the parameters: its own default is float32,
    whatever they are.
    """

    def steps(tree):
        return optax.MultiSteps(
            optimizer, accumulate, accumulator_dtype=jnp.result_type(*jax.tree.leaves(tree))
        )

    def update(grads, state, params=None):
        return steps(grads).update(grads, state, params)

    return optax.GradientTransformation(lambda params: steps(params).init(params), update)


def updated(opt_state, accumulate: int):
    """Whether the last call of the optimizer moved the parameters, bool[]."""
    return jnp.asarray(True) if accumulate == 1 else opt_state.mini_step == 0


def count(opt_state):
    """Updates that were made so far, i32[]: what the schedule is a function of."""
    return optax.tree.get(opt_state, "count")
