"""Processes, devices and shardings: the only module that knows there may be more than one device.

Training is data parallel over one mesh axis: batches and the rows of memories are split over it,
everything else is replicated. The processes are those of jax.distributed; each feeds the devices of
its own machine.
"""

import os
import threading
from collections.abc import Callable
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from ldl_jax.contract import ROW_MULTIPLE, PyTree
from ldl_jax.errors import one_line

AXIS = "data"
JOIN_SECONDS = 300  # time limit for all processes to join at the start
HEARTBEAT_SECONDS = 60  # silence after which a process counts as dead and the others stop
MESSAGE_BYTES = 2048  # size of a message that processes exchange
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


class NotJoined(Exception):
    """Not all processes of the job joined in time."""


def join(seconds: int = JOIN_SECONDS) -> None:
    """Join the processes of this job, before the first use of a device; does nothing if the job is
    a single process.

    They are found by the environment variables JAX_COORDINATOR_ADDRESS (host:port of process 0),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID or, if none of them is set, by JAX itself (Slurm, Cloud
    TPU, Kubernetes, Open MPI). Raises ValueError if the variables are not valid, NotJoined if the
    processes do not find each other within `seconds`.
    """
    given = tuple(os.environ.get(name) for name in VARIABLES)
    address, count, number = given
    is_valid = bool(address) and ":" in address and _is_number(count) and _is_number(number)
    is_valid = is_valid and int(number) < int(count)
    if any(value is not None for value in given) and not is_valid:
        raise ValueError(
            f"{VARIABLES[0]}, {VARIABLES[1]} and {VARIABLES[2]} must be host:port, the number of "
            f"processes, and the number of this process, counted from 0; got {address!r}, "
            f"{count!r} and {number!r}"
        )
    known = (address, int(count), int(number)) if address else ()
    errors = []
    # In a thread, because past its own time limit JAX would end the process without a message.
    worker = threading.Thread(target=_initialize, args=(known, seconds, errors), daemon=True)
    worker.start()
    worker.join(seconds)
    if worker.is_alive() or errors:
        process = f"process {number} of {count}" if number else "this process"
        reason = f" ({errors[0]})" if errors else ""
        raise NotJoined(
            f"{process} waited {seconds} s, but not all processes joined "
            f"{address or 'the coordinator'}{reason}; check that all were started and can reach "
            "that address"
        )


def _initialize(known: tuple, seconds: int, errors: list[str]) -> None:
    """Initialise jax.distributed, appending the message of a failure to `errors`."""
    # Longer than `join` waits, so that it is `join` that gives up and says why.
    options = {
        "initialization_timeout": seconds + 60,
        "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
        "shutdown_timeout_seconds": HEARTBEAT_SECONDS,
    }
    if known:
        options["cluster_detection_method"] = "deactivate"
    try:
        jax.distributed.initialize(*known, **options)
    except ValueError as error:
        # JAX found no cluster: this is the only process.
        is_alone = "should be defined" in str(error) and not known
        if not is_alone:
            errors.append(one_line(error, 300))
    except RuntimeError as error:
        errors.append(one_line(error, 300))


def _is_number(text: str | None) -> bool:
    return text is not None and text.isdecimal()


def tell(sentence: str) -> list[str]:
    """The messages of all processes, in order; every process sends one and waits for all."""
    if jax.process_count() == 1:
        return [sentence]
    # A gather needs arrays of one size, so messages are padded with zeros or cut.
    message = np.zeros(MESSAGE_BYTES, np.uint8)
    data = np.frombuffer(sentence.encode(errors="backslashreplace")[:MESSAGE_BYTES], np.uint8)
    message[: len(data)] = data
    with jax.transfer_guard("allow"):
        messages = multihost_utils.process_allgather(message)
    return [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in messages]


def together(work: Callable):
    """Do `work` on every process and return its result; a ValueError on one of them is raised on
    all.
    """
    result = None
    fault = ""
    try:
        result = work()
    except ValueError as error:
        if jax.process_count() == 1:
            raise
        fault = str(error)
    # Every process takes part in the exchange, or the others would wait for it for ever.
    faults = tell(fault)
    for number, message in enumerate(faults):
        if message:
            is_common = len(set(faults)) == 1
            raise ValueError(message if is_common or not number else f"process {number}: {message}")
    return result


def on_main(work: Callable) -> None:
    """Do `work` on process 0 while the others wait; a ValueError is raised on all."""
    together(lambda: work() if is_main() else None)


def from_main(number: int) -> int:
    """The number that process 0 passed, on all processes."""
    return int(tell(str(number))[0])


def check_same(what: str, value: str) -> None:
    """Raise ValueError if not all processes have the same value."""
    values = tell(value)
    for number, theirs in enumerate(values):
        if theirs != values[0]:
            raise ValueError(
                f"process {number} has {what} {theirs}, but process 0 has {values[0]}; all "
                "processes must have the same"
            )


def agreed_to_stop(steps: range) -> bool:
    """Whether the processes stop after these steps, because one of them received SIGTERM.

    Every process must ask about every step: they agree on the step after the furthest.
    """
    # A list, because `any` must not skip a step.
    return any([multihost_utils.reached_preemption_sync_point(step) for step in steps])


def processes() -> int:
    """Number of processes of the job."""
    return jax.process_count()


def make_mesh(devices=None) -> Mesh:
    """A mesh of all devices on one axis, those of a process side by side.

    Raises ValueError if their number does not divide 3,072.
    """
    devices = jax.devices() if devices is None else devices
    # Side by side, so that the slice of a batch that a process loads goes to its own devices.
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    _check_count(len(devices))
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def planned_mesh(count: int) -> AbstractMesh:
    """A mesh of `count` devices that need not exist, to place shapes but not arrays.

    Raises ValueError as `make_mesh` does.
    """
    _check_count(count)
    return AbstractMesh((count,), (AXIS,), axis_types=(AxisType.Auto,))


def _check_count(count: int) -> None:
    if count < 1 or ROW_MULTIPLE % count:
        raise ValueError(
            f"the number of devices must divide {ROW_MULTIPLE} (1, 2, 3, 4, 6, 8, 12, 16, ...), got "
            f"{count}"
        )


def padded_rows(num_examples: int) -> int:
    """Number of rows of a memory for this many examples, rounded up to the row multiple."""
    return -(-num_examples // ROW_MULTIPLE) * ROW_MULTIPLE


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device has in full."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, *, stacked: bool = False) -> NamedSharding:
    """The sharding of a batch over its first axis, or over the second of batches stacked for a
    chunk.
    """
    return NamedSharding(mesh, PartitionSpec(None, AXIS) if stacked else PartitionSpec(AXIS))


def is_rows(path) -> bool:
    """Whether a leaf of the train state is a memory: an entry of a plug's state named `rows` or
    ending in `_rows`.
    """
    names = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path]
    return names[0] in ("labels", "auxiliary") and (
        names[-1] == "rows" or names[-1].endswith("_rows")
    )


def state_shardings(state: PyTree, mesh: Mesh) -> PyTree:
    """The shardings of a (possibly abstract) train state: memories split by rows, all else
    replicated.
    """

    def sharding(path, leaf):
        del leaf
        return NamedSharding(mesh, PartitionSpec(AXIS) if is_rows(path) else PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, state)


def put_replicated(tree: PyTree, mesh: Mesh) -> PyTree:
    """Host arrays, the same on every process, copied to all devices."""
    sharding = replicated(mesh)

    def put(leaf):
        # A key array has no numpy form, so its data are copied and wrapped again.
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            kind = jax.random.key_impl(leaf)
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)), impl=kind)
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(put, tree)


def assembled(abstract, read: Callable[[int, int], np.ndarray], rows: int) -> jax.Array:
    """An array on the devices of its sharding, filled with `rows` rows at a time.

    abstract: its shape, type and sharding, by rows or replicated. read(start, stop): these rows of
    it, on the host. Nothing but these rows is ever in memory twice.
    """
    by_rows: dict[tuple[int, int], list] = {}
    for device, index in abstract.sharding.addressable_devices_indices_map(abstract.shape).items():
        by_rows.setdefault(index[0].indices(abstract.shape[0])[:2], []).append(device)
    shards = []
    for (first, last), devices in by_rows.items():
        shape = (last - first, *abstract.shape[1:])
        parts = [jnp.zeros(shape, abstract.dtype, device=device) for device in devices]
        start = first
        while start < last:
            # At multiples of `rows`, wherever the shard begins.
            stop = min((start // rows + 1) * rows, last)
            value = read(start, stop)
            parts = [_with_rows(part, value, start - first) for part in parts]
            # Otherwise the host would read ahead of the devices, and keep all of it.
            jax.block_until_ready(parts)
            start = stop
        shards += parts
    return jax.make_array_from_single_device_arrays(abstract.shape, abstract.sharding, shards)


@partial(jax.jit, donate_argnums=0)
def _with_rows(part: jax.Array, rows: jax.Array, start: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(part, rows, start, 0)


def to_global(batch: PyTree, mesh: Mesh, *, stacked: bool = False) -> PyTree:
    """This process's slice of a batch, copied to its devices, as arrays of the global batch."""
    sharding = batch_sharding(mesh, stacked=stacked)
    with jax.transfer_guard("allow"):
        return jax.tree.map(
            lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), batch
        )


def local_slice(size: int, mesh: Mesh) -> slice:
    """This process's part of a global batch of `size` examples.

    Raises ValueError if the devices cannot share it evenly.
    """
    devices = mesh.size
    processes = jax.process_count()
    if size % devices:
        raise ValueError(
            f"config.data.batch_size must be a multiple of the number of devices, {devices}; got "
            f"{size}"
        )
    part = size // processes
    return slice(jax.process_index() * part, (jax.process_index() + 1) * part)


@lru_cache(maxsize=1)
def _gather(mesh: Mesh) -> Callable:
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))


def fetch(tree: PyTree, mesh: Mesh) -> PyTree:
    """Arrays split over devices and processes, gathered as numpy arrays of this process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    # A process can read only its own devices, so each gets all of the arrays first.
    whole = _gather(mesh)(tree)
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), whole)


def is_main() -> bool:
    """Whether this process writes logs and reports."""
    return jax.process_index() == 0
