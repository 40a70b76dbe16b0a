"""Whether a state holds finite numbers alone, and what becomes of one that does not."""

import jax
import jax.numpy as jnp

from ldl_jax.contract import Array, PyTree
from ldl_jax.mesh import is_rows


def all_finite(tree: PyTree) -> Array:
    """Whether all numbers of a state are finite, but for memories: they hold what was computed from
    it, row by row.
    """
    leaves = [
        leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0] if not is_rows(path)
    ]
    floats = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in floats]))


def unless_finite(finite: Array, old: PyTree, new: PyTree, written: PyTree) -> PyTree:
    """The new train state or, where it is not finite, the old one a step later.

    Memories are those of `written`, a state of labels that was made under a mask of 0: selecting
    between two tables would copy them.
    """

    def choose(path, before, after, masked):
        return masked if is_rows(path) else jnp.where(finite, after, before)

    labels = ({"labels": state} for state in (old.labels, new.labels, written))
    labels = jax.tree_util.tree_map_with_path(choose, *labels)["labels"]
    rest = (state.replace(labels=()) for state in (old, new))
    kept = jax.tree.map(lambda before, after: jnp.where(finite, after, before), *rest)
    return kept.replace(step=new.step, labels=labels)
