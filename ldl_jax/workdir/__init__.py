"""The run directory: names of its files, its lock, checks before a start, weights and logs."""

import contextlib
import math
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from ldl_jax import config, files, mesh
from ldl_jax.contract import PyTree
from ldl_jax.errors import Busy, UnreadableFile
from ldl_jax.files import reading
from ldl_jax.models.spec import read_spec

try:
    import fcntl
except ImportError:  # Windows, where a run directory cannot be locked
    fcntl = None

# Written at the start of a run.
LOCK = ".lock"
CONFIG = "config.json"
NETWORK = "network.json"  # the network spec
VERSIONS = "versions.json"
SPLIT = "split.json"  # how the test images were drawn, if the data have no test split
# Written during training.
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"
EVENTS = "tensorboard"
PROFILE = "profile"
BEST = "best.npz"
SPENT = "spent.txt"  # seconds spent on a run of a study
# Written at the end of a run.
WEIGHTS = "model.npz"
PREDICTIONS = "predictions"  # a folder: see `predictions_file`
CALIBRATION = "calibration.json"
RELIABILITY = "reliability.png"
CURVES = "curves.png"
EVALUATION = "evaluation.json"
REPORT = "report.html"
SUMMARY = "summary.json"
MEMORY = "memory"  # a folder, if asked for: see `training.recording`
PREDICTED = "predicted"  # a folder: predictions for further images, made after the run
# Written in place; other files are replaced as a whole, and so is a link that has their name.
IN_PLACE = (LOCK, METRICS, TIMING, CHECKPOINTS, EVENTS, PROFILE)

PACKAGES = ("ldl-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
PACKAGES += ("ml-collections", "chex", "numpy")
IMAGES = "data.root"  # the input with the images


def predictions_file(workdir, split: str = "test") -> Path:
    """The file with the predictions for a split.

    Its arrays: logits f32[n, K], label i32[n], index i32[n], classes str[K].
    """
    return Path(workdir) / PREDICTIONS / f"{split}.npz"


def is_imported(workdir) -> bool:
    """Whether a run directory holds imported weights, which no run trained."""
    return "imported" in read_json(Path(workdir) / NETWORK)


@contextlib.contextmanager
def locked(workdir):
    """Lock a run directory for this process, creating it if necessary; yields the open lock file.

    Raises ValueError if it cannot be written, or if a link in it leads what is written elsewhere;
    Busy if another process has locked it.
    """
    workdir = Path(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        files.refuse_links(*(workdir / name for name in IN_PLACE), below=True)
        files.refuse_links(workdir / PREDICTIONS, workdir / PREDICTED)
        file = open(workdir / LOCK, "ab", opener=files.no_link)  # noqa: SIM115 (closed below)
    except OSError as error:
        raise ValueError(
            f"--workdir {workdir} cannot be written: {error.strerror or error}"
        ) from None
    with file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(
                f"--workdir {workdir} is in use by another process; wait for it or pass another --workdir"
            ) from None
        except OSError:
            # Some network file systems have no locks; running without one is better than failing.
            pass
        yield file


def claim(workdir, c: ConfigDict, spec: dict, inputs: dict[str, str], *, total: int) -> None:
    """Make `workdir`, after `check`, the directory of this run of `total` steps; record the start.

    If it holds the results of a shorter run, its weights and summary are deleted. Raises ValueError
    if the directory cannot be written.
    """
    workdir = Path(workdir)
    history = read_starts(workdir) if (workdir / CONFIG).exists() else []
    try:
        # An extended run is not finished before its new end; `finished.fault` looks at these files.
        if _is_shorter(workdir, total):
            for name in (SUMMARY, WEIGHTS):
                (workdir / name).unlink(missing_ok=True)
        # The config comes last: a directory without one counts as free.
        files.write_json(workdir / NETWORK, spec)
        recorded = [*history, {**versions(), "inputs": inputs}]
        files.write_json(workdir / VERSIONS, {"starts": recorded})
        files.write(workdir / CONFIG, config.to_json(c) + "\n")
    except OSError as error:
        raise ValueError(
            f"--workdir {workdir} cannot be written: {error.strerror or error}"
        ) from None


def _is_shorter(workdir: Path, total: int) -> bool:
    """Whether the weights were trained for fewer than `total` steps, or are unreadable."""
    try:
        return (workdir / WEIGHTS).is_file() and read_weights(workdir / WEIGHTS)[1]["step"] < total
    except (ValueError, KeyError):
        return True


def check_data(workdir, spec: dict, inputs: dict[str, str]) -> list[dict]:
    """Check that a run directory was made with this data and these teachers; returns its starts.

    spec: the network spec; its `model` block is checked with the config. Imported weights may have
    any number of examples and, if imported without a data set, any class names. Raises ValueError
    naming what differs.
    """
    stored = read_spec(Path(workdir) / NETWORK)
    history = read_starts(workdir)
    imported = "imported" in stored
    unchecked = {"model"}
    if imported:
        unchecked.add("num_examples")
        if not stored["num_examples"]:
            unchecked.add("classes")
    for name in spec:
        if name not in unchecked and stored.get(name) != spec[name]:
            origin = "imported for" if imported else "started with"
            raise ValueError(
                f"--workdir {workdir} was {origin} other data: {name} was {_short(stored.get(name))}, is now "
                f"{_short(spec[name])}; use the same data or another --workdir"
            )

    # Imported weights were trained elsewhere, so there are no inputs to compare with.
    known = history[-1]["inputs"] if history and not imported else inputs
    before = _by_field(known)
    now = _by_field(inputs)
    # Older versions did not record the images of data.name='arrays'.
    before.setdefault(IMAGES, now.get(IMAGES))
    if any(before.get(field) != now.get(field) for field in {**before, **now}):
        raise ValueError(
            f"--workdir {workdir} was started with {list(known)}; the contents of {list(inputs)} are different, so "
            "use the original ones or pass another --workdir"
        )
    return history


def _short(value) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def _by_field(inputs: dict[str, str]) -> dict[str, str]:
    """{field: SHA-256}, without the paths: a file may move, but its contents must stay the same."""
    return {name.partition(" = ")[0]: digest for name, digest in inputs.items()}


def sentence(changed: dict[str, tuple]) -> str:
    """The fields that differ between two configs, with both values, as text."""
    return "; ".join(f"{name} was {was!r}, is now {now!r}" for name, (was, now) in changed.items())


def read_json(path) -> dict:
    """The block of fields in a JSON file of a run. Raises ValueError if it cannot be read."""
    # Metrics that a summary holds may be undefined.
    return reading.read_block(path, "a file of a run", finite=False)


def read_starts(workdir) -> list[dict]:
    """The starts of a run, each with its versions and inputs. Raises ValueError if one is damaged."""
    path = Path(workdir) / VERSIONS
    starts = read_json(path).get("starts", [])
    for start in reading.items(path, "starts", starts, dict):
        inputs = reading.item(path, "inputs", start.setdefault("inputs", {}), dict)
        reading.items(path, "inputs", list(inputs.values()), str)
    return starts


def read_config(workdir) -> ConfigDict | None:
    """The config of a run directory, or None if there is none.

    Raises ValueError if the file is not a config.
    """
    path = Path(workdir) / CONFIG
    if not path.exists():
        return None
    return config.from_file(path)


def versions() -> dict:
    """The environment of a start: package versions, devices, machine and command."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "python": platform.python_version(),
        "packages": packages,
        "backend": jax.default_backend(),
        "devices": jax.device_count(),
        "processes": mesh.processes(),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "threads": cpu_threads(),
        "platform": platform.platform(terse=True),
        "command": sys.argv,
    }


def cpu_threads() -> int | None:
    """The number of threads that XLA computes with on a CPU; None on another backend.

    XLA divides sums among its threads, so the last bits of results depend on their number. Like
    XLA, this counts the cores that the process may use, unless the variable NPROC says otherwise.
    """
    if jax.default_backend() != "cpu":
        return None
    given = os.environ.get("NPROC", "")
    if given.isdigit() and int(given):
        return max(int(given), jax.local_device_count())
    # Systems other than Linux cannot tell which cores a process may use.
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(cores, jax.local_device_count())


def save_weights(path, variables: PyTree, **notes: float) -> Path:
    """Write a network's variables, and numbers that belong to them, as one .npz file."""
    leaves = traverse_util.flatten_dict({"notes": notes, **variables}, sep="/")
    arrays = {name: np.asarray(leaf) for name, leaf in leaves.items()}
    return files.write_npz(path, **arrays)


def read_weights(path) -> tuple[PyTree, dict[str, float]]:
    """The variables and notes of `save_weights`. Raises ValueError if the file is damaged."""
    noun = "the weights of a network"
    leaves = files.read_npz(path, noun)
    try:
        tree = traverse_util.unflatten_dict(leaves, sep="/")
        notes = {name: value.item() for name, value in tree.pop("notes", {}).items()}
        # A network without parameters or statistics leaves no leaf behind in the file.
        variables = {name: dict(tree.get(name, {})) for name in ("params", "batch_stats")}
    except (TypeError, ValueError, AttributeError):
        raise UnreadableFile(path, noun, "its arrays are not named as those of a run") from None
    if any(leaf.dtype.kind not in "fciubV" for leaf in leaves.values()):
        raise UnreadableFile(path, noun, "its arrays are not all numbers")
    return variables, notes


def read_log(path) -> list[dict]:
    """The rows of metrics.jsonl or timing.jsonl, with nulls as NaN.

    A last line that was only partly written is ignored. Raises ValueError for any other broken line.
    """
    reading.check_file(path, reading.LARGEST_LOG)
    lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        row = reading.log_row(line)
        if row is not None:
            rows.append({name: math.nan if value is None else value for name, value in row.items()})
        # A complete line ends in a newline, so at least "" follows it.
        elif line and number < len(lines):
            raise ValueError(
                f"{path}, line {number}: not a JSON object with a 'step': {line[:80]!r}"
            )
    return rows


def cut_log_back(workdir, step: int) -> None:
    """Remove the rows after `step` and broken lines from a run's logs; other lines stay unchanged."""
    for path in (Path(workdir) / METRICS, Path(workdir) / TIMING):
        if not path.exists():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        valid_lines = []
        for line in text.split("\n"):
            row = reading.log_row(line)
            if row is not None and row["step"] <= step:
                valid_lines.append(line + "\n")
        shortened = "".join(valid_lines)
        if shortened != text:
            files.write(path, shortened)
