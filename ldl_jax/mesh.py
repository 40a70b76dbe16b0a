"""Processes, devices, and where each array lies: the only room that knows there is more than one of them.

Data parallel over one mesh axis: batches are split over it, a memory's rows too, everything else is replicated.
"""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ldl_jax.contract import ROW_MULTIPLE, PyTree

AXIS = "data"


def make_mesh(devices=None) -> Mesh:
    """A mesh of all devices on one axis. Raises ValueError where their number does not divide 3,072."""
    devices = jax.devices() if devices is None else devices
    if ROW_MULTIPLE % len(devices):
        raise ValueError(
            f"{len(devices)} devices: memory rows are padded to a multiple of {ROW_MULTIPLE}, so allowed are the "
            "numbers that divide it: 1, 2, 3, 4, 6, 8, 12, 16, ..."
        )
    return jax.make_mesh((len(devices),), (AXIS,), devices=devices, axis_types=(AxisType.Auto,))


def padded_rows(num_examples: int) -> int:
    """The rows of a memory for so many examples."""
    return -(-num_examples // ROW_MULTIPLE) * ROW_MULTIPLE


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, *, stacked: bool = False) -> NamedSharding:
    """Split over the batch axis: the first, or the second of batches stacked for a chunk."""
    return NamedSharding(mesh, PartitionSpec(None, AXIS) if stacked else PartitionSpec(AXIS))


def is_rows(path) -> bool:
    """Whether a leaf of the state is a memory: an entry of a plug's state named `rows` or ending in `_rows`."""
    names = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path]
    return names[0] in ("labels", "auxiliary") and (names[-1] == "rows" or names[-1].endswith("_rows"))


def state_shardings(state: PyTree, mesh: Mesh) -> PyTree:
    """Where each leaf of a (possibly abstract) train state lies: memories by rows, the rest replicated."""

    def place(path, leaf):
        del leaf
        return NamedSharding(mesh, PartitionSpec(AXIS) if is_rows(path) else PartitionSpec())

    return jax.tree_util.tree_map_with_path(place, state)


def put_replicated(tree: PyTree, mesh: Mesh) -> PyTree:
    """Host arrays, the same on every process, onto all devices."""
    sharding = replicated(mesh)

    def put(leaf):
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.device_put(leaf, sharding)
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(put, tree)


def to_global(batch: PyTree, mesh: Mesh, *, stacked: bool = False) -> PyTree:
    """This process's slice of a batch onto the mesh, as arrays of the whole batch."""
    sharding = batch_sharding(mesh, stacked=stacked)
    with jax.transfer_guard("allow"):
        return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), batch)


def local_slice(size: int, mesh: Mesh) -> slice:
    """This process's part of a global batch of `size` examples. Raises ValueError where it cannot be divided."""
    devices, processes = mesh.size, jax.process_count()
    if size % devices:
        raise ValueError(
            f"config.data.batch_size is {size}, which {devices} devices cannot share evenly; allowed are multiples of "
            f"{devices}"
        )
    part = size // processes
    return slice(jax.process_index() * part, (jax.process_index() + 1) * part)


def fetch(tree: PyTree, mesh: Mesh) -> PyTree:
    """Arrays split over devices and processes, whole, as numpy arrays of this process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    whole = jax.jit(lambda x: x, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), whole)


def is_main() -> bool:
    """Whether this process writes logs and reports."""
    return jax.process_index() == 0
