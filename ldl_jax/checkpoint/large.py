"""Large arrays of a state, written and read in parts: neither takes a second copy in memory."""

from collections.abc import Sequence
from pathlib import Path

import jax
import orbax.checkpoint as ocp
import tensorstore

from ldl_jax import mesh
from ldl_jax.contract import PyTree
from ldl_jax.files import reading

LARGE = 64 * 2**20  # bytes from which an array is read in parts, and not written in the background
CHUNK = 4 * 2**20  # bytes of a large array that are compressed together
PART = 32 * 2**20  # bytes of a large array that are read at a time
FILE = 64 * 2**20  # bytes that wait in memory until a file is written


def is_large(leaf) -> bool:
    """Whether a leaf of a state is so large that it is read and written in parts."""
    return leaf is not ... and leaf.ndim > 0 and leaf.size * leaf.dtype.itemsize >= LARGE


def without(abstract: PyTree, fields: Sequence[str]) -> PyTree:
    """The tree with `...` for the leaves of these fields at its top."""

    def leaf_or_none(path, leaf):
        name = jax.tree_util.keystr(path[:1], simple=True)
        return ocp.PLACEHOLDER if name in fields else leaf

    return jax.tree_util.tree_map_with_path(leaf_or_none, abstract)


def save_arguments(state: PyTree) -> ocp.args.PyTreeSave:
    """How orbax writes a state: by default it would compress a large array in one piece."""

    def options(leaf):
        return ocp.SaveArgs(chunk_byte_size=CHUNK if is_large(leaf) else None)

    return ocp.args.PyTreeSave(
        state, save_args=jax.tree.map(options, state), ocdbt_target_data_file_size=FILE
    )


def large_or(folder: Path, path, leaf, restored):
    """The leaf `path` of the state in `folder`, read in parts, if it is large; else `restored`."""
    if not is_large(leaf):
        return restored
    is_zarr3 = reading.read_block(folder / "_METADATA").get("use_zarr3")
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    base = {"driver": "file", "path": f"{folder}/"}
    kvstore = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
    spec = {"driver": "zarr3" if is_zarr3 else "zarr", "kvstore": kvstore}
    # Without this, missing data would be read as zeros.
    spec["fill_missing_data_reads"] = False
    store = tensorstore.open(spec, open=True, read=True).result()
    # A part of a chunk costs as much to read as the whole.
    rows = store.chunk_layout.read_chunk.shape[0]
    chunks = PART * leaf.shape[0] // (leaf.size * leaf.dtype.itemsize) // rows
    return mesh.assembled(
        leaf, lambda start, stop: store[start:stop].read().result(), rows * max(chunks, 1)
    )
