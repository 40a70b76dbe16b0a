"""Checks whether a train state is finite, and the state to keep if it is not."""

import jax
import jax.numpy as jnp

from ldl_jax.contract import Array, PyTree
from ldl_jax.mesh import is_rows


def all_finite(tree: PyTree) -> Array:
    """Whether all numbers of a state are finite, memories (entries called `rows`) excepted.

    Returns bool[]. Memory rows are computed from the rest of the state, so they need no check.
    """
    checks = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if not is_rows(path) and jnp.issubdtype(leaf.dtype, jnp.floating):
            checks.append(jnp.isfinite(leaf).all())
    return jnp.all(jnp.stack(checks))


def unless_finite(finite: Array, old: PyTree, new: PyTree, written: PyTree) -> PyTree:
    """The new train state if it is finite, else the old one with the new step count.

    finite: bool[]. written: the label state updated under a mask that is 0 if not finite; memories
    are taken from it.
    """

    # Selecting between two memories would copy a table of N x K, so the caller masks the writing.
    def choose(path, before, after, masked):
        return masked if is_rows(path) else jnp.where(finite, after, before)

    labels = jax.tree_util.tree_map_with_path(
        choose, {"labels": old.labels}, {"labels": new.labels}, {"labels": written}
    )["labels"]
    state = jax.tree.map(
        lambda before, after: jnp.where(finite, after, before),
        old.replace(labels=()),
        new.replace(labels=()),
    )
    return state.replace(step=new.step, labels=labels)
