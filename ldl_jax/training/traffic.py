"""What a training step moves between devices, by formula: known for any number of them before one
is paid for.

Sizes are those of arrays in XLA's collectives, as they were read off compiled programs of 8
devices; what is sent follows from rings: in an all-reduce of b bytes each of n devices sends 2 (n -
1) / n b, in an all-gather (n - 1) / n b. Letters: n devices, B batch, V views, K classes, M images
mixed into one.
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
    """One kind of arrays that a step moves."""

    name: str
    kind: str  # 'all-reduce', 'all-gather', or 'collective-permute': to the neighbour
    # bytes of the array that is reduced or gathered; of what a device sends to its neighbour
    size: int
    over: int  # devices that take part in each

    def sent(self) -> float:
        """Bytes that a device sends."""
        if self.over == 1:
            return 0.0
        part = (self.over - 1) / self.over
        return (
            self.size
            * {"all-reduce": 2 * part, "all-gather": part, "collective-permute": 1}[self.kind]
        )


def bytes_of(tree: PyTree) -> int:
    """Bytes of all (possibly abstract) arrays of a tree. Sizes are whole: shardings are not looked
    at.
    """
    return sum(leaf.size * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def moves(
    recipe: Recipe, state: TrainState, split: Split, *, norm_group: int, devices: int
) -> list[Move]:
    """What one step on images of `split` moves on so many devices, from the abstract state.

    Gradients are counted in the type of the parameters (a compiler may send those of a bfloat16
    network in half the bytes). Left out are single numbers, and the statistics of a FitNet
    adaptor's own BatchNorm.
    """
    views, size, _ = recipe.build.outputs.logits.shape
    stats = state.batch_stats
    peers = _own_networks(state.labels)
    params = bytes_of(state.params) + sum(bytes_of(params) for params, _ in peers)
    collected = [Move("gradients", "all-reduce", params, devices)]

    # Statistics of every pass in training: a peer looks once for the target, and once to learn.
    collected += _statistics(stats, views * size, norm_group, devices)
    for _, peer_stats in peers:
        collected += _statistics(peer_stats, size, norm_group, devices)
        collected += _statistics(peer_stats, size, norm_group, devices, forward_only=True)
    if recipe.source.clean and recipe.mixer.ways > 1:
        collected += _statistics(stats, size, norm_group, devices, forward_only=True)

    # Memories: rows are read for the target and where they are overwritten, and written with their
    # positions.
    sums = [leaf for path, leaf in _leaves(state.labels) if path[-1] in ("sums", "count")]
    collected.append(Move("sums of classes", "all-reduce", bytes_of(sums), devices))
    for path, rows in jax.tree_util.tree_flatten_with_path(state)[0]:
        if is_rows(path):
            part = size * math.prod(rows.shape[1:]) * rows.dtype.itemsize
            collected.append(Move("memory rows read", "all-reduce", 2 * part, devices))
            collected.append(
                Move("memory rows written", "all-gather", part + 3 * 4 * size, devices)
            )

    # Mixing: partners of an image may lie on other devices. The batch is rolled by 1, by 2, ... by
    # M - 1.
    ways = recipe.mixer.ways
    if ways > 1:
        labels = (
            _unmixed_terms(recipe, state, split) * bytes_of(recipe.build.outputs.logits) // views
        )
        image = views * math.prod(split.shape) * jnp.dtype(recipe.dtype).itemsize
        collected.append(Move("targets of mixed images", "all-gather", labels, devices))
        collected.append(
            Move(
                "images to a neighbour",
                "collective-permute",
                ways * (ways - 1) // 2 * image,
                devices,
            )
        )
    return [move for move in collected if move.size]


def _leaves(tree: PyTree) -> list[tuple[tuple[str, ...], jax.ShapeDtypeStruct]]:
    """(names on the way, leaf) of every leaf."""
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(tuple(str(getattr(key, "key", key)) for key in path), leaf) for path, leaf in found]


def _own_networks(state: PyTree) -> list[tuple[PyTree, PyTree]]:
    """(params, batch_stats) of the networks that a label source trains itself: those beside an
    `opt_state`.
    """
    if not isinstance(state, dict):
        return []
    inner = [found for part in state.values() for found in _own_networks(part)]
    return [(state["params"], state["batch_stats"]), *inner] if "opt_state" in state else inner


def _statistics(
    stats: PyTree, images: int, group: int, devices: int, *, forward_only: bool = False
) -> list[Move]:
    """BatchNorm's, of a network with these running averages: over all images, or over the devices
    that share a group.

    Of the whole batch: mean and square on the way forward, one more on the way back. In groups: the
    running averages over all devices; where a group is larger than a device's part, as much forward
    and back among those that share it.
    """
    name, size = "BatchNorm statistics", bytes_of(stats)
    if not group:
        return [Move(name, "all-reduce", size if forward_only else size * 3 // 2, devices)]
    share = math.gcd(images // devices, group)  # images of a group that lie together
    among = Move(
        name, "all-reduce", size if forward_only else 2 * size, min(devices, group // share)
    )
    kept = [] if forward_only else [Move(name, "all-reduce", size, devices)]
    return [*kept, among] if among.over > 1 else kept


def _unmixed_terms(recipe: Recipe, state: TrainState, split: Split) -> int:
    """The terms of the loss whose targets the step mixes."""
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
    targets = jax.eval_shape(recipe.source.targets, state.labels, batch, build.outputs)
    return sum(not target.mixed for target in targets)
