"""The optimizers of optax and optax.contrib by name."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from ldl_jax.config.optimizers import BY_LOSS, CONSTANT_RATE, DECAYS, MASKS, RATES, optimizers
from ldl_jax.config.options import options_of
from ldl_jax.errors import one_line
from ldl_jax.optimizer import sgd


class Counted(NamedTuple):
    """State of an optimizer by name."""

    count: jax.Array  # i32[]: updates so far
    inner: Any


def make(settings: ConfigDict, schedule: Callable) -> optax.GradientTransformation:
    """The optimizer that `config.optimizer` names: SGD by `sgd.make`, or one of optax.

    The latter is wrapped as SGD is: clipping first, then coupled weight decay (what has a weight
    decay of its own is given it instead), and accumulation around all. Its update takes `grad_fn`,
    (params, number) -> the gradient of the same batch there, if it is 'sam', and `value`, the loss,
    if it is one of BY_LOSS. Raises ValueError, naming the field, if an option is not allowed.
    """
    accumulate = settings.accumulate
    if settings.name == "sgd":
        return _sgd(settings, schedule, accumulate)
    sgd.check(settings.decay, accumulate, settings.weight_decay)
    try:
        optimizer = _counted(_named(settings, schedule), settings.name)
        _try_out(optimizer)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise ValueError(f"config.optimizer.{settings.name}: {one_line(error, 300)}") from error
    return optimizer if accumulate == 1 else sgd.accumulated(optimizer, accumulate)


def _sgd(settings: ConfigDict, schedule: Callable, accumulate: int):
    return sgd.make(
        schedule,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        decay=settings.decay,
        clip_norm=settings.clip_norm,
        accumulate=accumulate,
    )


def _named(settings: ConfigDict, schedule: Callable):
    """The optimizer of optax that the settings name, with clipping and weight decay."""
    if settings.name != "sam":
        return _chained(settings, settings.name, schedule)
    options = options_of(settings, "sam")
    rho = options.pop("rho")
    base = options.pop("base")
    plain = base == "sgd"
    outer = _sgd(settings, schedule, 1) if plain else _chained(settings, base, schedule)
    adversary = optax.chain(_normalised(), optax.sgd(rho))
    # In opaque mode both gradients belong to one step, which moves statistics and memories once.
    return optax.contrib.sam(outer, adversary, **options, opaque_mode=True)


def _normalised():
    """`optax.contrib.normalize`, but a gradient of zeros stays one."""

    def divided(grads, params=None):
        del params
        norm = optax.tree.norm(grads)
        return jax.tree.map(lambda leaf: leaf / jnp.where(norm > 0, norm, 1), grads)

    return optax.stateless(divided)


def _chained(settings: ConfigDict, name: str, schedule: Callable):
    """An optimizer of optax that takes one gradient, after clipping and coupled weight decay."""
    known = optimizers()[name]
    factory = getattr(optax if known.package == "optax" else optax.contrib, name)
    options = {key: value for key, value in options_of(settings, name).items() if value is not None}
    rate = settings.learning_rate if name in CONSTANT_RATE else schedule
    mask = sgd.kernels_only if settings.decay == "kernels" else None
    chain = []
    if settings.clip_norm > 0:
        chain.append(optax.clip_by_global_norm(settings.clip_norm))
    own_decay = known.first(DECAYS)
    if own_decay:
        options[own_decay] = settings.weight_decay
        own_mask = known.first(MASKS)
        if own_mask and mask:
            options[own_mask] = mask
    elif settings.weight_decay:
        chain.append(optax.add_decayed_weights(settings.weight_decay, mask=mask))
    if name == "muon":
        options |= _muon_options(settings, schedule)
    if name == "schedule_free":
        factory = partial(factory, optax.sgd(schedule))
    chain.append(factory(**{known.first(RATES): rate}, **options))
    return optax.chain(*chain)


def _muon_options(settings: ConfigDict, schedule: Callable) -> dict[str, Any]:
    """Muon for kernels as matrices [inputs, outputs], the inputs of a convolution being height x width
    x channels; AdamW for the rest, by the schedule of its own rate.
    """

    def dimensions(params):
        def axes(leaf):
            inputs = tuple(range(leaf.ndim - 1))
            is_kernel = leaf.ndim > 1
            return optax.contrib.MuonDimensionNumbers(inputs, leaf.ndim - 1) if is_kernel else None

        return jax.tree.map(axes, params)

    # The mask of the decay is that of the kernels, which are Muon's parameters.
    rest = settings.weight_decay if settings.decay == "all" else 0.0
    options = {
        "muon_weight_dimension_numbers": dimensions,
        "weight_decay_mask": None,
        "adam_weight_decay": rest,
    }
    adam_rate = settings.muon.adam_learning_rate
    if adam_rate is not None:
        ratio = adam_rate / settings.learning_rate if settings.learning_rate else 0.0
        options["adam_learning_rate"] = lambda count: ratio * schedule(count)
    return options


def _counted(transformation, name: str) -> optax.GradientTransformationExtraArgs:
    """A transformation that counts its updates, and says what its update needs."""
    transformation = optax.with_extra_args_support(transformation)
    needs = {"sam": "grad_fn", **dict.fromkeys(BY_LOSS, "value")}.get(name)

    def init(params):
        # A copy: the state is donated, and some optimizers keep the initial parameters in it.
        def copied(leaf):
            return jnp.array(leaf, leaf.dtype)

        inner = jax.tree.map(copied, transformation.init(params))
        return Counted(jnp.zeros((), jnp.int32), inner)

    def update(grads, state, params=None, **extra):
        if needs is not None and extra.get(needs) is None:
            raise ValueError(
                f"config.optimizer.name is {name!r}, whose update needs {needs}; a label source, or "
                "any other step that does not pass it, needs another optimizer"
            )
        given = {} if needs is None else {needs: extra[needs]}
        updates, inner = transformation.update(grads, state.inner, params, **given)
        inner = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), inner, state.inner)
        return updates, Counted(state.count + 1, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def _try_out(transformation) -> None:
    """Trace an update by shapes, so that a wrong option is found before the run starts."""
    params = {
        "kernel": jax.ShapeDtypeStruct((1, 1, 2, 3), jnp.float32),
        "bias": jax.ShapeDtypeStruct((3,), jnp.float32),
    }

    def update(params):
        extra = {"value": jnp.zeros(()), "grad_fn": lambda params, _: params}
        return transformation.update(params, transformation.init(params), params, **extra)

    jax.eval_shape(update, params)


def updated(opt_state, accumulate: int):
    """Whether the last call of the optimizer changed the parameters, bool[]."""
    return jnp.asarray(True) if accumulate == 1 else opt_state.mini_step == 0


def count(opt_state):
    """Number of updates so far, i32[], the argument of the schedule."""
    counted = _first(opt_state, Counted)
    return optax.tree.get(opt_state, "count") if counted is None else counted.count


def evaluated(opt_state, params):
    """The parameters to measure, save and export: the averaged ones of a schedule-free optimizer, else
    those in training.
    """
    state = _first(opt_state, optax.contrib.ScheduleFreeState)
    return params if state is None else _average(state, params)


_average = jax.jit(optax.contrib.schedule_free_eval_params)


def _first(opt_state, kind: type):
    """The first part of an optimizer state that is of a kind; None without."""
    parts = jax.tree.leaves(opt_state, is_leaf=lambda part: isinstance(part, kind))
    return next((part for part in parts if isinstance(part, kind)), None)
