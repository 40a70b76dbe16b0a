"""Processes, devices, and where each array lies: the only module that knows there is more than one
of them.

Data parallel over one mesh axis: batches are split over it, a memory's rows too, everything else is
replicated. The processes are those of jax.distributed; each feeds the devices of its own machine.
"""

import os
import threading
from collections.abc import Callable
from functools import lru_cache

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from ldl_jax.contract import ROW_MULTIPLE, PyTree
from ldl_jax.errors import one_line

AXIS = "data"
JOIN_SECONDS = 300  # a start-up in which a process does not join gives up after so long
# a process that gave no sign of life for so long is dead, and the others give up
HEARTBEAT_SECONDS = 60
TOLD = 2048  # bytes of a sentence that one process tells the others
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


class NotJoined(Exception):
    """Not all processes of the job came in time."""


def join(seconds: int = JOIN_SECONDS) -> None:
    """Join the processes of this job, before the first use of a device; nothing where the job is
    one process.

    They are found by the environment variables JAX_COORDINATOR_ADDRESS (host:port of process 0),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID or, where none of them is set, by JAX itself (Slurm, Cloud
    TPU, Kubernetes, Open MPI). Raises ValueError where the variables are no such numbers, NotJoined
    where the processes do not find each other in `seconds`.
    """
    given = tuple(os.environ.get(name) for name in VARIABLES)
    address, count, number = given
    if any(part is not None for part in given) and not (
        address
        and ":" in address
        and _digits(count)
        and _digits(number)
        and int(number) < int(count)
    ):
        raise ValueError(
            f"{VARIABLES[0]} is {address!r}, {VARIABLES[1]} {count!r}, {VARIABLES[2]} {number!r}; allowed are "
            "host:port, the number of processes, and this one's, counted from 0"
        )
    known = (address, int(count), int(number)) if address else ()
    fault = []
    worker = threading.Thread(target=_initialize, args=(known, seconds, fault), daemon=True)
    worker.start()
    worker.join(seconds)
    if worker.is_alive() or fault:
        here = f"process {number} of {count}" if number else "this process"
        why = f" ({fault[0]})" if fault else ""
        raise NotJoined(
            f"{here} waited {seconds} s, and not all processes joined by {address or 'the coordinator'}{why}; "
            "see whether all were started, and reach that address"
        )


def _initialize(known: tuple, seconds: int, fault: list[str]) -> None:
    """Initialise jax.distributed; `fault` gets what went wrong. In a thread: past its own limit it
    ends the process.
    """
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
        # no cluster was found: this is the only process
        alone = "should be defined" in str(error) and not known
        if not alone:
            fault.append(one_line(error, 300))
    except RuntimeError as error:
        fault.append(one_line(error, 300))


def _digits(text: str | None) -> bool:
    return text is not None and text.isdecimal()


def tell(sentence: str) -> list[str]:
    """What every process has to say, by their numbers; each waits for all."""
    if jax.process_count() == 1:
        return [sentence]
    own = np.zeros(TOLD, np.uint8)
    data = np.frombuffer(sentence.encode()[:TOLD], np.uint8)
    own[: len(data)] = data
    with jax.transfer_guard("allow"):
        everyone = multihost_utils.process_allgather(own)
    return [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in everyone]


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
    faults = tell(fault)
    for number, sentence in enumerate(faults):
        if sentence:
            raise ValueError(
                sentence if len(set(faults)) == 1 or not number else f"process {number}: {sentence}"
            )
    return result


def on_main(work: Callable) -> None:
    """Let process 0 do `work` while the others wait; a ValueError is raised on all."""
    together(lambda: work() if is_main() else None)


def from_main(number: int) -> int:
    """Process 0's number, on all processes."""
    return int(tell(str(number))[0])


def check_same(what: str, value: str) -> None:
    """Raise ValueError where not all processes have the same value."""
    values = tell(value)
    for number, other in enumerate(values):
        if other != values[0]:
            raise ValueError(
                f"process {number} has {what} {other}, process 0 {values[0]}; allowed is the same on all"
            )


def agreed_to_stop(steps: range) -> bool:
    """Whether one of these steps, the latest, is the one at which all processes stop, since one had
    a SIGTERM.

    To be asked for every step, by every process: they agree on the step after the furthest.
    """
    return any([multihost_utils.reached_preemption_sync_point(step) for step in steps])


def processes() -> int:
    """How many processes the job has."""
    return jax.process_count()


def make_mesh(devices=None) -> Mesh:
    """A mesh of all devices on one axis, those of a process side by side.

    Raises ValueError where their number does not divide 3,072.
    """
    devices = jax.devices() if devices is None else devices
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    _check_count(len(devices))
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def planned_mesh(count: int) -> AbstractMesh:
    """A mesh of devices that need not be here: it places shapes, not arrays. Raises ValueError as
    `make_mesh`.
    """
    _check_count(count)
    return AbstractMesh((count,), (AXIS,), axis_types=(AxisType.Auto,))


def _check_count(count: int) -> None:
    if count < 1 or ROW_MULTIPLE % count:
        raise ValueError(
            f"{count} devices: memory rows are padded to a multiple of {ROW_MULTIPLE}, so allowed are the numbers that "
            "divide it: 1, 2, 3, 4, 6, 8, 12, 16, ..."
        )


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
    """Whether a leaf of the state is a memory: an entry of a plug's state named `rows` or ending in
    `_rows`.
    """
    names = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path]
    return names[0] in ("labels", "auxiliary") and (
        names[-1] == "rows" or names[-1].endswith("_rows")
    )


def state_shardings(state: PyTree, mesh: Mesh) -> PyTree:
    """Where each leaf of a (possibly abstract) train state lies: memories by rows, the rest
    replicated.
    """

    def place(path, leaf):
        del leaf
        return NamedSharding(mesh, PartitionSpec(AXIS) if is_rows(path) else PartitionSpec())

    return jax.tree_util.tree_map_with_path(place, state)


def put_replicated(tree: PyTree, mesh: Mesh) -> PyTree:
    """Host arrays, the same on every process, onto all devices."""
    sharding = replicated(mesh)

    def put(leaf):
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            kind = jax.random.key_impl(leaf)
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)), impl=kind)
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(put, tree)


def to_global(batch: PyTree, mesh: Mesh, *, stacked: bool = False) -> PyTree:
    """This process's slice of a batch onto the mesh, as arrays of the whole batch."""
    sharding = batch_sharding(mesh, stacked=stacked)
    with jax.transfer_guard("allow"):
        return jax.tree.map(
            lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), batch
        )


def local_slice(size: int, mesh: Mesh) -> slice:
    """This process's part of a global batch of `size` examples. Raises ValueError where it cannot
    be divided.
    """
    devices = mesh.size
    processes = jax.process_count()
    if size % devices:
        raise ValueError(
            f"config.data.batch_size is {size}, which {devices} devices cannot share evenly; allowed are multiples of "
            f"{devices}"
        )
    part = size // processes
    return slice(jax.process_index() * part, (jax.process_index() + 1) * part)


@lru_cache(maxsize=1)
def _gather(mesh: Mesh) -> Callable:
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))


def fetch(tree: PyTree, mesh: Mesh) -> PyTree:
    """Arrays split over devices and processes, whole, as numpy arrays of this process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    whole = _gather(mesh)(tree)
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), whole)


def is_main() -> bool:
    """Whether this process writes logs and reports."""
    return jax.process_index() == 0
