"""Communication of a train step between devices, computed by formula for any number of devices.

Sizes are those of the arrays in XLA's collectives, as read off programs compiled for 8 devices.
Communication assumes rings: in an all-reduce of b bytes each of n devices sends 2 (n - 1) / n b, in
an all-gather (n - 1) / n b. Letters: n devices, B batch, V views, K classes, M images mixed into
one.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ldl_jax.contract import Batch, PyTree
from ldl_jax.data.base import Split
from ldl_jax.mesh import is_rows
from ldl_jax.training.steps import Recipe, TrainState


class Move(NamedTuple):
    """One kind of arrays that a step communicates."""

    name: str
    kind: str  # 'all-reduce', 'all-gather', or 'collective-permute': to the neighbour
    # bytes of the reduced or gathered array; for 'collective-permute', what a device sends
    size: int
    over: int  # devices that take part in each collective

    def sent(self) -> float:
        """Bytes that each device sends."""
        if self.over == 1:
            return 0.0
        part = (self.over - 1) / self.over
        factors = {"all-reduce": 2 * part, "all-gather": part, "collective-permute": 1}
        return self.size * factors[self.kind]


def bytes_of(tree: PyTree) -> int:
    """Total bytes of the (possibly abstract) arrays of a tree, ignoring their shardings."""
    return sum(leaf.size * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def moves(
    recipe: Recipe,
    state: TrainState,
    split: Split,
    *,
    norm_group: int,
    devices: int,
    gradients: int = 1,
) -> list[Move]:
    """What one step on images of `split` communicates on `devices` devices, from the abstract state.

    Gradients count in the type of the parameters (a compiler may send those of a bfloat16 network
    in half the bytes). Scalars and the statistics of a FitNet adaptor's BatchNorm are left out.
    gradients: of the student in a step, more than one for the optimizer 'sam'.
    """
    views, size, _ = recipe.build.outputs.logits.shape
    stats = state.batch_stats
    peers = _own_networks(state.labels)
    params = gradients * bytes_of(state.params) + sum(bytes_of(params) for params, _ in peers)
    collected = [Move("gradients", "all-reduce", params, devices)]

    # Every forward pass in training mode reduces BatchNorm statistics. A peer network has two: one
    # for the target and one for its own update.
    for _ in range(gradients):
        collected += _statistics(stats, views * size, norm_group, devices)
    for _, peer_stats in peers:
        collected += _statistics(peer_stats, size, norm_group, devices)
        collected += _statistics(peer_stats, size, norm_group, devices, forward_only=True)
    if recipe.source.clean and recipe.mixer.ways > 1:
        collected += _statistics(stats, size, norm_group, devices, forward_only=True)

    # Memories: rows are read twice, for the target and before they are overwritten, and written
    # together with their positions.
    sums = [leaf for path, leaf in _named_leaves(state.labels) if path[-1] in ("sums", "count")]
    collected.append(Move("sums of classes", "all-reduce", bytes_of(sums), devices))
    for path, rows in jax.tree_util.tree_flatten_with_path(state)[0]:
        if is_rows(path):
            part = size * math.prod(rows.shape[1:]) * rows.dtype.itemsize
            collected.append(Move("memory rows read", "all-reduce", 2 * part, devices))
            collected.append(
                Move("memory rows written", "all-gather", part + 3 * 4 * size, devices)
            )

    # Mixing: the partners of an image may lie on other devices, since the batch is rolled by 1, by
    # 2, ..., by M - 1.
    ways = recipe.mixer.ways
    if ways > 1:
        terms = _unmixed_terms(recipe, state, split)
        targets = terms * bytes_of(recipe.build.outputs.logits) // views
        collected.append(Move("targets of mixed images", "all-gather", targets, devices))
        image = views * math.prod(split.shape) * jnp.dtype(recipe.dtype).itemsize
        rolled = ways * (ways - 1) // 2 * image
        collected.append(Move("images to a neighbour", "collective-permute", rolled, devices))
    return [move for move in collected if move.size]


def _named_leaves(tree: PyTree) -> list[tuple[tuple[str, ...], jax.ShapeDtypeStruct]]:
    """(names of the path, leaf) of every leaf."""
    leaves = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        names = tuple(str(getattr(key, "key", key)) for key in path)
        leaves.append((names, leaf))
    return leaves


def _own_networks(state: PyTree) -> list[tuple[PyTree, PyTree]]:
    """(params, batch_stats) of the networks that a label source trains itself.

    They are the entries of its state beside an `opt_state`.
    """
    if not isinstance(state, dict):
        return []
    networks = []
    if "opt_state" in state:
        networks.append((state["params"], state["batch_stats"]))
    for part in state.values():
        networks += _own_networks(part)
    return networks


def _statistics(
    stats: PyTree, images: int, group: int, devices: int, *, forward_only: bool = False
) -> list[Move]:
    """The BatchNorm statistics of one pass of `images` images through a network.

    stats: its running averages. group: images that share statistics; 0 for the whole batch.
    """
    name = "BatchNorm statistics"
    size = bytes_of(stats)
    # Whole batch: mean and square on the way forward, half as much again on the way back.
    if not group:
        return [Move(name, "all-reduce", size if forward_only else size * 3 // 2, devices)]
    # Groups: the running averages go over all devices. A group that spans several devices also
    # exchanges its statistics among these, forward and back.
    share = math.gcd(images // devices, group)  # images of a group on the same device
    within = Move(
        name, "all-reduce", size if forward_only else 2 * size, min(devices, group // share)
    )
    averages = [] if forward_only else [Move(name, "all-reduce", size, devices)]
    return [*averages, within] if within.over > 1 else averages


def _unmixed_terms(recipe: Recipe, state: TrainState, split: Split) -> int:
    """The number of terms of the loss whose targets the label source leaves for the step to mix."""
    build = recipe.build
    views, size, _ = build.outputs.logits.shape
    ways = recipe.mixer.ways
    given = {}
    for name, table in dict(split.given).items():
        given[name] = jax.ShapeDtypeStruct((size, *table.shape[1:]), table.dtype)
    batch = Batch(
        image=jax.ShapeDtypeStruct((views, size, *split.shape), recipe.dtype),
        clean=None,
        index=jax.ShapeDtypeStruct((size,), "int32"),
        label=jax.ShapeDtypeStruct((size,), "int32"),
        given=given,
        partner=jax.ShapeDtypeStruct((size, ways), "int32"),
        share=jax.ShapeDtypeStruct((size, ways), recipe.dtype),
        mask=jax.ShapeDtypeStruct((size,), "float32"),
        teacher=build.teachers,
        step=jax.ShapeDtypeStruct((), "int32"),
        key=jax.eval_shape(lambda: jax.random.key(0)),
    )
    # Only the source knows how many terms it makes, so trace it on an abstract batch.
    targets = jax.eval_shape(recipe.source.targets, state.labels, batch, build.outputs)
    return sum(not target.mixed for target in targets)
