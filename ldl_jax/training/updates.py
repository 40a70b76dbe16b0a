"""How a network's variables change: initial weights in the place of fresh ones; the optimizer's update,
with the body frozen or slowed; and the moving average.

The body is the model without its head; parameters of auxiliaries belong to neither.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from ldl_jax.contract import Array, PyTree


class Body(NamedTuple):
    """How the body learns, where it does not learn like the rest."""

    # paths of the head's leaves within the variables, such as ('params', 'fc', 'kernel')
    head: frozenset[tuple[str, ...]]
    freeze_steps: int  # steps at the start in which it stays as it is
    factor: float  # of the learning rate

    def is_frozen(self, step: Array) -> Array:
        """Whether the body stays as it is in this step, bool[]."""
        return step < self.freeze_steps

    def change(self, change: Callable, variables: PyTree, *others: PyTree) -> PyTree:
        """Variables {'params', ...} with a changed body: change(leaf, *leaves of others)."""

        def change_leaf(path, leaf, *rest):
            names = tuple(key.key for key in path)
            return leaf if names in self.head else change(leaf, *rest)

        return jax.tree_util.tree_map_with_path(change_leaf, variables, *others)


def replaced(variables: PyTree, start: PyTree) -> PyTree:
    """Fresh variables with the leaves of `start` in their place."""
    leaves = traverse_util.flatten_dict(variables, keep_empty_nodes=True)
    return traverse_util.unflatten_dict({**leaves, **traverse_util.flatten_dict(start)})


def student(key, body: Body | None, apply: Callable, step: Array) -> Callable:
    """The network in training: (variables, image) -> (Outputs, batch_stats).

    A frozen body is that of the network that is evaluated: BatchNorm uses its running statistics,
    which stay as they are.
    """
    train = partial(apply, train=True, key=key)
    if body is None or not body.freeze_steps:
        return train

    def passed(variables, image):
        frozen = body.is_frozen(step)

        def evaluated(_):
            held = body.change(jax.lax.stop_gradient, variables)
            return apply(held, image, train=False)[0]

        # Only this forward pass is conditional. On the CPU, the gradient of a convolution in a branch
        # took 16 times as long as outside.
        outputs, stats = train(variables, image)
        outputs = jax.lax.cond(frozen, evaluated, lambda trained: trained, outputs)
        before = variables["batch_stats"]
        return outputs, jax.tree.map(lambda old, new: jnp.where(frozen, old, new), before, stats)

    return passed


def update(
    body: Body | None,
    transformation: Any,
    grads: PyTree,
    opt_state: PyTree,
    params: PyTree,
    step: Array,
    **extra: Any,
) -> tuple[PyTree, PyTree]:
    """(updates, optimizer state) of one step. grads, params: {'model', 'auxiliary'}.

    extra: what optimizers by name may need: `value`, the loss f32[], and `grad_fn` (params, number)
    -> the gradient of the same batch there.
    """
    if not isinstance(transformation, optax.GradientTransformationExtraArgs):
        extra = {}
    if body is None:
        return transformation.update(grads, opt_state, params, **extra)

    def changed(change, tree):
        model = body.change(change, {"params": tree["model"]})["params"]
        return {**tree, "model": model}

    if body.freeze_steps:
        # The optimizer sees zeros instead of a frozen body: no decay, and no momentum afterwards.
        def hide(leaf):
            return jnp.where(body.is_frozen(step), jnp.zeros_like(leaf), leaf)

        grads = changed(hide, grads)
        params = changed(hide, params)
    updates, opt_state = transformation.update(grads, opt_state, params, **extra)
    return changed(lambda leaf: leaf * body.factor, updates), opt_state


def average(
    body: Body | None, old: PyTree, new: PyTree, decay: float, moved: Array, step: Array
) -> PyTree:
    """The exponential moving average of variables, unchanged in steps without an update (moved:
    bool[]).
    """

    def mix(a, b):
        m = jnp.where(moved, decay, 1).astype(a.dtype)
        return m * a + (1 - m) * b

    averaged = jax.tree.map(mix, old, new)
    if body is None or not body.freeze_steps:
        return averaged

    # Averaging equal numbers rounds, and a frozen body stays exactly as it is.
    def keep(mixed, before):
        return jnp.where(body.is_frozen(step), before, mixed)

    return body.change(keep, averaged, old)
